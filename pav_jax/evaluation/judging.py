"""How well a verifier of value finds wrong steps: readings, thresholds, and the measures of the public benchmarks.

Three readings give each step a score, from q_z, the verifier's values at the bare
prompt (z = 0) and at each step's end:

  q          Q_h                     a step is wrong below tau
  advantage  A_h = Q_h - Q_{h-1}     below tau (Eq. 2)
  progress   Q_h / Q_{h-1}           below .8 (GenPRM, arXiv 2504.00891)

Of a verifier that gives verdicts on steps (verifiers/targets.py: relative, effective) there is one, from z >= 1 alone:

  verdict    the chance that step h is good, a step is wrong below tau

First wrong step (ProcessBench, arXiv 2412.06559): the first whose score is below
tau, so a step at tau is right; no such step is the answer -1. Every step (PRMBench,
arXiv 2501.03124): right where the score is above tau, so a step at tau is wrong; of
progress, right from .8 on in both.
"""

from collections.abc import Sequence

import numpy as np

READINGS = ("q", "advantage", "progress")
# Of a classifier; of PRMBench's wrapper for scores that are judged by their difference to the step before; of GenPRM.
FIXED = {"q": 0.5, "advantage": -0.05, "progress": 0.8, "verdict": 0.5}
# MR-Score's weights of the solution's verdict, the first wrong step, and the reason, which a verifier does not give.
_MR_WEIGHTS = (0.2, 0.3, 0.5)


def scores(q_z: np.ndarray, verdicts: bool = False) -> dict[str, np.ndarray]:
  """Reading -> float64 (s,), of values q_z (s + 1,). Where nothing was left to lose, progress is 1.

  verdicts: the numbers are of steps, and the first means nothing.
  """
  q_z = np.asarray(q_z, np.float64)
  if verdicts:
    return {"verdict": q_z[1:]}
  before_s, after_s = q_z[:-1], q_z[1:]
  progress_s = np.where(before_s > 0, after_s / np.where(before_s > 0, before_s, 1), 1.0)
  return {"q": after_s, "advantage": after_s - before_s, "progress": progress_s}


def first_below(score_s: np.ndarray, tau: float) -> int:
  """Index of the first step whose score is below tau; -1 without one."""
  below_s = score_s < tau
  return int(below_s.argmax()) if below_s.any() else -1


def above(score_s: np.ndarray, tau: float, reading: str) -> np.ndarray:
  """bool (s,): the steps that are right as PRMBench judges them."""
  return score_s >= tau if reading == "progress" else score_s > tau


def harmonic(a, b):
  """2ab / (a + b), any shapes; 0 where both are 0, NaN where one is."""
  a, b = np.asarray(a, float), np.asarray(b, float)
  return np.where(a + b == 0, 0.0, 2 * a * b / np.where(a + b == 0, 1.0, a + b))


def best_tau(score_cs: Sequence[np.ndarray], label_c: Sequence[int], fixed: float) -> float | None:
  """The threshold of the highest harmonic mean on these cases; None where they lack the right or the wrong ones.

  score_cs: the steps' scores of each case; label_c: its first wrong step, or -1.
  A case comes out exactly for the thresholds in (low, high] alone: above its
  wrong step's score, not above any earlier one. Between two neighbours of all
  these ends nothing changes. Of thresholds that are equally good `fixed` is
  taken; else the middle of two ends, the nearest to it.
  """
  wrong_c = np.asarray(label_c) != -1
  if wrong_c.all() or not wrong_c.any():
    return None
  low_c = np.array([-np.inf if s == -1 else score_s[s] for score_s, s in zip(score_cs, label_c)])
  high_c = np.array([min(score_s[:len(score_s) if s == -1 else s], default=np.inf) for score_s, s in zip(score_cs, label_c)])
  end_x = np.unique(np.concatenate([low_c, high_c, [-np.inf, np.inf]]))
  # (end_x[i], end_x[i + 1]] for each i. Of cases that some threshold brings out: whose low is below it, less whose high is.
  under = lambda x_c, kind_c: np.searchsorted(np.sort(x_c[kind_c & (low_c < high_c)]), end_x[1:])
  exact = lambda kind_c: (under(low_c, kind_c) - under(high_c, kind_c)) / kind_c.sum()
  value_x = harmonic(exact(wrong_c), exact(~wrong_c))
  best_x = np.flatnonzero(value_x >= value_x.max() - 1e-12)
  if any(end_x[x] < fixed <= end_x[x + 1] for x in best_x):
    return fixed
  # Their ends are finite: below all ends no wrong step is found, above them no solution is right, and either makes 0.
  middles = [(end_x[x] + end_x[x + 1]) / 2 for x in best_x]
  return float(min(middles, key=lambda tau: (abs(tau - fixed), tau)))


