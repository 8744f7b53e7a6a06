"""What each verifier is trained to say, and with what weight; pure functions on arrays.

Every target is a soft label in [0, 1] for the sigmoid of the scoring token's
logit at the last token of a prefix:

  orm        the outcome, at every prefix (as Cobbe et al. 2021 train theirs: a far
             stronger baseline than the end alone, which `orm_at_end` gives);
             only its score at the end is ever read
  q          Q-hat^pi, at the bare prompt and at every step's end
  advantage  (1 + A^mu) / 2, at every step's end, mu = best-of-K of the policy
             that the labels are of, without bias (`unbiased_best_of_k`)

No label of these is rounded. A seed's own ending is a label of Q alone: of the two
values of an advantage it is a sample of the later; of the earlier it is not, once
the step between them is given.

Beside them, from the same Q-hat of n continuations, the neighbours' 0 or 1 (`process_labels`):

  hard       any of the n is right (Math-Shepherd's hard estimation, 2312.08935,
             Eq. 3). Its mean is 1 - (1 - Q)^n: a *value*, but that of
             best-of-n of pi (Eq. 30), and so a label for each n
  drop       as hard, and no label after the first step of which none is right,
             as in data in which what follows the first wrong step is left out.
             Labels of one response are drawn independently, so that it teaches
             the same value on other prefixes: what is lost is hardly seen
  relative   Q_h / Q_{h-1} >= ratio; 0 / 0 is bad (GenPRM, 2504.00891)
  effective  Q_h + alpha (Q^mu_h - Q^mu_{h-1}) > above, mu = best-of-K
             (StepWiser, 2508.19229, section 3.2, Rel-Effective)

The last two are *verdicts*: what is learnt is the chance that a step is called
good from n continuations, no value. The bare prompt has none.

  implicit   the outcome, of whole responses alone: `implicit.py`
"""

from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.values import equations
from pav_jax.values import monte_carlo

VALUES = ("q", "hard", "drop")  # the sigmoid is a chance to come to a right answer: of pi, of best-of-n of pi
VERDICTS = ("relative", "effective")  # the sigmoid is the chance that the last step is called good
MARKS = ("hard", "drop", *VERDICTS)  # labels of 0 or 1 from Q-hat
PROCESS = (*VALUES, *VERDICTS, "implicit")  # each can stand where a process verifier is asked for, as far as it says what is needed
KINDS = ("orm", "q", "advantage", *MARKS, "implicit")
BALANCES = ("buckets", "classes", "none")


def section_of(kind: str) -> str:
  """The training section of the config that a kind is trained by: what reads a label at each step's end has that of q."""
  return "q" if kind in MARKS else kind


def targets(kind: str, values: monte_carlo.Values, knobs) -> np.ndarray:
  """target_bz, NaN where this kind says nothing; the last prefix of a response has its outcome for a value, of any prover.

  knobs: prover_k, orm_at_end, relative_ratio, effective_alpha, effective_above (the section verifier, or part of it).
  """
  if kind == "q" or kind in MARKS:
    return process_labels(kind, values.q_bz, **thresholds(knobs))
  there_bz = values.end_bz > -2
  last_bz = np.arange(there_bz.shape[1]) == there_bz.sum(axis=1, keepdims=True) - 1
  if kind in ("orm", "implicit"):
    outcome_b1 = values.q_bz[last_bz][:, None]
    return np.where(last_bz if knobs.orm_at_end or kind == "implicit" else there_bz, outcome_b1, np.nan)
  if kind == "advantage":
    prover_bz = equations.unbiased_best_of_k(values.successes_bz, values.continuations_bz, knobs.prover_k)
    advantage_bs = equations.advantages(np.where(last_bz, values.q_bz, prover_bz))
    return np.pad((1 + advantage_bs) / 2, ((0, 0), (1, 0)), constant_values=np.nan)
  raise UserError(f"verifier kind {kind!r} is none of {', '.join(KINDS)}")


def thresholds(knobs) -> dict[str, float]:
  """What `process_labels` asks of the section verifier."""
  return {"ratio": knobs.relative_ratio, "alpha": knobs.effective_alpha, "above": knobs.effective_above, "prover_k": knobs.prover_k}


