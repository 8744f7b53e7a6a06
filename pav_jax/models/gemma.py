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
  tokens, of the local attention of layers 0, 2, 4, ...; score_shift is taken
  off every score (see verifiers/targets.py).
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
  score_shift: float = 0.0


SIZES = {
    "gemma2_2b": GemmaConfig(26, 2304, 8, 4, 256, 9216, 256**-0.5),
    "gemma2_9b": GemmaConfig(42, 3584, 16, 8, 256, 14336, 256**-0.5),
    "gemma2_27b": GemmaConfig(46, 4608, 32, 16, 128, 36864, 144**-0.5),
    # For laptops; the vocabulary is that of the task.
    "nano": GemmaConfig(3, 64, 4, 2, 16, 192, 16**-0.5, vocab_size=512, window=512),
    "micro": GemmaConfig(3, 96, 4, 2, 24, 288, 24**-0.5, vocab_size=512, window=512),
    "mini": GemmaConfig(4, 128, 4, 2, 32, 384, 32**-0.5, vocab_size=512, window=512),
}


class Prefix(NamedTuple):
  """Keys and values of whole rows, read once; slot i holds the token at position i.

  keys_yigle, values_yigle: (layers, sources, kv heads, slots, head width).
  """

  keys_yigle: jax.Array
  values_yigle: jax.Array


