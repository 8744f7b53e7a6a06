"""Two processes of four devices drain one queue: the same records as one process makes."""

import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.training import hosts
from pav_jax.training import records
from tests.test_pipeline import miniature

pytestmark = pytest.mark.slow

STAGE = """
import sys
from pav_jax import main
from tests.test_pipeline import miniature
import pathlib
root, spec, *stages = sys.argv[1:]
try:
  for n, stage in enumerate(stages):
    main.run(miniature(stage=stage, **{"mesh.model": 2, "rollouts.problems_per_shard": 2}), pathlib.Path(root), "" if n else spec)
except main.UserError as error:
  sys.exit(f"error: {error}")
"""


def _processes(root, *stages):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
  running = [subprocess.Popen([sys.executable, "-c", STAGE, str(root), f"{address},2,{i}", *stages], env=environment,
                              stderr=subprocess.PIPE, text=True) for i in range(2)]
  said = [process.communicate(timeout=600)[1] for process in running]
  return [process.returncode for process in running], said


@pytest.fixture(scope="module")
def start(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  for stage in ("problems", "sft"):
    main.run(miniature(stage=stage), path)
  return path


def test_two_hosts_make_the_records_of_one(start, tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  for root in (one, two):
    shutil.copytree(start, root)
  for stage in ("rollouts", "values"):
    main.run(miniature(stage=stage, **{"rollouts.problems_per_shard": 2}), one)
  status, said = _processes(two, "rollouts", "values")
  assert status == [0, 0], said
  for stage in ("rollouts", "values"):
    mine, theirs = records.Folder(one / stage), records.Folder(two / stage)
    assert mine.manifest()["counts"] == theirs.manifest()["counts"] and len(theirs.manifest()["shards"]) > 1
    for name, x in mine.read().items():
      np.testing.assert_allclose(theirs.read()[name], x, atol=1e-5, err_msg=f"{stage} {name}")


def test_a_stage_for_one_host_says_so(start):
  status, said = _processes(start, "verifier")
  assert status == [1, 1] and all("stage verifier runs on one host" in x.splitlines()[-1] for x in said), said


@pytest.mark.parametrize("spec", ["elsewhere", "1.2.3.4:5,2,2", "1.2.3.4:5,2", "1.2.3.4,2,0"])
def test_a_wrong_spec_is_told_in_a_line(spec):
  with pytest.raises(UserError, match="neither auto nor ADDRESS:PORT,COUNT,INDEX"):
    hosts.join(spec)


def test_every_shard_has_one_host(monkeypatch):
  monkeypatch.setattr(hosts.jax, "process_count", lambda: 3)
  parts = []
  for index in range(3):
    monkeypatch.setattr(hosts.jax, "process_index", lambda index=index: index)
    parts.append(hosts.own(range(8)))
  assert sorted(sum(parts, [])) == list(range(8)) and max(map(len, parts)) - min(map(len, parts)) <= 1
