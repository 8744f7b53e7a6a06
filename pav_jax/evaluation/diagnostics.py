"""How good the values are: against what happened, and, on `arithmetic`, against the exact ones.

  1. Draw `report.responses` responses of pi per test problem; the outcome of
     each is an unbiased label of Q^pi for all its prefixes.
  2. Calibration: verifier's value against outcome, in bins of equal width.
  3. On `arithmetic` every prefix has an exact value under the demonstrator
     that pi imitates: correlations, and how well the verifier's advantages (its
     verdicts, its process rewards; verifiers/targets.py) rank the steps of a
     response, right against wrong (AUC).
  4. There the first wrong step is known, too: how often do the process verifiers
     and the exact values find it, in the readings that each has (judging.py)?
  5. With `report.tree_problems`, distinguishability and alignment of every prover (provers.py).
  6. Monte Carlo labels of the tabular demonstrator itself, graded as any
     other, against its exact values: is the estimator unbiased?
"""

import random

import numpy as np

from pav_jax.evaluation import intervals
from pav_jax.evaluation import judging
from pav_jax.evaluation import provers
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import arithmetic
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.training.run import Run
from pav_jax.values import equations
from pav_jax.values import exact
from pav_jax.values import monte_carlo
from pav_jax.verifiers import implicit
from pav_jax.verifiers import process
from pav_jax.verifiers import targets

# A step is right or wrong where the exact advantage says so by more than this.
_CLEAR = 0.01


def auc(score_x: np.ndarray, is_right_x: np.ndarray) -> float:
  """Chance that a right item scores above a wrong one, ties counting half; NaN without both kinds."""
  right_x, wrong_x = np.sort(score_x[is_right_x]), score_x[~is_right_x]
  if not len(right_x) or not len(wrong_x):
    return float("nan")
  above = len(right_x) - np.searchsorted(right_x, wrong_x, side="right")
  ties = np.searchsorted(right_x, wrong_x, side="right") - np.searchsorted(right_x, wrong_x, side="left")
  return float((above + ties / 2).mean() / len(right_x))


def within_auc(score_bs: np.ndarray, is_right_bs: np.ndarray, judged_bs: np.ndarray) -> float:
  """`auc` over pairs of steps of the same response, all pairs of all responses weighing the same."""
  pair_bss = judged_bs[:, :, None] & judged_bs[:, None, :] & is_right_bs[:, :, None] & ~is_right_bs[:, None, :]
  difference_bss = score_bs[:, :, None] - score_bs[:, None, :]
  won_bss = (difference_bss > 0) + (difference_bss == 0) / 2
  return float(won_bss[pair_bss].mean()) if pair_bss.any() else float("nan")


def calibration(predicted_x: np.ndarray, outcome_x: np.ndarray, bins: int) -> dict:
  """Expected calibration error: mean |predicted - observed| over bins, weighted by their counts; and the bins."""
  bin_x = np.minimum((predicted_x * bins).astype(int), bins - 1)
  rows, error = [], 0.0
  for b in range(bins):
    inside = bin_x == b
    if not inside.any():
      continue
    predicted, observed = float(predicted_x[inside].mean()), float(outcome_x[inside].mean())
    error += inside.mean() * abs(predicted - observed)
    rows.append({"low": b / bins, "high": (b + 1) / bins, "predicted": predicted, "observed": observed,
                 "count": int(inside.sum())})
  return {"error": float(error), "bins": rows}


