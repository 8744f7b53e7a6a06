"""The prefixes of a problem's seeds as one tree, and which of them a continuation passes.

A continuation drawn from prefix z whose tokens go on like a seed's up to its
prefix z' > z is, from there on, a draw of the policy from z': one more sample
of Q(z'), independent of how the continuation came there. So every continuation
counts at its own prefix and at all prefixes of its problem's seeds that it
passes, and a prefix that several seeds share (the bare prompt) is one. It does
not count at prefixes before its own: there the policy did not choose the way.

How often that happens depends on the policy: where a step is one of a few it
is the rule, where it is a free sentence the bare prompt is almost all there is
to share. `reuse=False` gives every prefix of every seed a node of its own.
"""

from typing import NamedTuple

import numpy as np

from pav_jax.rollouts import collect


class Tree(NamedTuple):
  """Nodes u: the different prefixes that are to be sampled.

  node_bz: int32, -1 where nothing is sampled; row_u, z_u: a seed and its prefix
  that stand for the node; kept_u: tokens of the response it keeps; left_u:
  tokens that the seed had left, at least 1: what a continuation may cost.
  at_pi: int32, the i-th node of problem p, the shortest first, -1 for none;
  reach_pij: float64, chance that a continuation of node i passes node j, by the
  seeds' own log-probabilities. It guides the choice of what to draw and
  enters no label. named: (problem, tokens) -> node; kept_of: problem -> lengths.
  """

  node_bz: np.ndarray
  row_u: np.ndarray
  z_u: np.ndarray
  kept_u: np.ndarray
  left_u: np.ndarray
  at_pi: np.ndarray
  reach_pij: np.ndarray
  named: dict
  kept_of: dict

  @property
  def size(self) -> int:
    """Number of nodes."""
    return len(self.row_u)


def build(rollouts: collect.Rollouts, end_bz: np.ndarray, sampled_bz: np.ndarray, reuse: bool) -> Tree:
  """The tree of the prefixes sampled_bz (bool) of these seeds; end_bz as in values.Values."""
  row_j, z_j = np.nonzero(sampled_bz)
  kept_j = end_bz[row_j, z_j] + 1
  problem_j = rollouts.problem_b[row_j]
  named, node_j = {}, np.arange(len(row_j), dtype=np.int32)
  if reuse:
    token_bt = np.ascontiguousarray(rollouts.token_bt, np.int32)
    for j, (p, b, kept) in enumerate(zip(problem_j.tolist(), row_j, kept_j)):
      node_j[j] = named.setdefault((p, token_bt[b, :kept].tobytes()), len(named))
  node_bz = np.full(end_bz.shape, -1, np.int32)
  node_bz[row_j, z_j] = node_j
  _, first_u = np.unique(node_j, return_index=True)
  row_u, z_u, kept_u = row_j[first_u], z_j[first_u], kept_j[first_u]
  kept_of = {}
  for p, kept in sorted(set(zip(problem_j.tolist(), kept_j.tolist()))) if reuse else ():
    kept_of.setdefault(p, []).append(kept)
  group_u = problem_j[first_u] if reuse else np.arange(len(row_u))
  at_pi, place_u, line_u = _places(group_u, kept_u)
  left_u = np.maximum(rollouts.length_b[row_u] - kept_u, 1)
  return Tree(node_bz, row_u, z_u, kept_u, left_u, at_pi, _reach(rollouts, end_bz, node_bz, at_pi, place_u, line_u),
              named, kept_of)


def _places(group_u: np.ndarray, kept_u: np.ndarray):
  """(at_pi, place_u: i of each node, line_u: p of each node)."""
  order_u = np.lexsort((kept_u, group_u))
  _, line_o, count_p = np.unique(group_u[order_u], return_inverse=True, return_counts=True)
  place_o = np.arange(len(order_u)) - np.repeat(np.cumsum(count_p) - count_p, count_p)
  at_pi = np.full((len(count_p), max(count_p, default=0)), -1, np.int32)
  at_pi[line_o, place_o] = order_u
  place_u, line_u = np.empty_like(order_u), np.empty_like(order_u)
  place_u[order_u], line_u[order_u] = place_o, line_o
  return at_pi, place_u, line_u


def _reach(rollouts, end_bz, node_bz, at_pi, place_u, line_u) -> np.ndarray:
  reach_pij = np.zeros((*at_pi.shape, at_pi.shape[1]))
  sum_bt = np.pad(np.cumsum(rollouts.log_prob_bt, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
  log_bz = np.take_along_axis(sum_bt, np.maximum(end_bz + 1, 0), axis=1)
  for z in range(node_bz.shape[1]):
    for y in range(z + 1):
      b = np.flatnonzero((node_bz[:, y] >= 0) & (node_bz[:, z] >= 0))
      u, v = node_bz[b, y], node_bz[b, z]
      one_line = line_u[u] == line_u[v]  # never so without reuse, but for y = z
      b, u, v = b[one_line], u[one_line], v[one_line]
      reach_pij[line_u[v], place_u[u], place_u[v]] = np.exp(np.minimum(log_bz[b, z] - log_bz[b, y], 0.0))
  return reach_pij


def passed(tree: Tree, rollouts: collect.Rollouts, node_r: np.ndarray, token_rt: np.ndarray,
           length_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Pairs (r_x, u_x): continuation r of node node_r is a sample of node u; its own node comes with the others.

  token_rt: its new tokens, of which length_r count.
  """
  if not tree.named:
    return np.arange(len(node_r)), node_r
  found = []
  for r, (u, new) in enumerate(zip(node_r, length_r)):
    b, cut = tree.row_u[u], int(tree.kept_u[u])
    whole_t = np.concatenate([rollouts.token_bt[b, :cut], token_rt[r, :new]]).astype(np.int32)
    found += [(r, v) for v in _on_the_way(tree, int(rollouts.problem_b[b]), whole_t, cut)]
  pair_x2 = np.array(found, np.int64).reshape(-1, 2)
  return pair_x2[:, 0], pair_x2[:, 1]


def seeds_passed(tree: Tree, rollouts: collect.Rollouts) -> tuple[np.ndarray, np.ndarray]:
  """Pairs (b_x, u_x): seed b passes node u, as a continuation of the bare prompt; of other problems' nodes none."""
  if not tree.named:
    b_x, z_x = np.nonzero(tree.node_bz >= 0)
    return b_x, tree.node_bz[b_x, z_x]
  found = [(b, v) for b, (p, token_t, length) in enumerate(zip(rollouts.problem_b, rollouts.token_bt, rollouts.length_b))
           for v in _on_the_way(tree, int(p), token_t[:length].astype(np.int32), 0)]
  pair_x2 = np.array(found, np.int64).reshape(-1, 2)
  return pair_x2[:, 0], pair_x2[:, 1]


def _on_the_way(tree: Tree, problem: int, whole_t: np.ndarray, cut: int):
  for kept in tree.kept_of.get(problem, ()):
    if cut <= kept <= len(whole_t):
      node = tree.named.get((problem, whole_t[:kept].tobytes()))
      if node is not None:
        yield node
