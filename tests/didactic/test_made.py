"""The policy: causality by gradient, a distribution, and a sampler that draws from it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.didactic import made as made_lib
from pav_jax.didactic import sequence
from pav_jax.didactic import train

SMALL = made_lib.Made(length=4, vocabulary=3, width=16, layers=3)
PAPER = made_lib.Made(length=10, vocabulary=15, width=128, layers=3)


def test_a_position_depends_on_all_tokens_before_it_and_no_others():
  """By gradient: of every output with respect to every weight of the first layer, token by token."""
  params = made_lib.init(PAPER, jax.random.key(0))
  tokens_bt = jax.random.randint(jax.random.key(1), (8, 10), 0, 15)
  def one(params, t):
    return PAPER.apply(params, tokens_bt)[:, t, 3].sum()
  for t in range(10):
    slope = jax.grad(one)(params, t)["params"]["kernel_0"]
    by_token = np.abs(np.asarray(slope)).reshape(10, 15, 128).sum(axis=(1, 2))
    np.testing.assert_array_equal(by_token > 0, np.arange(10) < t)


def test_changing_a_token_changes_only_what_follows():
  params = made_lib.init(SMALL, jax.random.key(0))
  first, other = jnp.array([[0, 1, 2, 0]]), jnp.array([[0, 1, 0, 0]])
  same = np.asarray(SMALL.apply(params, first) == SMALL.apply(params, other)).all(axis=(0, 2))
  np.testing.assert_array_equal(same, [True, True, True, False])


def test_chances_of_all_sequences_sum_to_one_and_are_drawn_so():
  params = made_lib.init(SMALL, jax.random.key(2))
  every = jnp.array(list(itertools.product(range(3), repeat=4)))
  log_bt = train.log_chances(SMALL, params, every)
  chance_b = np.exp(np.asarray(log_bt.sum(axis=1)))
  np.testing.assert_allclose(chance_b.sum(), 1, rtol=1e-5)
  count = 40_000
  drawn = np.asarray(made_lib.sample(SMALL, params, jax.random.key(3), count))
  seen_b = np.bincount(drawn @ [27, 9, 3, 1], minlength=81) / count
  assert (np.abs(seen_b - chance_b) <= 4.5 * np.sqrt(chance_b / count) + 1e-4).all()


def test_the_estimate_of_eq_5_is_the_gradient_of_the_success():
  """Over all 3^4 sequences: E[Rex grad log pi] is the finite difference of E[Rex]; a prover's A adds its own term."""
  world = sequence.World(4, 3, (0, 1))
  params = made_lib.init(SMALL, jax.random.key(4))
  every = jnp.array(list(itertools.product(range(3), repeat=4)))
  state_bz = sequence.states(world, every)
  right_b1 = (state_bz[:, -1:] == world.done).astype(jnp.float32)
  value_zj = jnp.asarray(sequence.values(world, sequence.procedural(world, 4)), jnp.float32)

  def chances(p):
    return jnp.exp(train.log_chances(SMALL, p, every).sum(axis=1))

  def objective(p, alpha, frozen_b):
    """Eq. 4: the state distribution of the second term is the frozen policy's."""
    log_btv = SMALL.apply(p, every)
    next_jv = jnp.asarray(sequence.transitions(world))
    z = jnp.arange(world.length)
    a_btv = value_zj[1:][z[:, None], next_jv[state_bz[:, :-1]]] - value_zj[z, state_bz[:, :-1]][..., None]
    live_bt = train.alive(world, state_bz)
    process_b = ((jnp.exp(log_btv) * a_btv).sum(axis=2) * live_bt).sum(axis=1)
    return (chances(p) * right_b1[:, 0]).sum() + alpha * (frozen_b * process_b).sum()

  for alpha in (0.0, 2.0):
    weight_bt = train.weights(world, state_bz, value_zj, alpha, right_b1, jax.random.key(0), 0)
    chance_b = jax.lax.stop_gradient(chances(params))
    # A mean over rows that weigh by their chance is the expectation; the rows are as many as sequences.
    mine = jax.grad(lambda p: train.log_likelihood(
        SMALL, p, every, weight_bt * chance_b[:, None] * len(every)))(params)
    direction = jax.tree.map(lambda x: jax.random.normal(jax.random.key(x.size), x.shape), params)
    move = lambda h: jax.tree.map(lambda x, d: x + h * d, params, direction)
    want = (objective(move(5e-3), alpha, chance_b) - objective(move(-5e-3), alpha, chance_b)) / 1e-2
    got = sum((a * b).sum() for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(direction)))
    np.testing.assert_allclose(got, want, rtol=2e-2)


def test_weighed_continuations_estimate_q():
  """Against enumeration; the proposal is another policy, and a right one stays right whatever follows."""
  world = sequence.World(4, 3, (0, 1))
  params = made_lib.init(SMALL, jax.random.key(5))
  tokens_bt = jnp.array([[0, 0, 0, 1], [0, 2, 1, 0], [0, 1, 0, 2]])
  proposal_jv = sequence.procedural(world, 3)
  draws = [train.values_by_importance(SMALL, world, params, jax.random.key(n), tokens_bt, proposal_jv, 500) for n in range(8)]
  q_bt, error_bt = np.mean(draws, axis=0), np.std(draws, axis=0) / np.sqrt(8)
  every = jnp.array(list(itertools.product(range(3), repeat=4)))
  log_bt = train.log_chances(SMALL, params, every)
  right_b = np.asarray(sequence.states(world, every)[:, -1] == world.done)
  for row in range(3):
    for t in range(4):
      mine_b = np.asarray((every[:, :t + 1] == tokens_bt[row, :t + 1]).all(axis=1))
      want = (np.exp(np.asarray(log_bt[:, t + 1:].sum(axis=1))) * right_b * mine_b).sum()
      assert abs(q_bt[row, t] - want) < 5 * error_bt[row, t] + 1e-5, (row, t, want)
  assert error_bt.max() < 0.02
  # What follows the end has no part in the weight, so there is nothing random left.
  np.testing.assert_array_equal(draws[0][2, 1:], [1, 1, 1])
  np.testing.assert_array_equal(draws[0][1, 1:], [0, 0, 0])


def test_a_type_from_elsewhere_does_no_harm():
  """What gemma 3.3.0 (gm/utils/_dtype_params.py) makes of Module.param hands each initialiser a third argument, None."""
  scale = np.array([1.0, 2.0])
  init_fn = made_lib._normal(scale)
  key = jax.random.key(0)
  np.testing.assert_array_equal(init_fn(key, (3, 2), None), init_fn(key, (3, 2)))
  np.testing.assert_array_equal(init_fn(key, (3, 2)), scale * jax.random.normal(key, (3, 2)))