def case_parts(predicted_c: Sequence[int], label_c: Sequence[int]) -> np.ndarray:
  """float (c, 5): erroneous and exact, erroneous, correct and exact, correct, erroneous and some step called wrong."""
  predicted_c, wrong_c, exact_c = np.asarray(predicted_c), np.asarray(label_c) != -1, np.equal(predicted_c, label_c)
  return np.stack([wrong_c & exact_c, wrong_c, ~wrong_c & exact_c, ~wrong_c, wrong_c & (predicted_c != -1)], axis=-1).astype(float)


def first_error(sum_x: np.ndarray) -> np.ndarray:
  """(..., 3): accuracy on erroneous, on correct solutions, their harmonic mean ("F1"), of sums (..., 5) of `case_parts`; NaN without such cases."""
  erroneous, correct = share(sum_x[..., 0], sum_x[..., 1]), share(sum_x[..., 2], sum_x[..., 3])
  return np.stack([erroneous, correct, harmonic(erroneous, correct)], axis=-1)


def mr_score(sum_x: np.ndarray) -> np.ndarray:
  """(..., 2): Matthews' correlation of the solution's verdict (0 where undefined), and MR-Score without a reason, of sums of `case_parts`."""
  tp, tn = sum_x[..., 2], sum_x[..., 4]
  fn, fp = sum_x[..., 3] - tp, sum_x[..., 1] - tn
  below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  matthews = np.where(below > 0, (tp * tn - fp * fn) / np.where(below > 0, below, 1), 0.0)
  verdict, step, _ = _MR_WEIGHTS
  return np.stack([matthews, verdict * np.maximum(matthews, 0) + step * share(sum_x[..., 0], sum_x[..., 1])], axis=-1)


def step_parts(right_cs: Sequence[np.ndarray], wrong_cs: Sequence[Sequence[int]]) -> np.ndarray:
  """float (c, 6): of each case its steps that are right and called so (TP), wrong and called right (FP), wrong and called so
  (TN), right and called wrong (FN); and whether its first wrong step is called wrong, and is there."""
  rows = []
  for right_s, wrong in zip(right_cs, wrong_cs):
    is_wrong_s = np.isin(np.arange(len(right_s)), wrong)
    rows.append([(right_s & ~is_wrong_s).sum(), (right_s & is_wrong_s).sum(), (~right_s & is_wrong_s).sum(),
                 (~right_s & ~is_wrong_s).sum(), len(wrong) > 0 and not right_s[min(wrong)], len(wrong) > 0])
  return np.array(rows, float).reshape(-1, 6)


def prm_score(sum_x: np.ndarray, correct_alone: bool = False) -> np.ndarray:
  """(..., 6): PRMScore, F1 of correct steps, F1 of wrong steps, accuracy on correct, on wrong, on first wrong steps.

  sum_x: sums (..., 6) of `step_parts`. PRMScore = (F1 correct + F1 wrong) / 2;
  correct_alone: of `multi_solutions`, which has no wrong steps, F1 correct. An F1
  is 2 TP / (2 TP + FP + FN): 0 without a hit, NaN where no such step is there or
  called; the public script has -1, or 0, there.
  """
  tp, fp, tn, fn, first, there = np.moveaxis(sum_x, -1, 0)
  correct, wrong = share(2 * tp, 2 * tp + fp + fn), share(2 * tn, 2 * tn + fp + fn)
  both = correct if correct_alone else (correct + wrong) / 2
  return np.stack([both, correct, wrong, share(tp, tp + fn), share(tn, tn + fp), share(first, there)], axis=-1)


def share(part, whole):
  """part / whole, any shapes, NaN where whole is 0."""
  return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
