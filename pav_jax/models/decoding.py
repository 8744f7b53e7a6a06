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
  return Prefix(*(jnp.take(x_yigle, source_i, axis=1) for x_yigle in prefix))


def begin(prefix: Prefix, cut_b: jax.Array, slots: int) -> Cache:
  """A cache whose row b holds the first cut_b tokens of its source, and has `slots` slots for its own.

  The rows of a source stand together: b is a multiple of the sources.
  """
  layers, sources, groups, _, width = prefix.keys_yigle.shape
  rows = cut_b.shape[0]
  if rows % sources:
    raise ValueError(f"{rows} rows cannot share {sources} sources evenly")
  empty = jnp.zeros((layers, sources, groups, rows // sources, slots, width), prefix.keys_yigle.dtype)
  length_b = cut_b.astype(jnp.int32)
  return Cache(prefix, length_b, empty, empty, jnp.full((rows, slots), -1, jnp.int32), jnp.int32(0), length_b)


def restart(cache: Cache, fresh_b: jax.Array, cut_b: jax.Array) -> Cache:
  """The same cache, rows fresh_b begun anew at the first cut_b tokens of their source."""
  pick = lambda new_b, old_b: jnp.where(fresh_b, new_b, old_b)
  return cache._replace(cut_b=pick(cut_b, cache.cut_b), length_b=pick(cut_b, cache.length_b),
                        position_bl=jnp.where(fresh_b[:, None], -1, cache.position_bl))


def commit(cache: Cache, row_i: jax.Array) -> Prefix:
  """Prefixes made of rows: what row_i has read, its source's prefix up to its cut and its own suffix after it.

  The prefix must have slots for the longest row. This is how a chosen candidate becomes an item of the beam.
  """
  _, sources, _, slots, _ = cache.prefix.keys_yigle.shape
  rows = cache.cut_b.shape[0] // sources
  source_i, of_source_i = row_i // rows, row_i % rows
  # For every slot of the prefix, which slot of the suffix holds that position, if one does.
  here_ill = cache.position_bl[row_i][:, :, None] == jnp.arange(slots)
  own_il = here_ill.any(axis=1)[None, :, None, :, None]
  from_il = here_ill.argmax(axis=1)[None, :, None, :, None]
  def join(old_yigle, own_yigrle):
    own_yigle = own_yigrle[:, source_i, :, of_source_i]  # the rows' axis comes to the front
    own_yigle = jnp.moveaxis(own_yigle, 0, 1)
    return jnp.where(own_il, jnp.take_along_axis(own_yigle, from_il, axis=3), old_yigle[:, source_i])
  return Prefix(join(cache.prefix.keys_yigle, cache.keys_yigrle), join(cache.prefix.values_yigle, cache.values_yigrle))
