"""Gemma 2 and 3 (text) in Flax: layers scanned and rematerialised, float32 where rounding hurts.

`Gemma` reads whole, right-padded rows in training, on a mesh in the way of
`shares.py`. Decoding runs the same layers one by one: `read` begins a cache
with whole rows, `extend` appends tokens to what it holds (`decoding.py`).
Norms, rotary angles, softmax and logits are computed in float32 whatever the
parameters' type: in bfloat16 the spacing of numbers near 21 is 0.125, too
coarse for log-ratios.

Sources: Gemma 2 (arXiv 2408.00118), Gemma 3 (arXiv 2503.19786); checked
against the gemma library in tests/models/test_gemma.py.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from pav_jax.models import attention
from pav_jax.models import decoding
from pav_jax.models import shares


@dataclasses.dataclass(frozen=True)
class GemmaConfig:
  """The shape of one Gemma network; `SIZES` holds the official ones. What is set by default is Gemma 2's.

  query_scale is what queries are multiplied by; window is the reach, in
  tokens, of local attention, the token itself counted. Layers come in periods:
  local_per_global local ones, then one that sees everything; the last period
  may be cut short. attention_cap and logit_cap: soft caps, 0 for none.
  qk_norm: queries and keys are normed over the head, before the rotation.
  local_rope_base, global_rope_base: of the rotary angles; positions are
  divided by global_rope_scale in global layers. score_shift is taken off every
  score (see verifiers/targets.py).
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
  qk_norm: bool = False
  local_per_global: int = 1
  local_rope_base: float = 10_000.0
  global_rope_base: float = 10_000.0
  global_rope_scale: float = 1.0

  def is_local(self, layer):
    """Whether a layer, counted from 0, sees its window alone."""
    return layer % (self.local_per_global + 1) < self.local_per_global

  @property
  def num_local_layers(self) -> int:
    """How many layers see their window alone."""
    return sum(self.is_local(layer) for layer in range(self.num_layers))


def _gemma3(*shape, window: int, global_rope_scale: float) -> GemmaConfig:
  return GemmaConfig(*shape, vocab_size=262_144, window=window, attention_cap=0.0, logit_cap=0.0, qk_norm=True,
                     local_per_global=5, global_rope_base=1_000_000.0, global_rope_scale=global_rope_scale)


SIZES = {
    "gemma2_2b": GemmaConfig(26, 2304, 8, 4, 256, 9216, 256**-0.5),
    "gemma2_9b": GemmaConfig(42, 3584, 16, 8, 256, 14336, 256**-0.5),
    "gemma2_27b": GemmaConfig(46, 4608, 32, 16, 128, 36864, 144**-0.5),
    "gemma3_270m": _gemma3(18, 640, 4, 1, 256, 2048, 256**-0.5, window=512, global_rope_scale=1.0),
    "gemma3_1b": _gemma3(26, 1152, 4, 1, 256, 6912, 256**-0.5, window=512, global_rope_scale=1.0),
    "gemma3_4b": _gemma3(34, 2560, 8, 4, 256, 10240, 256**-0.5, window=1024, global_rope_scale=8.0),
    "gemma3_12b": _gemma3(48, 3840, 16, 8, 256, 15360, 256**-0.5, window=1024, global_rope_scale=8.0),
    "gemma3_27b": _gemma3(62, 5376, 32, 16, 128, 21504, 168**-0.5, window=1024, global_rope_scale=8.0),
    # For laptops; the vocabulary is that of the task.
    "nano": GemmaConfig(3, 64, 4, 2, 16, 192, 16**-0.5, vocab_size=512, window=512),
    "micro": GemmaConfig(3, 96, 4, 2, 24, 288, 24**-0.5, vocab_size=512, window=512),
    "mini": GemmaConfig(4, 128, 4, 2, 32, 384, 32**-0.5, vocab_size=512, window=512),
}


# How a layer's weights are cut: widths over fsdp, heads and feed-forward over model.
CUTS = {
    "query": P("fsdp", "model", None),
    "key_value": P(None, "fsdp", "model", None),
    "out": P("model", None, "fsdp"),
    "gate_up": P(None, "fsdp", "model"),
    "down": P("model", "fsdp"),
}


class _Scale(nn.Module):
  """A norm's scale, less 1."""

  param_dtype: str

  @nn.compact
  def __call__(self, width: int):
    return self.param("scale", nn.initializers.zeros, (width,), self.param_dtype)


class RMSNorm(nn.Module):
  param_dtype: str

  @nn.compact
  def __call__(self, x_btd):
    scale_d = self.param("scale", nn.initializers.zeros, (x_btd.shape[-1],), self.param_dtype)
    return _normed(x_btd, scale_d)


