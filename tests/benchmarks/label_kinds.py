"""The neighbours' labels side by side: what they can teach at best, and what verifiers of each kind learn in the same steps.

  flags="--config=configs/sparse.py --workdir=runs/label_kinds"      # and FLAGS, below
  for stage in problems sft rollouts values verifier; do .venv/bin/python -m pav_jax.main $flags --config.stage=$stage; done
  .venv/bin/python tests/benchmarks/label_kinds.py --workdir=runs/label_kinds --results=docs/results/records/label_kinds.json

1. Draw `--responses` of the SFT policy to each of the first `--problems` validation problems, and their exact values.
2. *Perfect learning*: the mean of each kind's label, given the prefix, over all that n continuations may come to. A verifier that
   has learnt its labels without any error says just that; kind q then says the exact values.
3. The verifiers that the run has trained read the same responses; before stage `verifier` has been run there are none.
4. What is measured of both is what `evaluation/diagnostics.py` has: correlations, the AUC of the steps, and how often the first
   wrong step is found, its threshold chosen on the first half of the problems and measured on the second.
"""

import argparse
import json
import math
import pathlib
import shlex
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from absl import logging
import numpy as np

from configs import sparse
from pav_jax.evaluation import diagnostics
from pav_jax.evaluation import report
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.training import files
from pav_jax.training import mesh
from pav_jax.training import records
from pav_jax.training.run import Run
from pav_jax.values import exact
from pav_jax.values import monte_carlo
from pav_jax.verifiers import process
from pav_jax.verifiers import targets

LABELS = ("q", *targets.MARKS)
# What differs from configs/sparse.py. All kinds have the same labels to learn from: none of a seed's own ending, and none inside
# of a step; and continuations enough for a ratio of two shares to be more than .5, 1 and 2.
FLAGS = {"rollouts.num_problems": 6000, "monte_carlo.n_mc": 8, "verifier.kinds": (*LABELS, "implicit"), "verifier.every_token": False,
         "verifier.own_outcomes": False, "verifier.q.num_steps": 200, "verifier.implicit.num_steps": 200}


def mean_labels(kind: str, q_bz: np.ndarray, n: int, knobs) -> np.ndarray:
  """float64 (b, z): the mean of the kind's label of each prefix of exact value q_bz over n continuations of it and n of the one before.

  `drop` has the mean of `hard` wherever it has a label. The bare prompt has no verdict; it is given 0.5.
  """
  count = np.arange(n + 1)
  chance = lambda q_bx: np.stack([math.comb(n, s) * q_bx**s * (1 - q_bx)**(n - s) for s in count], axis=-1)
  before_x, after_x = (x.ravel() / n for x in np.meshgrid(count, count, indexing="ij"))
  label_mm = targets.process_labels("hard" if kind == "drop" else kind, np.stack([before_x, after_x], axis=1), **targets.thresholds(knobs))[:, 1]
  label_mm = label_mm.reshape(n + 1, n + 1)
  first_b1 = {"q": q_bz[:, :1], "hard": 1 - (1 - q_bz[:, :1])**n, "drop": 1 - (1 - q_bz[:, :1])**n}.get(kind, np.full((len(q_bz), 1), 0.5))
  return np.concatenate([first_b1, np.einsum("bsm,mn,bsn->bs", chance(q_bz[:, :-1]), label_mm, chance(q_bz[:, 1:]))], axis=1)


