"""The paper's equations on numbers worked out by hand."""

import math

import numpy as np
import pytest

from pav_jax.values import equations

# Fig. 2a: two states of a beam, three actions each.
V_B = np.array([0.60, 0.30])
Q_BC = np.array([[0.55, 0.50, 0.70], [0.50, 0.35, 0.25]])


def _kept(score_bc):
  """The two best actions as (state, action), counted from 1 as in the figure."""
  return [(int(i) // 3 + 1, int(i) % 3 + 1) for i in np.argsort(-score_bc.ravel(), kind="stable")[:2]]


def test_the_papers_worked_example():
  q_xz = np.stack([np.repeat(V_B, 3), Q_BC.ravel()], axis=1)
  advantage_bc = equations.advantages(q_xz)[:, 0].reshape(2, 3)
  np.testing.assert_allclose(advantage_bc, [[-0.05, -0.10, 0.10], [0.20, 0.05, -0.05]], atol=1e-12)
  reward_bc = equations.effective_reward(Q_BC, advantage_bc, 0.5)
  np.testing.assert_allclose(reward_bc, [[0.525, 0.45, 0.75], [0.60, 0.375, 0.225]], atol=1e-12)
  assert _kept(Q_BC) == [(1, 3), (1, 1)]
  assert _kept(advantage_bc) == [(2, 1), (1, 3)]
  assert _kept(reward_bc) == [(1, 3), (2, 1)]
  np.testing.assert_array_equal(equations.effective_reward(Q_BC, advantage_bc, 0.0), Q_BC)


def test_advantages_telescope():
  q_bz = np.array([[0.2, 0.5, 0.1, 1.0], [0.7, 0.0, np.nan, np.nan]])
  advantage_bs = equations.advantages(q_bz)
  np.testing.assert_allclose(advantage_bs, [[0.3, -0.4, 0.9], [-0.7, np.nan, np.nan]])
  np.testing.assert_allclose(np.nansum(advantage_bs, axis=1), [1.0 - 0.2, 0.0 - 0.7])


def test_best_of_k():
  q_x = np.array([0.0, 0.25, 0.5, 1.0])
  np.testing.assert_allclose(equations.best_of_k(q_x, 1), q_x)
  np.testing.assert_allclose(equations.best_of_k(q_x, 2), [0, 0.4375, 0.75, 1])
  np.testing.assert_allclose(equations.best_of_k(np.array([[0.5, np.nan]]), 4), [[0.9375, np.nan]])


@pytest.mark.parametrize("k", [2, 4, 16])
def test_best_of_k_is_the_chance_that_one_try_of_k_is_right(k):
  q_x, count = np.array([0.03, 0.2, 0.6]), 20_000
  right_xn = (np.random.default_rng(k).random((3, count, k)) < q_x[:, None, None]).any(axis=2)
  want_x = equations.best_of_k(q_x, k)
  assert (np.abs(right_xn.mean(axis=1) - want_x) <= 4 * np.sqrt(want_x * (1 - want_x) / count) + 1e-12).all()


@pytest.mark.parametrize("k, n", [(1, 1), (2, 5), (4, 4), (4, 8), (16, 20)])
@pytest.mark.parametrize("q", [0.0, 0.2, 0.7, 1.0])
def test_best_of_k_from_counts_is_unbiased(k, n, q):
  """Exactly: over all numbers of successes."""
  s_x = np.arange(n + 1)
  chance_x = np.array([math.comb(n, s) * q**s * (1 - q)**(n - s) for s in s_x])
  found_x = equations.unbiased_best_of_k(s_x, np.full(n + 1, n), k)
  assert chance_x @ found_x == pytest.approx(equations.best_of_k(q, k), abs=1e-12)


def test_best_of_k_of_a_mean_of_few_is_too_low():
  """0, 1 or 2 right of 2, where Q = .2: what is wrong with it, in the docstring's numbers."""
  found = np.array([0.64, 0.32, 0.04]) @ equations.best_of_k(np.array([0, 0.5, 1]), 4)
  assert (round(found, 3), round(equations.best_of_k(0.2, 4), 3)) == (0.34, 0.59)


def test_best_of_k_from_counts():
  """Of 4 continuations with 1 right, 3 of 6 pairs and all sets of 4 hold it; of 3 there is no set of 4."""
  np.testing.assert_allclose(equations.unbiased_best_of_k(np.array([0, 1, 2, 4]), np.array([4, 4, 4, 4]), 2), [0, 3 / 6, 5 / 6, 1])
  np.testing.assert_array_equal(equations.unbiased_best_of_k(np.array([0, 1, 1, 0]), np.array([4, 4, 3, 0]), 4), [0, 1, np.nan, np.nan])


def test_monte_carlo():
  successes_bz = np.array([[3, 0, 1], [5, 0, 0]])
  continuations_bz = np.array([[4, 4, 1], [8, 0, 0]])
  np.testing.assert_array_equal(equations.monte_carlo(successes_bz, continuations_bz),
                                [[0.75, 0.0, 1.0], [0.625, np.nan, np.nan]])
