"""What several trainings of the same settings say together, with intervals over trainings.

  python -m pav_jax.trainings runs/rare0 runs/rare1 runs/rare2 --output=trainings.json
  python -m pav_jax.trainings runs/rare0 runs/rare1 runs/rare2 --of=rl --output=rl_trainings.json

Each argument is the --workdir of a run whose stage search (or rl) is finished; the runs differ in their seeds, and have the
same `search` section but for paths. Writes one JSON file: a row for each method and N, the differences between arms at
equal width and at equal FLOPs, and of each run its config, seeds, versions and minutes, its provers' minutes among them; prints the arms in a table.
Of rl: what rl_report has, each run as one seed, and a figure of the curves beside the file.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from pav_jax import console
from pav_jax.errors import UserError
from pav_jax.evaluation import learning
from pav_jax.evaluation import report
from pav_jax.evaluation import tables
from pav_jax.evaluation import trainings
from pav_jax.search import labels
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.training.records import Folder

# What may differ between the runs of one table, beside what makes them trainings of their own.
_OWN = ("seed", "provers", "policy_checkpoint", "verifier")
# `watch_prover` changes nothing of what is trained.
_OWN_RL = ("seeds", "provers", "verifier", "init_from", "watch_prover")
_TRAINED = ("problems/train", "sft", "rollouts", "values", "verifier")
_STAGES = (*_TRAINED, "search/tuning", "search/samples", "search/beams")


def read(path: str) -> tuple[tables.Search, dict]:
  """(search, what the run is) of a run directory; UserError where its search is not finished."""
  root = files.path(path)
  folders = {name: Folder(root / name, alone=True) for name in _STAGES}
  for name in ("search/samples", "search/beams"):
    if not folders[name].done:
      raise UserError(f"{root / name} is not finished: run stage search in this run first")
  manifest = folders["search/beams"].manifest()
  train = folders["problems/train"].manifest()["config"]
  account = records.account(folders)
  arithmetic, tuning = train.get("arithmetic", {}), root / "search/tuning/tuning.json"
  facts = {"workdir": path, "seed": manifest["config"]["seed"],
           "data seeds": {key: x for key, x in arithmetic.items() if key.endswith("_seed")},
           "provers": {name: _prover(of) for name, of in manifest["config"]["search"].get("provers", {}).items() if of},
           "chosen": json.loads(tuning.read_text())["chosen"] if manifest["config"]["search"].get("tuned") else {},
           "versions": manifest["versions"], "search": account["config"].pop("search"), "dials": arithmetic.get("dials"), **account}
  search = tables.Search(folders["search/samples"].read(), folders["search/beams"].read(), draws=1,
                         label_tokens=manifest["facts"].get("label tokens"))
  return search, facts


def _prover(checkpoint: str) -> dict:
  """Its path, the share of right ones among the seed responses that it has learnt from, which says how good a policy the prover
  is, and what it was made with, in how many minutes."""
  root = labels.run_of(checkpoint)
  counts = root and Folder(root / "rollouts", alone=True).manifest()["counts"]
  account = records.account({name: Folder(root / name, alone=True) for name in _TRAINED}) if root else {}
  return {"path": checkpoint, "right": counts["correct"] / counts["responses"] if counts else None, **account}


def together(paths: Sequence[str]) -> dict:
  """What the file holds. UserError for runs that are not trainings of the same settings."""
  runs = [read(path) for path in paths]
  _differ([facts for _, facts in runs], paths, "search", _OWN)
  for (_, facts), path in zip(runs[1:], paths[1:]):
    if facts["dials"] != runs[0][1]["dials"]:
      raise UserError(f"{path}: its problems have other dials than those of {paths[0]}")
  searches = [search for search, _ in runs]
  shared = {"search": _bare(runs[0][1], "search", _OWN), "dials": runs[0][1]["dials"]}
  own = [{key: x for key, x in facts.items() if key not in shared} for _, facts in runs]
  compared = trainings.compare(searches)
  problems, seeds = searches[0].cell(*searches[0].beams[0]).accuracy_ps.shape
  return {"command": shlex.join(["python", "-m", "pav_jax.trainings", *paths]), "varies": "training seeds, Student's t", "problems": problems,
          "sampling seeds": seeds, "versions": records.versions(), "machine": report.hardware(), "trainings": own, **shared,
          **compared}


def read_rl(path: str) -> tuple[learning.Learned, dict]:
  """(what RL has left, what the run is) of a run directory; UserError where its RL is not finished."""
  root = files.path(path)
  folders = {name: Folder(root / name, alone=True) for name in learning.MADE}
  if not folders["rl"].done:
    raise UserError(f"{root / 'rl'} is not finished: run stage rl in this run first")
  manifest = folders["rl"].manifest()
  account = records.account(folders)
  seeds = {key: x for key, x in account["config"].get("arithmetic", {}).items() if key.endswith("_seed")}
  knobs = account["config"].pop("rl")
  return learning.read(folders["rl"]), {
      "workdir": path, "seed": manifest["config"]["seed"], "rl seeds": list(knobs["seeds"]), "data seeds": seeds,
      "provers": {name: _prover(of) for name, of in knobs.get("provers", {}).items() if of}, "versions": manifest["versions"], "rl": knobs,
      **account}


def together_rl(paths: Sequence[str]) -> tuple[learning.Learned, dict]:
  """(the trainings as one, what the file holds). UserError for runs that are not trainings of the same settings."""
  runs = [read_rl(path) for path in paths]
  if len(runs) < 2:
    raise UserError("one training says nothing of how trainings vary: two run directories at least")
  _differ([facts for _, facts in runs], paths, "rl", _OWN_RL)
  apart = lambda facts: {"problems": facts["config"].get("problems"), "dials": facts["config"].get("arithmetic", {}).get("dials"),
                         "test_seed": facts["data seeds"].get("test_seed"), "policy": facts["config"].get("policy"),
                         "max_new": facts["config"].get("rollouts", {}).get("max_new")}
  for (_, facts), path in zip(runs[1:], paths[1:]):
    if other := [key for key, x in apart(facts).items() if x != apart(runs[0][1])[key]]:
      raise UserError(f"{path}: its {other[0]} is not that of {paths[0]}: one table is of trainings of the same settings on the same test problems")
  learned = learning.together([found for found, _ in runs])
  own = [{key: x for key, x in facts.items() if key != "rl"} for _, facts in runs]
  return learned, report.finite({
      "command": shlex.join(["python", "-m", "pav_jax.trainings", *paths, "--of=rl"]), "varies": "training seeds, Student's t",
      "versions": records.versions(), "machine": report.hardware(), "trainings": own, "config": runs[0][1]["rl"],
      **learning.compare(learned, draws=1)})


def _bare(facts: dict, section: str, own: Sequence[str]) -> dict:
  """The section without what is each run's own."""
  return {key: x for key, x in facts[section].items() if key not in own}


