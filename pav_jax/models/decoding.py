"""The cache: begun on a prefix, restarted, committed. Growing it is the network's `extend`.

A trajectory is read once; whatever goes on from it, from wherever it is cut,
attends to that one copy: n rollouts of a prompt, the continuations of every
prefix of a response, the candidates of a beam's item.
"""

import jax
import jax.numpy as jnp

from pav_jax.models.gemma import Cache
from pav_jax.models.gemma import Prefix


def take(prefix: Prefix, source_i: jax.Array) -> Prefix:
  """The prefixes of the sources source_i, copied."""
  return jax.tree.map(lambda x_igle: jnp.take(x_igle, source_i, axis=0), prefix)


def put(prefix: Prefix, source_i: jax.Array, new: Prefix) -> Prefix:
  """The prefixes with `new`, which may be shorter, in the places source_i; a place that is not there is skipped."""
  def place(old, some):
    return old.at[source_i, :, :some.shape[2], :some.shape[3]].set(some, mode="drop")
  return jax.tree.map(place, prefix, new)


def begin(prefix: Prefix, cut_b: jax.Array, slots: int) -> Cache:
  """A cache whose row b holds the first cut_b tokens of its source, and has `slots` slots for its own.

  The rows of a source stand together: b is a multiple of the sources.
  """
  sources, rows = len(prefix.keys_yigel[0]), len(cut_b)
  if rows % sources:
    raise ValueError(f"{rows} rows cannot share {sources} sources evenly")
  length_b = cut_b.astype(jnp.int32)
  return Cache(prefix, length_b, tuple(jnp.zeros((rows, *x_igel.shape[1:3], slots), x_igel.dtype) for x_igel in prefix.keys_yigel),
               tuple(jnp.zeros((rows, x_igle.shape[1], slots, x_igle.shape[3]), x_igle.dtype) for x_igle in prefix.values_yigle),
               jnp.full((rows, slots), -1, jnp.int32), jnp.int32(0), length_b)


def restart(cache: Cache, fresh_b: jax.Array, cut_b: jax.Array) -> Cache:
  """The same cache, rows fresh_b begun anew at the first cut_b tokens of their source."""
  pick = lambda new_b, old_b: jnp.where(fresh_b, new_b, old_b)
  return cache._replace(cut_b=pick(cut_b, cache.cut_b), length_b=pick(cut_b, cache.length_b),
                        position_bl=jnp.where(fresh_b[:, None], -1, cache.position_bl))


def commit(cache: Cache, row_i: jax.Array) -> Prefix:
  """Prefixes made of rows: what row_i has read, its source's prefix up to its cut and its own suffix after it.

  The prefix must have slots for the longest row. This is how a chosen candidate becomes an item of the beam.
  """
  sources, _, _, slots = cache.prefix.keys_yigel[0].shape
  source_i = row_i // (len(cache.cut_b) // sources)
  # For every slot of the prefix, which slot of the suffix holds that position, if one does.
  here_ill = cache.position_bl[row_i][:, :, None] == jnp.arange(slots)
  own_il, from_il = here_ill.any(axis=1), here_ill.argmax(axis=1)
  def join(old, own, axis):
    lined = lambda x_il: x_il[:, None, None, :] if axis == 3 else x_il[:, None, :, None]
    taken = jnp.take_along_axis(own[row_i], lined(from_il), axis=axis)
    return jnp.where(lined(own_il), taken, old[source_i])
  return Prefix(tuple(join(*pair, 3) for pair in zip(cache.prefix.keys_yigel, cache.keys_ybgel)),
                tuple(join(*pair, 2) for pair in zip(cache.prefix.values_yigle, cache.values_ybgle)))
