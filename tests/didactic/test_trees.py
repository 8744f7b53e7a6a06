"""Theory: values against enumeration, gradients against finite differences, the step against the natural gradient."""

import itertools

import numpy as np
import pytest

from pav_jax.didactic import intervals
from pav_jax.didactic import trees

SIZES = {"depth": 3, "branching": 2}


def _draw(seed, draws=5):
  rng = np.random.default_rng(seed)
  policy, prover = (trees.draw_policy(rng, draws, spread=1.0, **SIZES) for _ in range(2))
  return policy, prover, trees.draw_rewards(rng, draws, sparsity=0.3, **SIZES)


def _value(policy, reward_xo, x):
  total = 0.0
  for path in itertools.product(range(2), repeat=3):
    chance, node = 1.0, 0
    for d, a in enumerate(path):
      chance, node = chance * policy[d][x, node, a], 2 * node + a
    total += chance * reward_xo[x, node]
  return total


def test_values_are_those_of_enumeration():
  policy, _, reward_xo = _draw(0)
  v = trees.values(policy, reward_xo)[1]
  np.testing.assert_allclose(v[0][:, 0], [_value(policy, reward_xo, x) for x in range(5)], atol=1e-14)


def _everything(seed):
  policy, prover, reward_xo = _draw(seed)
  q, v = trees.values(policy, reward_xo)
  return policy, reward_xo, q, trees.advantages(q, v), trees.advantages(*trees.values(prover, reward_xo))


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradients_are_finite_differences(alpha):
  """Of Eq. 4: the return, plus alpha sum_h E_{s ~ d of the frozen policy} E_{a ~ pi} A^mu."""
  policy, reward_xo, q, _, a_mu = _everything(1)
  exact = trees.gradient(policy, [x + alpha * a for x, a in zip(q, a_mu)])
  frozen = trees.visits(policy)
  def objective(logits):
    new = [trees.softmax(x) for x in logits]
    process = sum((d[..., None] * p * a).sum(axis=(1, 2)) for d, p, a in zip(frozen, new, a_mu))
    return trees.values(new, reward_xo)[1][0][:, 0] + alpha * process
  for d, node, a in [(0, 0, 1), (1, 1, 0), (2, 3, 1)]:
    found = []
    for h in (1e-5, -1e-5):
      logits = [np.log(p) for p in policy]
      logits[d] = logits[d].copy()
      logits[d][:, node, a] += h
      found.append(objective(logits))
    np.testing.assert_allclose(exact[d][:, node, a], (found[0] - found[1]) / 2e-5, atol=1e-9)


def test_the_step_is_the_natural_gradients():
  """theta + eta F^+ grad, F the Fisher matrix of every node weighed by its visits, gives pi exp(eta r) (Kakade)."""
  policy, _, q, _, a_mu = _everything(2)
  reward = [x + a for x, a in zip(q, a_mu)]
  slope, visits, eta = trees.gradient(policy, reward), trees.visits(policy), 0.7
  new = trees.step(policy, reward, eta)
  for d in range(3):
    for x, node in itertools.product(range(5), range(2 ** d)):
      pi = policy[d][x, node]
      fisher = visits[d][x, node] * (np.diag(pi) - np.outer(pi, pi))
      logit = np.log(pi) + eta * np.linalg.pinv(fisher, rcond=1e-10) @ slope[d][x, node]
      np.testing.assert_allclose(trees.softmax(logit), new[d][x, node], rtol=1e-9)


def test_the_first_order_law():
  policy, reward_xo, q, a_pi, a_mu = _everything(3)
  terms = trees.terms(policy, a_pi, a_mu, levels=3)
  for alpha in (0.0, 1.0, 3.0):
    reward = [x + alpha * a for x, a in zip(q, a_mu)]
    gain = [trees.improvement(policy, trees.step(policy, reward, eta), reward_xo) / eta for eta in (1e-4, -1e-4)]
    np.testing.assert_allclose(sum(gain) / 2, terms.first_order(alpha), atol=1e-8)


