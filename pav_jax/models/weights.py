"""Official Gemma 2 checkpoints <-> our stacked tree; the only file that imports gemma.

A published checkpoint has one entry per layer and module, under flat names
(`transformer/layer_0/attn/q_einsum` -> {"w"}); our layers are scanned, so
each weight is one array with the layers in front. Names, axes and types
change on the way, values do not.

Official shapes, one layer (h query heads, g key/value heads, e head width):
q_einsum (h, d, e), kv_einsum (2, g, d, e), attn_vec_einsum (h, e, d), linear
(f, d), gating_einsum (2, d, f) in the 2B and (2, f, d) in the 9B and 27B.
Reading goes by the shape found; writing, and reading where d = f leaves the
shape mute, by `transposed_gating`.
"""

import os
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
from kauldron import checkpoints as kauldron_checkpoints
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.training import files

if not hasattr(kauldron_checkpoints, "AbstractPartialLoader"):
  # gemma 3.3 (the last for Python 3.11) still uses the name that kauldron 1.4 dropped.
  kauldron_checkpoints.AbstractPartialLoader = kauldron_checkpoints.InitTransform

from gemma import gm  # noqa: E402, only after the alias

# Ours -> the official name and the axes that turn one into the other; each
# permutation is a swap, so the same one serves both directions.
_TOP = {
    ("embedding",): ("embedder/input_embedding", (0, 1)),
    ("final_norm", "scale"): ("final_norm/scale", (0,)),
}
_LAYER = {
    ("layers", "attention", "query"): ("attn/q_einsum/w", (1, 0, 2)),
    ("layers", "attention", "key_value"): ("attn/kv_einsum/w", (0, 2, 1, 3)),
    ("layers", "attention", "out"): ("attn/attn_vec_einsum/w", (0, 1, 2)),
    ("layers", "ffn", "gate_up"): ("mlp/gating_einsum/w", (0, 1, 2)),
    ("layers", "ffn", "down"): ("mlp/linear/w", (0, 1)),
    ("layers", "pre_attention_norm", "scale"): ("pre_attention_norm/scale", (0,)),
    ("layers", "post_attention_norm", "scale"): ("post_attention_norm/scale", (0,)),
    ("layers", "pre_ffn_norm", "scale"): ("pre_ffw_norm/scale", (0,)),
    ("layers", "post_ffn_norm", "scale"): ("post_ffw_norm/scale", (0,)),
}
_GATING = "mlp/gating_einsum/w"
_SWAPPED = (0, 2, 1)


class _Leaf(NamedTuple):
  path: tuple[str, ...]  # in our tree
  layer: int | None  # which row of the stacked array; None where nothing is stacked
  axes: tuple[int, ...]
  shape: tuple[int, ...]  # the official one


def transposed_gating(config: gemma.GemmaConfig) -> bool:
  """Whether gating_einsum is written (2, f, d): above the 2B's width, as published."""
  return config.width > gemma.SIZES["gemma2_2b"].width


def _our_shapes(config):
  init = gemma.Gemma(config).init
  variables = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
  return {path: x.shape for path, x in flax.traverse_util.flatten_dict(variables["params"]).items()}


def _leaves(config, transposed: bool) -> dict[str, _Leaf]:
  """Official name, without `transformer/` -> where it lives in our tree, and its shape."""
  if config.num_heads == config.num_kv_heads:
    raise UserError("official Gemma 2 checkpoints share key/value heads: num_heads must exceed num_kv_heads")
  shapes = _our_shapes(config)
  leaves = {name: _Leaf(path, None, axes, shapes[path]) for path, (name, axes) in _TOP.items()}
  for layer in range(config.num_layers):
    for path, (name, axes) in _LAYER.items():
      axes = _SWAPPED if transposed and name == _GATING else axes
      shape = tuple(shapes[path][1:][axis] for axis in axes)
      leaves[f"layer_{layer}/{name}"] = _Leaf(path, layer, axes, shape)
  return leaves


def _by_name(tree) -> dict:
  """Flat (published) or nested (gm's) tree -> {`layer_0/attn/q_einsum/w`: leaf}."""
  named = {}
  for name, leaf in flax.traverse_util.flatten_dict(tree, sep="/").items():
    name = name.removeprefix("transformer/")
    named[name + "/w" if name.endswith(("mlp/linear", "mlp/gating_einsum")) else name] = leaf
  return named


