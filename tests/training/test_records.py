"""Shards and manifests: whole, or refused with a reason."""

import json
import os
import zipfile

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.training import run as run_lib

ARRAYS = [{"token_bt": np.arange(6, dtype=np.int32).reshape(2, 3), "name_b": np.array(["a", "bcd"])},
          {"token_bt": np.array([[7, 8, 9]], np.int32), "name_b": np.array(["e"])}]
PLAN = ("rollouts", {"seed": 0, "rollouts": {"n_cov": 4, "max_new": 8}}, {"sft": "abc"})


def _write(path):
  folder = records.Folder(path)
  assert not folder.start(*PLAN)
  for i, arrays in enumerate(ARRAYS):
    folder.write_shard(i, arrays, {"rows": len(arrays["name_b"]), f"shard {i}": 1})
  folder.finish(2, {"note": 1.5})
  return folder


def test_round_trip(tmp_path):
  folder = _write(tmp_path / "x")
  assert folder.done and folder.start(*PLAN)
  found = folder.read()
  np.testing.assert_array_equal(found["token_bt"], [[0, 1, 2], [3, 4, 5], [7, 8, 9]])
  assert found["token_bt"].dtype == np.int32 and found["name_b"].tolist() == ["a", "bcd", "e"]
  manifest = folder.manifest()
  assert manifest["counts"] == {"rows": 3, "shard 0": 1, "shard 1": 1} and manifest["facts"] == {"note": 1.5}
  assert (manifest["stage"], manifest["config"], manifest["inputs"]) == PLAN
  assert not list((tmp_path / "x").glob("*.partial"))
  assert folder.digest() == files.digest((tmp_path / "x" / "manifest.json").read_bytes())


def test_a_restart_keeps_whole_shards(tmp_path):
  folder = records.Folder(tmp_path / "x")
  folder.start(*PLAN)
  folder.write_shard(0, ARRAYS[0], {})
  (tmp_path / "x" / "00001.npz").write_bytes(b"torn: its description was never written")
  again = records.Folder(tmp_path / "x")
  assert not again.start(*PLAN)
  assert [again.has_shard(i) for i in range(2)] == [True, False]
  before = files.digest((tmp_path / "x" / "00000.npz").read_bytes())
  again.write_shard(1, ARRAYS[1], {})
  again.finish(2)
  assert files.digest((tmp_path / "x" / "00000.npz").read_bytes()) == before and len(again.read()["name_b"]) == 3


@pytest.mark.parametrize("plan, told", [
    (("values", PLAN[1], PLAN[2]), 'stage was "rollouts", now "values"'),
    ((PLAN[0], {"seed": 0, "rollouts": {"n_cov": 8, "max_new": 8}}, PLAN[2]), "config.rollouts.n_cov was 4, now 8"),
    ((PLAN[0], {**PLAN[1], "more": 1}, PLAN[2]), "config.more was null, now 1"),
    ((PLAN[0], PLAN[1], {"sft": "abd"}), 'inputs.sft was "abc", now "abd"')])
def test_another_plan_is_refused_and_the_key_named(tmp_path, plan, told):
  _write(tmp_path / "x")
  with pytest.raises(UserError, match="holds work made otherwise") as raised:
    records.Folder(tmp_path / "x").start(*plan)
  assert told in str(raised.value)


def test_the_way_on_is_told(tmp_path):
  _write(tmp_path / "x")
  with pytest.raises(UserError, match="or choose another --workdir; this way$"):
    records.Folder(tmp_path / "x").start("values", *PLAN[1:], "this way")


