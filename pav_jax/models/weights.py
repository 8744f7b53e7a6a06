"""Weights of others, in and out: official orbax, Hugging Face's safetensors, GGUF.

  1. `look` says which format a path is of, what it holds and of which shape
     that is; no weight is read.
  2. `load` reads one tensor after another and puts each where it belongs: into
     the stacked arrays of our tree, on the devices that need it. Never more
     than our tree and one tensor are in memory.
  3. `theirs` is the way back: our tree under a format's names.

Names and axes are in formats/; the sums that make two formats the same in
tests/models/test_weights.py.
"""

import functools
import os
from collections.abc import Iterator

import flax.traverse_util
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models.formats import gguf_file
from pav_jax.models.formats import huggingface
from pav_jax.models.formats import names
from pav_jax.models.formats import official
from pav_jax.training import checkpoint
from pav_jax.training import files as files_lib
from pav_jax.training import mesh as mesh_lib


def is_foreign(path: str | os.PathLike) -> bool:
  """Whether a path looks like weights of others rather than a checkpoint of ours."""
  path = files_lib.path(path)
  with files_lib.told(path, "read"):
    if not path.exists():
      return False
    if not path.is_dir():
      return gguf_file.is_ours(path)
    published = (path / "_METADATA").exists() and not (path / "params").is_dir() and not (path / "meta").is_dir()
    return published or huggingface.is_ours(path) or bool(_weights_in(path))


def _weights_in(path) -> list[str]:
  """Names of files that hold weights in some format, known here or not."""
  return sorted(x.name for x in path.iterdir() if x.suffix in (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt"))


def look(path: str | os.PathLike, config: gemma.GemmaConfig | None = None) -> names.Files:
  """What a path holds, and of which shape; UserError for what cannot be read. config: for orbax, which does not say its shape."""
  path = files_lib.path(path)
  with files_lib.told(path, "read"):
    folder, exists = path.is_dir(), path.exists()
    ggufs = sorted(x for x in path.iterdir() if x.suffix == ".gguf") if folder and not huggingface.is_ours(path) else []
  if exists and not folder:
    if not gguf_file.is_ours(path):
      raise UserError(f"{path}: not a readable Gemma checkpoint: a file is GGUF, and other formats are folders")
    return gguf_file.look(path)
  if len(ggufs) > 1:
    raise UserError(f"{path}: there are {len(ggufs)} GGUF files in it: name one")
  if ggufs:
    return gguf_file.look(ggufs[0])
  if folder and (huggingface.is_ours(path) or _weights_in(path)):
    return huggingface.look(path)
  return official.look(path, config)


def load(files: names.Files, config: gemma.GemmaConfig, layout=None) -> dict:
  """Our tree in config.param_dtype, laid out as `layout` (a tree of NamedShardings; None: on the first device).

  Names and shapes are checked before any weight is read; UserError as of `names.check`.
  """
  wanted = names.check(files, config)
  shapes = flax.traverse_util.flatten_dict(abstract(config), sep="/")
  if layout is None:
    alone = jax.sharding.Mesh(np.array(jax.local_devices()[:1]), ("alone",))
    layout = jax.tree.map(lambda _: mesh_lib.replicated(alone), abstract(config))
  layout = flax.traverse_util.flatten_dict(layout, sep="/")
  params = {}
  for name, place in wanted.items():
    x = files.tensors[name].read()
    x = names.to_ours(x, place, files.table, config)
    sharding = layout[place.path]
    own = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[len(place.at):]))
    part = jax.make_array_from_callback(x.shape, own, lambda index, x=x: x[index])
    if place.at:
      whole = params.get(place.path)
      begin, put = _stacking(shapes[place.path].shape, x.dtype, sharding)
      part = put(begin() if whole is None else whole, part, np.array(place.at, np.int32))
    params[place.path] = part
  return flax.traverse_util.unflatten_dict(params, sep="/")


def abstract(config: gemma.GemmaConfig) -> dict:
  """Our tree of ShapeDtypeStructs."""
  return jax.eval_shape(gemma.Gemma(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


@functools.cache
def _stacking(shape: tuple[int, ...], dtype, sharding):
  """(an empty stacked array, the array with one part of it set in place), compiled for where it lies."""
  def put(whole, part, at):
    return jax.lax.dynamic_update_slice(whole, part[(None,) * at.shape[0]], [*at, *[0] * part.ndim])
  return (jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding),
          jax.jit(put, donate_argnums=0, out_shardings=sharding))


def theirs(params, config: gemma.GemmaConfig, table: names.Table) -> Iterator[tuple[str, np.ndarray]]:
  """(name, numpy array) of one tensor after another, as the format's table has it; several processes must all call it."""
  ours = flax.traverse_util.flatten_dict(params, sep="/")
  for name, place in names.places(config, table).items():
    part = ours[place.path][place.at]
    yield name, names.to_theirs(part if isinstance(part, np.ndarray) else np.asarray(mesh_lib.fetch(part)), place, table)


def to_official(params, config: gemma.GemmaConfig) -> dict:
  """The published flat tree of numpy arrays."""
  if config.num_heads == config.num_kv_heads:
    raise UserError("official Gemma checkpoints share key/value heads: num_heads must exceed num_kv_heads")
  return official.flat(dict(theirs(params, config, official.table(official.transposed_gating(config)))))


def save_official(path: str | os.PathLike, params, config: gemma.GemmaConfig, dtype=None) -> None:
  """Writes ours in the published layout, in the type it has or in dtype; path must not exist yet."""
  tree = to_official(params, config)
  if dtype is not None:
    tree = jax.tree.map(lambda x: x.astype(dtype, copy=False), tree)
  checkpoint.save_tree(path, tree)
