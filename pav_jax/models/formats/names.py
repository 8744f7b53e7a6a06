"""Weights of others and our tree: names and axes as data, and the one place that turns one into the other.

Our layers are stacked, theirs are one tensor a layer. Axes are letters, as in

  v vocabulary, d width, h query heads, g key/value heads, e head width, f feed-forward, 2 pairs

`(h e)` is one axis that holds both, h outermost. A format's table says under
which name a part of ours lies there and which axes it has; two names are the
two halves of our pair. Values do not change, but for norms in formats that
store 1 + scale.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import gemma

# Path in our tree -> its axes; of what lies in `layers/`, those of one layer.
OURS = {
    "embedding": "v d",
    "final_norm/scale": "d",
    "layers/attention/query": "d h e",
    "layers/attention/key_value": "2 d g e",
    "layers/attention/out": "h e d",
    "layers/attention/query_norm/scale": "e",
    "layers/attention/key_norm/scale": "e",
    "layers/ffn/gate_up": "2 d f",
    "layers/ffn/down": "f d",
    "layers/pre_attention_norm/scale": "d",
    "layers/post_attention_norm/scale": "d",
    "layers/pre_ffn_norm/scale": "d",
    "layers/post_ffn_norm/scale": "d",
}
_QK_NORMS = ("layers/attention/query_norm/scale", "layers/attention/key_norm/scale")


class Table(NamedTuple):
  """A format. layer: what stands before the names of a layer; rows: path in our tree -> (names, axes) there.

  one_more: norms are stored as 1 + scale, in float32.
  """

  layer: str
  rows: dict[str, tuple[str, str]]
  one_more: bool = False


class Place(NamedTuple):
  """Where a tensor of theirs lies in our tree: of the array at `path` the part `at` (layer, half of a pair); axes: theirs."""

  path: str
  at: tuple[int, ...]
  axes: str
  shape: tuple[int, ...]  # theirs


class Tensor(NamedTuple):
  """One of theirs, not read yet; read() -> numpy array of this shape, of a floating type."""

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


class Files(NamedTuple):
  """Weights of others, looked at and not read. config: the shape they are of; None where they do not say (orbax).

  left_out: tensors of other modalities than text, which are not read.
  """

  path: str
  format: str
  config: gemma.GemmaConfig | None
  table: Table
  tensors: dict[str, Tensor]
  left_out: int = 0


def _sizes(config: gemma.GemmaConfig) -> dict[str, int]:
  c = config
  return {"v": c.vocab_size, "d": c.width, "h": c.num_heads, "g": c.num_kv_heads, "e": c.head_width, "f": c.ffn_width, "2": 2}


def _groups(axes: str) -> list[list[str]]:
  """'(h e) d' -> [[h, e], [d]]."""
  found, inside = [], False
  for word in axes.replace("(", " ( ").replace(")", " ) ").split():
    if word in "()":
      inside = word == "("
      found += [[]] * inside
    elif inside:
      found[-1] = [*found[-1], word]
    else:
      found.append([word])
  return found


def _part_axes(place: Place) -> list[str]:
  """Our axes of what one of their tensors holds: without the pair where a name is of one half."""
  ours = OURS[place.path].split()
  return ours[1:] if ours[0] == "2" and "2" not in place.axes else ours


def places(config: gemma.GemmaConfig, table: Table) -> dict[str, Place]:
  """Their name -> its place in our tree, for a network of this shape."""
  sizes = _sizes(config)
  found = {}
  for path, (names, axes) in table.rows.items():
    if path in _QK_NORMS and not config.qk_norm:
      continue
    shape = tuple(int(np.prod([sizes[x] for x in group])) for group in _groups(axes))
    halves = names.split()
    for layer in range(config.num_layers) if path.startswith("layers/") else (None,):
      for half, name in enumerate(halves):
        at = (() if layer is None else (layer,)) + ((half,) if len(halves) > 1 else ())
        found[name if layer is None else table.layer.format(layer) + name] = Place(path, at, axes, shape)
  return found


def check(files: Files, config: gemma.GemmaConfig) -> dict[str, Place]:
  """Their places; UserError, which names the first that is amiss, where the tensors are not those of this shape."""
  layer = re.compile(re.escape(files.table.layer).replace(r"\{\}", r"(\d+)"))
  if (layers := len({x[1] for x in map(layer.match, files.tensors) if x})) != config.num_layers:
    raise UserError(f"{files.path}: the checkpoint has {layers} layers, the configuration {config.num_layers}")
  wanted = places(config, files.table)
  wrong = [f"{name} has shape {tuple(x.shape)}, the configuration expects {wanted[name].shape}"
           for name, x in files.tensors.items() if name in wanted and tuple(x.shape) != wanted[name].shape]
  wrong += [f"{name} is missing" for name in wanted if name not in files.tensors]
  wrong += [f"{name} belongs to no Gemma of this shape" for name in files.tensors if name not in wanted]
  if wrong:
    raise UserError(f"{files.path}: {wrong[0]}" + (f" (and {len(wrong) - 1} more tensors differ)" if len(wrong) > 1 else ""))
  return wanted


def to_ours(x: np.ndarray, place: Place, table: Table, config: gemma.GemmaConfig) -> np.ndarray:
  """A tensor of theirs with our axes, in config.param_dtype; always a copy."""
  sizes = _sizes(config)
  letters = [letter for group in _groups(place.axes) for letter in group]
  if table.one_more and place.path.endswith("scale"):
    # In float32: 1 + scale was rounded there, and the difference is what was trained, to the bit in bfloat16.
    x = x.astype(np.float32) - 1
  x = x.reshape([sizes[letter] for letter in letters]).transpose([letters.index(letter) for letter in _part_axes(place)])
  return x.astype(jnp.dtype(config.param_dtype))


def to_theirs(x: np.ndarray, place: Place, table: Table) -> np.ndarray:
  """The inverse, of the part of our array that belongs there; in the type it has, float32 for norms that become 1 + scale."""
  ours, letters = _part_axes(place), [letter for group in _groups(place.axes) for letter in group]
  x = np.ascontiguousarray(x.transpose([ours.index(letter) for letter in letters]).reshape(place.shape))
  return x.astype(np.float32) + 1 if table.one_more and place.path.endswith("scale") else x


def like(config: gemma.GemmaConfig) -> gemma.GemmaConfig | None:
  """The published size with these numbers of layers, widths and heads; None if there is none."""
  numbers = ("num_layers", "width", "num_heads", "num_kv_heads", "head_width", "ffn_width", "qk_norm")
  return next((x for name, x in gemma.SIZES.items() if name.startswith("gemma")
               and all(getattr(x, n) == getattr(config, n) for n in numbers)), None)