def measured(run: Run, said: dict[str, np.ndarray], exact_bz, right_b, label_b, problem_b) -> dict:
  """Of scores by kind: what diagnostics says of each, by kind."""
  found = {"calibration": {}, "exact": {}, "step_auc": {}}
  for kind, score_bz in said.items():
    diagnostics.assess(found, kind, score_bz, exact_bz, right_b, run)
  rows = diagnostics.first_wrong({kind: diagnostics.readings(score_bz, kind) for kind, score_bz in said.items()}, label_b, problem_b,
                                 run.config.report.bootstrap_draws)
  return {kind: {"auc": found["step_auc"][f"{kind}: all steps"], "auc within a response": found["step_auc"][f"{kind}: steps of one response"],
                 "steps judged": found["step_auc"][f"{kind}: steps judged"],
                 "correlation of Q": found["exact"][f"Q, correlation of the {kind} verifier"],
                 "correlation of A": found["exact"][f"A, correlation of the {kind} verifier"],
                 "first wrong": [row for row in rows if row["values"] == kind]} for kind in said}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True, help="a run up to its values at least, made with FLAGS")
  parser.add_argument("--results", type=pathlib.Path, required=True)
  parser.add_argument("--problems", type=int, default=200)
  parser.add_argument("--responses", type=int, default=4)
  flags = parser.parse_args()
  logging.set_verbosity(logging.FATAL)
  config = sparse.get_config()
  config.update_from_flattened_dict(FLAGS)
  run = Run(config, files.path(flags.workdir), mesh.make_mesh(**config.mesh))
  problems = prepared.read(run.folder("problems/validation"), flags.problems)
  vocabulary = prepared.vocabulary(run.folder("problems/validation"))
  arch, params = architecture.restore(str(run.folder("sft").path / "best"), config.policy, vocabulary, run.mesh)
  rollouts = collect.sample(
      arch, params, problems, np.arange(flags.problems, dtype=np.int32), flags.responses,
      tokens=jobs_lib.token_tables(vocabulary, arch.config.vocab_size), sampling=collect.sampling_of(config.search),
      seed=config.seed + 5, rows=512, max_new=config.rollouts.max_new, mesh=run.mesh)
  with grading.Grader() as grader:
    rollouts, _ = collect.grade(rollouts, problems, vocabulary, grader)
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, vocabulary, config.monte_carlo.max_steps)
  right_b, there_bz = rollouts.verdict_b == grading.Verdict.CORRECT, end_bz > -2
  lines = exact.step_texts(rollouts.token_bt, end_bz, vocabulary)
  exact_bz = diagnostics.exact_of(run, problems, rollouts, lines, end_bz.shape[1])
  label_b = exact.first_wrong(problems.question_p[rollouts.problem_b], lines, exact.dials_of(config))
  given = (exact_bz, right_b, label_b, rollouts.problem_b)
  perfect = {kind: np.where(there_bz, mean_labels(kind, np.nan_to_num(exact_bz), config.monte_carlo.n_mc, config.verifier), np.nan)
             for kind in LABELS if kind != "drop"}
  _, values = monte_carlo.read(run)
  drawn = {kind: targets.targets(kind, values, config.verifier) for kind in LABELS}
  labels = {kind: {"labels": int((x_bz == x_bz).sum()), "mean": float(x_bz[x_bz == x_bz].mean())} for kind, x_bz in drawn.items()}
  for kind in targets.VERDICTS:
    both = ~np.isnan(drawn["hard"][:, 1:]) & ~np.isnan(drawn[kind][:, 1:])
    labels[kind]["equal to hard"] = float((drawn["hard"] == drawn[kind])[:, 1:][both].mean())
  record = {"perfect": measured(run, perfect, *given), "labels": labels}
  if run.folder("verifier").done:
    manifest, folder = run.folder("verifier").manifest(), run.folder("verifier").path
    if manifest["config"]["verifier"] != json.loads(json.dumps(config.verifier.to_dict())):
      sys.exit(f"{folder} was not made with FLAGS: {FLAGS}")
    said = {kind: diagnostics.verifier_scores(run, process.path_of(kind, run.root), kind, problems, rollouts, end_bz, vocabulary, 512)
            for kind in config.verifier.kinds}
    record["trained"] = measured(run, said, *given)
    record["training"] = manifest["facts"]
  stage = "python -m pav_jax.main --config=configs/sparse.py --workdir=runs/label_kinds " + " ".join(
      f"--config.{key}={','.join(x) if isinstance(x, tuple) else x}" for key, x in FLAGS.items())
  record |= {
      "commands": [f"{stage} --config.stage={name}" for name in ("problems", "sft", "rollouts", "values", "verifier")]
                  + [shlex.join(["python", "tests/benchmarks/label_kinds.py", *sys.argv[1:]])],
      "seed": config.seed, "machine": report.machine(run), "versions": records.versions(), "problems": flags.problems,
      "minutes": records.account({name: run.folder(name) for name in ("problems/train", "sft", "rollouts", "values", "verifier")})["minutes"],
      "responses": len(right_b), "solved": float(right_b.mean()), "responses with a wrong step": int((label_b != -1).sum()),
      "config": {key: list(x) if isinstance(x, tuple) else x for key, x in FLAGS.items()} | {
          f"verifier.{name}": config.verifier[name] for name in ("balance", "text_weight", "relative_ratio", "effective_alpha",
                                                                 "effective_above", "implicit_beta", "prover_k")}}
  flags.results.write_text(json.dumps(report.finite(record), indent=1) + "\n")


if __name__ == "__main__":
  main()
