"""GGUF, one file: metadata, vocabulary, and tensors in blocks of few bits, as llama.cpp reads them.

The header is read here and not by the package gguf, whose reader believes
every length that a file states, and takes a quarter of a minute for a
vocabulary of 262,144; block types and their dequantisation are the package's.

Norms are stored as 1 + scale. A file states one rotary base: the local one,
the order of layers and the scale of queries are the architecture's.

Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3.
"""

import dataclasses
import functools
import math
import mmap
import os
import struct
from typing import Any

from etils import epath
import gguf
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models.formats import names
from pav_jax.training import files as files_lib

TABLE = names.Table("blk.{}.", {
    "embedding": ("token_embd.weight", "v d"),
    "final_norm/scale": ("output_norm.weight", "d"),
    "layers/attention/query": ("attn_q.weight", "(h e) d"),
    "layers/attention/key_value": ("attn_k.weight attn_v.weight", "(g e) d"),
    "layers/attention/out": ("attn_output.weight", "d (h e)"),
    "layers/attention/query_norm/scale": ("attn_q_norm.weight", "e"),
    "layers/attention/key_norm/scale": ("attn_k_norm.weight", "e"),
    "layers/ffn/gate_up": ("ffn_gate.weight ffn_up.weight", "f d"),
    "layers/ffn/down": ("ffn_down.weight", "d f"),
    "layers/pre_attention_norm/scale": ("attn_norm.weight", "d"),
    "layers/post_attention_norm/scale": ("post_attention_norm.weight", "d"),
    "layers/pre_ffn_norm/scale": ("ffn_norm.weight", "d"),
    "layers/post_ffn_norm/scale": ("post_ffw_norm.weight", "d"),
}, one_more=True)
# Block types that are dequantised, by their numbers in the file.
_TYPES = {gguf.GGMLQuantizationType[name].value: gguf.GGMLQuantizationType[name]
          for name in ("F32", "F16", "BF16", "Q8_0", "Q4_K", "Q5_0", "Q6_K")}
# Scalars of the metadata by their number, as struct has them; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def is_ours(path: epath.Path) -> bool:
  """Whether a file begins as GGUF does, or is called so."""
  if path.is_dir():
    return False
  with path.open("rb") as file:
    return path.suffix == ".gguf" or file.read(4) == b"GGUF"


class _Cursor:
  """Reads forward in a file's bytes; what goes beyond them is a ValueError, before anything is allocated."""

  def __init__(self, data):
    self.data, self.at = data, 0

  def take(self, count: int) -> bytes:
    """The next bytes."""
    if count > len(self.data) - self.at:
      raise ValueError("it ends early")
    self.at += count
    return self.data[self.at - count:self.at]

  def number(self, kind: str) -> Any:
    """The next scalar, as struct names it."""
    return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

  def text(self) -> str:
    """The next string."""
    return self.take(self.number("Q")).decode("utf-8")

  def value(self) -> Any:
    """The next value with its type before it; an array of numbers is a numpy array, one of strings a list."""
    kind = self.number("I")
    if kind == _STRING:
      return self.text()
    if kind in _SCALARS:
      return self.number(_SCALARS[kind])
    if kind != _ARRAY:
      raise ValueError(f"a value is of the unknown type {kind}")
    kind, count = self.number("I"), self.number("Q")
    if kind == _STRING:
      return [self.text() for _ in range(count)]  # ends with the file, whatever count says
    if kind not in _SCALARS:
      raise ValueError(f"an array is of the unknown type {kind}")
    dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
    return np.frombuffer(self.take(count * dtype.itemsize), dtype)


