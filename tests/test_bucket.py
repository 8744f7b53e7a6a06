"""A run whose workdir is a bucket: what it leaves there is what it leaves on a disk, and nothing is left anywhere else."""

import gzip
import io
import json
import os
import tarfile
import tempfile

import jax
import numpy as np
import pytest

from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.problems import problem as problem_lib
from pav_jax.problems.files import door
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics
from pav_jax.training import records
from pav_jax.training import state as state_lib
from tests.didactic.test_stage import _config as figure
from tests.policy.test_arms import TINY
from tests.test_pipeline import STAGES
from tests.test_pipeline import miniature

PLAN = ("rollouts", {"seed": 0}, {"sft": "abc"})


def _names(bucket, folder):
  return sorted(name.removeprefix(f"{folder}/") for name in bucket.objects if name.startswith(f"{folder}/"))


def test_files_are_objects(bucket):
  path = files.path("gs://bucket/files/a.json")
  assert not files.exists(path) and not files.exists(path.parent)
  files.write_json(path, {"x": 1})
  assert files.read_json(path) == {"x": 1} and files.exists(path) and files.exists(path.parent)
  assert bucket.objects["bucket/files/a.json"][1] == json.dumps(files.sealed({"x": 1}), indent=1, sort_keys=True).encode() + b"\n"
  for line in ("one\n", "two\n"):
    files.append(files.folder(files.path("gs://bucket/files/below")) / "b.txt", line)
  assert _names(bucket, "bucket/files") == ["a.json", "below/b.txt"]
  assert bucket.objects["bucket/files/below/b.txt"][1] == b"one\ntwo\n"
  assert files.modified(path) == 1767225600  # the server's only time


def test_another_process_s_object_is_seen_at_once(bucket):
  path = files.path("gs://bucket/seen/a")
  assert list(p.name for p in path.parent.iterdir()) == [] if files.exists(path.parent) else True
  files.write(path, "1")
  assert [p.name for p in path.parent.iterdir()] == ["a"]
  bucket.put("bucket/seen/b", b"2")
  assert [p.name for p in path.parent.iterdir()] == ["a", "b"] and files.exists(path.parent / "b")


def test_records_and_curves_in_a_bucket(bucket):
  folder = records.Folder("gs://bucket/records/x")
  with pytest.raises(UserError, match="gs://bucket/records/x is not there: run the stage"):
    folder.read()
  assert not folder.start(*PLAN)
  folder.write_shard(0, {"a_b": np.arange(3)}, {"rows": 3})
  again = records.Folder("gs://bucket/records/x")
  assert not again.start(*PLAN) and again.has_shard(0) and not again.has_shard(1)
  again.finish(1)
  assert again.start(*PLAN) and again.read()["a_b"].tolist() == [0, 1, 2]
  assert _names(bucket, "bucket/records/x") == ["00000.json", "00000.npz", "manifest.json", "plan.json"]
  bucket.put("bucket/records/x/00000.npz", bucket.objects["bucket/records/x/00000.npz"][1][:-1])
  with pytest.raises(UserError, match="gs://bucket/records/x/00000.npz is damaged"):
    again.read()
  curves = metrics.Curves(folder.path / "curves.jsonl", 0)
  for step in (1, 2, 3):
    curves.write(step, loss=1 / step)
  metrics.Curves(folder.path / "curves.jsonl", 2).write(3, loss=7.0)
  assert [row["loss"] for row in metrics.read_curves(folder.path / "curves.jsonl")] == [1.0, 0.5, 7.0]


def test_a_bucket_that_refuses_is_told_in_a_line(bucket):
  folder = records.Folder("gs://bucket/refused/x")
  folder.start(*PLAN)
  before = dict(bucket.objects)
  try:
    bucket.refuse = 403
    for act in (lambda: folder.write_shard(0, {"a_b": np.arange(3)}, {}), lambda: files.append(folder.path / "c.jsonl", "x")):
      with pytest.raises(UserError, match="gs://bucket/refused/x/.* cannot be written: .*refused") as raised:
        act()
      assert "\n" not in str(raised.value)
  finally:
    bucket.refuse = 0
  assert bucket.objects == before
  folder.write_shard(0, {"a_b": np.arange(3)}, {})


