"""The cache: filled, forked, rewound. Growing it is the network's `extend`.

A cache is addressed by position, so three things cost nothing but a gather:
copying a row to many (n rollouts of a prompt, c candidates of a beam),
cutting a row short (every prefix of a trajectory after one prefill), and
throwing away what was appended last.
"""

import jax
import jax.numpy as jnp

from pav_jax.models.gemma import Cache


def filled(keys_ybgte: jax.Array, values_ybgte: jax.Array, length_b: jax.Array, slots: int) -> Cache:
  """A cache of `slots` slots (at least t) that holds the first length_b tokens of rows read from position 0.

  What the rows' padding left in the slots beyond lies where nobody looks.
  """
  pad = lambda x_ybgte: jnp.pad(x_ybgte, [(0, 0)] * 3 + [(0, slots - x_ybgte.shape[3]), (0, 0)])
  return Cache(pad(keys_ybgte), pad(values_ybgte), length_b.astype(jnp.int32))


def fork(cache: Cache, source_b: jax.Array, length_b: jax.Array) -> Cache:
  """Rows source_b of the cache, each cut to its first length_b tokens.

  source_b: int32 rows of the old cache, one per row of the new; length_b:
  int32, at most what the source row holds.
  """
  take = lambda x_ybgle: jnp.take(x_ybgle, source_b, axis=1)
  return Cache(take(cache.keys_ybgle), take(cache.values_ybgle), length_b)
