"""Equal tuning budgets for the arms of RL: each at every setting of one grid, its best ones once more, on validation problems alone.

  .venv/bin/python tests/benchmarks/rl_tuning.py --workdir=runs/sparse --results=docs/results/records/rl_tuning.json \
    --arms=outcome,min_form,implicit --grid="peak_lr=7e-5,1e-4,1.4e-4 kl=0.001,0.05"

1. Every arm (pav_jax/policy/arms.py has their names) trains with the first seed at every setting of the grid: every
   combination of the values of its knobs, which are numbers of the rl section, as `kl` or `implicit.beta`. Factors of the
   arm's own are taken off; of an arm ARM@NAME the config has to name them.
2. Its best `--again` settings train with each further seed.
3. The setting with the highest mean over its seeds is the arm's; what is compared is the validation accuracy averaged
   over the evaluations of a run, so that both pace and end count.

Seeds are such as no result has. Of the test problems one response to one is drawn, which the stage asks for, and not looked at.
A run that stopped (a loss that is no number) counts with what it had; one that never evaluated anything ends the command. Started again, the command goes on where it was;
with other --arms it adds them to the results that are there.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys

from pav_jax.policy import arms as arms_lib

ARTEFACTS = ("problems", "sft", "rollouts", "values", "verifier")


def settings_of(grid: str) -> list[dict[str, float]]:
  """Every combination of "knob=value,value knob=value,value"."""
  knobs = dict(part.split("=") for part in grid.split())
  return [dict(zip(knobs, values)) for values in itertools.product(*(map(float, values.split(",")) for values in knobs.values()))]


def _bases(arms: list[str]) -> list[str]:
  """The arms without their provers' names."""
  return list(dict.fromkeys(arm.partition("@")[0] for arm in arms))


def trained(workdir: pathlib.Path, config: str, arms: list[str], seed: int, setting: dict[str, float], flags: list[str]) -> list[dict]:
  """A row for each arm: its validation curve at this setting."""
  folder = workdir / "tuning" / "_".join([*(f"{name}{value:g}" for name, value in setting.items()), f"seed{seed}", *arms])
  folder.mkdir(parents=True, exist_ok=True)
  for name in ARTEFACTS:
    if not (folder / name).exists():
      (folder / name).symlink_to((workdir / name).absolute(), target_is_directory=True)
  fixed = {"stage": "rl", "rl.arms": ",".join(arms) + ",", "rl.seeds": f"{seed},", "rl.test_problems": 1, "rl.eval_samples": 1}
  fixed |= {f"rl.{name}.{arm}": 1.0 for name in ("lr_factor", "kl_factor") for arm in {*arms, *_bases(arms)}}
  fixed |= {f"rl.{name}": value for name, value in setting.items()}
  command = [sys.executable, "-m", "pav_jax.main", f"--config={config}", f"--workdir={folder}",
             *(f"--config.{name}={value}" for name, value in fixed.items()), *flags]
  with open(folder / "log", "a", encoding="utf-8") as log:
    status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
  rows = []
  for arm in arms:
    curves = folder / "rl" / arm / str(seed) / "curves.jsonl"
    lines = [json.loads(line) for line in curves.read_text().splitlines()] if curves.exists() else []
    told = [(row["step"], round(row["valid_accuracy"], 4)) for row in lines if "valid_accuracy" in row]
    if not told:
      raise SystemExit(f"arm {arm} was never evaluated (status {status}): {folder / 'log'} says why")
    rows.append({"arm": arm, "seed": seed, **setting, "status": status, "step, accuracy": told,
                 "mean": round(statistics.fmean(a for _, a in told), 4)})
  return rows


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a run up to its verifiers")
  parser.add_argument("--config", default="configs/sparse.py")
  parser.add_argument("--results", type=pathlib.Path, required=True)
  parser.add_argument("--arms", default="outcome,outcome_critic,progress,self")
  parser.add_argument("--grid", default="peak_lr=7e-5,1e-4,1.4e-4 kl=0.001,0.05", help="the same for every arm")
  parser.add_argument("--seeds", default="10,11")
  parser.add_argument("--again", type=int, default=2, help="settings of each arm that further seeds train")
  parser.add_argument("--streams", type=int, default=1, help="trainings at once")
  parser.add_argument("--flags", default="", help="more of main's flags, separated by spaces; they stand in the record")
  options = parser.parse_args()
  (first, *further), flags, grid = map(int, options.seeds.split(",")), options.flags.split(), settings_of(options.grid)
  arms, knobs = options.arms.split(","), list(grid[0])
  if unknown := set(_bases(arms)) - set(arms_lib.ARMS):
    raise SystemExit(f"--arms: {', '.join(sorted(unknown))}: none of {', '.join(arms_lib.ARMS)}")
  at = lambda row: {name: row[name] for name in knobs}
  runs = []
  with concurrent.futures.ThreadPoolExecutor(options.streams) as pool:
    def train(jobs):
      for rows in pool.map(lambda job: trained(options.workdir, options.config, *job, flags), jobs):
        runs.extend(rows)
        print("\n".join(f"{row['arm']:<20}{at(row)} seed {row['seed']}: {row['mean']}" for row in rows), flush=True)
    train([(arms, first, setting) for setting in grid])
    best = {arm: sorted((row for row in runs if row["arm"] == arm), key=lambda row: -row["mean"])[:options.again] for arm in arms}
    train([([arm], seed, at(row)) for arm in arms for row in best[arm] for seed in further])
  mean = lambda arm, row: statistics.fmean(r["mean"] for r in runs if r["arm"] == arm and at(r) == at(row))
  chosen = {arm: max(best[arm], key=lambda row: mean(arm, row)) for arm in arms}
  chosen = {arm: at(row) | {"mean": round(mean(arm, row), 4)} for arm, row in chosen.items()}
  earlier = json.loads(options.results.read_text()) if options.results.exists() else {"commands": [], "chosen": {}, "runs": []}
  options.results.write_text(json.dumps({
      "commands": [*earlier["commands"], " ".join([pathlib.Path(sys.executable).name, *sys.argv])], "cores": os.cpu_count(),
      "compared by": "validation accuracy at temperature 1, averaged over a run's evaluations",
      "chosen": earlier["chosen"] | chosen, "runs": [row for row in earlier["runs"] if row["arm"] not in arms] + runs}, indent=1) + "\n")
  print(json.dumps(chosen, indent=1))


if __name__ == "__main__":
  main()
