"""The neighbours' labels side by side: what verifiers of each kind learn from the same continuations, in the same steps.

  flags="--config=configs/sparse.py --workdir=runs/label_kinds"      # and FLAGS, below
  for stage in problems sft rollouts values verifier; do .venv/bin/python -m pav_jax.main $flags --config.stage=$stage; done
  .venv/bin/python tests/benchmarks/label_kinds.py --workdir=runs/label_kinds --results=docs/results/records/label_kinds.json

1. Draw `--responses` of the SFT policy to each of the first `--problems` validation problems, and their exact values.
2. Every verifier reads them. What is measured is `evaluation/diagnostics.py`: correlations, the AUC of the steps, and how often
   the first wrong step is found, its threshold chosen on the first half of the problems and measured on the second.

The record names config, versions, machine, and the minutes between the plan and the manifest of stage `verifier`.
"""

import argparse
import collections
import json
import pathlib
import shlex
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from absl import logging

from configs import sparse
from pav_jax.evaluation import diagnostics
from pav_jax.evaluation import report
from pav_jax.training import files
from pav_jax.training import mesh
from pav_jax.training import records
from pav_jax.training.run import Run
from pav_jax.values import monte_carlo
from pav_jax.verifiers import targets

KINDS = ("q", *targets.MARKS, "implicit")
# What differs from configs/sparse.py. So that all kinds have the same labels to learn from: none of a seed's own ending, and none
# inside of a step; continuations enough for a ratio of two shares to be more than .5, 1 and 2.
FLAGS = {"rollouts.num_problems": 6000, "monte_carlo.n_mc": 8, "verifier.kinds": KINDS, "verifier.every_token": False,
         "verifier.own_outcomes": False, "verifier.q.num_steps": 200, "verifier.implicit.num_steps": 200}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True, help="a run up to its verifiers, made with FLAGS")
  parser.add_argument("--results", type=pathlib.Path, required=True)
  parser.add_argument("--problems", type=int, default=500)
  parser.add_argument("--responses", type=int, default=4)
  flags = parser.parse_args()
  logging.set_verbosity(logging.FATAL)
  config = sparse.get_config()
  config.update_from_flattened_dict(FLAGS | {"search.split": "validation", "search.num_problems": flags.problems, "report.responses": flags.responses})
  run = Run(config, files.path(flags.workdir), mesh.make_mesh(**config.mesh))
  folder = run.folder("verifier")
  manifest = folder.manifest()
  if manifest["config"]["verifier"] != json.loads(json.dumps(config.verifier.to_dict())):
    sys.exit(f"{folder.path} was not made with FLAGS: {FLAGS}")
  rollouts, values = monte_carlo.read(run)
  del rollouts
  said = {kind: targets.targets(kind, values, config.verifier) for kind in (*targets.VALUES, *targets.VERDICTS)}
  labels = {kind: {"labels": int((x_bz == x_bz).sum()), "mean": float(x_bz[x_bz == x_bz].mean())} for kind, x_bz in said.items()}
  hard = said["hard"][:, 1:]
  for kind in targets.VERDICTS:  # of the steps that both label
    both = (hard == hard) & (said[kind][:, 1:] == said[kind][:, 1:])
    labels[kind]["equal to hard"] = float((hard == said[kind][:, 1:])[both].mean())
  found = diagnostics.diagnose(run)
  counted = collections.Counter()
  counted.update({name: found["sample"][name] for name in ("responses", "correct") if name in found["sample"]})
  stage = "python -m pav_jax.main --config=configs/sparse.py --workdir=runs/label_kinds " + " ".join(
      f"--config.{key}={','.join(x) if isinstance(x, tuple) else x}" for key, x in FLAGS.items())
  record = {
      "commands": [f"{stage} --config.stage={name}" for name in ("problems", "sft", "rollouts", "values", "verifier")]
                  + [shlex.join(["python", "tests/benchmarks/label_kinds.py", *sys.argv[1:]])],
      "seed": config.seed, "machine": report.machine(run), "versions": records.versions(),
      "minutes of stage verifier": round((files.modified(folder.path / "manifest.json") - files.modified(folder.path / "plan.json")) / 60, 1),
      "problems": flags.problems, "sample": dict(counted), "labels": labels, "training": manifest["facts"],
      "exact": found["exact"], "step_auc": found["step_auc"], "calibration": {kind: x["error"] for kind, x in found["calibration"].items()},
      "first_wrong": found["first_wrong"],
      "config": {key: list(x) if isinstance(x, tuple) else x for key, x in FLAGS.items()} | {
          f"verifier.{name}": config.verifier[name] for name in ("balance", "text_weight", "relative_ratio", "effective_alpha", "effective_above",
                                                                 "implicit_beta", "prover_k")}}
  flags.results.write_text(json.dumps(report.finite(record), indent=1) + "\n")


if __name__ == "__main__":
  main()
