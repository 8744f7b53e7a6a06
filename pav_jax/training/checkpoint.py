"""Checkpoints; the only file that imports orbax.

A folder holds numbered steps, each with three items, so that parameters can be
read without the optimiser:

  params   the network's parameters
  rest     step and optimiser state
  meta     JSON: the architecture, the vocabulary's fingerprint, what it was trained for
"""

import os
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from pav_jax.errors import UserError
from pav_jax.training.state import TrainState


class Checkpoints:
  """The checkpoints of one training run; keeps the newest `keep`, or the best by the metric given."""

  def __init__(self, path: str | os.PathLike, *, keep: int = 1, by_loss: bool = False):
    # Orbax reports success for relative paths and fails in the background.
    self.path = pathlib.Path(path).absolute()
    self._manager = ocp.CheckpointManager(
        self.path, item_names=("params", "rest", "meta"),
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False,
            best_fn=(lambda metrics: metrics["loss"]) if by_loss else None, best_mode="min"))

  def save(self, state: TrainState, meta: dict, loss: float | None = None):
    """Writes and waits. Saving the same step twice keeps the first."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._manager.save(
        step, metrics=None if loss is None else {"loss": loss},
        args=ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            rest=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            meta=ocp.args.JsonSave(meta)))
    self._manager.wait_until_finished()

  def latest(self) -> int | None:
    """The newest step, None if there is none."""
    return self._manager.latest_step()

  def restore(self, like: TrainState) -> TrainState:
    """The newest state, laid out as `like` (arrays or ShapeDtypeStructs with shardings)."""
    step = self._manager.latest_step()
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(
          params=ocp.args.StandardRestore(_abstract(like.params)),
          rest=ocp.args.StandardRestore(_abstract({"step": like.step, "opt_state": like.opt_state}))))
    except (ValueError, OSError, KeyError, TypeError) as error:
      raise UserError(f"checkpoint {self.path / str(step)} cannot be restored: {_first_line(error)}") from error
    return TrainState(found.rest["step"], found.params, found.rest["opt_state"])

  def close(self):
    """Waits for what is being written."""
    self._manager.close()


def _step_folder(path: str | os.PathLike) -> pathlib.Path:
  """The step folder meant by a path: the folder itself, or the newest step inside it."""
  path = pathlib.Path(path).absolute()
  if not path.is_dir():
    raise UserError(f"checkpoint {path}: no such folder")
  if (path / "params").is_dir():
    return path
  steps = [p for p in path.iterdir() if p.name.isdigit() and (p / "params").is_dir()]
  if not steps:
    raise UserError(f"checkpoint {path}: neither a checkpoint of pav_jax nor a folder of them")
  return max(steps, key=lambda p: int(p.name))


def read_meta(path: str | os.PathLike) -> dict:
  """What was written beside the parameters: architecture, vocabulary, purpose."""
  folder = _step_folder(path)
  try:
    return ocp.JsonCheckpointHandler().restore(folder / "meta")
  except (ValueError, OSError, KeyError) as error:
    raise UserError(f"checkpoint {folder}: its description cannot be read: {_first_line(error)}") from error


def load_params(path: str | os.PathLike, like) -> Any:
  """Parameters from a step's folder (or the newest step in it), laid out as `like`.

  like: ShapeDtypeStructs with shardings. Raises UserError for a wrong path,
  another architecture (naming the first leaf that differs) or a damaged file.
  """
  folder = _step_folder(path)
  with ocp.StandardCheckpointer() as checkpointer:
    try:
      stored = checkpointer.metadata(folder / "params").item_metadata.tree
    except (ValueError, OSError, KeyError, AttributeError) as error:
      raise UserError(f"checkpoint {folder} is damaged: {_first_line(error)}") from error
    leaves = lambda tree: {
        jax.tree_util.keystr(p, simple=True, separator="/"): tuple(x.shape)
        for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    have, want = leaves(stored), leaves(like)
    for name in sorted(have.keys() | want.keys()):
      if have.get(name) != want.get(name):
        raise UserError(f"checkpoint {folder} is of another architecture: {name} is "
                        f"{have.get(name, 'absent')}, the model's is {want.get(name, 'absent')}")
    try:
      return checkpointer.restore(folder / "params", _abstract(like))
    except (ValueError, OSError, KeyError, TypeError) as error:
      raise UserError(f"checkpoint {folder} is damaged: {_first_line(error)}") from error


def _abstract(tree):
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)), tree)


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
