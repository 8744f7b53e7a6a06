"""Choosing among N independent samples: Pass@N, majority, weighted vote, best-of-N.

Every estimate uses all M samples drawn: Pass@N and best-of-N are exact means
over all sets of N of them; a vote has no such form and is the mean over the
M // N disjoint groups. A method at N = 1 is the policy itself.
"""

import math

import numpy as np

# How a PAV reranks whole responses: see `effective_score`.
RERANKS = ("last", "mean", "min")


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
  """Accuracy (p,) of the highest score among n, the mean over all sets of n of the M samples.

  The i-th best of M is the best of a set with chance C(M - 1 - i, n - 1) / C(M, n):
  no set need be drawn. Of equal scores the earlier sample stands first.
  """
  total = right_pn.shape[1]
  if not 1 <= n <= total:
    raise ValueError(f"n = {n} is not in 1..{total}")
  chance_n = np.array([math.comb(total - 1 - i, n - 1) / math.comb(total, n) for i in range(total)])
  order_pn = np.argsort(-score_pn, axis=1, kind="stable")
  return np.take_along_axis(right_pn, order_pn, axis=1) @ chance_n


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


def at_end(score_bz: np.ndarray) -> np.ndarray:
  """The score (b,) of each whole response. Prefixes a response does not have are NaN."""
  last_b = (~np.isnan(score_bz)).sum(axis=1) - 1
  return np.take_along_axis(score_bz, last_b[:, None], axis=1)[:, 0]


def effective_score(reward_bs: np.ndarray, how: str) -> np.ndarray:
  """One number (b,) per response from the effective rewards of its steps (NaN where there is none), for reranking.

  how: 'last' (the last step's), 'mean' (of all steps'), 'min' (the worst
  step's, Math-Shepherd).
  """
  return {"last": at_end, "mean": lambda x_bs: np.nanmean(x_bs, axis=1), "min": lambda x_bs: np.nanmin(x_bs, axis=1)}[how](reward_bs)
