"""What several trainings of the same settings say together, with intervals over trainings.

  python -m pav_jax.trainings runs/rare0 runs/rare1 runs/rare2 --output=trainings.json

Each argument is the --workdir of a run whose search stage is finished; the runs differ in their seeds, and have the
same `search` section but for paths. Writes one JSON file: a row for each method and N, the differences between arms at
equal width and at equal FLOPs, and of each run its config, seeds, versions and minutes, its provers' minutes among them; prints the arms in a table.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence

from pav_jax import console
from pav_jax.errors import UserError
from pav_jax.evaluation import report
from pav_jax.evaluation import tables
from pav_jax.evaluation import trainings
from pav_jax.search import labels
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.training.records import Folder

# What may differ between the runs of one table, beside what makes them trainings of their own.
_OWN = ("seed", "provers", "policy_checkpoint", "verifier")
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
  bare = lambda facts: {key: x for key, x in facts["search"].items() if key not in _OWN}
  for (_, facts), path in zip(runs[1:], paths[1:]):
    if apart := [key for key in bare(facts) if bare(facts)[key] != bare(runs[0][1]).get(key)]:
      raise UserError(f"{path}: search.{apart[0]} is {facts['search'][apart[0]]!r}, in {paths[0]} {runs[0][1]['search'].get(apart[0])!r}")
    if facts["dials"] != runs[0][1]["dials"]:
      raise UserError(f"{path}: its problems have other dials than those of {paths[0]}")
  trained = [(facts["seed"], tuple(facts["data seeds"].items())) for _, facts in runs]
  for n, (path, of) in enumerate(zip(paths, trained)):
    if of in trained[:n]:
      raise UserError(f"{path}: the seeds of {paths[trained.index(of)]}: one training twice says nothing of how trainings vary")
  searches = [search for search, _ in runs]
  shared = {"search": bare(runs[0][1]), "dials": runs[0][1]["dials"]}
  own = [{key: x for key, x in facts.items() if key not in shared} for _, facts in runs]
  compared = trainings.compare(searches)
  problems, seeds = searches[0].cell(*searches[0].beams[0]).accuracy_ps.shape
  return {"command": shlex.join(["python", "-m", "pav_jax.trainings", *paths]), "varies": "training seeds, Student's t", "problems": problems,
          "sampling seeds": seeds, "versions": records.versions(), "machine": report.hardware(), "trainings": own, **shared,
          **compared}


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
  parser.add_argument("--output", required=True, help="FILE.json")
  flags = parser.parse_args(arguments)
  try:
    found = together(flags.workdirs)
    files.write(files.path(flags.output), json.dumps(found) + "\n")
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(table(found))
  return 0


if __name__ == "__main__":
  sys.exit(console.quietly(main))
