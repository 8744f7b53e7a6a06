"""Checkpoints; the only file that imports orbax.

A folder holds numbered steps, each with four items, so that parameters can be
read without the optimiser:

  params   the network's parameters
  rest     step and optimiser state
  meta     JSON: the architecture, the vocabulary's fingerprint, what it was trained for
  sums     JSON: a checksum of every array's bits; what lies under them has none

A step is written beside its place and moved there when it is whole (in a bucket: marked when it is whole).
What a kill left beside it is removed by whoever begins there next, so no two may write in one folder: the lock of the
workdir keeps other processes out, and `with Checkpoints(...)` an earlier training of this process.
"""

import contextlib
import functools
import itertools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from absl import logging
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.preemption import Preempted
from pav_jax.training.state import TrainState

ITEMS = ("params", "rest", "meta", "sums")


class _Damaged(Exception):
  """A file is not what it should be; says why, in one line."""


@contextlib.contextmanager
def _reading():
  """What orbax and tensorstore raise for such a file has no common base: anything but what the devices say.

  They warn of files, too, that nobody writes.
  """
  verbosity = logging.get_verbosity()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    yield
  except jax.errors.JaxRuntimeError:
    raise
  except Exception as error:
    raise _Damaged(files.reason(error)) from error
  finally:
    logging.set_verbosity(verbosity)


