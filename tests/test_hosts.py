"""Two processes of four devices are one run: the network that eight devices train, the records that one process makes."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.training import checkpoint
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import records
from tests.policy.test_arms import TINY
from tests.test_pipeline import miniature

pytestmark = pytest.mark.slow

CHANGES = {"rollouts.problems_per_shard": 2, "verifier.kinds": ("orm", "q"), "search.arms": ("q_beam", "pav_beam"), "search.widths": (1,), "search.rows": 48,
           "evaluate.checkpoint": "sft/best"} | {f"rl.{name}": x for name, x in TINY.items()} | {"rl.batch_size": 4, "rl.init_from": "./sft/best"}
LIMIT_S = 600
# Where each thread stands when they wait for one another for ever.
HANGS = f"""
import faulthandler
faulthandler.dump_traceback_later({LIMIT_S}, exit=True)
"""
STAGE = HANGS + """
import sys
from pav_jax import main
from tests.test_hosts import CHANGES
from tests.test_pipeline import miniature
import os
place, root, spec, *stages = sys.argv[1:]
os.chdir(place)  # evaluate.checkpoint
def all_stages():
  for n, stage in enumerate(stages):
    main.run(miniature(stage=stage, **{"mesh.model": 2, **CHANGES}), root, "" if n else spec)
status = main.to_the_end(all_stages, several=bool(spec))
sys.stderr.flush()
os._exit(status)
"""
SAVES = HANGS + """
import os, pathlib, sys
import jax
import numpy as np
from pav_jax.training import checkpoint, hosts
from pav_jax.training.state import TrainState
_, root, spec = sys.argv[1:]
hosts.join(spec)
everywhere = jax.sharding.NamedSharding(jax.make_mesh((8,), ("data",)), jax.sharding.PartitionSpec())
array = lambda *x: jax.make_array_from_callback(np.shape(x), everywhere, lambda index: np.array(x, np.float32)[index])
folders = [checkpoint.Checkpoints(pathlib.Path(root) / name, by_loss=name == "best") for name in ("latest", "best")]
for n in range(6):
  for folder in folders:
    folder.save(TrainState(array(n).reshape(()), {"w": array(n, n)}, ()), {}, loss=6 - n)
for folder in folders:
  folder.close()
os._exit(0)
"""


def _processes(root, *stages, place=None, script=STAGE):
  """root: the workdir; place: where the processes run, if not there."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": os.getcwd()}
  running = [subprocess.Popen([sys.executable, "-c", script, str(place or root), str(root), f"{address},2,{i}", *stages], env=environment,
                              stderr=subprocess.PIPE, text=True) for i in range(2)]
  said = [process.communicate(timeout=LIMIT_S + 60)[1] for process in running]
  print(*said, sep="\n", file=sys.stderr)  # pytest shows it where a test fails, and shortens it in an assertion
  return [process.returncode for process in running], said


def _one_process(root, *stages):
  flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()}
  return subprocess.run([sys.executable, "-c", STAGE, str(root), str(root), "", *stages], env=os.environ | flags, capture_output=True, text=True)


def _leaves(path):
  """Of a checkpoint that more devices wrote than are here."""
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with ocp.StandardCheckpointer() as reader:
    stored = reader.metadata(path / "params").item_metadata.tree
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), stored)
    return jax.tree.leaves(reader.restore(path / "params", like))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """A run of the whole pipeline, RL and evaluation by two processes."""
  root = tmp_path_factory.mktemp("two")
  status, said = _processes(root, "pipeline", "rl", "evaluate")
  assert status == [0, 0], said
  return root


def _copied(two, root, *folders):
  for folder in folders:
    shutil.copytree(two / folder, root / folder)
  return root


def test_two_hosts_end_every_stage(two):
  for folder in ("rollouts", "values", "search/samples", "search/beams"):
    assert len(records.Folder(two / folder).manifest()["shards"]) > 1 or folder == "search/samples"
    assert records.Folder(two / folder).read()
  assert (two / "report/index.html").exists()


