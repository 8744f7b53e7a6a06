"""Official checkpoints: orbax, one entry per layer and module, under flat names (as published) or nested ones (as gm saves).

`transformer/layer_0/attn/q_einsum` -> {"w"}. gating_einsum is (2, d, f) in
Gemma 2 2B and (2, f, d) in all others: reading goes by the shape found;
writing, and reading where d = f leaves the shape mute, by `transposed_gating`.
"""

import dataclasses
import functools
import os

import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models.formats import names
from pav_jax.training import checkpoint
from pav_jax.training import files as files_lib

_GATING = "layer_0/mlp/gating_einsum/w"
# Images, which text does without.
_OTHERS = ("SigLiPFromPatches_0/", "vision_encoder/", "embedder/mm_", "embedder/audio_")


def transposed_gating(config: gemma.GemmaConfig) -> bool:
  """Whether gating_einsum is written (2, f, d), as published."""
  return config.qk_norm or config.width > gemma.SIZES["gemma2_2b"].width


def table(transposed: bool) -> names.Table:
  """The format's table, for either order of gating's axes."""
  return names.Table("layer_{}/", {
      "embedding": ("embedder/input_embedding", "v d"),
      "final_norm/scale": ("final_norm/scale", "d"),
      "layers/attention/query": ("attn/q_einsum/w", "h d e"),
      "layers/attention/key_value": ("attn/kv_einsum/w", "2 g d e"),
      "layers/attention/out": ("attn/attn_vec_einsum/w", "h e d"),
      "layers/attention/query_norm/scale": ("attn/_query_norm/scale", "e"),
      "layers/attention/key_norm/scale": ("attn/_key_norm/scale", "e"),
      "layers/ffn/gate_up": ("mlp/gating_einsum/w", "2 f d" if transposed else "2 d f"),
      "layers/ffn/down": ("mlp/linear/w", "f d"),
      "layers/pre_attention_norm/scale": ("pre_attention_norm/scale", "d"),
      "layers/post_attention_norm/scale": ("post_attention_norm/scale", "d"),
      "layers/pre_ffn_norm/scale": ("pre_ffw_norm/scale", "d"),
      "layers/post_ffn_norm/scale": ("post_ffw_norm/scale", "d"),
  })


def name_of(key: tuple[str, ...]) -> str:
  """The table's name of a leaf, whose keys may hold slashes."""
  name = "/".join(key).removeprefix("transformer/")
  return name + "/w" if name.endswith(("mlp/linear", "mlp/gating_einsum")) else name


def of_tensors(path: str, tensors: dict[str, names.Tensor], config: gemma.GemmaConfig | None) -> names.Files:
  """Files from tensors by the table's names. config: what they are said to be; None: what their shapes say, if that is a published size."""
  left_out = [name for name in tensors if name.startswith(_OTHERS)]
  tensors = {name: x for name, x in tensors.items() if name not in left_out}
  config = config or _published(tensors)
  gating = tensors[_GATING].shape if _GATING in tensors else ()
  transposed = config is not None and (
      transposed_gating(config) if config.ffn_width == config.width else tuple(gating) == (2, config.ffn_width, config.width))
  if config and config.num_heads == config.num_kv_heads:
    raise UserError(f"{path}: official Gemma checkpoints share key/value heads: num_heads must exceed num_kv_heads")
  return names.Files(path, "orbax", config, table(transposed), tensors, len(left_out))


def _published(tensors: dict[str, names.Tensor]) -> gemma.GemmaConfig | None:
  """The published size of which these are; None where they are of none."""
  shape = lambda name, rank: tuple(tensors[name].shape) if name in tensors and len(tensors[name].shape) == rank else (0,) * rank
  (v, d), (h, _, e), (_, g, _, _), (f, _) = (shape("embedder/input_embedding", 2), shape("layer_0/attn/q_einsum/w", 3),
                                             shape("layer_0/attn/kv_einsum/w", 4), shape("layer_0/mlp/linear/w", 2))
  layers = len({name.split("/")[0] for name in tensors if name.startswith("layer_")})
  config = gemma.GemmaConfig(layers, d, h, g, e, f, 1.0, qk_norm="layer_0/attn/_query_norm/scale" in tensors)
  known = names.like(config)
  return known and dataclasses.replace(known, vocab_size=v)


def look(path: str | os.PathLike, config: gemma.GemmaConfig | None = None) -> names.Files:
  """What a published checkpoint holds; no weight is read. config: as in `of_tensors`. UserError if it is none."""
  path = files_lib.path(path)
  tensors = {name_of(key): names.Tensor(shape, functools.partial(checkpoint.read_leaf, path, key))
             for key, shape in checkpoint.shapes(path).items()}
  return of_tensors(str(path), tensors, config)


def flat(tensors: dict[str, np.ndarray]) -> dict:
  """The published tree, flat, of tensors by the table's names."""
  tree = {}
  for name, x in tensors.items():
    module, weight = f"transformer/{name}".rsplit("/", 1)
    tree.setdefault(module, {})[weight] = x
  return tree
