"""The first-pit strategy (App. D): labels where an incorrect response goes from promising to lost.

  1. A correct seed keeps all its prefixes.
  2. Of an incorrect one, the first prefix whose Q-hat is at most `pit_max_q`
     is looked for: its pit. The end of the response is one. A value of 0 stays
     0 in all that follows, so a binary search finds it: `probes`
     continuations of the bare prompt and of ceil(log2 H) further prefixes.
  3. If a prefix probed on the way has Q-hat of at least `high_q`, the response
     went through a high-value state: the prefixes up to the pit, and the pit
     itself, are kept. Otherwise none is.
  4. Every kept prefix gets n_mc *fresh* continuations, and these alone are its
     label: a pit was chosen for its 0 of 8, and 0 of 8 would stay in the mean.

The paper states 0 for the pit and 20 for n_mc; the other numbers, the binary
search, and that a high value counts where it was probed, are ours. Prefixes
that are not kept have no continuation and so no label, but for the end of the
response, whose outcome is known.
"""

import numpy as np

from pav_jax.values import equations
from pav_jax.values import rounds
from pav_jax.values import tree as tree_lib


def bracket(successes_bz, continuations_bz, last_b, right_b, *, probes: int, pit_max_q: float):
  """(low_b, high_b): the last prefix known to be above the pit, -1 for none; the first known to be in it.

  last_b: z of the whole response; prefixes with fewer than `probes`
  continuations are unknown. A correct response has its pit nowhere: high_b is last_b + 1, low_b last_b.
  """
  z = np.arange(successes_bz.shape[1])
  known_bz = (continuations_bz >= probes) & (z < last_b[:, None])
  q_bz = equations.monte_carlo(successes_bz, continuations_bz)
  high_b = np.where(known_bz & (q_bz <= pit_max_q), z, last_b[:, None]).min(axis=1)
  low_b = np.where(known_bz & (z < high_b[:, None]), z, -1).max(axis=1)
  return np.where(right_b, last_b, low_b), np.where(right_b, last_b + 1, high_b)


def next_probes(successes_bz, continuations_bz, last_b, right_b, sampled_bz, *, probes: int, pit_max_q: float) -> np.ndarray:
  """lacking_bz, int64: what the prefixes to probe next lack to `probes`: the middle of each bracket, at first the prompt too."""
  low_b, high_b = bracket(successes_bz, continuations_bz, last_b, right_b, probes=probes, pit_max_q=pit_max_q)
  z = np.arange(successes_bz.shape[1])
  middle_b = np.where(high_b - np.maximum(low_b, 0) > 1, (np.maximum(low_b, 0) + high_b) // 2, -1)
  chosen_bz = (z == middle_b[:, None]) | ((z == 0) & ((low_b == -1) & (high_b > 0))[:, None])
  return np.where(chosen_bz & sampled_bz & ~right_b[:, None], np.maximum(probes - continuations_bz, 0), 0)


def kept(successes_bz, continuations_bz, last_b, right_b, sampled_bz, *, probes: int, pit_max_q: float,
         high_q: float) -> np.ndarray:
  """bool (b, z): the prefixes to label, once `next_probes` asks for none."""
  _, high_b = bracket(successes_bz, continuations_bz, last_b, right_b, probes=probes, pit_max_q=pit_max_q)
  known_bz = (continuations_bz >= probes) & sampled_bz
  best_b = np.where(known_bz, successes_bz / np.maximum(continuations_bz, 1), 0.0).max(axis=1)
  return sampled_bz & (np.arange(known_bz.shape[1]) <= high_b[:, None]) & (right_b | (best_b >= high_q))[:, None]


def run(tree: tree_lib.Tree, rollouts, right_b, last_b, draw, *, n_mc: int, probes: int, pit_max_q: float, high_q: float):
  """(counts of the fresh continuations, kept_bz, rounds, continuations spent on probes)."""
  sampled_bz = tree.node_bz >= 0
  by_prefix = lambda counts: tuple(np.where(sampled_bz, x_u[tree.node_bz], 0) for x_u in counts[1:])
  knobs = dict(probes=probes, pit_max_q=pit_max_q)

  def next_round(counts):
    more_u = np.zeros(tree.size, np.int64)
    np.maximum.at(more_u, tree.node_bz[sampled_bz],
                  next_probes(*by_prefix(counts), last_b, right_b, sampled_bz, **knobs)[sampled_bz])
    return more_u

  probed, searches = rounds.run(tree, rollouts, next_round, draw, rounds.nothing(tree.size))
  kept_bz = kept(*by_prefix(probed), last_b, right_b, sampled_bz, high_q=high_q, **knobs)
  wanted_u = np.zeros(tree.size, bool)
  wanted_u[tree.node_bz[kept_bz]] = True
  # The names go on where the probes stopped: not one of their outcomes is counted again.
  fresh, labels = rounds.run(tree, rollouts, lambda counts: rounds.top_up(counts, tree, n_mc, wanted_u), draw,
                             rounds.nothing(tree.size)._replace(drawn_u=probed.drawn_u))
  return fresh, kept_bz, searches + labels, int(probed.drawn_u.sum())