def _differ(facts: Sequence[dict], paths: Sequence[str], section: str, own: Sequence[str]):
  """UserError where runs differ in more than what is their own, or two have the same seeds."""
  first = _bare(facts[0], section, own)
  for of, path in zip(facts[1:], paths[1:]):
    if apart := [key for key in first | _bare(of, section, own) if of[section].get(key) != first.get(key)]:
      raise UserError(f"{path}: {section}.{apart[0]} is {of[section].get(apart[0])!r}, in {paths[0]} {facts[0][section].get(apart[0])!r}")
  trained = [(of["seed"], tuple(of["data seeds"].items())) for of in facts]
  for n, (path, of) in enumerate(zip(paths, trained)):
    if of in trained[:n]:
      raise UserError(f"{path}: the seeds of {paths[trained.index(of)]}: one training twice says nothing of how trainings vary")


def table(found: dict) -> str:
  """The arms, a line each: accuracy with its interval at every width, and FLOPs."""
  lines = []
  for row in found["rows"]:
    share = lambda x: f"{x:.3f}".removeprefix("0") if x >= 0 else f"{x:.3f}"
    lines.append(f"{tables.name_of(row['method'], row['n']):<48}{share(row['accuracy'])} [{share(row['low'])}, {share(row['high'])}]"
                 f"{row['flops'] / 1e6:>10.0f} MFLOPs")
  return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns 0, or 2 and one line on stderr for what the user can mend."""
  parser = argparse.ArgumentParser(prog="python -m pav_jax.trainings", description="Several trainings of the same settings in one table.")
  parser.add_argument("workdirs", nargs="+", metavar="WORKDIR")
  parser.add_argument("--of", choices=("search", "rl"), default="search")
  parser.add_argument("--output", required=True, help="FILE.json")
  flags = parser.parse_args(arguments)
  try:
    if flags.of == "rl":
      learned, found = together_rl(flags.workdirs)
      curves = learning.drawn(learned, found["policies"])["samples"]
      files.write(files.path(flags.output).with_suffix(".svg"), curves)
    else:
      found = together(flags.workdirs)
    files.write(files.path(flags.output), json.dumps(found) + "\n")
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print("\n".join([*learning.sentences(found), "", learning.short_table(found)]) if flags.of == "rl" else table(found))
  return 0


if __name__ == "__main__":
  sys.exit(console.quietly(main))
