"""A machine that is taken, a key that is pressed, a machine that dies, one that fails: what the process says, and what the others do."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pav_jax.training import metrics

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


def _run(workdir, *arguments, hosts=1, spec=False):
  """[(status, lines of stderr)] of every process of a toy run."""
  workdir.mkdir(exist_ok=True)
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
  running = [subprocess.Popen(
      [sys.executable, str(ROOT / "tests/faults/toy.py"), str(workdir), f"{address},{hosts},{i}" if spec or hosts > 1 else "",
       *map(str, arguments)], env=os.environ | flags, stderr=subprocess.PIPE, text=True) for i in range(hosts)]
  said = [process.communicate(timeout=120)[1].splitlines() for process in running]
  return [(process.returncode, lines) for process, lines in zip(running, said)]


def _steps(workdir):
  return sorted(int(p.name) for p in (workdir / "latest").iterdir())


def _parameters(workdir, step):
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  with ocp.StandardCheckpointer() as reader:
    like = {"w_d": jax.ShapeDtypeStruct((3,), np.float32, sharding=here)}
    return np.asarray(reader.restore(workdir / "latest" / str(step) / "params", like)["w_d"])


def _same(one, two, step):
  np.testing.assert_array_equal(_parameters(one, step), _parameters(two, step))
  assert metrics.read_curves(one / "curves.jsonl") == metrics.read_curves(two / "curves.jsonl")


@pytest.mark.parametrize("what, spec, status, word", [
    ("term", False, 143, "preempted"), ("term", True, 143, "preempted"), ("int", False, 130, "interrupted"), ("int", True, 130, "interrupted")])
def test_a_machine_that_is_taken_saves_and_goes_on_alike(tmp_path, what, spec, status, word):
  """By SIGTERM or Ctrl-C. One process, by itself or the only one of --hosts, where JAX listens, too."""
  assert _run(tmp_path / "whole", 60)[0][0] == 0
  [(ended, said)] = _run(tmp_path / "taken", 60, what, 0, 20, spec=spec)
  assert ended == status and _steps(tmp_path / "taken") == [21]
  assert said[-1] == f"{word}: toy: saved at step 21; the same command goes on from here"
  assert _run(tmp_path / "taken", 60)[0][0] == 0
  _same(tmp_path / "whole", tmp_path / "taken", 60)


@pytest.mark.parametrize("what, status, word", [("term", 143, "preempted"), ("int", 130, "interrupted")])
def test_several_hosts_of_which_one_hears_of_it_save_the_same_step(tmp_path, what, status, word):
  assert [status for status, _ in _run(tmp_path / "whole", 400, hosts=2)] == [0, 0]
  ended = _run(tmp_path / "taken", 400, what, 1, 20, hosts=2)
  [step] = _steps(tmp_path / "taken")
  assert 20 < step < 400
  said = f"toy: saved at step {step}; the same command goes on from here"
  assert ended[1][0] == status and f"{word}: {said}" in ended[1][1], ended
  assert ended[0][0] in (143, status), ended  # which it was told by, or the other's if that one is the first to leave
  assert f"preempted: {said}" in ended[0][1] or f"error: host 1 ended: {word}: {said}" in ended[0][1], ended
  assert [status for status, _ in _run(tmp_path / "taken", 400, hosts=2)] == [0, 0]
  _same(tmp_path / "whole", tmp_path / "taken", 400)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("step", [-1, 20])
def test_a_host_that_dies_ends_the_other(tmp_path, who, step):
  ended = _run(tmp_path / "run", 60, "die", who, step, hosts=2)
  assert ended[who][0] == -9
  status, said = ended[1 - who]
  assert status == 1 and said[-1].startswith("error: ") and "another host is gone" in said[-1], said


@pytest.mark.parametrize("who", [0, 1])
def test_a_mistake_that_one_host_sees_ends_the_other(tmp_path, who):
  ended = _run(tmp_path / "run", 60, "fail", who, 20, hosts=2)
  assert [status for status, _ in ended] == [2, 2]
  assert ended[who][1][-1] == "error: a mistake that this host alone can see"
  assert ended[1 - who][1][-1] == f"error: host {who} ended: error: a mistake that this host alone can see"


def test_the_driver_that_kills(tmp_path):
  """A few of its kills; tests/faults/kill.py makes many, of every stage."""
  done = subprocess.run([sys.executable, str(ROOT / "tests/faults/kill.py"), "--stages=sft,rollouts", "--kills=3", "--seed=1",
                         f"--results={tmp_path / 'kills.jsonl'}"], capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stdout + done.stderr
  lines = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
  assert [line["stage"] for line in lines] == ["sft", "rollouts"] and all(line["kills"] == 3 and line["ends"] and not line["wrong"] for line in lines)
