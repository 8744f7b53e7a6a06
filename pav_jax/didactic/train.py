"""SFT and RL of the MADE policy, many seeds side by side in one program (section 3.3, appendix B).

  1. SFT: samples of a procedural policy, one pass in batches, Adam.
  2. RL: `batch_size` sequences of the policy; every token of step h weighs
     Q^pi(s_h, a_h) + alpha A^mu(s_h, a_h) (Eq. 5); the gradient of
     -mean_b sum_t weight log pi; nothing counts after EOS.
  3. Every `chunk` iterations the share of right ones among the sequences
     of these iterations; a run ends when every seed has come to `target` once,
     or after `iterations`, in whole chunks.

What stands for the two values:

  A^mu   exact, by dynamic programming (sequence.values), or a table made
         otherwise (provers.py); with `mu_rollouts` > 0 each prefix's value is
         the mean of that many outcomes of mu, drawn as a binomial of the exact one
  Q^pi   `continuations` = 0: the outcome of the sequence itself, one sample of
         Q^pi(s_h, a_h) for each h (plain REINFORCE; the default). n > 0: the mean of
         n continuations of every prefix, drawn from the procedural policy of strength
         `proposal` and weighed by importance

Our choices, where the paper is silent: no baseline is subtracted; the learning rate of SFT; SGD's.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pav_jax.didactic import made as made_lib
from pav_jax.didactic import sequence
from pav_jax.training.metrics import progress


class Rl(NamedTuple):
  """How RL is run; see the top of the file.

  optimizer: 'adam', 'sgd', or 'unit', SGD along the unit gradient. target: over 1 it is never reached, and every
  run has all its iterations.
  """

  optimizer: str
  learning_rate: float
  batch_size: int
  iterations: int
  chunk: int
  target: float = 2.0
  mu_rollouts: int = 0
  continuations: int = 0
  proposal: float = 1.0


class Learned(NamedTuple):
  """iteration_e; success_ie, float (seeds, evaluations); params with a leading axis of seeds."""

  iteration_e: np.ndarray
  success_ie: np.ndarray
  params: object


def continuations(world: sequence.World, policy_jv, key, tokens_bt, upto_b) -> jnp.ndarray:
  """tokens_bt, int32: sequences that begin with the first upto_b tokens of the given ones and go on by a tabular policy."""
  next_jv, log_jv = jnp.asarray(sequence.transitions(world)), jnp.log(jnp.asarray(policy_jv, jnp.float32))
  def one(state_b, at):
    t, given_b, key = at
    token_b = jnp.where(t < upto_b, given_b, jax.random.categorical(key, log_jv[state_b]))
    return next_jv[state_b, token_b], token_b
  rows, length = tokens_bt.shape
  along_t = jnp.arange(length), tokens_bt.T, jax.random.split(key, length)
  return jax.lax.scan(one, jnp.zeros(rows, jnp.int32), along_t)[1].T.astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("world", "count"))
def demonstrations(world: sequence.World, policy_jv, count: int, key) -> jnp.ndarray:
  """tokens_bt, int32 (count, length): sequences of a tabular policy."""
  empty_bt = jnp.zeros((count, world.length), jnp.int32)
  return continuations(world, policy_jv, key, empty_bt, jnp.zeros(count, jnp.int32))


def alive(world: sequence.World, state_bz) -> jnp.ndarray:
  """bool (b, t): which tokens count, those before which no EOS ended the sequence."""
  return state_bz[:, :-1] != world.dead


def log_chances(made: made_lib.Made, params, tokens_bt) -> jnp.ndarray:
  """log pi of every token given those before it, float32 (b, t)."""
  return jnp.take_along_axis(made.apply(params, tokens_bt), tokens_bt[..., None], axis=2)[..., 0]


def log_likelihood(made: made_lib.Made, params, tokens_bt, weight_bt) -> jnp.ndarray:
  """mean_b sum_t weight log pi: with weights 1 the log-likelihood; with those of Eq. 5 its gradient is Eq. 5's."""
  return (weight_bt * log_chances(made, params, tokens_bt)).sum(axis=1).mean()


@functools.partial(jax.jit, static_argnames=("made", "world", "iterations", "batch_size", "learning_rate"))
def sft(made: made_lib.Made, world: sequence.World, policy_jv, key_i, *, iterations: int, batch_size: int,
        learning_rate: float):
  """Parameters, one set a seed, after one pass over iterations * batch_size demonstrations of each seed's own."""
  def one(key):
    at_start, at_data = jax.random.split(key)
    tokens_bt = demonstrations(world, policy_jv, iterations * batch_size, at_data)
    params, tx = made_lib.init(made, at_start), optax.adam(learning_rate)
    def step(carry, tokens_bt):
      params, state = carry
      mask_bt = alive(world, sequence.states(world, tokens_bt))
      gradient = jax.grad(lambda p: -log_likelihood(made, p, tokens_bt, mask_bt))(params)
      updates, state = tx.update(gradient, state)
      return (optax.apply_updates(params, updates), state), None
    batches = tokens_bt.reshape(iterations, batch_size, world.length)
    return jax.lax.scan(step, (params, tx.init(params)), batches)[0][0]
  return jax.vmap(one)(key_i)


def success(made: made_lib.Made, world: sequence.World, params, key, count: int) -> jnp.ndarray:
  """The share of right sequences among `count` of the policy's."""
  tokens_bt = made_lib.sample(made, params, key, count)
  return (sequence.states(world, tokens_bt)[:, -1] == world.done).mean()