def _normed(x_btd, scale_d):
  """The vectors of the last axis, divided by their root mean square, times 1 + scale; in float32."""
  x32_btd = x_btd.astype(jnp.float32)
  x32_btd *= jax.lax.rsqrt(jnp.mean(x32_btd**2, axis=-1, keepdims=True) + 1e-6)
  return (x32_btd * (1 + scale_d.astype(jnp.float32))).astype(x_btd.dtype)


def _timescale(config: GemmaConfig, is_local) -> jax.Array:
  """What positions are divided by to give the rotary angles of a layer (e / 2), float32."""
  c = config
  power_e = jnp.arange(c.head_width // 2, dtype=jnp.float32) / (c.head_width // 2)
  local_e, global_e = c.local_rope_base**power_e, c.global_rope_scale * c.global_rope_base**power_e
  one = (c.global_rope_base, c.global_rope_scale) == (c.local_rope_base, 1)  # spelt out, a choice between equals would cost Gemma 2's last bits
  return local_e if one else jnp.where(is_local, local_e, global_e)


def _rotate(x_bthe, position_bt, timescale_e):
  """Rotary embedding, halves paired (not neighbours); angles in float32."""
  angle_bt1e = position_bt[:, :, None, None] / timescale_e
  sin_bt1e, cos_bt1e = jnp.sin(angle_bt1e), jnp.cos(angle_bt1e)
  first, second = jnp.split(x_bthe.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos_bt1e - second * sin_bt1e, second * cos_bt1e + first * sin_bt1e)
  return jnp.concatenate(rotated, axis=-1).astype(x_bthe.dtype)


class Attention(nn.Module):
  config: GemmaConfig

  @nn.compact
  def __call__(self, x_btd, position_bt, layer, past):
    """(b, t, d) attended, and the keys and values of these tokens, or the suffixes with them written in.

    Without a past the rows are whole and see themselves.
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
    # Of queries, of keys.
    scales = [_Scale(c.param_dtype, name=name)(c.head_width) for name in ("query_norm", "key_norm")] if c.qk_norm else []

    def attend(x_btd, query_dhe, key_value_2dge, out_hed, *rest):
      *scales, position_bt, is_local = rest
      q_bthe = jnp.einsum("btd,dhe->bthe", x_btd, query_dhe)
      k_btge, v_btge = (jnp.einsum("btd,dge->btge", x_btd, weight_dge) for weight_dge in key_value_2dge)
      if scales:
        q_bthe, k_btge = _normed(q_bthe, scales[0]), _normed(k_btge, scales[1])
      timescale_e = _timescale(c, is_local)
      q_bthe = _rotate(q_bthe, position_bt, timescale_e) * c.query_scale
      k_btge = _rotate(k_btge, position_bt, timescale_e)
      if past is None:
        mixed_bthe, kept = attention.whole(q_bthe, k_btge, v_btge, position_bt, is_local, window=c.window, cap=c.attention_cap)
      else:
        mixed_bthe, kept = attention.past(past, q_bthe, k_btge, v_btge, is_local, cap=c.attention_cap)
      return jnp.einsum("bthe,hed->btd", mixed_bthe, out_hed), kept
    weights, cuts = [x.astype(c.dtype) for x in (query_dhe, key_value_2dge, out_hed)], [CUTS[name] for name in ("query", "key_value", "out")]
    attended_btd, kept = shares.in_shares(attend, x_btd, weights + scales, cuts + [P(None)] * len(scales), position_bt, c.is_local(layer))
    if past is None:  # whose one head may come several times
      kept = jax.tree.map(lambda x_bgle: x_bgle[:, :c.num_kv_heads], kept)
    return attended_btd, kept


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
    def feed(x_btd, gate_up_2df, down_fd):
      gate_btf, up_btf = (x_btd @ weight_df for weight_df in gate_up_2df)
      return jnp.einsum("btf,fd->btd", nn.gelu(gate_btf) * up_btf, down_fd), ()
    weights = [x.astype(c.dtype) for x in (gate_up_2df, down_fd)]
    return shares.in_shares(feed, x_btd, weights, [CUTS[name] for name in ("gate_up", "down")])[0]


class Block(nn.Module):
  """One layer: attention and feed-forward, each between two norms; and its keys and values (see Attention)."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, x_btd, position_bt, layer, past=None):
    if past is None:
      x_btd = shares.constrain_rows(x_btd)
    norm = lambda name: RMSNorm(self.config.param_dtype, name=name)
    attended_btd, kept = Attention(self.config, name="attention")(
        norm("pre_attention_norm")(x_btd), position_bt, layer, past)
    x_btd += norm("post_attention_norm")(attended_btd)
    fed_btd = FeedForward(self.config, name="ffn")(norm("pre_ffn_norm")(x_btd))
    x_btd += norm("post_ffn_norm")(fed_btd)
    return x_btd, kept


def _embed(config: GemmaConfig, embedding_vd, token_bt) -> jax.Array:
  return shares.looked_up(embedding_vd, token_bt, config.dtype) * jnp.asarray(config.width**0.5, config.dtype)


class Gemma(nn.Module):
  """Tokens to final hidden states; what is read off them is in readout.py."""

  config: GemmaConfig

  @nn.compact
  def __call__(self, token_bt):
    """Hidden states (b, t, d) after the final norm.

    token_bt: int32, right-padded. Padding needs no mask: nothing real looks to its right.
    """
    c = self.config
    embedding_vd = self.param(
        "embedding", nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2),
        (c.vocab_size, c.width), c.param_dtype)
    layers = nn.scan(
        nn.remat(Block, prevent_cse=False), variable_axes={"params": 0}, split_rngs={"params": True},
        in_axes=(nn.broadcast, 0), length=c.num_layers)(c, name="layers")
    x_btd, _ = layers(_embed(c, embedding_vd, token_bt), _positions(token_bt), jnp.arange(c.num_layers))
    return RMSNorm(c.param_dtype, name="final_norm")(shares.constrain_rows(x_btd))


