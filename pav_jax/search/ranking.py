"""What a candidate is ranked by: what the judges say of it and of its parent.

The judges' word is raw_rv, two columns in [0, 1]: what a verifier of Q^pi says,
and what the prover's says, Q^mu or (1 + A^mu) / 2; NaN where nobody is asked.

  q          Q^pi
  effective  Q^pi + alpha A^mu (section 4.1); with alpha 0 it is Q^pi, and no prover is asked
  prover_q   Q^mu alone
  prover_a   A^mu alone
  random     as effective, A^mu dealt anew among the candidates of a problem in a round: as large, and about nothing
  constant   the same for all, so that candidates are kept in the order in which they were drawn: plain sampling
"""

from typing import NamedTuple

import numpy as np

from pav_jax.values import equations

SCORES = ("q", "effective", "prover_q", "prover_a", "random", "constant")


class Prover(NamedTuple):
  """Whose advantages A^mu are meant.

  kind: 'best_of_k' (from Q^pi, Eq. 30), 'q' (a second verifier says Q^mu) or
  'advantage' (a second verifier says A^mu itself, as (1 + A) / 2).
  """

  kind: str = "best_of_k"
  k: float = 4


class Ranking(NamedTuple):
  """One of SCORES, the prover it means, and alpha where that counts."""

  by: str = "effective"
  prover: Prover = Prover()
  alpha: float = 0.5

  @property
  def reads(self) -> tuple[bool, bool]:
    """Whether a verifier of Q^pi, and one of the prover, must be asked: who is not asked is not paid for."""
    mixed = self.by in ("effective", "random")
    advantage = self.by == "prover_a" or mixed and self.alpha != 0
    own = advantage and self.prover.kind != "best_of_k" or self.by == "prover_q"
    return self.by == "q" or mixed or advantage and not own, own


def step_advantages(raw_rv: np.ndarray, parent_rv: np.ndarray, prover: Prover) -> np.ndarray:
  """A^mu (r,) of steps from what the judges say of them and of what was before them (Eq. 2)."""
  if prover.kind == "advantage":
    return 2 * raw_rv[:, 1] - 1
  q_mu = (lambda x_rv: x_rv[:, 1]) if prover.kind == "q" else (lambda x_rv: equations.best_of_k(x_rv[:, 0], prover.k))
  return equations.advantages(np.stack([q_mu(parent_rv), q_mu(raw_rv)], axis=1))[:, 0]


def candidate_scores(raw_cv: np.ndarray, parent_cv: np.ndarray, ranking: Ranking,
                     rng: np.random.Generator | None = None) -> np.ndarray:
  """The scores (c,) of the candidates of one problem in one round; the arguments are those of `step_advantages`.

  rng: what 'random' deals with.
  """
  if ranking.by == "constant":
    return np.zeros(len(raw_cv))
  if ranking.by == "prover_q":
    return raw_cv[:, 1]
  if ranking.by == "q" or ranking.by != "prover_a" and not ranking.alpha:
    return raw_cv[:, 0]
  advantage_c = step_advantages(raw_cv, parent_cv, ranking.prover)
  if ranking.by == "prover_a":
    return advantage_c
  if ranking.by == "random":
    advantage_c = rng.permutation(advantage_c)
  return equations.effective_reward(raw_cv[:, 0], advantage_c, ranking.alpha)