class Cache(NamedTuple):
  """What rows attend to: the prefix of their source, stored once for all of its rows, and a suffix of their own.

  Row b = source i * r + r-th row of it. It sees the first cut_b slots of its
  source's prefix, and those slots of its suffix whose position_bl is not -1.
  keys_yigrle, values_yigrle: (layers, sources, kv heads, rows of a source,
  slots, head width): the suffixes. All rows write the same slot at the same
  time, number `clock` modulo the slots, so that writing is one contiguous
  update and no scatter; a row that has nothing to write leaves -1 there. A
  token is overwritten when as many slots as there are have been written
  after it: who extends sees to it that a row's own are not. length_b: tokens
  a row has read, prefix included: the position of its next one.
  """

  prefix: Prefix
  cut_b: jax.Array
  keys_yigrle: jax.Array
  values_yigrle: jax.Array
  position_bl: jax.Array
  clock: jax.Array
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
  def __call__(self, x_btd, position_bt, layer, suffixes, prefix, view):
    """(b, t, d) attended, and the keys and values of these tokens, or the suffixes with them written in.

    Without suffixes the rows are whole and see themselves. prefix: this layer's; view: `_View` of the cache.
    """
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
    reach = jnp.where(layer % 2 == 0, c.window, jnp.iinfo(jnp.int32).max)  # even layers are local

    def weigh(logit_xtl, seen_xtl):
      logit_xtl = jnp.where(seen_xtl, softcap(logit_xtl, c.attention_cap), _MASKED)
      return jax.nn.softmax(logit_xtl, axis=-1).astype(c.dtype)

    # Queries are put in the order of the products first: a CPU multiplies other orders one by one.
    if suffixes is None:
      k_bgle, v_bgle = jnp.swapaxes(k_btge, 1, 2), jnp.swapaxes(v_btge, 1, 2)
      q_btgHe = q_bthe.reshape(*q_bthe.shape[:2], c.num_kv_heads, -1, c.head_width)
      q_bgHte = jnp.transpose(q_btgHe, (0, 2, 3, 1, 4))
      logit_bgHtl = jnp.einsum("bgHte,bgle->bgHtl", q_bgHte, k_bgle, preferred_element_type=jnp.float32)
      distance_btl = position_bt[:, :, None] - position_bt[:, None, :]
      seen_btl = (distance_btl >= 0) & (distance_btl < reach)
      weight_bgHtl = weigh(logit_bgHtl, seen_btl[:, None, None])
      mixed_bgHte = jnp.einsum("bgHtl,bgle->bgHte", weight_bgHtl, v_bgle)
      mixed_bthe = jnp.transpose(mixed_bgHte, (0, 3, 1, 2, 4)).reshape(*q_bthe.shape)
      kept = (k_bgle, v_bgle)
    else:
      # Of one source: its rows' queries meet the prefix in one product, and each its own suffix.
      sources, times = prefix[0].shape[0], x_btd.shape[1]
      by_source = lambda x_btge: jnp.transpose(
          x_btge.reshape(sources, -1, times, *x_btge.shape[2:]), (0, 3, 1, 2, 4))  # i g r t e
      kept = tuple(view.write(x_yigrle, by_source(x_btge), layer) for x_yigrle, x_btge in zip(suffixes, (k_btge, v_btge)))
      k_igrle, v_igrle = (jax.lax.dynamic_index_in_dim(x_yigrle, layer, keepdims=False) for x_yigrle in kept)
      k_igle, v_igle = prefix
      q_irtgHe = q_bthe.reshape(sources, -1, times, c.num_kv_heads, c.num_heads // c.num_kv_heads, c.head_width)
      q_igrqe = jnp.transpose(q_irtgHe, (0, 3, 1, 4, 2, 5)).reshape(
          sources, c.num_kv_heads, q_irtgHe.shape[1], -1, c.head_width)  # q: query heads of a group, times t
      flat = lambda x_igrqe: x_igrqe.reshape(*x_igrqe.shape[:2], -1, x_igrqe.shape[-1])
      shared_igrql = jnp.einsum("igqe,igle->igql", flat(q_igrqe), k_igle, preferred_element_type=jnp.float32).reshape(
          *q_igrqe.shape[:4], -1)
      own_igrql = jnp.einsum("igrqe,igrle->igrql", q_igrqe, k_igrle, preferred_element_type=jnp.float32)
      seen_btl = view.seen_btl & (position_bt[:, :, None] - view.at_bl[:, None, :] < reach)
      seen_i1r1tl = seen_btl.reshape(sources, 1, -1, 1, times, seen_btl.shape[-1])
      logit_igrql = jnp.concatenate([shared_igrql, own_igrql], axis=-1)
      logit_igrHtl = logit_igrql.reshape(*q_igrqe.shape[:3], -1, times, logit_igrql.shape[-1])
      weight_igrql = weigh(logit_igrHtl, seen_i1r1tl).reshape(logit_igrql.shape)
      shared_igrql, own_igrql = jnp.split(weight_igrql, [k_igle.shape[2]], axis=-1)
      mixed_igrqe = (jnp.einsum("igql,igle->igqe", flat(shared_igrql), v_igle).reshape(q_igrqe.shape)
                     + jnp.einsum("igrql,igrle->igrqe", own_igrql, v_igrle))
      mixed_igrHte = mixed_igrqe.reshape(*q_igrqe.shape[:3], -1, times, c.head_width)
      mixed_bthe = jnp.transpose(mixed_igrHte, (0, 2, 4, 1, 3, 5)).reshape(*q_bthe.shape)
    return jnp.einsum("bthe,hed->btd", mixed_bthe, out_hed.astype(c.dtype)), kept


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
  """One layer: attention and feed-forward, each between two norms; the carry is x and all layers' suffixes.

  Without a cache its output is the keys and values it would add to one, where `keep` asks for it.
  """

  config: GemmaConfig
  keep: bool

  @nn.compact
  def __call__(self, carry, position_bt, view, layer, prefix):
    x_btd, suffixes = carry
    norm = lambda name: RMSNorm(self.config.param_dtype, name=name)
    attended_btd, kept = Attention(self.config, name="attention")(
        norm("pre_attention_norm")(x_btd), position_bt, layer, suffixes, prefix, view)
    x_btd += norm("post_attention_norm")(attended_btd)
    fed_btd = FeedForward(self.config, name="ffn")(norm("pre_ffn_norm")(x_btd))
    x_btd += norm("post_ffn_norm")(fed_btd)
    if suffixes is None:
      return (x_btd, None), kept if self.keep else None
    return (x_btd, kept), None


class _View(NamedTuple):
  """What all layers of one call share: the position of every slot of prefix and suffix, who sees it, where to write."""

  at_bl: jax.Array
  seen_btl: jax.Array
  slot_t: jax.Array

  def write(self, x_yigrle, new_igrte, layer):
    """The new tokens in their slots of this layer; in place, since the suffixes are a carry of the scan."""
    if len(self.slot_t) == 1:
      return jax.lax.dynamic_update_slice(x_yigrle, new_igrte[None], (layer, 0, 0, 0, self.slot_t[0], 0))
    return x_yigrle.at[layer, :, :, :, self.slot_t].set(jnp.moveaxis(new_igrte, 3, 0))


def _look(cache: Cache, position_bt, valid_bt) -> tuple[_View, Cache]:
  """The view of the cache with these tokens appended, and the cache's book-keeping after them."""
  (_, _, _, _, slots, _), times = cache.keys_yigrle.shape, position_bt.shape[1]
  if times > slots:
    raise ValueError(f"{times} tokens at once do not fit into a suffix of {slots} slots")
  slot_t = (cache.clock + jnp.arange(times)) % slots
  position_bl = cache.position_bl.at[:, slot_t].set(jnp.where(valid_bt, position_bt, -1))
  prefix_bl = jnp.broadcast_to(jnp.arange(cache.prefix.keys_yigle.shape[3]), (len(position_bl), cache.prefix.keys_yigle.shape[3]))
  there_bl = jnp.concatenate([prefix_bl < cache.cut_b[:, None], position_bl >= 0], axis=1)
  at_bl = jnp.concatenate([prefix_bl, position_bl], axis=1)
  seen_btl = there_bl[:, None, :] & (at_bl[:, None, :] <= position_bt[:, :, None])
  grown = cache._replace(position_bl=position_bl, clock=cache.clock + times,
                         length_b=cache.length_b + valid_bt.sum(axis=1, dtype=jnp.int32))
  return _View(at_bl, seen_btl, slot_t), grown


class Gemma(nn.Module):
  """Tokens to final hidden states; what is read off them is in `logits`, `scores`."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, token_bt, cache: Cache | None = None, valid_bt=None, *, keep: bool = False):
    """Hidden states (b, t, d) after the final norm, and the prefix or the grown cache.

    token_bt: int32, right-padded. Without a cache, row i starts at position
    0 and padding needs no mask: nothing real looks to its right; `keep` gives
    the rows' keys and values as a Prefix. With a cache, the valid tokens (a
    prefix of each row of valid_bt) are appended to the suffixes.
    """
    c = self.config
    embedding_vd = self.param(
        "embedding", nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2),
        (c.vocab_size, c.width), c.param_dtype)
    x_btd = embedding_vd[token_bt].astype(c.dtype) * jnp.asarray(c.width**0.5, c.dtype)
    position_bt = jnp.broadcast_to(jnp.arange(token_bt.shape[1])[None], token_bt.shape)
    suffixes = prefix = view = None
    if cache is not None:
      position_bt += cache.length_b[:, None]
      prefix, suffixes = tuple(cache.prefix), (cache.keys_yigrle, cache.values_yigrle)
      view, cache = _look(cache, position_bt, valid_bt)
    layers = nn.scan(
        nn.remat(Block, prevent_cse=False), variable_axes={"params": 0}, split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, 0, 0), length=c.num_layers)(c, keep, name="layers")
    (x_btd, suffixes), kept = layers((x_btd, suffixes), position_bt, view, jnp.arange(c.num_layers), prefix)
    hidden_btd = RMSNorm(c.param_dtype, name="final_norm")(x_btd)
    if cache is None:
      return hidden_btd, Prefix(*kept) if keep else None
    return hidden_btd, cache._replace(keys_yigrle=suffixes[0], values_yigrle=suffixes[1])


def logits(config: GemmaConfig, params, hidden_btd) -> jax.Array:
  """float32 logits over the vocabulary, soft-capped; any leading axes."""
  product = jnp.einsum("...d,vd->...v", hidden_btd, params["embedding"].astype(config.dtype),
                       preferred_element_type=jnp.float32)
  return softcap(product, config.logit_cap)


def scores(config: GemmaConfig, params, hidden_btd, scoring_id: int) -> jax.Array:
  """float32 logit of the scoring token at every position: one row of the embedding (App. D); less the shift."""
  row_d = params["embedding"][scoring_id].astype(jnp.float32)
  capped = softcap(jnp.einsum("...d,d->...", hidden_btd.astype(jnp.float32), row_d), config.logit_cap)
  return capped - config.score_shift


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