def _positions(token_bt) -> jax.Array:
  return jnp.broadcast_to(jnp.arange(token_bt.shape[1])[None], token_bt.shape)


def computed(config: GemmaConfig, params, scoring: bool = False) -> dict:
  """The parameters as `read` and `extend` take them: in the type they are computed with, a list of layers instead of a stack.

  The type gives the same numbers: norms' scales stay float32, so does the
  embedding for `scoring`, whose logit is read in float32. The list, because a
  layer of a stack is copied before it is read; made inside of a decoding
  program, it would be a second copy of all weights.
  """
  def cast(path, x):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return x if name.endswith("scale") or scoring and name == "embedding" else x.astype(config.dtype)
  if config.dtype != config.param_dtype:
    params = jax.tree_util.tree_map_with_path(cast, params)
  return {**params, "layers": [jax.tree.map(lambda x: x[y], params["layers"]) for y in range(config.num_layers)]}


def read(config: GemmaConfig, params, token_bt) -> tuple[jax.Array, decoding.Prefix]:
  """What `Gemma` gives, and the rows' keys and values. params: `computed`."""
  x_btd, kept, position_bt = _embed(config, params["embedding"], token_bt), [], _positions(token_bt)
  for y, weights in enumerate(params["layers"]):
    x_btd, pair = Block(config).apply({"params": weights}, x_btd, position_bt, jnp.int32(y))
    cut = config.is_local(y) and token_bt.shape[1] > config.window
    kept.append([decoding.in_blocks(x, axis) if cut else (x,) for x, axis in zip(pair, (3, 2))])
  hidden_btd = RMSNorm(config.param_dtype).apply({"params": params["final_norm"]}, x_btd)
  return hidden_btd, decoding.Prefix(*zip(*kept))


def extend(config: GemmaConfig, params, cache: decoding.Cache, token_bt, valid_bt) -> tuple[jax.Array, decoding.Cache]:
  """Hidden states (b, t, d) of tokens appended to the cache's suffixes, and the grown cache.

  params: `computed`. valid_bt: bool, the tokens that are there, a prefix of each row.
  """
  position_bt = cache.length_b[:, None] + jnp.arange(token_bt.shape[1])[None]
  view, grown = decoding.look(cache, position_bt, valid_bt, config.window)
  x_btd, suffixes = _embed(config, params["embedding"], token_bt), []
  for y, weights in enumerate(params["layers"]):
    past = decoding.Past((cache.prefix.keys_ywigel[y], cache.prefix.values_ywigle[y]),
                         (cache.keys_ywbgel[y], cache.values_ywbgle[y]), view)
    x_btd, kept = Block(config).apply({"params": weights}, x_btd, position_bt, y, past)
    suffixes.append(kept)
  keys_ywbgel, values_ywbgle = zip(*suffixes)
  hidden_btd = RMSNorm(config.param_dtype).apply({"params": params["final_norm"]}, x_btd)
  return hidden_btd, grown._replace(keys_ywbgel=keys_ywbgel, values_ywbgle=values_ywbgle)
