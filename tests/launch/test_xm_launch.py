"""The launcher runs what it is given, to the end, and hands the run's exit status on."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ["--config=configs/quickstart.py", "--config.stage=problems", "--config.arithmetic.train_size=40",
         "--config.arithmetic.validation_size=8", "--config.arithmetic.test_size=8", "--config.problems.problems_per_shard=16"]


@pytest.fixture
def launch(tmp_path):
  def run(*arguments):
    env = {**os.environ, "HOME": str(tmp_path)}  # XManager's list of experiments lives in the home directory
    return subprocess.run([sys.executable, "launch/xm_launch.py", *arguments], cwd=ROOT, env=env, text=True,
                          capture_output=True, timeout=300)
  return run


def test_a_stage_runs_to_its_end(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/a run's place")
  assert done.returncode == 0, done.stderr + done.stdout
  manifest = json.loads((tmp_path / "a run's place/problems/train/manifest.json").read_text())
  assert manifest["config"]["arithmetic"]["train_size"] == 40


def test_the_status_and_the_line_of_a_run_that_fails(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/run", "--config.stage=nonsense")
  assert done.returncode == 2
  assert "config.stage 'nonsense' is none of" in done.stdout
  assert "Traceback" not in done.stdout + done.stderr


def test_without_a_config(launch):
  done = launch("--workdir=x")
  assert (done.returncode, done.stderr) == (2, "error: command line: --config=configs/....py is missing\n")


def test_dry_run_starts_nothing(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/run", "--dry_run")
  assert done.returncode == 0
  assert done.stdout.split()[1:3] == ["-m", "pav_jax.main"] and SMALL[2] in done.stdout
  assert not (tmp_path / "run").exists()
