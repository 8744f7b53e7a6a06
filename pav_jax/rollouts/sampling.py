"""From logits to a token: temperature, top-k, top-p, greedy; every row draws with its own key."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pav_jax.errors import UserError


class Sampling(NamedTuple):
  """How a token is drawn. temperature 0 is greedy; top_k 0 and top_p 1 cut nothing."""

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0


def of(section) -> Sampling:
  """The settings of a config section."""
  return Sampling(section.temperature, section.top_k, section.top_p)


def check(section, where: str):
  """UserError for settings that mean nothing; where: the section's name, as `config.rollouts`."""
  if not 0 <= section.temperature < float("inf"):
    raise UserError(f"{where}.temperature {section.temperature} is not in [0, inf)")
  if section.top_k < 0:
    raise UserError(f"{where}.top_k {section.top_k} is negative (0 cuts nothing)")
  if not 0 < section.top_p <= 1:
    raise UserError(f"{where}.top_p {section.top_p} is not in (0, 1]")


def row_keys(seed: int, *names_b) -> jax.Array:
  """One key per row from what the row is: (seed, problem, response, prefix, sample, ...).

  names_b: int32 arrays of one shape. What a rollout is drawn with thus does not
  depend on batch size, order, padding or device count (what it is drawn from
  does in its last bits: engine.py).
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


def block_width(v: int) -> int:
  """Words of a block in `pick`: near the root of v, and if possible such that blocks fill v and are a multiple of 8.

  A vocabulary cut over up to 8 chips then stays cut when it is seen as blocks; else every chip would be sent all logits.
  """
  root = math.sqrt(v)
  fitting = [width for width in range(2, v // 8 + 1) if v % (8 * width) == 0 and root / 4 <= width <= root * 4]
  return min(fitting, key=lambda width: abs(math.log(width / root)), default=max(1, math.isqrt(v)))


def pick(weight_bv: jax.Array, uniform_b: jax.Array) -> jax.Array:
  """The word at which the running sum of weights (not negative, unnormalised) passes uniform_b of their total; int32.

  The inverse of the distribution function, in two floors: a block of words by
  the sums of blocks, then a word of that block. One number a row and one pass
  over the vocabulary; a Gumbel for every word costs more than a small step.
  """
  b, v = weight_bv.shape
  width = block_width(v)
  weight_bwx = jnp.pad(weight_bv, ((0, 0), (0, -v % width))).reshape(b, -1, width)
  def passed(weight_bx, aim_b):
    """(index, what is left of the aim): the first place where the running sum exceeds the aim."""
    sum_bx = jnp.cumsum(weight_bx, axis=-1)
    index_b = jnp.sum(sum_bx <= aim_b[:, None], axis=-1)
    # Rounding may carry the aim past the end: the last place of any weight then.
    last_b = weight_bx.shape[-1] - 1 - jnp.argmax(weight_bx[:, ::-1] > 0, axis=-1)
    index_b = jnp.minimum(index_b, last_b)
    before_b = jnp.take_along_axis(sum_bx - weight_bx, index_b[:, None], axis=-1)[:, 0]
    return index_b, aim_b - before_b
  sum_bw = weight_bwx.sum(axis=-1)
  block_b, left_b = passed(sum_bw, uniform_b * sum_bw.sum(axis=-1))
  word_b, _ = passed(jnp.take_along_axis(weight_bwx, block_b[:, None, None], axis=1)[:, 0], left_b)
  return (block_b * width + word_b).astype(jnp.int32)


def draw(logit_bv: jax.Array, key_b: jax.Array, sampling: Sampling, never_v: jax.Array):
  """(token_b, log_prob_b): one token a row.

  never_v: bool, tokens that are not drawn (padding, the scoring token). The
  log-probability is the model's own: temperature 1, nothing cut, so that it
  agrees with the training forward pass, and so its sum runs over never_v, too.
  A trained policy leaves them 1e-5 on average (.005 at most in 8,273 tokens):
  so much too low is a log-probability as that of the draw, and both of a ratio alike.
  """
  allowed_bv = jnp.where(never_v, -jnp.inf, logit_bv)
  if sampling.temperature == 0:
    token_b = jnp.argmax(allowed_bv, axis=-1).astype(jnp.int32)
  else:
    tempered_bv = truncate(allowed_bv, sampling)
    weight_bv = jnp.exp(tempered_bv - tempered_bv.max(axis=-1, keepdims=True))
    token_b = pick(weight_bv, jax.vmap(jax.random.uniform)(key_b))
  picked_b = jnp.take_along_axis(logit_bv, token_b[:, None], axis=-1)[:, 0]
  return token_b, picked_b - jax.nn.logsumexp(logit_bv, axis=-1)
