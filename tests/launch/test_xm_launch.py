"""The launcher runs what it is given, to the end, and hands the run's exit status on; a mistake is one line."""

import json
import pathlib
import shlex
import sys

import pytest
from setuptools._distutils import core

ROOT = pathlib.Path(__file__).parents[2]

SMALL = ["--config=configs/quickstart.py", "--config.stage=problems", "--config.arithmetic.train_size=40",
         "--config.arithmetic.validation_size=8", "--config.arithmetic.test_size=8", "--config.problems.problems_per_shard=16"]


def test_a_stage_runs_to_its_end(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/a run's place")
  assert done.returncode == 0, done.stderr + done.stdout
  manifest = json.loads((tmp_path / "a run's place/problems/train/manifest.json").read_text())
  assert manifest["config"]["arithmetic"]["train_size"] == 40
  assert (tmp_path / ".xmanager/experiments.sqlite3").exists()


def test_the_status_and_the_line_of_a_run_that_fails(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/run", "--config.stage=nonsense")
  assert done.returncode == 2
  assert "config.stage 'nonsense' is none of" in done.stdout
  assert "Traceback" not in done.stdout + done.stderr


def test_dry_run_starts_nothing(launch, tmp_path):
  done = launch(*SMALL, f"--workdir={tmp_path}/run", "--dry_run", "--devices=2", XLA_FLAGS="")
  assert done.returncode == 0
  assert done.stdout == ("export JAX_PLATFORMS=cpu; export XLA_FLAGS=--xla_force_host_platform_device_count=2; trap : TERM; " + shlex.join(
      [sys.executable, "-m", "pav_jax.main", *SMALL, f"--workdir={tmp_path}/run"]) + "\n")
  assert not (tmp_path / "run").exists() and not (tmp_path / ".xmanager").exists()


GKE = ["--platform=gke", "--config=c", "--workdir=gs://b"]


@pytest.mark.parametrize("arguments, line", [
    (["--workdir=x"], "command line: --config=configs/....py is missing"),
    (["--config=c"], "command line: --workdir=... is missing"),
    (["--config=c", "--workdir=w", "--platform=borg"], "--platform=borg: none of local, gke, queued_resources"),
    ([*GKE, "--image=i"], "--platform=gke: --tpu=... is missing"),
    ([*GKE, "--tpu=v5e:4x4"], "--platform=gke: --image=... is missing"),
    ([*GKE, "--tpu=v5e:3x5", "--image=i"], "--tpu=v5e:3x5: v5e has no topology '3x5'; it has 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
    ([*GKE, "--tpu=v5e:4x4", "--image=i", "--zone=z"], "--platform=gke: --zone says nothing there"),
    ([*GKE, "--tpu=v5e:4x4", "--image=i", "--workdir=runs/x"],
     "--workdir=runs/x: on gke a bucket (gs://...) or an absolute path that all hosts share"),
    (["--config=c", "--workdir=w", "--tpu=v5e:4x4"], "--platform=local: --tpu says nothing there"),
    (["--config=c", "--workdir=w", "--processes=0"], "flag --processes=0: ")])
def test_a_mistake_is_one_line(refused, arguments, line):
  assert refused(*arguments).startswith(line)


def test_a_package_carries_the_configs(monkeypatch):
  """On a TPU VM there is what pip installed, and a config is a file of configs/; its name is not taken from others."""
  monkeypatch.chdir(ROOT)
  packages = core.run_setup("setup.py", stop_after="init").packages
  folders = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in ROOT.glob("configs/**/*.py")}
  assert {f"pav_jax.{folder}" for folder in folders} <= set(packages)
  assert {package.partition(".")[0] for package in packages} == {"pav_jax"}
