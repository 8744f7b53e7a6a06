"""From logits to a token: temperature, top-k, top-p, greedy; every row draws with its own key."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pav_jax.errors import UserError


class Sampling(NamedTuple):
  """How a token is drawn. temperature 0 is greedy; top_k 0 and top_p 1 cut nothing."""

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0


def check(sampling: Sampling) -> Sampling:
  """The same settings; raises UserError for one that means nothing."""
  if not 0 <= sampling.temperature < float("inf"):
    raise UserError(f"temperature {sampling.temperature} is not in [0, inf)")
  if sampling.top_k < 0:
    raise UserError(f"top_k {sampling.top_k} is negative (0 cuts nothing)")
  if not 0 < sampling.top_p <= 1:
    raise UserError(f"top_p {sampling.top_p} is not in (0, 1]")
  return sampling


def row_keys(seed: int, *names_b) -> jax.Array:
  """One key per row from what the row is: (seed, problem, response, prefix, sample, ...).

  names_b: int32 arrays of one shape. A rollout's randomness thus does not
  depend on batch size, order, padding or device count.
  """
  return _fold_names(jax.random.key(seed), *(jnp.asarray(x, jnp.int32) for x in names_b))


@jax.jit
def _fold_names(key, *names_b):
  return jax.vmap(lambda *numbers: functools.reduce(jax.random.fold_in, numbers, key))(*names_b)


def truncate(logit_bv: jax.Array, sampling: Sampling) -> jax.Array:
  """Tempered logits with everything outside top-k and top-p at -inf.

  top-p keeps the smallest set of most likely tokens whose mass reaches top_p,
  after temperature and top-k; the most likely token always stays.
  """
  logit_bv = logit_bv / sampling.temperature
  if sampling.top_k:
    kth_b1 = jax.lax.top_k(logit_bv, min(sampling.top_k, logit_bv.shape[-1]))[0][:, -1:]
    logit_bv = jnp.where(logit_bv < kth_b1, -jnp.inf, logit_bv)
  if sampling.top_p < 1:
    sorted_bv = -jnp.sort(-logit_bv, axis=-1)
    mass_bv = jax.nn.softmax(sorted_bv, axis=-1)
    before_bv = jnp.cumsum(mass_bv, axis=-1) - mass_bv
    last_b1 = jnp.sum(before_bv < sampling.top_p, axis=-1, keepdims=True) - 1
    floor_b1 = jnp.take_along_axis(sorted_bv, last_b1, axis=-1)
    logit_bv = jnp.where(logit_bv < floor_b1, -jnp.inf, logit_bv)
  return logit_bv


def draw(logit_bv: jax.Array, key_b: jax.Array, sampling: Sampling, never_v: jax.Array):
  """(token_b, log_prob_b): one token a row.

  never_v: bool, tokens that are not drawn (padding, the scoring token). The
  log-probability is the model's own: temperature 1, nothing cut, so that it
  agrees with the training forward pass.
  """
  allowed_bv = jnp.where(never_v, -jnp.inf, logit_bv)
  if sampling.temperature == 0:
    token_b = jnp.argmax(allowed_bv, axis=-1)
  else:
    # One uniform number a row and the inverse of the distribution function: a Gumbel for every
    # word of the vocabulary takes longer than a small network's step.
    below_bv = jnp.cumsum(jax.nn.softmax(truncate(allowed_bv, sampling), axis=-1), axis=-1)
    uniform_b = jax.vmap(jax.random.uniform)(key_b)
    token_b = jnp.sum(below_bv <= uniform_b[:, None] * below_bv[:, -1:], axis=-1)
  log_prob_bv = jax.nn.log_softmax(logit_bv, axis=-1)
  return token_b.astype(jnp.int32), jnp.take_along_axis(log_prob_bv, token_b[:, None], axis=-1)[:, 0]