class _Header:
  """metadata: key -> value; tensors: name -> (shape, block type, position of its first byte, bytes)."""

  def __init__(self, data):
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
      raise ValueError("it does not begin as GGUF does")
    if (version := cursor.number("I")) not in (2, 3):
      raise ValueError(f"version {version} is neither 2 nor 3")
    count, keys = cursor.number("Q"), cursor.number("Q")
    self.metadata = {}
    for _ in range(keys):
      key = cursor.text()
      self.metadata[key] = cursor.value()
    found = {}
    for _ in range(count):
      name = cursor.text()
      rank = cursor.number("I")
      if rank > 4 or name in found:
        raise ValueError(f"tensor {name!r} " + ("comes twice" if name in found else f"has {rank} axes"))
      found[name] = [cursor.number("Q") for _ in range(rank)][::-1], cursor.number("I"), cursor.number("Q")
    alignment = self.metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
      raise ValueError(f"general.alignment {alignment!r} is no power of 2")
    start = -(-cursor.at // alignment) * alignment
    self.tensors = {}
    for name, (shape, kind, offset) in found.items():
      if kind not in _TYPES:
        known = [x.name for x in gguf.GGMLQuantizationType if x.value == kind]
        raise ValueError(f"{name} is of type {(known or [kind])[0]}, none of {', '.join(x.name for x in _TYPES.values())}")
      block, size = gguf.GGML_QUANT_SIZES[_TYPES[kind]]
      if not shape or shape[-1] % block:
        raise ValueError(f"{name} has rows of {shape[-1:]}, no multiple of {block}")
      count = math.prod(shape) // block * size
      if start + offset + count > len(data):
        raise ValueError(f"it ends before {name} does")
      self.tensors[name] = tuple(shape), _TYPES[kind], start + offset, count


@functools.lru_cache(maxsize=2)
def _opened(path: str, _changed: tuple) -> tuple[mmap.mmap, _Header]:
  with open(path, "rb") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  return data, _Header(data)


def _open(path: epath.Path) -> tuple[mmap.mmap, _Header]:
  if files_lib.is_remote(path):
    raise UserError(f"{path}: GGUF is read from a local disk: copy the file")
  try:
    found = os.stat(path)
    return _opened(os.fspath(path), (found.st_size, found.st_mtime_ns))
  except (ValueError, OSError) as error:  # UnicodeDecodeError is a ValueError, too
    raise UserError(f"{path} is not a whole GGUF file: {files_lib.reason(error)}") from error


def metadata(path: epath.Path) -> dict[str, Any]:
  """What a file says of itself. UserError for one that is not whole."""
  return _open(path)[1].metadata


def look(path: epath.Path) -> names.Files:
  """What a file holds; no weight is read. UserError for one that is not whole, or holds another model."""
  data, header = _open(path)
  def read(shape, kind, at, count):
    raw = np.frombuffer(data, np.uint8, count, at).reshape(*shape[:-1], -1)
    return gguf.dequantize(raw, kind).reshape(shape)
  tensors = {name: names.Tensor(x[0], functools.partial(read, *x)) for name, x in header.tensors.items()}
  head = tensors.pop("output.weight", None)
  if head is not None:
    raise UserError(f"{path}: it has a head of its own, output.weight: a Gemma's is the embedding")
  tensors.pop("rope_freqs.weight", None)
  rows = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else 0
  return names.Files(str(path), "GGUF", _config(path, header.metadata, rows), TABLE, tensors)


def _config(path: epath.Path, said: dict[str, Any], rows: int) -> gemma.GemmaConfig:
  kind = said.get("general.architecture")
  if kind not in ("gemma2", "gemma3"):
    raise UserError(f"{path}: it is of architecture {kind!r}, neither gemma2 nor gemma3")
  def number(key, default=None, types=(int,)):
    value = said.get(f"{kind}.{key}", default)
    if type(value) not in types or not 0 < value < 2**24:
      raise UserError(f"{path}: {kind}.{key} is {'missing' if value is None else value!r}: a number above 0 is needed")
    return value
  real = functools.partial(number, types=(int, float))
  if abs(real("attention.layer_norm_rms_epsilon", 1e-6) - 1e-6) > 1e-9:
    raise UserError(f"{path}: {kind}.attention.layer_norm_rms_epsilon is not 1e-6, all that is known here")
  if number("attention.value_length", 256) != number("attention.key_length", 256):
    raise UserError(f"{path}: values and keys are of different lengths")
  shape = [number(key) for key in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")]
  shape += [number("attention.key_length", 256), number("feed_forward_length")]
  three = kind == "gemma3"
  found = gemma.GemmaConfig(*shape, shape[4]**-0.5, qk_norm=three)
  known = names.like(found)
  own = dict(attention_cap=0.0, logit_cap=0.0, local_per_global=5, global_rope_base=1_000_000.0) if three else {}
  found = known or dataclasses.replace(found, window=number("attention.sliding_window"), **own)
  scaling = said.get(f"{kind}.rope.scaling.type", "none")
  if scaling not in ("none", "linear"):
    raise UserError(f"{path}: {kind}.rope.scaling.type {scaling!r} is neither none nor linear")
  stated = {
      "window": number("attention.sliding_window", found.window),
      "global_rope_base": float(real("rope.freq_base", found.global_rope_base)),
      "global_rope_scale": float(real("rope.scaling.factor", found.global_rope_scale)),
      "attention_cap": float(real("attn_logit_softcapping", found.attention_cap)) if not three else found.attention_cap,
      "logit_cap": float(real("final_logit_softcapping", found.logit_cap)) if not three else found.logit_cap}
  if not three:
    stated["local_rope_base"] = stated["global_rope_base"]
  return dataclasses.replace(found, vocab_size=rows or found.vocab_size, **stated)