def diagnose(run: Run) -> dict:
  """Everything above, as JSON values; what needs exact values only where there are some."""
  search, split = run.config.search, run.folder(f"problems/{run.config.search.split}")
  problems = prepared.read(split, search.num_problems)
  vocabulary = prepared.vocabulary(split)
  arch, params = architecture.restore(str(run.folder("sft").path / "best"), run.config.policy, vocabulary, run.mesh)
  rollouts = collect.sample(
      arch, params, problems, np.arange(len(problems.id_p), dtype=np.int32), run.config.report.responses,
      tokens=jobs_lib.token_tables(vocabulary, arch.config.vocab_size), sampling=collect.sampling_of(search),
      seed=run.config.seed + 5, rows=search.rows, max_new=run.config.rollouts.max_new, mesh=run.mesh)
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
    rollouts, counts = collect.grade(rollouts, problems, vocabulary, grader)
    found = {"sample": counts}
    if exact.are_known(problems):
      found["monte_carlo"] = tabular_bias(problems, exact.dials_of(run.config), run.config.monte_carlo.n_mc, grader, run.config.seed)
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, vocabulary,
                                      run.config.monte_carlo.max_steps)
  right_b = rollouts.verdict_b == grading.Verdict.CORRECT
  lines = exact.step_texts(rollouts.token_bt, end_bz, vocabulary)
  exact_bz = exact_of(run, problems, rollouts, lines, end_bz.shape[1])
  if exact_bz is not None:
    found["exact"] = {"steps the demonstrator could not write": float(
        np.isnan(exact_bz[end_bz > -2]).mean()), "policy": float(right_b.mean()),
                      "demonstrator": float(exact_bz[:, 0].mean())}
  if run.config.report.tree_problems:
    found["provers"] = provers.diagnose(run)
  found["calibration"], found["step_auc"], said = {}, {}, {}
  for kind in run.config.verifier.kinds:
    score_bz = verifier_scores(run, process.path_of(kind, run.root), kind, problems, rollouts, end_bz, vocabulary, search.rows)
    assess(found, kind, score_bz, exact_bz, right_b, run)
    if kind in targets.PROCESS:
      said[kind] = score_bz
    if kind == "q":
      found["examples"] = _examples(problems.question_p[rollouts.problem_b], lines, score_bz, exact_bz, right_b)
  if said and exact_bz is not None:
    label_b = exact.first_wrong(problems.question_p[rollouts.problem_b], lines, exact.dials_of(run.config))
    values = {f"{kind} verifier": readings(score_bz, kind) for kind, score_bz in said.items()}
    values["exact values"] = readings(np.where(end_bz > -2, np.nan_to_num(exact_bz), np.nan))
    found["first_wrong"] = {
        "right answer, wrong step": int((right_b & (label_b != -1)).sum()),
        "rows": first_wrong(values, label_b, rollouts.problem_b, run.config.report.bootstrap_draws)}
  return found


def verifier_scores(run: Run, path: str, kind: str, problems, rollouts, end_bz, vocabulary, rows_per_call: int) -> np.ndarray:
  """score_bz of the verifier checkpoint `path`, of that kind: its sigmoid at every prefix, NaN where there is none."""
  reader, weights, _ = process.restore(path, run.config.verifier.model, vocabulary, run.mesh, (kind,))
  return process.of_responses(run, reader, weights, problems, rollouts, end_bz, rows_per_call)


def readings(score_bz: np.ndarray, kind: str = "q") -> list[dict[str, np.ndarray]]:
  """`judging.scores` of each row's prefixes; score_bz (b, z): NaN where there is none."""
  return [judging.scores(score_z[~np.isnan(score_z)], kind in targets.VERDICTS) for score_z in score_bz]


def assess(found: dict, kind: str, score_bz, exact_bz, right_b, run: Run):
  """Adds what one verifier's scores show to found's 'calibration' and, with exact values, 'exact' and 'step_auc'.

  score_bz: (b, z), NaN without a prefix; exact_bz: the same shape, or None; right_b: the outcomes.
  """
  there_bz = ~np.isnan(score_bz)
  if kind == "orm":
    there_bz &= there_bz.sum(1, keepdims=True) - 1 == np.arange(score_bz.shape[1])
  bins = run.config.report.calibration_bins
  if kind not in ("advantage", *targets.VERDICTS):  # which foretell no outcome
    outcome_bz = np.broadcast_to(right_b[:, None], score_bz.shape)
    found["calibration"][kind] = calibration(score_bz[there_bz], outcome_bz[there_bz], bins)
  if exact_bz is None or kind == "orm":
    return
  if kind == "advantage":
    advantage_bs = 2 * score_bz[:, 1:] - 1
  elif kind in targets.VERDICTS:
    score_bz = np.where(np.arange(score_bz.shape[1]) > 0, score_bz, np.nan)
    advantage_bs = score_bz[:, 1:]
  else:
    advantage_bs = implicit.process_rewards(score_bz) if kind == "implicit" else equations.advantages(score_bz)
  exact_bs = equations.advantages(exact_bz)
  if kind == "advantage":
    exact_prover_bs = equations.advantages(equations.best_of_k(exact_bz, run.config.verifier.prover_k))
    known_bs = ~np.isnan(exact_prover_bs) & ~np.isnan(advantage_bs)
    found["exact"]["A, correlation of the advantage verifier"] = _correlation(advantage_bs, exact_prover_bs, known_bs)
  else:
    known_bz = ~np.isnan(exact_bz) & ~np.isnan(score_bz)
    found["exact"][f"Q, correlation of the {kind} verifier"] = _correlation(score_bz, exact_bz, known_bz)
    known_bs = ~np.isnan(exact_bs) & ~np.isnan(advantage_bs)
    found["exact"][f"A, correlation of the {kind} verifier"] = _correlation(advantage_bs, exact_bs, known_bs)
  judged_bs = known_bs & (np.abs(np.nan_to_num(exact_bs)) > _CLEAR)
  found["step_auc"][f"{kind}: all steps"] = auc(advantage_bs[judged_bs], exact_bs[judged_bs] > 0)
  found["step_auc"][f"{kind}: steps of one response"] = within_auc(advantage_bs, exact_bs > 0, judged_bs)
  found["step_auc"][f"{kind}: steps judged"] = int(judged_bs.sum())