class Checkpoints:
  """The checkpoints of one training run; keeps the newest `keep`, or the best by the loss given.

  `with` it, nothing is being written any more when the block is left.
  """

  def __init__(self, path: str | os.PathLike, *, keep: int = 1, by_loss: bool = False):
    self._keep = keep
    self.path = files.path(path)  # Absolute: orbax reports success for a relative one, and fails in the background.
    # Orbax's threads meet those of other hosts by name; two folders that are written at once would meet each other.
    apart = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=f"{next(_managers)}/{self.path.name}")
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, cleanup_tmp_directories=True, keep_checkpoints_without_metrics=not by_loss,
        best_fn=(lambda metrics: metrics["loss"]) if by_loss else None, best_mode="min", multiprocessing_options=apart)
    with files.told(self.path, "made a folder of checkpoints"):
      self._manager = ocp.CheckpointManager(self.path, item_names=ITEMS, options=options)
      # What a kill has left is removed by a thread that only this manager's `save` waits for; it takes what another writes, too.
      self._manager._maybe_await_cleanup_tmp_directory()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_):
    if kind is None:
      self.close()
    # A second signal waits for nothing. One of several processes ends, too, and the others may be gone, without whom
    # no step is whole.
    elif kind is not Preempted and not hosts.several():
      with contextlib.suppress(Exception):  # what ends the run is told
        self._manager.close()

  def save(self, state: TrainState, meta: dict, loss: float | None = None):
    """Takes a copy and returns; it is written in the background. A step that is there, or a later one, stays as it is.

    Raises UserError where this or the last one cannot be written.
    """
    step, items = int(state.step), _items(state)
    def write():
      self._manager.save(
          step, metrics=None if loss is None else {"loss": loss},
          args=ocp.args.Composite(
              **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
              meta=ocp.args.JsonSave(files.sealed(meta)), sums=ocp.args.JsonSave(_sums(items))))
    self._told(write)

  def wait(self):
    """Until all that was saved is written. Raises UserError where it cannot be."""
    self._told(self._manager.wait_until_finished)

  def _told(self, write: Callable[[], None]):
    try:
      write()
    except Exception if files.is_remote(self.path) else (OSError, ValueError) as error:  # ValueError: how the library beneath orbax tells of a full disk
      raise UserError(f"checkpoint in {self.path} cannot be written: {files.reason(error)}") from error

  def latest(self) -> int | None:
    """The newest step that is whole on disk, None if there is none."""
    self.wait()
    return self._manager.latest_step()

  def restore(self, like: TrainState) -> tuple[TrainState, dict]:
    """The newest state that can be read, laid out as `like` (arrays or ShapeDtypeStructs with shardings), and its meta.

    Steps after it, which cannot, are set aside under another name, with a line on stderr. Raises UserError if none can.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    reasons = []
    for step in steps:
      found, reason = self._read(step, like)
      if hosts.all_of(found is not None):
        self._set_aside(steps[:len(reasons)], reasons, step)
        return found
      reasons.append(reason or "damaged on another host")
    raise UserError(f"checkpoint {self.path / str(steps[0])} cannot be restored: {reasons[0]}"
                    + f"; nor can the {len(steps) - 1} before it" * (len(steps) > 1))

  def _read(self, step: int, like: TrainState) -> tuple[tuple[TrainState, dict] | None, str]:
    """(state and meta, or None; why not)."""
    missing = [name for name in ITEMS if not (self.path / str(step) / name).is_dir()]
    if missing:
      return None, f"it has no {' and no '.join(missing)}"
    try:
      with _reading():
        found = self._manager.restore(step, args=ocp.args.Composite(
            **{name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in _items(like).items()},
            meta=ocp.args.JsonRestore(), sums=ocp.args.JsonRestore()))
        meta = files.opened(found.meta, "its meta")
    except _Damaged as error:
      return None, str(error)
    changed = _changed(_sums({"params": found.params, "rest": found.rest}), found.sums)
    if changed:
      return None, changed
    return (TrainState(found.rest["step"], found.params, found.rest["opt_state"]), meta), ""

  def _set_aside(self, steps: list[int], reasons: list[str], good: int):
    for step, reason in zip(steps, reasons):
      if hosts.first():
        print(f"checkpoint {self.path / str(step)} is damaged ({reason}): it is now {step}.damaged, and the run goes on from "
              f"step {good}", file=sys.stderr)
        (self.path / str(step)).rename(self.path / f"{step}.damaged")
      hosts.meet(f"{step} of {self.path} is set aside")
    if steps:
      self._manager.reload()

  def close(self):
    """Waits for what is being written, and for what is no longer kept to be gone. Raises UserError where it cannot be written."""
    self.wait()
    for step in sorted(self._manager.all_steps())[:-self._keep]:  # one that a kill has left half deleted
      self._manager.delete(step)
    self._manager.close()


# All processes make theirs in one order, which makes the names unique.
_managers = itertools.count()


def _step_folder(path: str | os.PathLike) -> epath.Path:
  """The step folder meant by a path: the folder itself, or the newest whole step inside it."""
  path = files.path(path)
  # In a bucket, where nothing is moved, a whole step is one that says so.
  whole = lambda folder: all((folder / name).is_dir() for name in ITEMS) and ocp.utils.is_checkpoint_finalized(folder)
  with files.told(path, "read"):
    if not path.is_dir():
      raise UserError(f"checkpoint {path}: no such folder")
    if whole(path):
      return path
    steps = [p for p in path.iterdir() if p.name.isdigit() and whole(p)]
  if not steps:
    raise UserError(f"checkpoint {path}: neither a checkpoint of pav_jax nor a folder of them")
  return max(steps, key=lambda p: int(p.name))


def read_meta(path: str | os.PathLike) -> dict:
  """What was written beside the parameters: architecture, vocabulary, purpose."""
  folder = _step_folder(path)
  return files.opened(_read_json(folder, "meta"), folder / "meta")


def digest(path: str | os.PathLike) -> str:
  """What names the parameters at a path: sha256 of the sums of their bits. UserError for a path that is no checkpoint of ours."""
  sums = _read_json(_step_folder(path), "sums")
  return files.digest(json.dumps({k: x for k, x in sums.items() if k.startswith("params/")}, sort_keys=True).encode())


def _read_json(folder: epath.Path, item: str) -> dict:
  try:
    with _reading():
      return ocp.JsonCheckpointHandler().restore(folder / item)
  except _Damaged as error:
    raise UserError(f"checkpoint {folder}: its {item} cannot be read: {error}") from error


def load_params(path: str | os.PathLike, like) -> Any:
  """Parameters from a step's folder (or the newest whole step in it), laid out as `like`.

  like: ShapeDtypeStructs with shardings. Raises UserError for a wrong path,
  another architecture (naming the first leaf that differs) or a damaged file.
  """
  folder = _step_folder(path)
  with ocp.StandardCheckpointer() as checkpointer:
    try:
      with _reading():
        stored = checkpointer.metadata(folder / "params").item_metadata.tree
    except _Damaged as error:
      raise UserError(f"checkpoint {folder} is damaged: {error}") from error
    have, want = ({name: (tuple(x.shape), x.dtype) for name, x in _leaves(tree)} for tree in (stored, like))
    for name in sorted(have.keys() | want.keys()):
      shapes = [leaves[name][0] if name in leaves else "absent" for leaves in (have, want)]
      if shapes[0] != shapes[1]:
        raise UserError(f"checkpoint {folder} is of another architecture: {name} is {shapes[0]}, the model's is {shapes[1]}")
    try:
      with _reading():
        params = checkpointer.restore(folder / "params", _abstract(like))
    except _Damaged as error:
      raise UserError(f"checkpoint {folder} is damaged: {error}") from error
  # An array that was asked for in another type has other bits.
  sums = {name: x for name, x in _sums({"params": params}).items()
          if have[name.removeprefix("params/")][1] == want[name.removeprefix("params/")][1]}
  changed = _changed(sums, _read_json(folder, "sums"))
  if changed:
    raise UserError(f"checkpoint {folder} is damaged: {changed}")
  return params


def shapes(path: str | os.PathLike) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Keys and shapes of all arrays of a tree that others wrote with orbax; no array is read. UserError where it is none."""
  path = files.path(path)
  if not files.exists(path):
    raise UserError(f"{path}: no such checkpoint")
  try:
    with _reading(), ocp.PyTreeCheckpointer() as checkpointer:
      tree = checkpointer.metadata(path).item_metadata.tree
      return {tuple(str(key.key) for key in keys): tuple(x.shape) for keys, x in jax.tree_util.tree_leaves_with_path(tree)}
  except _Damaged as error:
    raise UserError(f"{path}: not a readable Gemma checkpoint ({error})") from error