def _checked(named, config) -> dict[str, _Leaf]:
  """The layout that `named` follows; UserError where it is not this architecture's."""
  gating = tuple(named[f"layer_0/{_GATING}"].shape) if f"layer_0/{_GATING}" in named else ()
  transposed = gating == (2, config.ffn_width, config.width)
  if config.ffn_width == config.width:
    transposed = transposed_gating(config)
  leaves = _leaves(config, transposed)

  layers = len({name.split("/")[0] for name in named if name.startswith("layer_")})
  if layers != config.num_layers:
    raise UserError(f"the checkpoint has {layers} layers, the configuration {config.num_layers}")
  wrong = [f"{name} has shape {tuple(named[name].shape)}, the configuration expects {leaf.shape}"
           for name, leaf in leaves.items() if name in named and tuple(named[name].shape) != leaf.shape]
  wrong += [f"{name} is missing" for name in leaves if name not in named]
  wrong += [f"{name} belongs to no Gemma 2" for name in named if name not in leaves]
  if wrong:
    more = f" (and {len(wrong) - 1} more leaves differ)" if len(wrong) > 1 else ""
    raise UserError(wrong[0] + more)
  return leaves


def from_official(tree, config: gemma.GemmaConfig) -> dict:
  """Our tree, numpy arrays of config.param_dtype, from an official one, flat or nested."""
  named = _by_name(tree)
  leaves = _checked(named, config)
  dtype = jnp.dtype(config.param_dtype)
  params = {path: np.empty(shape, dtype) for path, shape in _our_shapes(config).items()}
  for name, leaf in leaves.items():
    # Leaf by leaf into place: never more than the checkpoint and its copy in memory.
    params[leaf.path][... if leaf.layer is None else leaf.layer] = np.asarray(named[name]).transpose(leaf.axes)
  return flax.traverse_util.unflatten_dict(params)


def to_official(params, config: gemma.GemmaConfig) -> dict:
  """The published flat tree of numpy arrays from ours; the inverse of `from_official`."""
  ours = {path: np.asarray(x) for path, x in flax.traverse_util.flatten_dict(params).items()}
  tree = {}
  for name, leaf in _leaves(config, transposed_gating(config)).items():
    module, weight = f"transformer/{name}".rsplit("/", 1)
    x = ours[leaf.path] if leaf.layer is None else ours[leaf.path][leaf.layer]
    tree.setdefault(module, {})[weight] = np.ascontiguousarray(x.transpose(leaf.axes))
  _checked(_by_name(tree), config)
  return tree


def load_official(path: str | os.PathLike, config: gemma.GemmaConfig) -> dict:
  """Our tree from a published checkpoint: numpy arrays of config.param_dtype.

  They stay on the host, so that the caller's shardings decide what each chip
  gets. Names and shapes are checked before any weight is read.
  """
  path = files.path(path)

  def checked_placement(metadata):
    # gm asks for shardings once it knows the shapes and before it reads: the place to look at them.
    _checked(_by_name(getattr(metadata, "tree", metadata)), config)
    return jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])

  try:
    if not path.exists():
      raise UserError("no such checkpoint")
    return from_official(gm.ckpts.load_params(path, sharding=checked_placement), config)
  except UserError as error:
    raise UserError(f"{path}: {error}") from None
  except Exception as error:  # json, tensorstore, orbax, a bucket's client: they share no base
    raise UserError(f"{path}: not a readable Gemma checkpoint ({_line(error)})") from error


def save_official(path: str | os.PathLike, params, config: gemma.GemmaConfig) -> None:
  """Writes ours in the published layout, in the type it has; path must not exist yet."""
  path = files.path(path)
  tree = to_official(params, config)
  try:
    gm.ckpts.save_params(tree, path, wait_until_finished=True)
  except Exception as error:  # as in load_official
    raise UserError(f"{path}: cannot be written ({_line(error)})") from error


def _line(error) -> str:
  """The first line of an error, cut: the whole is in the traceback."""
  return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
