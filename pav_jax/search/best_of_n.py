"""Choosing among N independent samples: Pass@N, majority, weighted vote, best-of-N.

Every estimate uses all samples drawn: for N of M samples the M are cut into
M // N disjoint groups, so that no group is chosen by hand and a method at
N = 1 is the policy itself.
"""

import math

import numpy as np


def pass_at_n(right_pn: np.ndarray, n: int) -> np.ndarray:
  """Chance that one of n drawn without replacement is right, unbiased, float64 (p,) (Chen et al. 2021, Eq. 1)."""
  total = right_pn.shape[1]
  if not 1 <= n <= total:
    raise ValueError(f"n = {n} is not in 1..{total}")
  wrong_p = total - right_pn.sum(axis=1)
  return np.array([1 - math.comb(int(w), n) / math.comb(total, n) for w in wrong_p])


def groups(values_pn: np.ndarray, n: int) -> np.ndarray:
  """(p, M // n, n): disjoint groups of n samples; what is left over of M is not used."""
  count = values_pn.shape[1] // n
  return values_pn[:, :count * n].reshape(len(values_pn), count, n)


def best_of(right_pn: np.ndarray, score_pn: np.ndarray, n: int) -> np.ndarray:
  """Accuracy (p,) of the sample with the highest score in each group; the first wins a tie."""
  right_pgn, score_pgn = groups(right_pn, n), groups(score_pn, n)
  chosen_pg1 = score_pgn.argmax(axis=2)[:, :, None]
  return np.take_along_axis(right_pgn, chosen_pg1, axis=2)[:, :, 0].mean(axis=1)


def vote(right_pn: np.ndarray, answer_pn: np.ndarray, weight_pn: np.ndarray, n: int) -> np.ndarray:
  """Accuracy (p,) of the answer with the greatest summed weight in each group; the earliest wins a tie.

  answer_pn: int, equal for equal answers, -1 for none (it gets no vote).
  Weights of one: majority; a verifier's scores: weighted vote.
  """
  right_pgn, answer_pgn, weight_pgn = (groups(x, n) for x in (right_pn, answer_pn, weight_pn))
  same_pgnn = answer_pgn[..., :, None] == answer_pgn[..., None, :]
  votes_pgn = (same_pgnn * weight_pgn[..., None, :]).sum(axis=-1)
  votes_pgn = np.where(answer_pgn == -1, -1.0, votes_pgn)
  chosen_pg1 = votes_pgn.argmax(axis=2)[:, :, None]
  voted_pg = np.take_along_axis(votes_pgn, chosen_pg1, axis=2)[:, :, 0] >= 0
  return (np.take_along_axis(right_pgn, chosen_pg1, axis=2)[:, :, 0] & voted_pg).mean(axis=1)


def effective_score(q_bz: np.ndarray, reward_bs: np.ndarray, how: str) -> np.ndarray:
  """One number (b,) per response from its process scores, for reranking.

  how: 'last' (Q at the end), 'min' (the worst step's effective reward,
  Math-Shepherd), 'mean' (of the steps' effective rewards). Prefixes a
  response does not have are NaN.
  """
  if how == "last":
    last_b = (~np.isnan(q_bz)).sum(axis=1) - 1
    return np.take_along_axis(q_bz, last_b[:, None], axis=1)[:, 0]
  return {"min": np.nanmin, "mean": np.nanmean}[how](reward_bs, axis=1)