@pytest.mark.parametrize("left", [[], ["latest/", "best/"], ["curves.jsonl", "vocabulary.model", "a/0/alarms.jsonl", "00000.npz.partial"]])
def test_a_plan_of_which_nothing_was_made_gives_way(tmp_path, left):
  """A flag is corrected after the stage has failed at once."""
  folder = records.Folder(tmp_path / "x")
  other = (PLAN[0], {"seed": 1}, {"sft": "abd"})
  assert not folder.start(*PLAN)
  for name in left:
    (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x" / name).mkdir(exist_ok=True) if name.endswith("/") else (tmp_path / "x" / name).write_text("")
  assert not folder.start(*other)
  folder.finish(0)
  manifest = folder.manifest()
  assert (manifest["stage"], manifest["config"], manifest["inputs"]) == other


@pytest.mark.parametrize("made", ["manifest.json", "00000.json", "best/2/params/d/0", "progress/0/latest/4/meta", "rows.jsonl"])
def test_a_plan_of_which_anything_was_made_does_not(tmp_path, made):
  folder = records.Folder(tmp_path / "x")
  folder.start(*PLAN)
  (tmp_path / "x" / made).parent.mkdir(parents=True, exist_ok=True)
  (tmp_path / "x" / made).write_text("")
  with pytest.raises(UserError, match="holds work made otherwise: config.seed was 0, now 1"):
    folder.start(PLAN[0], {**PLAN[1], "seed": 1}, PLAN[2])


def test_an_account_of_folders(tmp_path):
  """Their sections, and minutes from plan to manifest; none where a copy has turned the times around, nothing of what is not finished."""
  for name, config, seconds in (("a", {"policy": {"d": 1}, "seed": 3}, 90), ("b", {"search": {"n": 2}, "seed": 3, "policy.d": 1, "rl.n": 4}, -5), ("c", {"x": 0}, 60)):
    folder = records.Folder(tmp_path / name)
    folder.start("stage", config, {})
    if name == "c":
      continue
    folder.write_shard(0, {"x_p": np.zeros(1)}, {})
    folder.finish(1)
    os.utime(tmp_path / name / "plan.json", (1000, 1000))
    os.utime(tmp_path / name / "manifest.json", (1000 + seconds, 1000 + seconds))
  found = records.account({name: records.Folder(tmp_path / name) for name in "abcd"})
  assert found == {"config": {"policy": {"d": 1}, "search": {"n": 2}, "seed": 3, "rl.n": 4}, "minutes": {"a": 1.5, "b": None}}
  assert [records.Folder(tmp_path / name).seconds for name in "ab"] == [90, None]


def test_damage_is_told(tmp_path):
  folder = _write(tmp_path / "x")
  shard = tmp_path / "x" / "00001.npz"
  content = shard.read_bytes()
  shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  with pytest.raises(UserError, match="00001.npz is damaged"):
    folder.read()
  shard.unlink()
  with pytest.raises(UserError, match="00001.npz is missing"):
    folder.read()
  (tmp_path / "x" / "manifest.json").write_text("{")
  with pytest.raises(UserError, match="manifest.json is damaged"):
    folder.read()


def test_an_unfinished_folder_is_told(tmp_path):
  folder = records.Folder(tmp_path / "x")
  for read in (folder.read, folder.digest, folder.manifest):
    with pytest.raises(UserError, match="is not there: run the stage"):
      read()
  folder.start(*PLAN)
  with pytest.raises(UserError, match="is unfinished: run the stage"):
    folder.read()


def test_no_pickle_is_written_or_read(tmp_path):
  folder = records.Folder(tmp_path / "x")
  folder.start(*PLAN)
  objects = np.array([{"a": 1}, None], dtype=object)
  with pytest.raises(ValueError, match="object_b of a shard holds objects"):
    folder.write_shard(0, {"object_b": objects}, {})
  assert not folder.has_shard(0)
  # A foreign file whose checksum is right is still not unpickled.
  folder.write_shard(0, ARRAYS[0], {})
  np.savez(tmp_path / "x" / "00000.npz", object_b=objects)
  description = json.loads((tmp_path / "x" / "00000.json").read_text())
  description["sha256"] = files.digest((tmp_path / "x" / "00000.npz").read_bytes())
  del description["checksum"]
  (tmp_path / "x" / "00000.json").write_text(json.dumps(description))
  folder.finish(1)
  with pytest.raises(UserError, match="00000.npz cannot be read"):
    folder.read()


def test_rows_of_a_shard_are_equal_in_number(tmp_path):
  folder = records.Folder(tmp_path / "x")
  folder.start(*PLAN)
  with pytest.raises(ValueError, match="differ in rows"):
    folder.write_shard(0, {"a_b": np.zeros(2), "c_b": np.zeros(3)}, {})


def test_a_shard_is_a_plain_zip_of_arrays(tmp_path):
  _write(tmp_path / "x")
  with zipfile.ZipFile(tmp_path / "x" / "00000.npz") as archive:
    assert sorted(archive.namelist()) == ["name_b.npy", "token_bt.npy"]


@pytest.mark.parametrize("num_rows, batch_size", [(10, 4), (7, 7), (3, 8), (12, 4)])
def test_every_row_once_per_epoch(num_rows, batch_size):
  rows = run_lib.epoch_rows(num_rows, batch_size, seed=3)
  epochs = 3 * batch_size
  drawn = np.concatenate([rows(n) for n in range(epochs * num_rows // batch_size)]).reshape(-1, num_rows)
  np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(num_rows), (epochs, 1)))
  assert len({tuple(row) for row in drawn}) > 1


def test_rows_are_a_function_of_the_step_alone():
  in_order = run_lib.epoch_rows(10, 4, seed=3)
  want = [in_order(n) for n in range(20)]
  for n in (19, 0, 7, 3, 18):
    np.testing.assert_array_equal(run_lib.epoch_rows(10, 4, seed=3)(n), want[n])
  jumping = run_lib.epoch_rows(10, 4, seed=3)
  for n in (19, 0, 7, 3, 18):
    np.testing.assert_array_equal(jumping(n), want[n])
  assert not np.array_equal(np.concatenate(want), np.concatenate([run_lib.epoch_rows(10, 4, seed=4)(n) for n in range(20)]))


def test_a_plan_made_before_a_key_was_there_means_its_old_value(tmp_path):
  folder, before = records.Folder(tmp_path), {"seed": 0, "problems": {"limit": -1}}
  later = {key.removeprefix("problems."): x for key, x in records.LATER.items() if key.startswith("problems.")}
  now = {"seed": 0, "problems": {"limit": -1, **later}}
  folder.start("problems/train", before, {})
  folder.write_shard(0, {"x": np.zeros(1)}, {})
  folder.start("problems/train", now, {})
  with pytest.raises(UserError, match='config.problems.family was "math", now "gsm8k"'):
    folder.start("problems/train", {**now, "problems": now["problems"] | {"family": "gsm8k"}}, {})
  folder.start("problems/train", before, {})
  with pytest.raises(UserError, match="config.problems.other was null, now 1"):
    folder.start("problems/train", {**now, "problems": now["problems"] | {"other": 1}}, {})
