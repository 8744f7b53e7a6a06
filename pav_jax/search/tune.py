"""The stage `tune`: every arm with each setting of its knob, on validation problems.

  1. Each arm of `search.arms` has one knob (arms.py), and `search.settings` as many
     settings of every knob. Search with each at width `search.tune_width` on the
     first `search.tune_problems` validation problems, once for each seed of sampling.
  2. An arm's choice is the setting whose answers are right most often; of equals
     the one of fewer FLOPs, then the first.
  3. Write a shard per arm, setting and seed, and tuning.json, which has all results
     and the choices. With `search.tuned` the stage `search` takes these.
"""

import json

from etils import epath
import numpy as np

from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.search import arms
from pav_jax.search import players as players_lib
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training.run import Run

# What the tuning hangs on; widths and the split of the search are its own affair.
_KEYS = ("arms", "provers", "settings", "tune_width", "tune_problems", "num_seeds", "policy_checkpoint", "candidates", "alpha",
         "prover_k", "lookahead", "lookahead_temperature", "particle_temperature", "distinct", "max_rounds", "max_step",
         "temperature", "top_k", "top_p")


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section search, or names what is not there; root: the workdir, if there is one."""
  players_lib.check(config, root)


def run_stage(run: Run):
  """tune: problems, sft, verifier -> search/tuning."""
  knobs = run.config.search
  folder, done = run.start("search/tuning", sections=["policy", "grading", *(f"search.{key}" for key in _KEYS)],
                           inputs=["problems/validation", "sft", "verifier"])
  if not done:
    _all(run, folder)
  results = summary(folder.read())
  chosen_of = choices(results)
  if hosts.first():
    found = {"width": knobs.tune_width, "seeds": knobs.num_seeds, "chosen": chosen_of, "results": results}
    files.write(folder.path / "tuning.json", json.dumps(found, indent=1) + "\n")
    print("\n".join(f"tune: {arm}: {arms.parsed(arm)[0].knob} {value:g}" for arm, value in chosen_of.items()))


def _all(run: Run, folder):
  knobs = run.config.search
  players, todo = players_lib.Players(run, "validation", knobs.tune_problems), cells(knobs)
  count = len(players.problems.id_p)
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader, metrics.progress(
      what="tune", unit="problem", total=len(todo) * count) as bar:
    for shard, (arm, value, seed) in enumerate(todo):
      if folder.has_shard(shard):
        bar.update(count)
        continue
      settings = arms.settings_of(arm, knobs, value)
      folder.write_shard(shard, *players_lib.searched(run, players, grader, arm, settings, knobs.tune_width, seed, bar))
  folder.finish(len(todo))


def cells(knobs) -> list[tuple[str, float, int]]:
  """(arm, setting, seed) of every search, in order."""
  return [(arm, value, seed) for arm in knobs.arms for value in knobs.settings[arms.parsed(arm)[0].knob]
          for seed in range(knobs.num_seeds)]


def summary(arrays: dict[str, np.ndarray]) -> list[dict]:
  """A row per arm and setting, in order: accuracy, mean FLOPs a problem, places of the beam, problems and seeds."""
  arm_p, value_p, rows = arrays["method_p"].astype(str), arrays["setting_p"], []
  flops_p = arrays["policy_flops_p"] + arrays["verifier_flops_p"]
  for arm in dict.fromkeys(arm_p.tolist()):
    for value in dict.fromkeys(value_p[arm_p == arm].tolist()):
      mine_p = (arm_p == arm) & (value_p == value)
      rows.append({"arm": arm, "knob": arms.parsed(arm)[0].knob, "setting": value, "places": int(arrays["places_p"][mine_p][0]),
                   "accuracy": float(arrays["right_p"][mine_p].mean()), "flops": float(flops_p[mine_p].mean()),
                   "searches": int(mine_p.sum())})
  return rows


def choices(results: list[dict]) -> dict[str, float]:
  """Arm -> setting: the most accurate, of equals the cheapest, then the first."""
  best = {}
  for row in results:
    rank = row["accuracy"], -row["flops"]
    if row["arm"] not in best or rank > best[row["arm"]][0]:
      best[row["arm"]] = rank, row["setting"]
  return {arm: value for arm, (_, value) in best.items()}


def chosen(run: Run) -> dict[str, float]:
  """Arm -> setting, as this stage has chosen; {} unless `search.tuned`. UserError where an arm has none."""
  knobs = run.config.search
  if not knobs.tuned:
    return {}
  folder = run.folder("search/tuning")
  found = choices(summary(folder.read()))
  if missing := [arm for arm in knobs.arms if arm not in found]:
    raise UserError(f"config.search.tuned: {folder.path} has no {', '.join(missing)}: remove it, and run stage tune again")
  return found
