"""Several processes on this machine: a stand-in for pav_jax says what it was given, and fails when it is told to."""

import json
import pathlib
import re
import signal

import pytest

from tests.launch.hostile import HOSTILE

ROOT = pathlib.Path(__file__).parents[2]

# Writes its arguments and what is set for it; waits to be ended, or ends with a status.
MAIN = """
import json, os, pathlib, signal, sys, time
me = next((a.rpartition(",")[2] for a in sys.argv if a.startswith("--hosts=")), "0")
given = {"arguments": sys.argv[1:], "flags": os.environ.get("XLA_FLAGS", ""), "platform": os.environ.get("JAX_PLATFORMS", "")}
here = pathlib.Path(os.environ["SAID"])
with open(here / f"host{me}.jsonl", "a") as f:
  print(json.dumps(given), file=f)
print("I am", me)
stage = next((a.partition("=")[2] for a in sys.argv if a.startswith("--config.stage=")), "")
def wait(ready):
  try:
    (here / f"waits{me}").touch()
    end = time.monotonic() + 60  # who should have been ended, and was not, must not stay for ever
    while not ready() and time.monotonic() < end:
      time.sleep(0.02)
  except SystemExit:
    (here / f"told{me}").touch()
    raise
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if stage == "waits" or stage == "fails" and me != "2":
  wait(lambda: False)
if stage == "fails":
  wait(lambda: (here / "waits0").exists() and (here / "waits1").exists())
  sys.exit(7)
if stage == "dies":
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def local(launch, tmp_path):
  """local(*arguments): (the command's end, what each process was given)."""
  place = tmp_path / "somewhere else"
  (place / "pav_jax").mkdir(parents=True)
  (place / "pav_jax/__init__.py").touch()
  (place / "pav_jax/main.py").write_text(MAIN)
  said = tmp_path / "said"
  said.mkdir()

  def run(*arguments, **options):
    # In a folder of its own `python -m pav_jax.main` finds the stand-in first.
    done = launch("--config=c", "--workdir=w", *arguments, cwd=place, SAID=str(said), XLA_FLAGS="--xla_dump_to=x", JAX_PLATFORMS="",
                  **options)
    assert "Traceback" not in done.stdout + done.stderr
    return done, [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(said.glob("*.jsonl"))]
  return run


def test_two_processes_of_four_devices_and_two_stages(local):
  done, given = local("--processes=2", "--devices=4", "--stages=a,b", *HOSTILE)
  assert done.returncode == 0, done
  assert done.stdout.count("[host0] I am 0") == done.stdout.count("[host1] I am 1") == 2
  ports = {}
  for index, runs in enumerate(given):
    assert [run["arguments"][:-1] for run in runs] == [
        ["--config=c", *HOSTILE, "--workdir=w", f"--config.stage={stage}"] for stage in "ab"]
    for stage, run in zip("ab", runs):
      address, count, mine = run["arguments"][-1].removeprefix("--hosts=").split(",")
      assert re.fullmatch(r"127\.0\.0\.1:\d+", address) and (count, mine) == ("2", str(index))
      ports.setdefault(stage, set()).add(address)
      assert run["platform"] == "cpu"
      assert run["flags"] == "--xla_dump_to=x --xla_force_host_platform_device_count=4"
  # The processes of a stage meet at one port, and those of the next not where a late one may still listen.
  assert len(given) == 2 and len(ports["a"]) == len(ports["b"]) == 1 and ports["a"] != ports["b"]


def test_a_process_by_itself_is_told_nothing_of_hosts_and_devices(local):
  done, [[run]] = local()
  assert done.returncode == 0
  assert run == {"arguments": ["--config=c", "--workdir=w"], "flags": "--xla_dump_to=x", "platform": ""}


def test_the_first_failure_ends_the_others_and_is_the_status(local, tmp_path):
  done, given = local("--processes=3", "--stages=fails,b")
  assert done.returncode == 7, done
  assert [path.name for path in sorted((tmp_path / "said").glob("told*"))] == ["told0", "told1"]
  assert [len(runs) for runs in given] == [1, 1, 1]


@pytest.mark.parametrize("by, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_reaches_every_process(local, tmp_path, by, status):
  waiting = [tmp_path / "said" / f"waits{index}" for index in range(2)]
  done, given = local("--processes=2", "--stages=waits,b", interrupt_at=waiting, by=by)
  assert done.returncode == status and "Traceback" not in done.stderr, done
  assert (tmp_path / "said/told0").exists() and (tmp_path / "said/told1").exists()
  assert [len(runs) for runs in given] == [1, 1]


def test_a_sweep_runs_one_unit_after_another_up_to_a_failure(local):
  done, [runs] = local("--sweep=config.stage=a,b,dies,c")
  assert done.returncode == 137
  assert [run["arguments"][1:] for run in runs] == [[f"--config.stage={x}", f"--workdir=w/stage={x}"] for x in ("a", "b", "dies")]
  assert done.stderr == "work unit stage=dies ended with status 137; not started: stage=c\n"


CONFIG = """
from configs import default
def get_config():
  config = default.get_config()
  config.sft.update({"num_steps": 4, "batch_size": 4, "eval_every": 2, "save_every": 2, "log_every": 1, "warmup_steps": 1})
  config.update_from_flattened_dict({
      "arithmetic.train_size": 40, "arithmetic.validation_size": 8, "arithmetic.test_size": 6, "problems.problems_per_shard": 16,
      "rollouts.num_problems": 8, "rollouts.max_new": 12, "rollouts.rows": 8, "rollouts.problems_per_shard": 2})
  return config
"""


@pytest.mark.slow
def test_the_real_thing_on_two_processes(launch, tmp_path):
  (tmp_path / "tiny.py").write_text(CONFIG)
  flags = [f"--config={tmp_path}/tiny.py", f"--workdir={tmp_path}/run"]
  first = launch(*flags, "--stages=problems,sft")
  assert first.returncode == 0, first
  second = launch(*flags, "--stages=rollouts", "--processes=2", "--devices=2")
  assert second.returncode == 0, second
  assert "[host0] rollouts" in second.stdout and "[host1] rollouts" not in second.stdout  # the first one talks
  manifest = json.loads((tmp_path / "run/rollouts/manifest.json").read_text())
  assert len(manifest["shards"]) == 4 and sum(shard["rows"] for shard in manifest["shards"]) == 16


def test_here_is_where_the_tests_run():
  """The tests must not find an installed copy of what they test."""
  import pav_jax
  assert pav_jax.__path__[0] == str(ROOT / "pav_jax")