@functools.partial(jax.jit, static_argnames=("made", "world", "count"))
def successes(made: made_lib.Made, world: sequence.World, params_i, key_i, count: int) -> jnp.ndarray:
  """`success` of every seed's policy, float32 (seeds,)."""
  return jax.vmap(lambda params, key: success(made, world, params, key, count))(params_i, key_i)


def values_by_importance(made: made_lib.Made, world: sequence.World, params, key, tokens_bt, proposal_jv, count: int):
  """q_bt, float32: Q^pi of every prefix that ends with a token of tokens_bt, from `count` continuations each.

  They are drawn from a tabular policy that is right often, and weigh pi(rest) / proposal(rest): of the policy's own
  continuations nearly none is right at first. What follows the end, right or wrong, weighs nothing.
  """
  rows, length = tokens_bt.shape
  upto_b = jnp.tile(jnp.repeat(jnp.arange(1, length), rows), count)
  whole_bt = continuations(world, proposal_jv, key, jnp.tile(tokens_bt, (count * (length - 1), 1)), upto_b)
  state_bz = sequence.states(world, whole_bt)
  log_jv = jnp.log(jnp.asarray(proposal_jv, jnp.float32))
  drawn_bt = (jnp.arange(length) >= upto_b[:, None]) & (state_bz[:, :-1] < world.done)
  ratio_bt = log_chances(made, params, whole_bt) - log_jv[state_bz[:, :-1], whole_bt]
  right_b = jnp.exp((drawn_bt * ratio_bt).sum(axis=1)) * (state_bz[:, -1] == world.done)
  last_b = sequence.states(world, tokens_bt)[:, -1] == world.done
  return jnp.concatenate([right_b.reshape(count, length - 1, rows).mean(axis=0), last_b[None]], axis=0).T


def weights(world: sequence.World, state_bz, value_zj, alpha, q_bt, key, mu_rollouts: int) -> jnp.ndarray:
  """weight_bt = Q^pi + alpha A^mu (the bracket of Eq. 5), 0 after EOS; see the top of the file."""
  value_bz = value_zj[jnp.arange(world.length + 1), state_bz]
  value_bz = sequence.rollout_means(key, value_bz, mu_rollouts)
  return (q_bt + alpha * (value_bz[:, 1:] - value_bz[:, :-1])) * alive(world, state_bz)


def optimizer(name: str, learning_rate: float) -> optax.GradientTransformation:
  """See Rl."""
  if name == "unit":
    return optax.chain(optax.normalize_by_update_norm(), optax.sgd(learning_rate))
  return {"adam": optax.adam, "sgd": optax.sgd}[name](learning_rate)


@functools.partial(jax.jit, static_argnames=("made", "world", "rl"))
def _chunk(made, world, rl: Rl, carry_i, value_izj, alpha, key_i):
  """`chunk` iterations of every seed: (carry_i, success_i), the success that of their sequences."""
  tx, proposal_jv = optimizer(rl.optimizer, rl.learning_rate), sequence.procedural(world, rl.proposal)
  def step(carry, key, value_zj):
    params, state = carry
    at_sample, at_mu, at_pi = jax.random.split(key, 3)
    tokens_bt = made_lib.sample(made, params, at_sample, rl.batch_size)
    state_bz = sequence.states(world, tokens_bt)
    if rl.continuations:
      q_bt = values_by_importance(made, world, params, at_pi, tokens_bt, proposal_jv, rl.continuations)
    else:
      q_bt = (state_bz[:, -1:] == world.done).astype(jnp.float32)
    weight_bt = weights(world, state_bz, value_zj, alpha, q_bt, at_mu, rl.mu_rollouts)
    gradient = jax.grad(lambda p: -log_likelihood(made, p, tokens_bt, weight_bt))(params)
    updates, state = tx.update(gradient, state)
    return (optax.apply_updates(params, updates), state), (state_bz[:, -1] == world.done).mean()

  def one(carry, value_zj, key):
    carry, right_e = jax.lax.scan(lambda c, k: step(c, k, value_zj), carry, jax.random.split(key, rl.chunk))
    return carry, right_e.mean()
  return jax.vmap(one)(carry_i, value_izj, key_i)


def reinforce(made: made_lib.Made, world: sequence.World, params_i, value_izj: np.ndarray, alpha: float, key_i, *,
              rl: Rl, what: str) -> Learned:
  """RL from params_i. value_izj: V^mu of every seed's prover (seeds, length + 1, k + 2); what: its name on the bar."""
  tx = optimizer(rl.optimizer, rl.learning_rate)
  carry_i = params_i, jax.vmap(tx.init)(params_i)
  value_izj = jnp.asarray(value_izj, jnp.float32)
  found, best_i = [], np.zeros(len(key_i))
  chunks = math.ceil(rl.iterations / rl.chunk)
  for n in (bar := progress(range(chunks), what=what, unit=f"x{rl.chunk}")):
    at_chunk_i = jax.vmap(jax.random.fold_in, in_axes=(0, None))(key_i, n)
    carry_i, success_i = _chunk(made, world, rl, carry_i, value_izj, jnp.float32(alpha), at_chunk_i)
    found.append(np.asarray(success_i))
    best_i = np.maximum(best_i, found[-1])
    if best_i.min() >= rl.target:
      break
  bar.close()
  return Learned(rl.chunk * np.arange(1, len(found) + 1), np.stack(found, axis=1), carry_i[0])
