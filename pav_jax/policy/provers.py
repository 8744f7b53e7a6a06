"""Whose progress is rewarded: Q^mu at the prefixes of fresh responses, by a verifier or by rollouts of the policy itself.

  best_of_k    1 - (1 - Q)^K of a verifier of Q^pi (Eq. 30): the paper's prover for search; K is 1 for an arm's own prover
  q            a verifier's Q as it is: of the policy itself, mu = pi, with the run's own
  monte_carlo  n_mc continuations of every prefix under the *current* policy, as
               VinePPO values its steps (2410.01679): no verifier at all
  exact        best_of_k of the demonstrator's own Q, on `arithmetic`: what a verifier
               without error would say, so that its errors can be told from the method's
  answer       the current policy, made to answer at once (belief.py)
  random       best_of_k's advantages, dealt anew among the batch's steps: as
               large, and about nothing
"""

import numpy as np

from pav_jax.errors import UserError
from pav_jax.values import equations
from pav_jax.values import exact

PROVERS = ("best_of_k", "q", "monte_carlo", "exact", "answer", "random")
WITHOUT_VERIFIER = ("monte_carlo", "exact", "answer")


def q_mu(q_bz, prover: str, prover_k: int):
  """float32 (b, z), NaN where there is no prefix. q_bz: Q^pi as a verifier, continuations or the policy say, clipped to [0, 1]."""
  q_bz = np.clip(q_bz, 0, 1)
  return equations.best_of_k(q_bz, prover_k) if prover in ("best_of_k", "exact", "random") else q_bz


def dealt(step_bs, there_bs, rng: np.random.Generator):
  """The same values on the steps that are there, in another order."""
  dealt_bs = np.zeros_like(step_bs)
  dealt_bs[there_bs] = rng.permutation(step_bs[there_bs])
  return dealt_bs


def exact_q(problems, rollouts, end_bz, vocabulary, config) -> np.ndarray:
  """float64 (b, z): the demonstrator's Q; 0 from the first step it could not have written. UserError but on `arithmetic`."""
  if not exact.are_known(problems):
    raise UserError(f"rl: prover 'exact' (arm oracle) needs arithmetic problems, not {', '.join(sorted(set(problems.dataset_p)))}")
  lines = exact.step_texts(rollouts.token_bt, end_bz, vocabulary)
  return np.nan_to_num(exact.values(problems.question_p[rollouts.problem_b], lines, end_bz.shape[1], exact.dials_of(config)))
