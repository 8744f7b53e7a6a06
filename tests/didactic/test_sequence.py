"""The planted world: known success rates, values against enumeration, policies altered on purpose."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.didactic import provers
from pav_jax.didactic import sequence
from pav_jax.didactic import train

WORLD = sequence.World(10, 15, (3, 6, 0, 3, 5))
SMALL = sequence.World(5, 4, (1, 0, 1))


@pytest.mark.parametrize("gamma, want", [
    (5, 0.0054), (8, 0.0245), (10, 0.0455), (15, 0.1181), (17, 0.1514), (20, 0.2027), (50, 0.585), (100, 0.815),
    (1000, 0.993)])
def test_success_of_the_procedural_policy(gamma, want):
  value = sequence.values(WORLD, sequence.procedural(WORLD, gamma))[0, 0]
  assert abs(value - want) <= (0.00005 if want < 0.3 else 0.0005), value


def test_transitions_of_the_papers_sequence():
  next_jv = sequence.transitions(WORLD)
  # 3 6 0 3 then 6: the last two are again the first two.
  assert next_jv[4, 6] == 2 and next_jv[4, 5] == WORLD.done and next_jv[4, 3] == 1
  assert (next_jv[:5, 14] == WORLD.dead).all() and (next_jv[5] == 5).all() and (next_jv[6] == 6).all()
  assert sequence.transitions(WORLD._replace(eos_ends=False))[2, 14] == 0


def _right(world, tokens):
  ended = tokens.index(world.vocabulary - 1) if world.eos_ends and world.vocabulary - 1 in tokens else len(tokens)
  k = world.done
  return any(tokens[n:n + k] == world.planted and n + k <= ended for n in range(len(tokens) - k + 1))


@pytest.mark.parametrize("eos_ends", [True, False])
def test_values_are_those_of_enumeration(eos_ends):
  world = SMALL._replace(eos_ends=eos_ends)
  policy_jv = np.random.default_rng(0).dirichlet(np.ones(world.vocabulary), world.done + 2)
  value_zj = sequence.values(world, policy_jv)
  next_jv = sequence.transitions(world)
  for prefix in [(), (1,), (1, 0), (2, 1, 0), (1, 0, 1), (3, 1)]:
    state = 0
    for token in prefix:
      state = next_jv[state, token]
    total = 0.0
    for rest in itertools.product(range(world.vocabulary), repeat=world.length - len(prefix)):
      chance, at = 1.0, state
      for token in rest:
        chance, at = chance * policy_jv[at, token], next_jv[at, token]
      total += chance * _right(world, prefix + rest)
    assert abs(total - value_zj[len(prefix), state]) < 1e-12, prefix


def test_states_say_who_is_right():
  every = np.array(list(itertools.product(range(SMALL.vocabulary), repeat=SMALL.length)), np.int32)
  state_bz = np.asarray(sequence.states(SMALL, jnp.asarray(every)))
  want_b = np.array([_right(SMALL, tuple(map(int, row))) for row in every])
  np.testing.assert_array_equal(state_bz[:, -1] == SMALL.done, want_b)
  assert want_b.any()


def test_advantages_have_no_mean_under_their_own_policy():
  policy_jv = sequence.procedural(WORLD, 10)
  value_zj = sequence.values(WORLD, policy_jv)
  advantage_tjv = value_zj[1:][:, sequence.transitions(WORLD)] - value_zj[:-1, :, None]
  np.testing.assert_allclose((policy_jv * advantage_tjv).sum(axis=2), 0, atol=1e-15)


def test_demonstrations_succeed_as_often_as_their_policy():
  tokens_bt = train.demonstrations(WORLD, sequence.procedural(WORLD, 50), 4000, jax.random.key(0))
  right = float((sequence.states(WORLD, tokens_bt)[:, -1] == WORLD.done).mean())
  assert abs(right - 0.585) < 4 * np.sqrt(0.585 * 0.415 / 4000)


def test_rollout_means_are_binomial():
  value_r = jnp.repeat(jnp.array([0.0, 0.01, 0.3, 0.5, 0.9, 1.0]), 20_000)
  mean_xr = np.asarray(sequence.rollout_means(jax.random.key(1), value_r, 7)).reshape(6, -1)
  want = np.array([0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
  variance = want * (1 - want) / 7
  assert (np.abs(mean_xr.mean(axis=1) - want) <= 4 * np.sqrt(variance / 20_000) + 1e-6).all()
  np.testing.assert_allclose(mean_xr.var(axis=1), variance, rtol=0.05, atol=1e-6)
  np.testing.assert_array_equal(sequence.rollout_means(jax.random.key(1), want, 0), want)


def test_learned_values_come_to_the_exact_ones_where_the_prover_goes():
  exact_zj = sequence.values(SMALL, sequence.procedural(SMALL, 2))
  learned_zj = provers.table(SMALL, 2, reading="learned", amount=40_000)
  np.testing.assert_allclose(learned_zj[0, 0], exact_zj[0, 0], atol=0.01)
  for z, j in ((1, 1), (2, 2), (3, 0), (4, 2)):
    assert abs(learned_zj[z, j] - exact_zj[z, j]) < 0.03, (z, j)
  assert (learned_zj[:, SMALL.done] == 1).all() and (learned_zj[:, SMALL.dead] == 0).all()


def test_learned_values_know_only_where_the_prover_went():
  """A prover that never errs: off its path all it knows is what its position's others came to."""
  learned_zj = provers.table(SMALL, 1e9, reading="learned", amount=50)
  np.testing.assert_array_equal(learned_zj[:3, :3], np.ones((3, 3)))


def test_errors_are_of_the_table_and_stay():
  world = sequence.World(10, 15, (3, 6, 0, 3, 5))
  exact, erring, again, other = (provers.table(world, 100, reading=r, amount=0.05, seed=seed) for r, seed in (
      ("exact", 0), ("erring", 0), ("erring", 0), ("erring", 1)))
  np.testing.assert_array_equal(erring, again)
  inside = (exact > 0.2) & (exact < 0.8)
  assert inside.sum() > 10 and 0.02 < (erring - exact)[inside].std() < 0.1
  assert (erring != other).any() and erring.min() >= 0 and erring.max() <= 1


def test_readings_of_the_weight():
  exact = lambda gamma: sequence.values(WORLD, sequence.procedural(WORLD, gamma))
  np.testing.assert_allclose(provers.table(WORLD, 10, reading="exact"), exact(10))
  np.testing.assert_allclose(provers.table(WORLD, 10, reading="exponent"), exact(np.e))
  np.testing.assert_allclose(provers.table(WORLD, 10, reading="share"), exact(140))
  # One try at five tokens, each with weight 1,000 of 1,014; and less whatever chance gives elsewhere.
  np.testing.assert_allclose(provers.table(WORLD, 1000, reading="lost")[0, 0], (1000 / 1014) ** 5, atol=1e-4)
  assert exact(1000)[0, 0] > 0.99
