"""What each verifier is trained to say, and with what weight; pure functions on arrays.

Every target is a soft label in [0, 1] for the sigmoid of the scoring token's
logit at the last token of a prefix:

  orm        the outcome, at every prefix (as Cobbe et al. 2021 train theirs: a far
             stronger baseline than the end alone, which `orm_at_end` gives);
             only its score at the end is ever read
  q          Q-hat^pi, at the bare prompt and at every step's end
  advantage  (1 + A^mu) / 2, at every step's end, mu = best-of-K of the labels

No label is rounded.
"""

import numpy as np

from pav_jax.errors import UserError
from pav_jax.values import equations

KINDS = ("orm", "q", "advantage")


def targets(kind: str, q_bz: np.ndarray, end_bz: np.ndarray, *, prover_k: int, orm_at_end: bool) -> np.ndarray:
  """target_bz, NaN where this kind says nothing.

  q_bz: Q-hat, NaN where a prefix was not sampled or is not there; the last
  prefix of a response holds its outcome. end_bz: as in values.Values.
  """
  if kind == "q":
    return q_bz
  if kind == "orm":
    there_bz = end_bz > -2
    last_b1 = there_bz.sum(axis=1, keepdims=True) - 1
    outcome_b1 = np.take_along_axis(q_bz, last_b1, axis=1)
    said_bz = np.arange(q_bz.shape[1]) == last_b1 if orm_at_end else there_bz
    return np.where(said_bz, outcome_b1, np.nan)
  if kind == "advantage":
    advantage_bs = equations.advantages(equations.best_of_k(q_bz, prover_k))
    return np.pad((1 + advantage_bs) / 2, ((0, 0), (1, 0)), constant_values=np.nan)
  raise UserError(f"verifier kind {kind!r} is none of {', '.join(KINDS)}")


def balance(target_bz: np.ndarray, threshold: float = 0.5) -> np.ndarray:
  """weight_bz, float32: both buckets, below and from the threshold on, weigh half of all together (App. D).

  The paper draws half of each batch from either bucket; with all prefixes of
  a response in one row the same expectation is a weight. Mean weight is 1
  over the labelled prefixes; with one bucket empty every weight is 1.
  """
  labelled_bz = ~np.isnan(target_bz)
  high_bz = labelled_bz & (np.nan_to_num(target_bz) >= threshold)
  low_bz = labelled_bz & ~high_bz
  if not high_bz.any() or not low_bz.any():
    return labelled_bz.astype(np.float32)
  half = labelled_bz.sum() / 2
  return (high_bz * (half / high_bz.sum()) + low_bz * (half / low_bz.sum())).astype(np.float32)
