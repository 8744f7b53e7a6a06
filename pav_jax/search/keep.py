r"""Who goes on: the ways of keeping a round's candidates of one problem. On the host, in numpy.

  beam       the best, as many as places are left; a kept candidate that has answered takes its place with it
  subtrees   every place is a greedy tree of its own: it keeps the best of its own candidates, whatever the others have
             (DVTS, diverse verifier tree search, of Beeching et al. 2024, "Scaling test-time compute with open models")
  particles  each candidate is a particle; all of them, finished ones too, are drawn anew with replacement (2502.01618)

A particle's chance to be drawn is softmax(w / temperature) over all particles of the problem, where, as we read it,

  w = logit Q(s_h)                     a value: Q^pi, or Q^mu. As in 2502.01618; drawn in every round, the paths that
                                       are left follow pi(s_h) prod_{j <= h} (Q(s_j) / (1 - Q(s_j)))^{1/temperature}
  w = A^mu(s_h, a_h)                   progress, the increment of Q^mu: a twist psi = exp(Q^mu / temperature) of
                                       twisted SMC (2404.17546) with weights psi(s_h) / psi(s_{h-1}). The product
                                       telescopes (Eq. 2): the paths follow pi(s_h) exp(Q^mu(s_h) / temperature)

A finished particle stays one: in later rounds it is drawn with the others, its
value what it was at its end, its increment 0, for it makes no further step. So
it may be doubled, or die. The search is over when no particle is left that
goes on; those that have not answered after the last round are no answers.
"""

from typing import NamedTuple

import numpy as np

WAYS = ("beam", "subtrees", "particles")
_EDGE = 1e-6  # a value nearer to 0 or 1 has the logit of this


class Finished(NamedTuple):
  """A candidate that has answered: its response, its score, what the judges said at its end."""

  token_t: np.ndarray
  score: float
  raw_v: np.ndarray


def best(score_c: np.ndarray, places: int, names: list | None) -> np.ndarray:
  """Indices of the `places` best candidates, best first, ties by index; copies (equal names) after all others."""
  order = np.argsort(-score_c, kind="stable")
  if names is None:
    return order[:places]
  seen, firsts, copies = set(), [], []
  for c in order:
    (copies if names[c] in seen else firsts).append(c)
    seen.add(names[c])
  return np.array((firsts + copies)[:places], int)


def best_of_each(score_c: np.ndarray, candidates: int) -> np.ndarray:
  """Index of the best of each parent's candidates, which stand together; ties by index."""
  score_ic = score_c.reshape(-1, candidates)
  return score_ic.argmax(axis=1) + np.arange(len(score_ic)) * candidates


def log_weights(score_c: np.ndarray, progress: bool, temperature: float) -> np.ndarray:
  """w / temperature of particles; progress: the scores are increments, else values in [0, 1]."""
  if progress:
    return score_c / temperature
  value_c = np.clip(score_c, _EDGE, 1 - _EDGE)
  return (np.log(value_c) - np.log1p(-value_c)) / temperature


def drawn(log_weight_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """As many indices as there are weights, drawn with replacement by softmax(log_weight_n), in order."""
  weight_n = np.exp(log_weight_n - log_weight_n.max())
  return np.sort(rng.choice(len(weight_n), len(weight_n), p=weight_n / weight_n.sum()))


def kept(way: str, score_c: np.ndarray, finished: list[Finished], rng: np.random.Generator, *, width: int, candidates: int,
         names: list | None, progress: bool, temperature: float) -> tuple[np.ndarray, list[Finished]]:
  """(indices of the candidates that are kept, who of the finished stays) of one problem's round.

  way: one of WAYS; candidates of a parent stand together. width: places of the
  beam, or particles. names: equal for copies of one prefix ('beam'), or None.
  progress, temperature: of particles. Kept and staying are never more than width.
  """
  if way == "subtrees":
    return best_of_each(score_c, candidates), finished
  if way == "beam":
    return best(score_c, width - len(finished), names), finished
  of_finished = np.array([0.0 if progress else one.score for one in finished])
  index_n = drawn(log_weights(np.concatenate([of_finished, score_c]), progress, temperature), rng)
  old = len(finished)
  return index_n[index_n >= old] - old, [finished[n] for n in index_n[index_n < old]]