def test_checkpoints_in_a_bucket(bucket, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  mesh, patterns = mesh_lib.make_mesh(data=-1, fsdp=1, model=1), ((".*", jax.sharding.PartitionSpec()),)
  tx = state_lib.optimizer(peak_lr=0.1, warmup_steps=2, num_steps=9, b1=0.9, b2=0.95, clip_norm=1.0, weight_decay=0.0)
  state = state_lib.create(lambda key: {"w_d": jax.random.normal(key, (300,))}, tx, jax.random.key(0), mesh, patterns)
  path = "gs://bucket/trained/latest"
  written = checkpoint.Checkpoints(path, keep=2)
  for step in (1, 2, 3):
    written.save(state._replace(step=state.step + step), {"step": step})
  written.close()
  assert {name.split("/")[0] for name in _names(bucket, "bucket/trained/latest")} == {"2", "3"}
  assert checkpoint.read_meta(path) == {"step": 3}
  np.testing.assert_array_equal(checkpoint.load_params(path, state.params)["w_d"], state.params["w_d"])
  del bucket.objects["bucket/trained/latest/3/commit_success.txt"]  # killed before its end
  assert checkpoint.read_meta(path) == {"step": 2}
  reader = checkpoint.Checkpoints(path, keep=2)
  found, meta = reader.restore(state)
  reader.close()
  assert reader.latest() == 2 and int(found.step) == 2 and meta == {"step": 2}
  assert not os.listdir(tmp_path)


def test_a_user_s_problems_are_read_from_a_bucket(bucket):
  row = {"question": "1 + 1?", "answer": "2", "solution": "It is \\boxed{2}."}
  bucket.put("bucket/own/test.jsonl.gz", gzip.compress(json.dumps(row).encode()))
  [problem] = door.read("gs://bucket/own/{split}.jsonl.gz", "test")
  assert (problem.id, problem.question, problem.answer) == ("test/1", "1 + 1?", "2")
  archive = io.BytesIO()
  with tarfile.open(fileobj=archive, mode="w:gz") as tar:
    content = json.dumps({"problem": "1 + 1?", "solution": row["solution"]}).encode()
    member = tarfile.TarInfo("MATH/test/algebra/7.json")
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
  bucket.put("bucket/own/MATH.tar.gz", archive.getvalue())
  for path in ("gs://bucket/own/MATH.tar.gz", "gs://bucket/own"):
    [problem] = problem_lib.read_math(path, "test")
    assert (problem.id, problem.answer) == ("math/test/algebra/7.json", "2")
  with pytest.raises(UserError, match="there is no file gs://bucket/own/train.jsonl"):
    list(door.read("gs://bucket/own/{split}.jsonl", "train"))


def test_a_figure_in_a_bucket(bucket):
  for again in (False, True):
    main.run(figure("map", again=again), "gs://bucket/didactic")
    assert _names(bucket, "bucket/didactic/map") == ["claims.json", "manifest.json", "map.svg", "plan.json"]


@pytest.fixture(scope="module")
def run(bucket, tmp_path_factory):
  """The pipeline, run in a bucket from an empty folder; both."""
  place, here = tmp_path_factory.mktemp("place"), os.getcwd()
  os.makedirs(place / "tmp")
  kept, tempfile.tempdir = tempfile.tempdir, str(place / "tmp")
  os.chdir(place)
  try:
    main.run(miniature(), "gs://bucket/run")
  finally:
    os.chdir(here)
    tempfile.tempdir = kept
  return "gs://bucket/run", place


@pytest.mark.slow
def test_the_pipeline_in_a_bucket_makes_what_it_makes_on_a_disk(run, done):
  for name in STAGES:
    mine, theirs = records.Folder(f"{run[0]}/{name}"), records.Folder(done / name)
    same = lambda folder: {key: x for key, x in folder.manifest().items() if key not in ("inputs", "facts")}
    assert same(mine) == same(theirs)
    # Of a search, facts have times, and the folders whose labels its verifiers have learnt from.
    assert mine.manifest()["facts"] == theirs.manifest()["facts"] or name in ("search/samples", "search/beams")
    if mine.manifest()["shards"]:
      jax.tree.map(np.testing.assert_array_equal, mine.read(), theirs.read())
  for name in ("sft", "verifier/orm", "verifier/q", "verifier/advantage"):
    assert metrics.read_curves(f"{run[0]}/{name}/curves.jsonl") == metrics.read_curves(done / name / "curves.jsonl")
    assert checkpoint.read_meta(f"{run[0]}/{name}/best") == checkpoint.read_meta(done / name / "best")


@pytest.mark.slow
def test_nothing_is_left_anywhere_else(run, bucket):
  # TFDS makes a temporary folder of its own, which lies empty.
  assert os.listdir(run[1]) == ["tmp"] and not [name for name in os.listdir(run[1] / "tmp") if not name.endswith("tfds")]
  assert not [p for p in (run[1] / "tmp").rglob("*") if p.is_file()]
  names = _names(bucket, "bucket/run")
  assert {name.split("/")[0] for name in names} == {"problems", "sft", "rollouts", "values", "verifier", "search", "report"}
  assert not [name for name in names if name.endswith((".partial", "/"))]
  assert bucket.objects["bucket/run/report/index.html"][1].startswith(b"<!doctype html>")


@pytest.mark.slow
def test_a_run_in_a_bucket_goes_on_and_is_evaluated_by_path(run, bucket, tmp_path, capsys):
  before = {name: generation for name, (generation, _) in bucket.objects.items() if "/report/" not in name}
  lost = [f"bucket/run/values/{name}" for name in ("manifest.json", "00001.json", "00001.npz")]
  contents = {name: bucket.objects.pop(name)[1] for name in lost}
  main.run(miniature(), run[0])
  after = {name: generation for name, (generation, _) in bucket.objects.items() if "/report/" not in name}
  assert after.keys() == before.keys() and {name for name in after if after[name] != before[name]} == set(lost)
  assert {name: bucket.objects[name][1] for name in lost} == contents
  capsys.readouterr()
  main.run(miniature(stage="evaluate", **{"evaluate.checkpoint": f"{run[0]}/sft/best", "policy.init_from": f"{run[0]}/sft/best"}), tmp_path)
  assert json.loads(capsys.readouterr().out.splitlines()[-1])["checkpoint"] == "gs://bucket/run/sft/best"


@pytest.mark.slow
def test_rl_in_a_bucket(run, bucket):
  changes = {"arms": ("outcome",), "init_from": "sft", "watch.factor": 1.0001, "watch.responses": 4}
  main.run(miniature(stage="rl", **{f"rl.{name}": x for name, x in (TINY | changes).items()}), run[0])
  names = _names(bucket, "bucket/run")
  assert {"rl/outcome/0/curves.jsonl", "rl/outcome/0/alarms.jsonl", "rl/manifest.json", "rl_report/report.json", "rl_report/samples.svg"} <= set(names)
  told = records.Folder(f"{run[0]}/rl").manifest()["facts"]["training"]["outcome/0"]["alarms"]
  assert len(metrics.read_curves(f"{run[0]}/rl/outcome/0/alarms.jsonl")) == told