def test_two_hosts_train_the_policy_of_one(two, tmp_path):
  """On as many devices: eight of one process."""
  one = _copied(two, tmp_path, "problems")
  done = _one_process(one, "sft")
  assert done.returncode == 0, done.stderr
  newest = lambda root: max((p for p in (root / "sft/latest").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
  mine, theirs = newest(one), newest(two)
  assert mine.name == theirs.name
  for x, y in zip(_leaves(mine), _leaves(theirs), strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5)
  steps = lambda root: [row["step"] for row in metrics.read_curves(root / "sft/curves.jsonl")]
  assert steps(one) == steps(two)


def test_two_hosts_make_the_records_of_one(two, tmp_path):
  """From the same policy, by one device of one process with all the rows."""
  one = _copied(two, tmp_path, "problems", "sft")
  for stage in ("rollouts", "values"):
    main.run(miniature(stage=stage, **CHANGES), one)
    mine, theirs = records.Folder(one / stage), records.Folder(two / stage)
    assert mine.manifest()["counts"] == theirs.manifest()["counts"]
    for name, x in mine.read().items():
      np.testing.assert_allclose(theirs.read()[name], x, atol=1e-5, err_msg=f"{stage} {name}")


def test_two_hosts_in_a_bucket(two, bucket, tmp_path):
  """As on a pod: what they leave on a disk that they share, and nothing where they run."""
  status, said = _processes("gs://bucket/two", "pipeline", place=tmp_path)
  assert status == [0, 0], said
  for stage in ("rollouts", "values", "search/samples", "search/beams"):
    mine, theirs = records.Folder(f"gs://bucket/two/{stage}"), records.Folder(two / stage)
    assert mine.manifest()["counts"] == theirs.manifest()["counts"]
    jax.tree.map(np.testing.assert_array_equal, mine.read(), theirs.read())
  for name in ("sft", "verifier/orm", "verifier/q"):
    assert metrics.read_curves(f"gs://bucket/two/{name}/curves.jsonl") == metrics.read_curves(two / name / "curves.jsonl")
    assert checkpoint.read_meta(f"gs://bucket/two/{name}/best") == checkpoint.read_meta(two / name / "best")
  assert "bucket/two/report/index.html" in bucket.objects and not os.listdir(tmp_path)


def test_two_folders_are_written_at_once(tmp_path):
  """As the newest and the best are: orbax's threads of one must not meet those of the other."""
  status, said = _processes(tmp_path, script=SAVES)
  assert status == [0, 0], said
  for name in ("latest", "best"):
    assert checkpoint.read_meta(tmp_path / name / "5") == {}


def test_a_mistake_on_the_first_host_ends_all(tmp_path):
  (tmp_path / "problems").write_text("a file where a folder should be")
  status, said = _processes(tmp_path, "problems")
  assert status == [2, 2], said
  assert said[0].splitlines()[-1].startswith("error: ") and said[1].splitlines()[-1] == "error: problems failed on the first host", said


def test_a_mistake_of_all_is_told_by_all(tmp_path):
  status, said = _processes(tmp_path, "report")
  assert status == [2, 2] and all("not finished" in x.splitlines()[-1] for x in said), said


def test_two_hosts_learn_what_one_learns(two, tmp_path):
  """RL and evaluation, on as many devices: eight of one process."""
  one = _copied(two, tmp_path, "problems", "sft", "rollouts", "values", "verifier")
  done = _one_process(one, "rl", "evaluate")
  assert done.returncode == 0, done.stderr
  curves = [metrics.read_curves(root / "rl/progress/0/curves.jsonl") for root in (one, two)]
  for mine, theirs in zip(*curves, strict=True):
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"rollout_s", "score_s", "update_s"}:
      np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-3, atol=1e-5, err_msg=f"{name} of step {mine['step']}")
  assert records.Folder(one / "rl").manifest()["counts"] == records.Folder(two / "rl").manifest()["counts"]
  assert (two / "rl_report/report.json").exists()
  figures = [json.loads((root / "evaluate/evaluate.json").read_text()) for root in (one, two)]
  assert figures[0] == figures[1]


def test_a_stage_for_one_host_says_so(tmp_path):
  status, said = _processes(tmp_path, "didactic")
  assert status == [2, 2] and all("stage didactic runs on one host" in x.splitlines()[-1] for x in said), said


@pytest.mark.parametrize("spec", ["elsewhere", "1.2.3.4:5,2,2", "1.2.3.4:5,2", "1.2.3.4,2,0"])
def test_a_wrong_spec_is_told_in_a_line(spec):
  with pytest.raises(UserError, match="neither auto nor ADDRESS:PORT,COUNT,INDEX"):
    hosts.join(spec)
