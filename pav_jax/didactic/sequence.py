"""A planted sub-sequence (section 3.3, appendix B): the world, its procedural policies, their exact values.

A sequence has `length` tokens; it is right if `planted` stands in it, unbroken,
before EOS (the last token of the vocabulary). All that matters of a prefix is
its length z and the state of the match j:

  0 .. k-1   the longest j such that the last j tokens are the first j of the k planted ones
  k          done: all of it has been seen; nothing takes that away
  k + 1      dead: EOS came first

so values are tables value_zj, (length + 1, k + 2) float64, and
Q(s, a) = V(s'), A(s, a) = V(s') - V(s) with s' the state after the token (Eq. 2).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class World(NamedTuple):
  """The environment. eos_ends: whether EOS ends a sequence; if not it is one more wrong token."""

  length: int
  vocabulary: int
  planted: tuple[int, ...]
  eos_ends: bool = True

  @property
  def done(self) -> int:
    """The state in which the planted sequence has been seen."""
    return len(self.planted)

  @property
  def dead(self) -> int:
    """The state after an EOS that came too early."""
    return len(self.planted) + 1


def transitions(world: World) -> np.ndarray:
  """next_jv, int32 (k + 2, vocabulary): the state of the match after one more token."""
  k = world.done
  next_jv = np.zeros((k + 2, world.vocabulary), np.int32)
  for j in range(k):
    for token in range(world.vocabulary):
      seen = (*world.planted[:j], token)
      next_jv[j, token] = max(n for n in range(j + 2) if seen[len(seen) - n:] == world.planted[:n])
    if world.eos_ends:
      next_jv[j, -1] = world.dead
  next_jv[k], next_jv[k + 1] = k, k + 1
  return next_jv


def procedural(world: World, gamma: float) -> np.ndarray:
  """policy_jv, float64 (k + 2, vocabulary): the next planted token has weight gamma, the others 1 each (appendix B).

  Once done or dead there is no next token: all are alike, and none matters.
  """
  weight_jv = np.ones((world.done + 2, world.vocabulary))
  weight_jv[np.arange(world.done), world.planted] = gamma
  return weight_jv / weight_jv.sum(axis=1, keepdims=True)


def values(world: World, policy_jv: np.ndarray) -> np.ndarray:
  """value_zj, float64 (length + 1, k + 2): the chance of success from every prefix (Eq. 1), backwards from the end."""
  next_jv = transitions(world)
  value_zj = np.zeros((world.length + 1, world.done + 2))
  value_zj[:, world.done] = 1.0
  for z in reversed(range(world.length)):
    value_zj[z] = (policy_jv * value_zj[z + 1][next_jv]).sum(axis=1)
  return value_zj


def states(world: World, tokens_bt) -> jnp.ndarray:
  """state_bz, int32 (rows, length + 1): the state of the match at every prefix; jax or numpy tokens."""
  next_jv = jnp.asarray(transitions(world))
  # A scan: unrolled, the compiler makes one nested expression of it, and takes minutes.
  start_b = jnp.zeros(tokens_bt.shape[0], jnp.int32)
  _, state_tb = jax.lax.scan(lambda j, token: (next_jv[j, token],) * 2, start_b, tokens_bt.T)
  return jnp.concatenate([start_b[None], state_tb]).T


def rollout_means(key, value, rollouts: int):
  """The mean outcome of `rollouts` rollouts where the exact value is `value` (any shape); 0 rollouts: the value itself.

  A binomial drawn by inverting its distribution function, summed up by the ratio of neighbouring terms from the
  likelier end: a few additions a rollout, where jax.random.binomial takes a loop of its own for every row.
  """
  if not rollouts:
    return value
  rare = jnp.minimum(value, 1 - value)
  odds = rare / (1 - rare)
  term = (1 - rare) ** rollouts
  uniform, total, count = jax.random.uniform(key, value.shape), term, jnp.zeros_like(value)
  for n in range(1, rollouts + 1):
    count += uniform > total
    term = term * odds * (rollouts - n + 1) / n
    total = total + term
  return jnp.where(value <= 0.5, count, rollouts - count) / rollouts
