"""Stopped and started again a run is the same run, bit for bit; and every bad checkpoint is one line."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pav_jax.errors import UserError
from pav_jax.training import checkpoint
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics
from pav_jax.training import run as run_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib

NUM_STEPS, META = 12, {"model": "linear", "vocabulary": "none"}
TX = state_lib.optimizer(peak_lr=0.1, warmup_steps=2, num_steps=NUM_STEPS, b1=0.9, b2=0.95, clip_norm=1.0, weight_decay=0.0)
PATTERNS = ((".*", P()),)
X_BD = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
VALID_LOSSES = {3: 0.9, 6: 0.2, 9: 0.5, 12: 0.4}


class Killed(Exception):
  """What stands for the end of a process."""


def _loss(params, batch, key):
  noisy_b = batch["x_bd"] @ params["w_d"] + 0.1 * jax.random.normal(key, (len(batch["x_bd"]),))
  return ((noisy_b - 1)**2).sum(), jnp.float32(len(batch["x_bd"])), {}


@pytest.fixture(scope="module")
def trainer():
  """train(path, ...) with one compiled step for all tests."""
  mesh = mesh_lib.make_mesh(data=-1, fsdp=1, model=1)
  key = jax.random.key(0)
  create = lambda: state_lib.create(lambda key: {"w_d": jax.random.normal(key, (3,))}, TX, key, mesh, PATTERNS)
  step_fn = step_lib.jitted(_loss, TX, microbatches=1, state_shardings=jax.tree.map(lambda x: x.sharding, create()))
  rows = run_lib.epoch_rows(10, 4, seed=1)

  def train(path, *, die_at=None, bad_at=None, valid_losses=VALID_LOSSES):
    evaluated = []
    def batch(n):
      if n == die_at:
        raise Killed()
      return {"x_bd": X_BD[rows(n)] * (np.nan if n == bad_at else 1)}
    def evaluate(params):
      evaluated.append(np.asarray(params["w_d"]))
      return {"loss": valid_losses[at[len(evaluated) - 1]]}
    first = checkpoint.Checkpoints(path / "latest").latest() or 0
    at = [n for n in valid_losses if n > first]
    found = loop.train(create(), step_fn, batch, key, num_steps=NUM_STEPS, evaluate=evaluate, eval_every=3, save_every=4, keep=2,
                       log_every=1, path=path, meta=META, mesh=mesh, what="test")
    return found, evaluated
  train.like = lambda: create()
  return train


def _final(path, trainer):
  return checkpoint.Checkpoints(path / "latest").restore(trainer.like())[0]


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
  """A run that nothing interrupted: (path, what train returned, what was evaluated)."""
  path = tmp_path_factory.mktemp("whole")
  return path, *trainer(path)


@pytest.mark.parametrize("die_at", [2, 4, 7, 11])
def test_resumed_equals_uninterrupted(trainer, whole, tmp_path, die_at):
  with pytest.raises(Killed):
    trainer(tmp_path, die_at=die_at)
  # At step 4 it dies while that is being written.
  assert [p.name for p in sorted((tmp_path / "latest").iterdir())] == [str(n) for n in (4, 8) if n <= die_at]
  found, _ = trainer(tmp_path)
  path, want, _ = whole
  assert found == want
  assert (tmp_path / "curves.jsonl").read_bytes() == (path / "curves.jsonl").read_bytes()
  one, other = _final(tmp_path, trainer), _final(path, trainer)
  assert one.step == NUM_STEPS
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_finished_run_started_again_does_nothing(trainer, whole):
  path, want, _ = whole
  before = (path / "curves.jsonl").read_bytes()
  found, evaluated = trainer(path, die_at=0)
  assert found == want and not evaluated and (path / "curves.jsonl").read_bytes() == before


def test_the_best_checkpoint_has_the_lowest_validation_loss(trainer, whole):
  path, found, evaluated = whole
  assert found == {"loss": 0.2, "step": 6}
  best = checkpoint.load_params(path / "best", jax.eval_shape(trainer.like).params)
  np.testing.assert_array_equal(best["w_d"], evaluated[1])
  assert not np.array_equal(evaluated[1], evaluated[3])
  assert checkpoint.read_meta(path / "best") == META
  rows = metrics.read_curves(path / "curves.jsonl")
  assert [row["step"] for row in rows if "loss" in row] == list(range(1, NUM_STEPS + 1))
  assert {row["step"]: row["valid_loss"] for row in rows if "valid_loss" in row} == VALID_LOSSES


def test_a_loss_that_is_not_finite_stops(trainer, tmp_path):
  with pytest.raises(UserError, match=r"loss nan.* at step 7, batch 6; the last good checkpoint is 4 in .*latest"):
    trainer(tmp_path, bad_at=6)
  assert np.isfinite(_final(tmp_path, trainer).params["w_d"]).all()
  found, _ = trainer(tmp_path)  # the batch mended, it goes on
  assert found["step"] == 6 and _final(tmp_path, trainer).step == NUM_STEPS


def test_a_validation_loss_that_is_not_finite_stops(trainer, tmp_path):
  with pytest.raises(UserError, match="validation loss nan at step 6"):
    trainer(tmp_path, valid_losses=VALID_LOSSES | {6: float("nan")})
  assert trainer(tmp_path)[0] == {"loss": 0.2, "step": 6}


def test_bad_checkpoints_are_told_in_one_line(trainer, whole, tmp_path):
  path = whole[0]
  like = jax.eval_shape(trainer.like).params
  def told(path, like, *words):
    with pytest.raises(UserError) as raised:
      checkpoint.load_params(path, like)
    message = str(raised.value)
    assert "\n" not in message and all(word in message for word in words), message
  told(tmp_path / "nowhere", like, "no such folder")
  told(tmp_path, like, "neither a checkpoint")
  told(path / "best", {"w_d": jax.ShapeDtypeStruct((4,), jnp.float32)}, "another architecture", "w_d", "(3,)", "(4,)")
  told(path / "best", like | {"b": jax.ShapeDtypeStruct((), jnp.float32)}, "b is absent")
  with pytest.raises(UserError, match="no such folder"):
    checkpoint.read_meta(tmp_path / "nowhere")


def test_a_truncated_checkpoint_is_told_in_one_line(trainer, tmp_path):
  state = trainer.like()
  with_meta = checkpoint.Checkpoints(tmp_path / "damaged")
  with_meta.save(state, META)
  with_meta.close()
  data = [p for p in (tmp_path / "damaged" / "0" / "params").rglob("*") if p.is_file() and "/d/" in str(p)]
  assert data
  for file in data:
    file.write_bytes(file.read_bytes()[:len(file.read_bytes()) // 2])
  with pytest.raises(UserError) as raised:
    checkpoint.load_params(tmp_path / "damaged", jax.eval_shape(lambda: state).params)
  assert "is damaged" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax leaves what it was reading to the collector
def test_a_bit_that_flips_anywhere_in_a_checkpoint_is_told_or_changes_nothing(trainer, tmp_path):
  state = jax.tree.map(lambda x: x + jnp.asarray(0.5, x.dtype) if x.ndim else x, trainer.like())  # nothing at zero, which is not stored
  written = checkpoint.Checkpoints(tmp_path / "ck")
  written.save(state, META)
  written.close()
  rng, seen = np.random.default_rng(0), collections.Counter()
  for file in sorted(p for p in (tmp_path / "ck").rglob("*") if p.is_file()):
    content = file.read_bytes()
    for at in rng.integers(0, len(content), 6) if content else ():
      file.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.integers(8)]) + content[at + 1:])
      try:
        params, meta = checkpoint.load_params(tmp_path / "ck", jax.eval_shape(lambda: state).params), checkpoint.read_meta(tmp_path / "ck")
        reader = checkpoint.Checkpoints(tmp_path / "ck")
        found, _ = reader.restore(state)
        reader.close()
        for x, y in ((params, state.params), (found, state)):
          jax.tree.map(np.testing.assert_array_equal, x, y)
        assert META.items() <= meta.items()  # the name of its checksum may be another key
        seen["same"] += 1
      except UserError as error:
        assert "\n" not in str(error) and str(tmp_path / "ck" / "0") in str(error)
        seen[f"told of {file.parent.name}"] += 1
      file.write_bytes(content)
  assert seen["told of d"] > 10 and seen["told of meta"] > 3, seen
