"""SFT and RL: weights of Eq. 5 by hand, optimizers, one short run that learns, and seeds that do not mix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.didactic import learning
from pav_jax.didactic import made as made_lib
from pav_jax.didactic import sequence
from pav_jax.didactic import train

WORLD = sequence.World(4, 4, (0, 1))
MADE = made_lib.Made(length=4, vocabulary=4, width=32, layers=2)
RL = train.Rl(optimizer="adam", learning_rate=1e-2, batch_size=32, iterations=60, chunk=20, target=0.95)


def _policies(seeds):
  return train.sft(MADE, WORLD, sequence.procedural(WORLD, 2), jax.random.split(jax.random.key(0), seeds),
                   iterations=20, batch_size=32, learning_rate=1e-2)


def test_weights_by_hand():
  value_zj = sequence.values(WORLD, sequence.procedural(WORLD, 3))
  # done at once; EOS first; EOS after a 0; never ended
  tokens_bt = jnp.array([[0, 1, 2, 2], [3, 0, 1, 0], [0, 3, 0, 1], [2, 2, 2, 2]])
  state_bz = sequence.states(WORLD, tokens_bt)
  q_bt = (state_bz[:, -1:] == WORLD.done) * 1.0
  got = np.asarray(train.weights(WORLD, state_bz, jnp.asarray(value_zj), 2.0, q_bt, jax.random.key(0), 0))
  v = value_zj
  want = [[1 + 2 * (v[1, 1] - v[0, 0]), 1 + 2 * (1 - v[1, 1]), 1, 1],
          [-2 * v[0, 0], 0, 0, 0],
          [2 * (v[1, 1] - v[0, 0]), -2 * v[1, 1], 0, 0],
          [2 * (v[z + 1, 0] - v[z, 0]) for z in range(4)]]
  np.testing.assert_allclose(got, want, atol=1e-6)
  only = np.asarray(train.weights(WORLD, state_bz, jnp.asarray(value_zj), 0.0, q_bt, jax.random.key(0), 0))
  np.testing.assert_array_equal(only, [[1] * 4, [0] * 4, [0] * 4, [0] * 4])


def test_noisy_advantages_have_the_right_mean():
  value_zj = jnp.asarray(sequence.values(WORLD, sequence.procedural(WORLD, 3)))
  state_bz = jnp.repeat(sequence.states(WORLD, jnp.array([[0, 2, 0, 1]])), 20_000, axis=0)
  noisy, exact = (np.asarray(train.weights(WORLD, state_bz, value_zj, 1.0, 0.0, jax.random.key(2), n)) for n in (3, 0))
  assert noisy.std(axis=0)[0] > 0.1
  np.testing.assert_allclose(noisy.mean(axis=0), exact[0], atol=0.015)


def test_optimizers():
  gradient = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
  move = lambda name: train.optimizer(name, 0.1).update(gradient, train.optimizer(name, 0.1).init(gradient))[0]
  np.testing.assert_allclose(move("sgd")["b"], [-0.4], rtol=1e-6)
  np.testing.assert_allclose(move("unit")["b"], [-0.08], rtol=1e-6)
  np.testing.assert_allclose(move("adam")["a"], [-0.1, 0], atol=1e-6)


def test_the_effective_reward_learns_faster_here_and_seeds_do_not_mix():
  params_i, key_i = _policies(3), jax.random.split(jax.random.key(1), 3)
  value_izj = np.stack([sequence.values(WORLD, sequence.procedural(WORLD, 5))] * 3)
  learned, outcome = (train.reinforce(MADE, WORLD, params_i, value_izj, alpha, key_i, rl=RL._replace(target=2.0), what="test")
                      for alpha in (1.0, 0.0))
  start = [float(train.success(MADE, WORLD, jax.tree.map(lambda x, i=i: x[i], params_i), jax.random.key(9), 2000))
           for i in range(3)]
  assert learned.success_ie[:, -1].min() > max(start) + 0.3
  assert learned.success_ie[:, 0].mean() > outcome.success_ie[:, 0].mean()
  alone = train.reinforce(MADE, WORLD, jax.tree.map(lambda x: x[1:2], params_i), value_izj[:1], 1.0, key_i[1:2],
                          rl=RL._replace(target=2.0), what="test")
  np.testing.assert_allclose(learned.success_ie[1], alone.success_ie[0], atol=0.02)


@pytest.mark.parametrize("target, want", [(0.0, [20]), (2.0, [20, 40, 60])])
def test_a_run_ends_at_the_target_or_the_cap(target, want):
  value_izj = np.zeros((1, 5, 4))
  learned = train.reinforce(MADE, WORLD, _policies(1), value_izj, 0.0, jax.random.split(jax.random.key(1), 1),
                            rl=RL._replace(target=target), what="test")
  assert learned.iteration_e.tolist() == want


def test_arrivals_are_first_evaluations_at_the_target():
  success_ie = np.array([[0.1, 0.95, 0.9], [0.96, 0.1, 0.99], [0.1, 0.2, 0.949]])
  at_i, came_i = learning.arrivals(train.Learned(np.array([10, 20, 30]), success_ie, None), 0.95)
  assert at_i.tolist() == [20, 10, 30] and came_i.tolist() == [True, True, False]


def test_pass_at_n_counts_draws_without_replacement():
  """1 - C(3, 2) / C(5, 2), all wrong, and more draws than there are wrong ones."""
  np.testing.assert_allclose(learning._pass(np.array([2, 0, 4]), 5, 2), [1 - 3 / 10, 0, 1])