def process_labels(kind: str, q_bz: np.ndarray, *, ratio: float, alpha: float, above: float, prover_k: float) -> np.ndarray:
  """target_bz of the kinds that are made of Q-hat, as the top of this file says; NaN where q_bz (b, z) leaves nothing to say.

  alpha, above, prover_k: of `effective` alone. Of Q-hat, and not of counts:
  best-of-K of a mean of few is too low, and a ratio of means no mean of ratios.
  """
  before_bs, after_bs = q_bz[:, :-1], q_bz[:, 1:]
  marks = lambda good_bx, known_bx: np.where(np.isnan(known_bx), np.nan, good_bx)
  steps_only = lambda target_bs: np.pad(target_bs, ((0, 0), (1, 0)), constant_values=np.nan)
  if kind == "hard":
    return marks(q_bz > 0, q_bz)
  if kind == "drop":
    lost_bs = np.cumsum(after_bs == 0, axis=1) > (after_bs == 0)  # a step before this one had no success
    return np.where(np.pad(lost_bs, ((0, 0), (1, 0))), np.nan, marks(q_bz > 0, q_bz))
  if kind == "relative":  # without the division; 1e-9: .8 * .5 is no .4
    return steps_only(marks((after_bs > 0) & (after_bs >= ratio * before_bs - 1e-9), before_bs + after_bs))
  if kind == "effective":
    reward_bs = equations.effective_reward(after_bs, equations.advantages(equations.best_of_k(q_bz, prover_k)), alpha)
    return steps_only(marks(reward_bs > above + 1e-9, reward_bs))
  return q_bz


def every_token(target_bz: np.ndarray, count_bz: np.ndarray, end_bz: np.ndarray, width: int):
  """(target, count, end), each (b, 1 + width): a prefix for the bare prompt and for each response token, with its step's target.

  A target at the end of a step, the rest of which the policy drew, is an
  unbiased sample of the value inside of it: Q is a martingale. It is one only
  under a weight that was known before the rest was drawn. The count of the
  step's end was not: it is 1 where the response ends there, and so is a share
  in the step's length. Hence all tokens of a row count as its bare prompt does.
  (A batch's loss is divided by the weight in it, and so by its responses'
  lengths: of a bias by those 1 / batch_size is left.)
  """
  there_b1 = (end_bz > -2).sum(axis=1, keepdims=True)
  step_bt = (end_bz[:, None, :] < np.arange(-1, width)[None, :, None]).sum(axis=2, where=end_bz[:, None, :] > -2)
  inside_bt = step_bt < there_b1
  target_bt = np.where(inside_bt, np.take_along_axis(target_bz, np.minimum(step_bt, there_b1 - 1), axis=1), np.nan)
  return target_bt, count_bz[:, :1] * inside_bt, np.where(inside_bt, np.arange(-1, width), -2).astype(np.int32)


class Labels(NamedTuple):
  """Soft targets and weights (b, z), float32; shift: log-odds that the balance adds to what a network learns from them."""

  target_bz: np.ndarray
  weight_bz: np.ndarray
  shift: float


def balance(target_bz: np.ndarray, count_bz: np.ndarray, how: str) -> Labels:
  """Labels in which right and wrong weigh the same (App. D); the mean weight is 1 over the labelled prefixes.

  count_bz: how many outcomes a label is the mean of; none at all, no weight.

    buckets  the paper's: it draws pairs of a prefix and its label, half of each
             batch from labels below and half from 0.5 on. With all prefixes of
             a response in one row the same expectation is a weight: each pair
             weighs once, whatever its count, the end of a response as much as
             any other prefix, and each side half of all together. A noisy
             label that came out high is weighed up.
    classes  ours: each label is `count` outcomes, and right and wrong ones
             weigh half each, whatever label they are in. The loss of a soft
             label is that of its outcomes, so the target becomes the weighed
             share of right ones, and what is learned is off by a shift of the
             log-odds that is known, and taken off when a score is read.
    none     each label is `count` outcomes, which weigh once each.

  Where counts depend on outcomes (monte_carlo.strategy=adaptive) only sums over
  outcomes are unbiased, and so these two: see `values/rounds.py`.
  With one side empty nothing is balanced.
  """
  if how not in BALANCES:
    raise UserError(f"verifier.balance {how!r} is none of {', '.join(BALANCES)}")
  there_bz = ~np.isnan(target_bz) & (count_bz > 0)
  target_bz = np.where(there_bz, target_bz, 0.0)
  count_bz = there_bz * (np.ones_like(count_bz) if how == "buckets" else count_bz)
  if how == "classes":
    right_bz, wrong_bz = target_bz * count_bz, (1 - target_bz) * count_bz
  else:
    right_bz, wrong_bz = count_bz * (target_bz >= 0.5), count_bz * (target_bz < 0.5)
  right, wrong = right_bz.sum(), wrong_bz.sum()
  up, down = (wrong + right) / 2 / right if right else 1.0, (wrong + right) / 2 / wrong if wrong else 1.0
  if how == "none" or not right or not wrong:
    up = down = 1.0
  weight_bz = up * right_bz + down * wrong_bz
  if how == "classes":
    target_bz = up * right_bz / np.where(weight_bz > 0, weight_bz, 1)
  weight_bz = weight_bz * there_bz.sum() / max(weight_bz.sum(), 1)
  return Labels(target_bz.astype(np.float32), weight_bz.astype(np.float32),
                float(np.log(up / down)) if how == "classes" else 0.0)
