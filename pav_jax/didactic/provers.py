"""The prover's values V^mu as tables, exact or as one would have them in practice: why strong provers may stop helping.

Each gives value_zj, (length + 1, k + 2), as sequence.values does; RL takes advantages from it,
A^mu = V(s') - V(s), whatever its errors.

  exact     dynamic programming
  learned   the mean outcome of `amount` sequences of the prover's own, state by state; a state that none of them met
            has the mean outcome of its position's others. A strong prover leaves its path seldom, and knows little of
            what is off it
  erring    exact plus a fixed error for each state, normal with deviation `amount`, clipped to [0, 1]: a verifier's,
            which does not shrink with the signal
  exponent  the weight of the next planted token read as exp(gamma / 10) instead of gamma
  share     the next planted token has probability gamma / (gamma + 1), the others share the rest
  lost      a prover that cannot begin anew: after a broken match, or without one, all tokens are alike to it
"""

import jax
import numpy as np

from pav_jax.didactic import sequence
from pav_jax.didactic import train


# Compiled once, not for every seed and strength.
_states = jax.jit(sequence.states, static_argnames="world")


def _learned(world: sequence.World, gamma: float, sequences: int, seed: int) -> np.ndarray:
  """Values of done and dead states are known: 1 and 0."""
  tokens_bt = train.demonstrations(world, sequence.procedural(world, gamma), sequences, jax.random.key(seed))
  state_bz = np.asarray(_states(world, tokens_bt))
  right_b = state_bz[:, -1] == world.done
  value_zj = np.zeros((world.length + 1, world.done + 2))
  for z in range(world.length + 1):
    count_j = np.bincount(state_bz[:, z], minlength=world.done + 2)[:world.done]
    right_j = np.bincount(state_bz[right_b, z], minlength=world.done + 2)[:world.done]
    elsewhere = right_j.sum() / max(count_j.sum(), 1)
    value_zj[z, :world.done] = np.where(count_j > 0, right_j / np.maximum(count_j, 1), elsewhere)
  value_zj[-1] = 0.0
  value_zj[:, world.done] = 1.0
  return value_zj


def _erring(world: sequence.World, gamma: float, deviation: float, seed: int) -> np.ndarray:
  """Every state errs, done and dead ones too, at the end as well."""
  value_zj = _exact(world, gamma)
  return np.clip(value_zj + deviation * np.random.default_rng(seed).standard_normal(value_zj.shape), 0, 1)


def _lost(world: sequence.World, gamma: float) -> np.ndarray:
  """The match is tried once, from the first token on."""
  policy_jv = sequence.procedural(world, gamma)
  uniform_v = np.full(world.vocabulary, 1 / world.vocabulary)
  value_zj = np.zeros((world.length + 1, world.done + 2))
  value_zj[:, world.done] = 1.0
  next_jv = sequence.transitions(world)
  for z in reversed(range(world.length)):
    at_jv = np.where((np.arange(world.done + 2) == z)[:, None], policy_jv, uniform_v)
    value_zj[z] = (at_jv * value_zj[z + 1][next_jv]).sum(axis=1)
  return value_zj


def _exact(world: sequence.World, gamma: float) -> np.ndarray:
  return sequence.values(world, sequence.procedural(world, gamma))


def table(world: sequence.World, gamma: float, *, reading: str, amount: float = 0.0, seed: int = 0) -> np.ndarray:
  """value_zj of a prover of strength gamma under one of the readings at the top of the file."""
  if reading == "learned":
    return _learned(world, gamma, int(amount), seed)
  if reading == "erring":
    return _erring(world, gamma, amount, seed)
  if reading == "lost":
    return _lost(world, gamma)
  return _exact(world, {"exact": gamma, "exponent": float(np.exp(gamma / 10)),
                        "share": gamma * (world.vocabulary - 1)}[reading])