def test_terms_of_one_node_by_hand():
  pi, a_pi, a_mu = np.array([[[0.25, 0.75]]]), np.array([[[0.3, -0.1]]]), np.array([[[0.4, 0.8]]])
  terms = trees.terms([pi], [a_pi], [a_mu], levels=1)
  np.testing.assert_allclose([terms.variance_pi[0], terms.variance_mu[0], terms.alignment[0]], [0.03, 0.03, -0.03])
  np.testing.assert_allclose(terms.bound(), [0.0], atol=1e-15)


def test_what_theorem_31_prints_is_the_growth_of_the_process_reward():
  """Var[A^mu] + E[A^mu A^pi] is the slope of E_{pi'} A^mu, the second part of Eq. 4, and not that of the return."""
  policy, _, q, a_pi, a_mu = _everything(3)
  process = [sum((d[..., None] * new * a).sum(axis=(1, 2)) for d, new, a in zip(
      trees.visits(policy), trees.step(policy, [x + a for x, a in zip(q, a_mu)], eta), a_mu)) for eta in (1e-4, -1e-4)]
  bound = trees.terms(policy, a_pi, a_mu, levels=3).bound()
  np.testing.assert_allclose((process[0] - process[1]) / 2e-4, bound, atol=1e-8)


def test_theorem_31_fails_by_any_factor():
  """Two decisions and rewards in [0, 1]: the policy gets worse where the theorem promises that it gets better.

  After the first action pi ends with .6 and mu with 0, after the second with .4 and 1, but for one time in a thousand:
  A^pi = (.1, -.1) and A^mu = (-.5, .5). The gain is .01 - .05, the promise .25 - .05.
  """
  rare, reward_xo = 1e-3, np.array([[0.6, 0.0, 0.4, 1.0]])
  even, first, second = (np.array([[x]]) for x in ([0.5, 0.5], [1 - rare, rare], [rare, 1 - rare]))
  policy, prover = ([even, np.concatenate([x, x], axis=1)] for x in (first, second))
  q, v = trees.values(policy, reward_xo)
  a_pi, a_mu = trees.advantages(q, v), trees.advantages(*trees.values(prover, reward_xo))
  eta = 1e-6
  gain = trees.improvement(policy, trees.step(policy, [x + a for x, a in zip(q, a_mu)], eta), reward_xo) / eta
  root, summed = (trees.terms(policy, a_pi, a_mu, levels=n) for n in (1, 2))
  np.testing.assert_allclose([gain[0], summed.first_order()[0], root.bound()[0], summed.bound()[0]],
                             [-0.04, -0.04, 0.20, 0.20], atol=2e-3)


def test_best_of_k_spreads_as_k_squared_and_then_ends():
  policy, _, reward_xo = _draw(4)
  ratio = {}
  for scale, k in ((1e-5, 8), (1.0, 4000)):
    q, v = trees.values(policy, 0.2 * scale + 0.5 * scale * reward_xo)
    a_pi = trees.advantages(q, v)
    terms = trees.terms(policy, a_pi, trees.best_of_k(q, v, k), levels=3)
    ratio[k] = terms.variance_mu / terms.variance_pi, terms.alignment / terms.variance_pi
  np.testing.assert_allclose(ratio[8][0], 64, rtol=1e-2)
  np.testing.assert_allclose(ratio[8][1], 8, rtol=1e-2)
  np.testing.assert_allclose(ratio[4000][0], 0, atol=1e-12)


def test_a_share_has_wilsons_interval():
  found = intervals.shares(np.array([True] * 50 + [False] * 50))
  np.testing.assert_allclose([found["share"], found["low"], found["high"]], [0.5, 0.4038, 0.5962], atol=1e-4)
  never = intervals.share(0, 10)
  np.testing.assert_allclose([never["low"], never["high"]], [0, 1.959964 ** 2 / (10 + 1.959964 ** 2)], atol=1e-12)