def first_wrong(values: dict[str, list[dict[str, np.ndarray]]], label_b, problem_b, draws: int) -> list[dict]:
  """A row per verifier and reading: tau, and how often the first wrong step is found, with intervals over problems.

  values: name -> the `readings` of each response; label_b: the first
  wrong step, or -1; problem_b: the problem of each response. tau is the best on the
  responses to the first half of the problems, and measured on the others.
  """
  problem_b = np.asarray(problem_b)
  chosen_b = problem_b < (problem_b.max() + 1) / 2
  if chosen_b.all():  # a single problem
    return []
  rows = []
  for name, score_bs in values.items():
    for reading in score_bs[0]:
      tau = judging.FIXED[reading]
      pick = lambda in_b, reading=reading, score_bs=score_bs: [score_bs[b][reading] for b in np.flatnonzero(in_b)]
      if reading != "progress":
        best = judging.best_tau(pick(chosen_b), label_b[chosen_b], tau)
        tau = tau if best is None else best
      part_bx = judging.case_parts([judging.first_below(score_s, tau) for score_s in pick(~chosen_b)], label_b[~chosen_b])
      part_px = np.stack([part_bx[problem_b[~chosen_b] == p].sum(axis=0) for p in np.unique(problem_b[~chosen_b])])
      ends = np.stack(intervals.over_cases([part_px], judging.first_error, draws=draws)).T
      rows.append({"values": name, "reading": reading, "tau": float(tau), "cases": len(part_bx), "erroneous": int(part_bx[:, 1].sum()),
                   **{measure: dict(zip(("value", "low", "high"), map(float, x))) for measure, x in zip(("acc_erroneous", "acc_correct", "f1"), ends)}})
  return rows


def _correlation(a, b, known) -> float:
  return float(np.corrcoef(a[known], b[known])[0, 1])


def exact_of(run: Run, problems, rollouts, lines, width: int) -> np.ndarray | None:
  """`exact.values` of these responses, None where the problems have none."""
  if not exact.are_known(problems):
    return None
  return exact.values(problems.question_p[rollouts.problem_b], lines, width, exact.dials_of(run.config))


def tabular_bias(problems: prepared.Problems, dials, n_mc: int, grader: grading.Grader, seed: int) -> dict:
  """Monte Carlo under the demonstrator against its exact values, at a random prefix of each problem."""
  rng = random.Random(seed)
  responses, references, exact = [], [], []
  for question, answer in zip(problems.question_p, problems.answer_p):
    walk = arithmetic.parse(str(question), dials)
    state = arithmetic.start_state(walk)
    lines = arithmetic.sample_lines(walk, state, rng)
    kept = lines[:int(rng.random() * len(lines))]
    for line in kept:
      state = arithmetic.read_line(walk, state, line)
    exact.append(arithmetic.exact_q(walk, state))
    for _ in range(n_mc):
      responses.append("\n".join(kept + arithmetic.sample_lines(walk, state, rng)))
      references.append(str(answer))
  verdicts = [g.verdict for g in grader.grade(references, responses, "arithmetic")]
  successes_p = (np.array(verdicts) == grading.Verdict.CORRECT).reshape(-1, n_mc).sum(axis=1)
  error_p = equations.monte_carlo(successes_p, np.full(len(exact), n_mc)) - np.array(exact)
  spread = np.sqrt((np.array(exact) * (1 - np.array(exact)) / n_mc).sum()) / len(exact)
  return {"prefixes": len(exact), "continuations": n_mc, "mean error": float(error_p.mean()),
          "standard error if unbiased": float(spread), "mean exact value": float(np.mean(exact))}


def _examples(question_b, lines, q_bz, exact_bz, right_b, count: int = 4) -> list[dict]:
  """A few responses, step by step: half of them wrong ones where there are both."""
  order = np.concatenate([np.flatnonzero(~right_b)[:count // 2], np.flatnonzero(right_b)[:count // 2]])
  number = lambda x: None if np.isnan(x) else float(x)
  found = []
  for b in order:
    steps = len(lines[b])
    found.append({
        "question": str(question_b[b]), "response_lines": lines[b],
        "q": [number(x) for x in q_bz[b, :steps + 1]],
        "advantage": [number(x) for x in equations.advantages(q_bz[b:b + 1])[0, :steps]],
        "exact": [None] * (steps + 1) if exact_bz is None else [number(x) for x in exact_bz[b, :steps + 1]],
        "outcome": bool(right_b[b])})
  return found
