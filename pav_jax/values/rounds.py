"""Who gets how many continuations next: rounds of Monte Carlo, each a pure function of the counts so far.

  1. Look at the counts; say how many more continuations each prefix gets.
  2. Draw them, continuation m of a prefix under its own name, so that round
     r + 1 begins at the m where the counts stop; count them.
  3. Until nobody gets any.

Nothing but the counts passes from round to round: a run that goes on from
stored counts gives the labels of one that was never stopped.

`top_up` gives every prefix the same number and looks at no outcome: its means
are unbiased. `adaptive` looks at outcomes, and a mean whose number of draws
depends on what was drawn is biased (a rare success is missed, and then not
looked for). What stays exact is Wald's identity, E[successes] = Q E[continuations]:
the soft cross-entropy in which a label weighs as its count, as in
`verifiers/targets.py`, has its minimum at Q however the counts came about.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pav_jax.rollouts import collect
from pav_jax.values import tree as tree_lib


class Counts(NamedTuple):
  """Of each node u, int64: continuations drawn from it (they name the next ones), and all that count at it, free ones too."""

  drawn_u: np.ndarray
  successes_u: np.ndarray
  continuations_u: np.ndarray


class Drawn(NamedTuple):
  """What came of continuations r: new tokens, their number, whether the response is right."""

  token_rt: np.ndarray
  length_r: np.ndarray
  correct_r: np.ndarray


def nothing(size: int) -> Counts:
  """No draw yet."""
  return Counts(*np.zeros((3, size), np.int64))


def run(tree: tree_lib.Tree, rollouts: collect.Rollouts, next_round: Callable, draw: Callable, counts: Counts):
  """(counts, rounds): goes on from `counts` until next_round(counts) -> more_u is 0 everywhere.

  draw(row_r, z_r, m_r) -> Drawn: continuation m of prefix z of seed row; the
  same for the same three, whatever else is drawn with it.
  """
  rounds = 0
  while (more_u := next_round(counts)).any():
    node_r = np.repeat(np.arange(tree.size), more_u)
    start_r = np.repeat(np.cumsum(more_u) - more_u, more_u)
    m_r = counts.drawn_u[node_r] + np.arange(len(node_r)) - start_r
    drawn = draw(tree.row_u[node_r], tree.z_u[node_r], m_r)
    counts = counted(tree, rollouts, counts, node_r, drawn)
    rounds += 1
  return counts, rounds


def counted(tree: tree_lib.Tree, rollouts: collect.Rollouts, counts: Counts, node_r: np.ndarray, drawn: Drawn) -> Counts:
  """The counts with these continuations of nodes node_r."""
  r_x, u_x = tree_lib.passed(tree, rollouts, node_r, drawn.token_rt, drawn.length_r)
  tally = lambda u, weight=None: np.bincount(u, weight, tree.size).astype(np.int64)
  return Counts(counts.drawn_u + tally(node_r), counts.successes_u + tally(u_x, drawn.correct_r[r_x].astype(float)),
                counts.continuations_u + tally(u_x))


def top_up(counts: Counts, tree: tree_lib.Tree, n_mc: int, wanted_u: np.ndarray | None = None) -> np.ndarray:
  """more_u, int64: what each (wanted) prefix lacks to n_mc, less what the draws before it are expected to bring it."""
  lacking_u = np.maximum(n_mc - counts.continuations_u, 0)
  if wanted_u is not None:
    lacking_u = lacking_u * wanted_u
  lacking_pi = np.where(tree.at_pi >= 0, lacking_u[tree.at_pi], 0)
  more_pi, free_pi = np.zeros(tree.at_pi.shape, np.int64), np.zeros(tree.at_pi.shape)
  for i in range(tree.at_pi.shape[1]):  # shortest first
    more_pi[:, i] = np.ceil(np.maximum(lacking_pi[:, i] - free_pi[:, i] - 1e-9, 0))
    free_pi += more_pi[:, i, None] * tree.reach_pij[:, i]
  return _by_node(tree, more_pi)


def variance(successes, continuations, prior: tuple[float, float]):
  """E[Q (1 - Q)] of a Beta posterior: a b / ((a + b) (a + b + 1)), any shapes; prior: its a and b before any outcome."""
  a, b = successes + prior[0], continuations - successes + prior[1]
  return a * b / ((a + b) * (a + b + 1))


def adaptive(counts: Counts, tree: tree_lib.Tree, *, n_mc: int, pilot: int, prior: tuple[float, float],
             seed_successes_u, seeds_u) -> np.ndarray:
  """more_u, int64: continuations where they lower the labels' mean squared error most per token.

  One more continuation of a prefix with N outcomes lowers the expected squared
  error of its mean by E[Q (1 - Q)] / (N (N + 1)), there and, by their chances,
  at every prefix it may pass; it costs the tokens the seed had left. Draws are
  handed out greedily while the best is worth its price: that of the n_mc-th
  continuation of a prefix of even chances and mean length. A round gives a
  prefix at most `pilot`, or as many as it has. Every prefix gets at least one.

  seed_successes_u, seeds_u: outcomes of the seeds that pass a node, known beforehand.
  """
  there_pi = tree.at_pi >= 0
  of = lambda x_u: np.where(there_pi, x_u[tree.at_pi], 0).astype(np.float64)
  known_u = counts.continuations_u + seeds_u
  known_pi, cost_pi = of(known_u), np.where(there_pi, of(tree.left_u), 1)
  spread_pi = of(variance(counts.successes_u + seed_successes_u, known_u, prior))
  price = 0.25 / (n_mc * (n_mc + 1)) / tree.left_u.mean()
  most_pi = np.where(there_pi, np.maximum(known_pi, pilot), 0)
  more_pi, live_p = np.zeros(there_pi.shape, np.int64), np.arange(len(there_pi))
  while len(live_p):
    n_pi = np.maximum(known_pi[live_p], 0.5)
    worth_pi = np.einsum("pij,pj->pi", tree.reach_pij[live_p], spread_pi[live_p] / (n_pi * (n_pi + 1))) / cost_pi[live_p]
    worth_pi = np.where(more_pi[live_p] < most_pi[live_p], worth_pi, -1.0)
    best_p = worth_pi.argmax(axis=1)
    going_p = worth_pi[np.arange(len(live_p)), best_p] >= price
    live_p, best_p = live_p[going_p], best_p[going_p]
    more_pi[live_p, best_p] += 1
    known_pi[live_p] += tree.reach_pij[live_p, best_p]
  more_u = _by_node(tree, more_pi)
  return more_u if more_u.any() else (counts.continuations_u == 0).astype(np.int64)


def _by_node(tree: tree_lib.Tree, x_pi: np.ndarray) -> np.ndarray:
  x_u = np.zeros(tree.size, x_pi.dtype)
  x_u[tree.at_pi[tree.at_pi >= 0]] = x_pi[tree.at_pi >= 0]
  return x_u
