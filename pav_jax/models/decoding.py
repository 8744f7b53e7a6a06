"""The cache: new, forked, rewound. Growing it is the network's `extend`.

A cache is addressed by position, so three things cost nothing but a gather:
copying a row to many (n rollouts of a prompt, c candidates of a beam),
cutting a row short (every prefix of a trajectory after one prefill), and
throwing away what was appended last.
"""

import jax
import jax.numpy as jnp

from pav_jax.models.gemma import Cache
from pav_jax.models.gemma import GemmaConfig


def new_cache(config: GemmaConfig, rows: int, slots: int) -> Cache:
  """An empty cache for `rows` rows of up to `slots` tokens, in the compute type."""
  shape = (config.num_layers, rows, config.num_kv_heads, slots, config.head_width)
  zeros = jnp.zeros(shape, config.dtype)
  return Cache(zeros, zeros, jnp.zeros(rows, jnp.int32))


def fork(cache: Cache, source_b: jax.Array, length_b: jax.Array) -> Cache:
  """Rows source_b of the cache, each cut to its first length_b tokens.

  source_b: int32 rows of the old cache, one per row of the new; length_b:
  int32, at most what the source row holds.
  """
  take = lambda x_ybgle: jnp.take(x_ybgle, source_b, axis=1)
  return Cache(take(cache.keys_ybgle), take(cache.values_ybgle), length_b)
