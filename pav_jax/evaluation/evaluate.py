"""Evaluating any checkpoint by path: a policy's accuracy and Pass@N, with an interval, or a verifier's judgement.

  1. Restore the checkpoint; what it is stands beside its parameters (an
     official Gemma checkpoint is what the config's `policy` section says).
  2. Draw `evaluate.n` responses per problem (one if greedy) and grade them.
  3. With `evaluate.verifier`, let that verifier (of `evaluate.kind`) score every
     prefix of them: calibration and, on `arithmetic`, how it agrees with the
     exact values and ranks the steps.
  4. Print one JSON line, and write it to WORKDIR/evaluate/.
"""

import dataclasses
import json

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.evaluation import diagnostics
from pav_jax.evaluation import intervals
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import mixture
from pav_jax.problems import prepare
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import best_of_n
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import run as run_lib
from pav_jax.training.run import Run
from pav_jax.values import exact
from pav_jax.values import monte_carlo
from pav_jax.verifiers import process
from pav_jax.verifiers import targets


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section evaluate, or names what is not there; root: the workdir, if there is one."""
  knobs, where = config.evaluate, "config.evaluate"
  if not knobs.checkpoint:
    raise UserError(f"{where}.checkpoint is missing: the path of the checkpoint to evaluate")
  errors.one_of(targets.KINDS, knobs, where, "kind")
  errors.one_of(mixture.SPLITS, knobs, where, "split")
  errors.at_least(1, knobs, where, "n", "rows")
  sampling_lib.check(knobs, where)
  hosts.by_the_first(lambda: prepare.check(config), "problems")
  prepare.check_count(config, root, where, "num_problems", knobs.split)
  architecture.check_checkpoint(knobs.checkpoint, f"{where}.checkpoint", root)
  if knobs.verifier:
    with errors.at(f"{where}.kind={knobs.kind}"):
      process.check(knobs.verifier, f"{where}.verifier", config.verifier.kinds, (knobs.kind,), root)
  errors.at_least(1, config.rollouts, "config.rollouts", "max_new")
  errors.at_least(1, config.report, "config.report", "bootstrap_draws", "calibration_bins")


def run_stage(run: Run):
  """evaluate: a checkpoint and a split -> a line of figures."""
  knobs = run.config.evaluate
  hosts.by_the_first(lambda: prepare.run_stage(dataclasses.replace(run, alone=True)), "problems")
  folder = run.folder(f"problems/{knobs.split}")
  problems = prepared.read(folder, knobs.num_problems)
  vocabulary = prepared.vocabulary(folder)
  arch, params = architecture.restore(knobs.checkpoint, run.config.policy, vocabulary, run.mesh)
  problem_p = np.arange(len(problems.id_p), dtype=np.int32)
  with metrics.progress(what="evaluate", unit="response", total=len(problem_p) * knobs.n) as bar:
    rollouts = collect.sample(
        arch, params, problems, problem_p, knobs.n, tokens=jobs_lib.token_tables(vocabulary, arch.config.vocab_size),
        sampling=collect.sampling_of(knobs), seed=run.config.seed, rows=knobs.rows,
        max_new=run.config.rollouts.max_new, mesh=run.mesh, bar=bar)
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
    rollouts, counts = collect.grade(rollouts, problems, vocabulary, grader)
  right_pn = (rollouts.verdict_b == grading.Verdict.CORRECT).reshape(-1, knobs.n)
  mean, low, high = intervals.over_problems(right_pn.astype(float), draws=run.config.report.bootstrap_draws)
  figures = {"checkpoint": knobs.checkpoint, "split": knobs.split, "problems": len(problem_p), "n": knobs.n,
             "accuracy": mean, "low": low, "high": high,
             f"pass_at_{knobs.n}": float(best_of_n.pass_at_n(right_pn, knobs.n).mean()),
             "parameters": arch.num_params, **counts}
  if knobs.verifier:
    figures |= {"verifier": knobs.verifier, "kind": knobs.kind}
    figures |= _judgement(run, problems, rollouts, right_pn.reshape(-1), vocabulary)
  if hosts.first():
    files.write(run.root / "evaluate" / "evaluate.json", json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))
  run.doubt("evaluate", run_lib.useless_responses(counts, run.config.rollouts.max_new), "its figures are written and stay")


def _judgement(run: Run, problems, rollouts, right_b, vocabulary) -> dict:
  """What the verifier evaluate.verifier makes of these responses."""
  knobs = run.config.evaluate
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, vocabulary,
                                      run.config.monte_carlo.max_steps)
  path = process.path_of(knobs.verifier, run.root)
  score_bz = diagnostics.verifier_scores(run, path, knobs.kind, problems, rollouts, end_bz, vocabulary, knobs.rows)
  lines = exact.step_texts(rollouts.token_bt, end_bz, vocabulary)
  exact_bz = diagnostics.exact_of(run, problems, rollouts, lines, end_bz.shape[1])
  found = {"calibration": {}, "exact": {}, "step_auc": {}}
  diagnostics.assess(found, knobs.kind, score_bz, exact_bz, right_b, run)
  return found