def read_leaf(path: epath.Path, key: tuple[str, ...]) -> np.ndarray:
  """One array of such a tree, on the host, in the type it was written in. UserError where it cannot be read."""
  nested = lambda leaf: functools.reduce(lambda inner, name: {name: inner}, reversed(key), leaf)
  try:
    with _reading(), ocp.PyTreeCheckpointer() as checkpointer:
      found = checkpointer.restore(path, ocp.args.PyTreeRestore(
          item=nested(0), restore_args=nested(ocp.RestoreArgs(restore_type=np.ndarray)), partial_restore=True))
    return functools.reduce(lambda inner, name: inner[name], key, found)
  except _Damaged as error:
    raise UserError(f"{path}: not a readable Gemma checkpoint ({error})") from error


def save_tree(path: str | os.PathLike, tree):
  """Writes a tree of arrays as others read it with orbax, without meta and sums; path must not exist yet."""
  path = files.path(path)
  try:
    with _reading(), ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(path, tree)
  except _Damaged as error:
    raise UserError(f"{path}: cannot be written ({error})") from error


def _items(state: TrainState) -> dict:
  """The items of a step that are arrays."""
  return {"params": state.params, "rest": {"step": state.step, "opt_state": state.opt_state}}


def _leaves(tree) -> list[tuple[str, Any]]:
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]


def _sums(tree) -> dict[str, int]:
  """The sum of every array's bits, as unsigned integers modulo 2^32: the same on every mesh, and another for any bit that flips."""
  return {name: int(x) for name, x in _leaves(mesh_lib.fetch(_bit_sums(tree)))}


@jax.jit
def _bit_sums(tree):
  bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
  return jax.tree.map(lambda x: jax.lax.bitcast_convert_type(x, bits[x.dtype.itemsize]).astype(jnp.uint32).sum(), tree)


def _changed(sums: dict[str, int], stored: dict[str, int]) -> str:
  """Of the first array whose bits are not those that were saved, in words; '' if there is none."""
  return next((f"the bits of {name} are not those that were saved" for name, x in sums.items() if stored.get(name) != x), "")


def _abstract(tree):
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), tree)
