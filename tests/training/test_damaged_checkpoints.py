"""States are saved in the background and read back whole, or not at all."""

import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from pav_jax.errors import UserError
from pav_jax.training import checkpoint
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.state import TrainState

META = {"model": "none"}


def _state(step: int, shape=(64, 32)) -> TrainState:
  """A state that says of itself how many steps it is old."""
  where = NamedSharding(mesh_lib.make_mesh(data=-1, fsdp=1, model=1), P())
  x = jax.random.normal(jax.random.key(0), shape) + step
  return jax.device_put(TrainState(jnp.int32(step), {"w": x}, {"mu": {"w": -x}, "count": jnp.int32(step)}), where)


def _saved(path, *steps, keep=3):
  checkpoints = checkpoint.Checkpoints(path, keep=keep)
  for step in steps:
    checkpoints.save(_state(step), META)
  checkpoints.close()


def _equal(one, two):
  jax.tree.map(np.testing.assert_array_equal, one, two)


def _flip(folder):
  """One bit of the largest file below."""
  file = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)


def test_the_next_step_does_not_reach_into_what_is_being_saved(tmp_path):
  """The step takes the state's buffers while they are written; on a CPU a copy of an array may be the array."""
  state = _state(0, (3000, 3000))
  want = jax.tree.map(np.array, state)
  step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(state, META)
  in_time = []
  for _ in range(5):
    state = jax.block_until_ready(step(state))
    in_time.append(checkpoints._manager.is_saving_in_progress())
  assert in_time[0], "it was written before the first step: the test says nothing"
  checkpoints.close()
  _equal(checkpoint.Checkpoints(tmp_path).restore(_state(0, (3000, 3000)))[0], want)


def test_the_newest_are_kept_and_the_best(tmp_path):
  _saved(tmp_path / "latest", 1, 2, 3, 4, keep=2)
  assert sorted(p.name for p in (tmp_path / "latest").iterdir()) == ["3", "4"]
  best = checkpoint.Checkpoints(tmp_path / "best", by_loss=True)
  for step, loss in (1, 0.5), (2, 0.2), (3, 0.4):
    best.save(_state(step), META, loss)
  best.close()
  assert [p.name for p in (tmp_path / "best").iterdir()] == ["2"]


def test_what_was_being_written_is_not_there(tmp_path):
  _saved(tmp_path, 1)
  shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
  assert checkpoint._step_folder(tmp_path).name == "1"
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
  assert checkpoints.latest() == 1
  _equal(checkpoints.restore(_state(0))[0], _state(1))
  checkpoints.save(_state(3), META)
  checkpoints.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


def test_what_a_kill_left_is_removed_before_anyone_writes(tmp_path, monkeypatch):
  """Orbax removes it in the background, here as late as can be: what is written there meanwhile would go, too."""
  begins, remove, made = checkpoint.ocp.CheckpointManager.__init__, shutil.rmtree, threading.Event()
  def begun(*args, **kwargs):
    begins(*args, **kwargs)
    made.set()
  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "__init__", begun)
  monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: made.wait() and remove(*args, **kwargs))
  (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
  checkpoint.Checkpoints(tmp_path)
  assert not list(tmp_path.iterdir())


def test_who_leaves_with_an_error_writes_no_more(tmp_path, monkeypatch):
  """The same process may begin again: it would remove what is still being written, and orbax then calls what is left of it whole."""
  move, leaves = os.rename, threading.Event()
  monkeypatch.setattr(os, "rename", lambda *paths: leaves.wait() and move(*paths))
  with pytest.raises(ZeroDivisionError):
    with checkpoint.Checkpoints(tmp_path, keep=3) as checkpoints:
      checkpoints.save(_state(1), META)
      leaves.set()
      1 / 0
  assert [p.name for p in tmp_path.iterdir()] == ["1"]
  with checkpoint.Checkpoints(tmp_path, keep=3) as again:
    _equal(again.restore(_state(0))[0], _state(1))
    again.save(_state(2), META)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_what_a_kill_left_half_deleted_goes_at_the_end(tmp_path):
  best = checkpoint.Checkpoints(tmp_path, by_loss=True)
  best.save(_state(2), META, 0.5)
  best.close()
  shutil.copytree(tmp_path / "2", tmp_path / "1")
  for path in tmp_path.glob("1/*/*"):
    path.unlink() if path.is_file() else shutil.rmtree(path)
  again = checkpoint.Checkpoints(tmp_path, by_loss=True)
  assert again.latest() == 2
  again.close()
  assert [p.name for p in tmp_path.iterdir()] == ["2"]


def _without(folder, item):
  shutil.rmtree(folder / item)


@pytest.mark.parametrize("damage, reason", [
    (lambda folder: _without(folder, "rest"), "it has no rest"), (lambda folder: _without(folder, "sums"), "it has no sums"),
    (lambda folder: _flip(folder / "params"), "the bits of params/w are not those that were saved"),
    (lambda folder: _flip(folder / "rest"), "the bits of rest/opt_state/mu/w are not those that were saved"),
    (lambda folder: (folder / "meta" / "metadata").write_text("{"), "Expecting property name"),
    (lambda folder: (folder / "params" / "manifest.ocdbt").write_bytes(b""), "")])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, capfd, damage, reason):
  _saved(tmp_path, 1, 2)
  damage(tmp_path / "2")
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=3)
  found, meta = checkpoints.restore(_state(0))
  _equal(found, _state(1))
  assert meta == META
  [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("checkpoint ")]
  assert line.startswith(f"checkpoint {tmp_path / '2'} is damaged ({reason}") and line.endswith("goes on from step 1")
  # The run comes by that step again.
  checkpoints.save(_state(2), META)
  checkpoints.close()
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2", "2.damaged"]
  _equal(checkpoint.Checkpoints(tmp_path, keep=3).restore(_state(0))[0], _state(2))


def test_where_none_is_whole_it_is_one_line(tmp_path):
  _saved(tmp_path, 1, 2)
  for step in "12":
    _flip(tmp_path / step / "params")
  with pytest.raises(UserError, match=r"2 cannot be restored: the bits of params/w .*; nor can the 1 before it$"):
    checkpoint.Checkpoints(tmp_path, keep=3).restore(_state(0))
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_parameters_alone(tmp_path):
  _saved(tmp_path, 1, 2)
  like = jax.eval_shape(lambda: _state(0)).params
  _without(tmp_path / "2", "params")
  np.testing.assert_array_equal(checkpoint.load_params(tmp_path, like)["w"], _state(1).params["w"])
  # In another type the bits are others, and no damage.
  half = checkpoint.load_params(tmp_path, {"w": jax.ShapeDtypeStruct((64, 32), jnp.bfloat16)})
  np.testing.assert_array_equal(half["w"], _state(1).params["w"].astype(jnp.bfloat16))
  _flip(tmp_path / "1" / "params")
  with pytest.raises(UserError, match=r"1 is damaged: the bits of params/w are not those that were saved$"):
    checkpoint.load_params(tmp_path, like)


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(checkpoints._manager, "wait_until_finished", full)
  with pytest.raises(UserError, match=f"checkpoint in {tmp_path} cannot be written: .*No space left"):
    checkpoints.save(_state(1), META)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_any_bit_that_flips_changes_a_sum(dtype):
  x = jnp.arange(6).astype(dtype)
  before = checkpoint._sums({"x": x})
  raw = np.array(x)
  for place in range(raw.nbytes):
    for bit in range(8):
      other = raw.copy()
      other.view(np.uint8)[place] ^= 1 << bit
      assert checkpoint._sums({"x": jnp.asarray(other)}) != before
