"""Gemma 2 in Flax: layers scanned and rematerialised, float32 where rounding hurts.

One module serves training and decoding. Without a cache it reads whole,
right-padded rows, and keeps their keys and values if asked to; with one (see
`decoding.py`) it appends tokens to what the cache holds. Norms, rotary angles,
softmax and logits are computed in float32 whatever the parameters' type: in
bfloat16 the spacing of numbers near 21 is 0.125, too coarse for log-ratios.

Source: Gemma 2 (arXiv 2408.00118); checked against the gemma library in
tests/models/test_gemma.py.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

_MASKED = -2.3819763e38  # what Gemma uses: finite, so that a row without keys gives no NaN


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """The shape of one Gemma 2 network; `SIZES` holds the official ones.

  query_scale is what queries are multiplied by; window is the reach, in
  tokens, of the local attention of layers 0, 2, 4, ...
  """

  num_layers: int
  width: int
  num_heads: int
  num_kv_heads: int
  head_width: int
  ffn_width: int
  query_scale: float
  vocab_size: int = 256_128
  window: int = 4096
  attention_cap: float = 50.0
  logit_cap: float = 30.0
  param_dtype: str = "float32"
  dtype: str = "float32"


SIZES = {
    "gemma2_2b": GemmaConfig(26, 2304, 8, 4, 256, 9216, 256**-0.5),
    "gemma2_9b": GemmaConfig(42, 3584, 16, 8, 256, 14336, 256**-0.5),
    "gemma2_27b": GemmaConfig(46, 4608, 32, 16, 128, 36864, 144**-0.5),
    # For laptops; the vocabulary is that of the task.
    "nano": GemmaConfig(3, 64, 4, 2, 16, 192, 16**-0.5, vocab_size=512, window=512),
    "micro": GemmaConfig(3, 96, 4, 2, 24, 288, 24**-0.5, vocab_size=512, window=512),
    "mini": GemmaConfig(4, 128, 4, 2, 32, 384, 32**-0.5, vocab_size=512, window=512),
}


class Cache(NamedTuple):
  """Keys and values of what each row has read; slot i holds the token at position i.

  keys_ybgle, values_ybgle: (layers, rows, kv heads, slots, head width).
  length_b: int32, how many slots of a row count. Slots at or beyond it are
  never attended to, so shortening `length_b` rewinds a row for free.
  """

  keys_ybgle: jax.Array
  values_ybgle: jax.Array
  length_b: jax.Array


class RMSNorm(nn.Module):
  param_dtype: str

  @nn.compact
  def __call__(self, x_btd):
    scale_d = self.param("scale", nn.initializers.zeros, (x_btd.shape[-1],), self.param_dtype)
    x32_btd = x_btd.astype(jnp.float32)
    x32_btd *= jax.lax.rsqrt(jnp.mean(x32_btd**2, axis=-1, keepdims=True) + 1e-6)
    return (x32_btd * (1 + scale_d.astype(jnp.float32))).astype(x_btd.dtype)


def _rotate(x_bthe, position_bt):
  """Rotary embedding, base 10,000, halves paired (not neighbours); angles in float32."""
  half = x_bthe.shape[-1] // 2
  timescale_e = 10_000.0 ** (jnp.arange(half, dtype=jnp.float32) / half)
  angle_bt1e = position_bt[:, :, None, None] / timescale_e
  sin_bt1e, cos_bt1e = jnp.sin(angle_bt1e), jnp.cos(angle_bt1e)
  first, second = jnp.split(x_bthe.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos_bt1e - second * sin_bt1e, second * cos_bt1e + first * sin_bt1e)
  return jnp.concatenate(rotated, axis=-1).astype(x_bthe.dtype)


def softcap(x, cap: float):
  """cap * tanh(x / cap): the identity near 0, bounded by +-cap."""
  return cap * jnp.tanh(x / cap)


class Attention(nn.Module):
  config: GemmaConfig

  @nn.compact
  def __call__(self, x_btd, position_bt, layer, pair):
    c = self.config
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-3, out_axis=(-2, -1))
    query_dhe = self.param("query", init, (c.width, c.num_heads, c.head_width), c.param_dtype)
    key_value_2dge = self.param(
        "key_value", nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=-3, out_axis=(-2, -1), batch_axis=(0,)),
        (2, c.width, c.num_kv_heads, c.head_width), c.param_dtype)
    out_hed = self.param(
        "out", nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(-3, -2), out_axis=-1),
        (c.num_heads, c.head_width, c.width), c.param_dtype)

    q_bthe = jnp.einsum("btd,dhe->bthe", x_btd, query_dhe.astype(c.dtype))
    key_dge, value_dge = key_value_2dge.astype(c.dtype)
    k_btge = jnp.einsum("btd,dge->btge", x_btd, key_dge)
    v_btge = jnp.einsum("btd,dge->btge", x_btd, value_dge)
    q_bthe = _rotate(q_bthe, position_bt) * c.query_scale
    k_btge = _rotate(k_btge, position_bt)
    k_bgle, v_bgle = jnp.swapaxes(k_btge, 1, 2), jnp.swapaxes(v_btge, 1, 2)
    if pair is None:
      slot_bl, pair = position_bt, (k_bgle, v_bgle)
    else:
      # Only the new tokens are written, into the one buffer that all layers share: as a carry of
      # the scan it is updated in place. A position beyond the slots (padding) is dropped.
      row_b11 = jnp.arange(x_btd.shape[0])[:, None, None]
      head_1g1 = jnp.arange(c.num_kv_heads)[None, :, None]
      where = (layer, row_b11, head_1g1, position_bt[:, None, :])
      pair = (pair[0].at[where].set(k_bgle, mode="drop"), pair[1].at[where].set(v_bgle, mode="drop"))
      k_bgle, v_bgle = (jax.lax.dynamic_index_in_dim(x_ybgle, layer, keepdims=False) for x_ybgle in pair)
      slot_bl = jnp.arange(k_bgle.shape[2])[None, :]
    is_local = layer % 2 == 0

    # Queries are put in the order of the products first: a CPU multiplies other orders one by one.
    q_btgHe = q_bthe.reshape(*q_bthe.shape[:2], c.num_kv_heads, -1, c.head_width)
    q_bgHte = jnp.transpose(q_btgHe, (0, 2, 3, 1, 4))
    logit_bgHtl = jnp.einsum("bgHte,bgle->bgHtl", q_bgHte, k_bgle, preferred_element_type=jnp.float32)
    logit_bgHtl = softcap(logit_bgHtl, c.attention_cap)
    distance_btl = position_bt[:, :, None] - slot_bl[:, None, :]
    seen_btl = (distance_btl >= 0) & (~is_local | (distance_btl < c.window))
    logit_bgHtl = jnp.where(seen_btl[:, None, None], logit_bgHtl, _MASKED)
    weight_bgHtl = jax.nn.softmax(logit_bgHtl, axis=-1).astype(c.dtype)
    mixed_bgHte = jnp.einsum("bgHtl,bgle->bgHte", weight_bgHtl, v_bgle)
    mixed_bthe = jnp.transpose(mixed_bgHte, (0, 3, 1, 2, 4)).reshape(*q_bthe.shape)
    return jnp.einsum("bthe,hed->btd", mixed_bthe, out_hed.astype(c.dtype)), pair


class FeedForward(nn.Module):
  config: GemmaConfig

  @nn.compact
  def __call__(self, x_btd):
    c = self.config
    gate_up_2df = self.param(
        "gate_up", nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=-2, out_axis=-1, batch_axis=(0,)),
        (2, c.width, c.ffn_width), c.param_dtype)
    down_fd = self.param(
        "down", nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
        (c.ffn_width, c.width), c.param_dtype)
    gate_df, up_df = gate_up_2df.astype(c.dtype)
    gate_btf, up_btf = x_btd @ gate_df, x_btd @ up_df
    return jnp.einsum("btf,fd->btd", nn.gelu(gate_btf) * up_btf, down_fd.astype(c.dtype))


class Block(nn.Module):
  """One layer: attention and feed-forward, each between two norms; the carry is x and the whole cache.

  Without a cache its output is what it adds to one, where `keep` asks for it.
  """

  config: GemmaConfig
  keep: bool

  @nn.compact
  def __call__(self, carry, position_bt, layer):
    x_btd, pair = carry
    norm = lambda name: RMSNorm(self.config.param_dtype, name=name)
    attended_btd, seen = Attention(self.config, name="attention")(
        norm("pre_attention_norm")(x_btd), position_bt, layer, pair)
    x_btd += norm("post_attention_norm")(attended_btd)
    fed_btd = FeedForward(self.config, name="ffn")(norm("pre_ffn_norm")(x_btd))
    x_btd += norm("post_ffn_norm")(fed_btd)
    if pair is None:
      return (x_btd, None), seen if self.keep else None
    return (x_btd, seen), None


class Gemma(nn.Module):
  """Tokens to final hidden states; what is read off them is in `logits`, `scores`."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, token_bt, cache: Cache | None = None, valid_bt=None, *, keep: bool = False):
    """Hidden states (b, t, d) after the final norm, and the grown cache.

    token_bt: int32, right-padded. Without a cache, row i starts at position
    0 and padding needs no mask: nothing real looks to its right; `keep` gives
    the keys and values (y, b, g, t, e) in the place of a cache. With a cache,
    the valid tokens (a prefix of each row of valid_bt) are appended.
    """
    c = self.config
    embedding_vd = self.param(
        "embedding", nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2),
        (c.vocab_size, c.width), c.param_dtype)
    x_btd = embedding_vd[token_bt].astype(c.dtype) * jnp.asarray(c.width**0.5, c.dtype)
    position_bt = jnp.broadcast_to(jnp.arange(token_bt.shape[1])[None], token_bt.shape)
    if cache is not None:
      slots = cache.keys_ybgle.shape[3]
      position_bt = jnp.where(valid_bt, position_bt + cache.length_b[:, None], slots)
    layers = nn.scan(
        nn.remat(Block, prevent_cse=False), variable_axes={"params": 0}, split_rngs={"params": True},
        in_axes=(nn.broadcast, 0), length=c.num_layers)(c, keep, name="layers")
    pair = None if cache is None else (cache.keys_ybgle, cache.values_ybgle)
    (x_btd, pair), kept = layers((x_btd, pair), position_bt, jnp.arange(c.num_layers))
    hidden_btd = RMSNorm(c.param_dtype, name="final_norm")(x_btd)
    if cache is None:
      return hidden_btd, kept
    return hidden_btd, Cache(*pair, cache.length_b + valid_bt.sum(axis=1, dtype=jnp.int32))


