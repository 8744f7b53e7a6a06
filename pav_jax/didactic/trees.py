"""Random trees with tabular softmax policies: one exact natural-policy-gradient step, and what bounds it (App. F).

A tree has `depth` levels of decisions with `branching` actions; level d has
branching**d nodes, all draws x side by side. Rewards lie at the leaves. A
policy is a list of pi_xoa, one per level; values follow backwards:

  V_xo of the leaves is the reward; Q_xoa of level d is V of level d + 1; V = sum_a pi Q

One step (section 6 of appendix F): pi'(a|s) ~ pi(a|s) exp(eta (Q^pi + alpha A^mu)), in every node.

To first order in eta, writing everything out at a node,

  E_{pi'} A^pi = eta (Var_pi[A^pi] + alpha E_pi[A^mu A^pi]) + O(eta^2),

and the improvement of the root is this summed over nodes weighed by the chance that pi' comes there
(performance difference). Theorem 3.1 has Var_pi[A^mu] in place of Var_pi[A^pi]; `terms` gives all three.
"""

from typing import NamedTuple

import numpy as np

from pav_jax.values import equations


class Terms(NamedTuple):
  """Float (x,) each: sums over the nodes counted, weighed by the chance that pi comes there.

  variance_pi: Var_pi[A^pi]; variance_mu: Var_pi[A^mu] (distinguishability);
  alignment: E_pi[A^mu A^pi].
  """

  variance_pi: np.ndarray
  variance_mu: np.ndarray
  alignment: np.ndarray

  def bound(self) -> np.ndarray:
    """Theorem 3.1 for alpha = 1, over eta."""
    return self.variance_mu + self.alignment

  def first_order(self, alpha: float = 1.0) -> np.ndarray:
    """The derivative of the improvement at eta = 0, if all nodes are counted."""
    return self.variance_pi + alpha * self.alignment


def softmax(logit_xoa: np.ndarray) -> np.ndarray:
  """Over the last axis."""
  weight = np.exp(logit_xoa - logit_xoa.max(axis=-1, keepdims=True))
  return weight / weight.sum(axis=-1, keepdims=True)


def draw_policy(rng, draws: int, *, depth: int, branching: int, spread: float) -> list[np.ndarray]:
  """pi_xoa per level: softmax of normal logits with deviation `spread`."""
  return [softmax(spread * rng.standard_normal((draws, branching ** d, branching))) for d in range(depth)]


def draw_rewards(rng, draws: int, *, depth: int, branching: int, sparsity: float) -> np.ndarray:
  """reward_xo of the leaves, in [0, 1]: uniform numbers, each zero with chance `sparsity`."""
  shape = (draws, branching ** depth)
  return rng.random(shape) * (rng.random(shape) >= sparsity)


def values(policy: list[np.ndarray], reward_xo: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """(Q_xoa per level, V_xo per level; the leaves' last): Eq. 1."""
  v, q = [reward_xo], []
  for pi_xoa in reversed(policy):
    q.append(v[-1].reshape(pi_xoa.shape))
    v.append((pi_xoa * q[-1]).sum(axis=-1))
  return q[::-1], v[::-1]


def visits(policy: list[np.ndarray]) -> list[np.ndarray]:
  """d_xo per level: the chance that the policy comes to each node from the root."""
  found = [np.ones(policy[0].shape[:2])]
  for pi_xoa in policy[:-1]:
    found.append((found[-1][..., None] * pi_xoa).reshape(len(pi_xoa), -1))
  return found


def advantages(q: list[np.ndarray], v: list[np.ndarray]) -> list[np.ndarray]:
  """A_xoa = Q - V per level (Eq. 2)."""
  return [q_xoa - v_xo[..., None] for q_xoa, v_xo in zip(q, v)]


def best_of_k(q: list[np.ndarray], v: list[np.ndarray], k: float) -> list[np.ndarray]:
  """A of best-of-k over pi: values are 1 - (1 - V)^k in every node (Eq. 30), advantages their differences."""
  return advantages([equations.best_of_k(x, k) for x in q], [equations.best_of_k(x, k) for x in v])


def step(policy: list[np.ndarray], reward: list[np.ndarray], eta: float) -> list[np.ndarray]:
  """pi' ~ pi exp(eta reward), reward_xoa = Q^pi + alpha A^mu: the natural policy gradient's closed form."""
  return [softmax(np.log(pi_xoa) + eta * r_xoa) for pi_xoa, r_xoa in zip(policy, reward)]


def improvement(policy: list[np.ndarray], new: list[np.ndarray], reward_xo: np.ndarray) -> np.ndarray:
  """V of the root under `new` less that under `policy`, float (x,)."""
  return values(new, reward_xo)[1][0][:, 0] - values(policy, reward_xo)[1][0][:, 0]


def gradient(policy: list[np.ndarray], reward: list[np.ndarray]) -> list[np.ndarray]:
  """d ell / d logit_xoa of Eq. 4 by Eq. 5: d(s) pi(a|s) (r - E_pi r), with r = Q^pi + alpha A^mu."""
  return [d_xo[..., None] * pi * (r - (pi * r).sum(axis=-1, keepdims=True))
          for d_xo, pi, r in zip(visits(policy), policy, reward)]


def terms(policy: list[np.ndarray], a_pi: list[np.ndarray], a_mu: list[np.ndarray], *, levels: int) -> Terms:
  """The three expectations over the first `levels` levels: 1 has rho at the root, the tree's depth sums over h."""
  found = np.zeros((3, len(policy[0])))
  for pi, d_xo, p, m in list(zip(policy, visits(policy), a_pi, a_mu))[:levels]:
    found += [equations.distinguishability(d_xo, pi, p), equations.distinguishability(d_xo, pi, m), equations.alignment(d_xo, pi, m, p)]
  return Terms(*found)
