"""Every arm is tuned with the same number of trainings, on the grid that is asked for, and its best setting is chosen."""

import json
import pathlib
import re
import subprocess
import sys
import types

import pytest

from tests.benchmarks import rl_tuning

GRID = "peak_lr=1e-4,2e-4 implicit.beta=.01,.05,.1"


def run(monkeypatch, tmp_path, *flags):
  """The command's record; a training is a curve of numbers by hand, and its flags are returned beside."""
  asked = []
  def main(command, **_):
    flags = dict(flag[2:].split("=", 1) for flag in command[3:])
    asked.append(flags)
    lr, beta = float(flags["config.rl.peak_lr"]), float(flags["config.rl.implicit.beta"])
    for arm in flags["config.rl.arms"].strip(",").split(","):
      # outcome: best at 1e-4 and beta .1; implicit: at 2e-4 and .01 with the first seed, at .05 with both
      good = {"outcome": (lr < 1.5e-4) * 0.4 + beta, "implicit": (lr > 1.5e-4) * 0.4 + 0.2 - beta}[arm]
      good += (arm == "implicit") * (beta == 0.05) * (flags["config.rl.seeds"] == "11,") * 0.2
      folder = pathlib.Path(flags["workdir"]) / "rl" / arm / flags["config.rl.seeds"].strip(",")
      folder.mkdir(parents=True)
      (folder / "curves.jsonl").write_text("".join(json.dumps({"step": n, "valid_accuracy": good + n / 100}) + "\n" for n in (1, 3)))
    return types.SimpleNamespace(returncode=0)
  monkeypatch.setattr(subprocess, "run", main)
  results = tmp_path / "found.json"
  monkeypatch.setattr(sys, "argv", ["rl_tuning.py", f"--workdir={tmp_path}", f"--results={results}", *flags])
  rl_tuning.main()
  return json.loads(results.read_text()), asked


def test_the_grid_is_every_combination():
  assert rl_tuning.settings_of("a=1,2 b.c=3e-1") == [{"a": 1.0, "b.c": 0.3}, {"a": 2.0, "b.c": 0.3}]


def test_arms_get_equal_budgets_and_their_own_best(monkeypatch, tmp_path):
  found, asked = run(monkeypatch, tmp_path, "--arms=outcome,implicit", f"--grid={GRID}", "--seeds=10,11", "--again=2")
  count = {arm: sum(row["arm"] == arm for row in found["runs"]) for arm in ("outcome", "implicit")}
  assert count == {"outcome": 8, "implicit": 8} and len(asked) == 6 + 4
  assert found["chosen"] == {"outcome": {"peak_lr": 1e-4, "implicit.beta": 0.1, "mean": 0.52},
                             "implicit": {"peak_lr": 2e-4, "implicit.beta": 0.05, "mean": 0.67}}
  assert all(flags["config.rl.lr_factor.outcome"] == "1.0" for flags in asked if "outcome" in flags["config.rl.arms"])


def test_what_is_no_arm_or_never_began_is_told(monkeypatch, tmp_path):
  with pytest.raises(SystemExit, match="--arms: outcomes: none of outcome, reinforce, grpo"):
    run(monkeypatch, tmp_path, "--arms=outcomes,implicit")
  monkeypatch.setattr(rl_tuning.json, "loads", lambda text: {})
  with pytest.raises(SystemExit, match=re.escape("arm outcome was never evaluated (status 0)")):
    run(monkeypatch, tmp_path, "--arms=outcome", f"--grid={GRID}")