def logits(config: GemmaConfig, params, hidden_btd) -> jax.Array:
  """float32 logits over the vocabulary, soft-capped; any leading axes."""
  product = jnp.einsum("...d,vd->...v", hidden_btd, params["embedding"].astype(config.dtype),
                       preferred_element_type=jnp.float32)
  return softcap(product, config.logit_cap)


def scores(config: GemmaConfig, params, hidden_btd, scoring_id: int) -> jax.Array:
  """float32 logit of the scoring token at every position: one row of the embedding (App. D)."""
  row_d = params["embedding"][scoring_id].astype(jnp.float32)
  return softcap(jnp.einsum("...d,d->...", hidden_btd.astype(jnp.float32), row_d), config.logit_cap)


def target_log_probs(config: GemmaConfig, params, hidden_btd, target_bt, chunk: int) -> jax.Array:
  """log p(target) in float32, (b, t), without ever holding (b, t, vocabulary).

  The time axis is cut into pieces of `chunk` tokens; each piece's logits are
  computed, reduced, and recomputed in the backward pass. t is padded up to a
  multiple of chunk inside.
  """
  b, t = target_bt.shape
  pad = -t % chunk
  hidden_btd = jnp.pad(hidden_btd, ((0, 0), (0, pad), (0, 0)))
  target_bt = jnp.pad(target_bt, ((0, 0), (0, pad)))

  @jax.checkpoint
  def piece(_, x):
    hidden_bcd, target_bc = x
    logit_bcv = logits(config, params, hidden_bcd)
    picked_bc = jnp.take_along_axis(logit_bcv, target_bc[..., None], axis=-1)[..., 0]
    return None, picked_bc - jax.nn.logsumexp(logit_bcv, axis=-1)

  split = lambda x: jnp.moveaxis(x.reshape(b, (t + pad) // chunk, chunk, *x.shape[2:]), 1, 0)
  _, log_prob_xbc = jax.lax.scan(piece, None, (split(hidden_btd), split(target_bt)))
  return jnp.moveaxis(log_prob_xbc, 0, 1).reshape(b, t + pad)[:, :t]


def num_params(config: GemmaConfig) -> tuple[int, int]:
  """(parameters of the embedding, parameters of everything else)."""
  c = config
  attention = c.width * c.head_width * (2 * c.num_heads + 2 * c.num_kv_heads)
  layer = attention + 3 * c.width * c.ffn_width + 4 * c.width
  return c.vocab_size * c.width, c.num_layers * layer + c.width


def forward_flops(config: GemmaConfig, start, stop, logit_count=0):
  """FLOPs of reading positions [start, stop) with everything before them cached.

  Two per parameter and token in the layers; 4 * heads * head width per pair of
  query and visible key; 2 * vocabulary * width for each of logit_count
  positions whose logits are computed. start, stop, logit_count: numbers or
  numpy arrays; the arithmetic is exact, padding does not count.
  """
  c = config
  token_flops = 2 * (num_params(c)[1] - c.width - 4 * c.width * c.num_layers)
  whole = lambda n: n * (n + 1) // 2  # keys seen by positions 0 .. n - 1 without a window
  def windowed(n):
    beyond = n * (n > c.window) - c.window * (n > c.window)
    return whole(n) - whole(beyond)
  local, everywhere = (c.num_layers + 1) // 2, c.num_layers // 2
  pairs = local * (windowed(stop) - windowed(start)) + everywhere * (whole(stop) - whole(start))
  return ((stop - start) * token_flops + 4 * c.num_heads * c.head_width * pairs
          + 2 * c.vocab_size * c.width * logit_count)
