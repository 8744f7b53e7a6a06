"""Seed responses: n_cov full responses per problem from one policy, graded (section 4.2).

  1. For each problem, read its prompt once and sample n_cov responses.
  2. Cut them at EOS; one that meets its budget first is truncated, and counted:
     without an end only a closed box or `####` states an answer.
  3. Grade each against the reference: correct, incorrect or ungradable.
  4. Write them in shards of `problems_per_shard` problems; of several hosts
     each draws its own shards, on its own devices.

The policy is the base policy pi (for Q^pi and the ORM), or the one of
`rollouts.checkpoint` (seeds from a prover mu).
"""

from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import prepare
from pav_jax.problems import prepared
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import run as run_lib
from pav_jax.training.run import Run


class Rollouts(NamedTuple):
  """Responses of problems, row by row: problem_b, sample_b name them; verdict_b as in `grading`."""

  problem_b: np.ndarray
  sample_b: np.ndarray
  token_bt: np.ndarray
  length_b: np.ndarray
  log_prob_bt: np.ndarray
  ended_b: np.ndarray
  verdict_b: np.ndarray


def sampling_of(section) -> sampling_lib.Sampling:
  """The settings of a config section."""
  return sampling_lib.Sampling(section.temperature, section.top_k, section.top_p)


def sample(arch: architecture.Architecture, params, problems: prepared.Problems, problem_p: np.ndarray, n: int, *,
           tokens, sampling, seed: int, rows: int, max_new: int, share: int = 0, mesh=None, bar=None) -> Rollouts:
  """n responses to each of the problems problem_p, ungraded (verdict_b is all -1).

  share: rows of a lane; 0 leaves it to `jobs.rows_of_lane`, right for a queue
  that is longer than the lanes.
  """
  source_r = np.repeat(np.arange(len(problem_p)), n).astype(np.int32)
  sample_r = np.tile(np.arange(n), len(problem_p)).astype(np.int32)
  length_p = problems.prompt_length_p[problem_p]
  done = jobs_lib.run(
      arch.network, params, problems.prompt_pt[problem_p], length_p,
      jobs_lib.Jobs(source_r, length_p[source_r], np.full(len(source_r), max_new, np.int32),
                    np.stack([problem_p[source_r], sample_r], axis=1)),
      tokens, rows=rows, share=share or jobs_lib.rows_of_lane(n), max_new=max_new, sampling=sampling, seed=seed,
      mesh=mesh, bar=bar)
  return Rollouts(problem_p[source_r], sample_r, done.token_rt, done.length_r, done.log_prob_rt, done.ended_r,
                  np.full(len(source_r), int(grading.Verdict.UNGRADABLE), np.int8))


def grades_of(rollouts: Rollouts, problems: prepared.Problems, vocabulary, grader: grading.Grader) -> list[grading.Grade]:
  """The grade of every response; one that was cut off states an answer only where it is marked (`grading/answers.py`)."""
  texts = [vocabulary.decode(t[:n]) for t, n in zip(rollouts.token_bt, rollouts.length_b)]
  return grader.grade([str(a) for a in problems.answer_p[rollouts.problem_b]], texts,
                      [str(d) for d in problems.dataset_p[rollouts.problem_b]], rollouts.ended_b)


def grade(rollouts: Rollouts, problems: prepared.Problems, vocabulary, grader: grading.Grader):
  """(the same rollouts with verdicts, counts)."""
  return with_grades(rollouts, grades_of(rollouts, problems, vocabulary, grader))


def with_grades(rollouts: Rollouts, grades: list[grading.Grade]):
  """`grade`, the grades being there."""
  verdict_b = hosts.agreed(np.array([int(g.verdict) for g in grades], np.int8))
  counts = {"responses": len(grades), "tokens": int(rollouts.length_b.sum()),
            "truncated": int((~rollouts.ended_b).sum())}
  counts |= {v.name.lower(): int((verdict_b == v).sum()) for v in grading.Verdict}
  for g in grades:
    if g.reason:
      counts[f"ungradable: {g.reason}"] = counts.get(f"ungradable: {g.reason}", 0) + 1
  return rollouts._replace(verdict_b=verdict_b), counts


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section rollouts, or names what is not there; root: the workdir, if there is one."""
  knobs, where = config.rollouts, "config.rollouts"
  errors.at_least(1, knobs, where, "n_cov", "max_new", "rows", "problems_per_shard")
  sampling_lib.check(knobs, where)
  prepare.check_count(config, root, where, "num_problems", "train")
  architecture.check_checkpoint(knobs.checkpoint, f"{where}.checkpoint", root)
  grading.check(config.grading)


def run_stage(run: Run):
  """rollouts: problems, sft -> rollouts/."""
  knobs = run.config.rollouts
  folder, done = run.start("rollouts", sections=["policy", "rollouts", "grading"], inputs=["problems/train", "sft"])
  if done:
    _doubt(run, folder)
    return
  problems = prepared.read(run.folder("problems/train"), knobs.num_problems)
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  arch, params = architecture.restore(
      knobs.checkpoint or str(run.folder("sft").path / "best"), run.config.policy, vocabulary, run.mesh)
  tokens = jobs_lib.token_tables(vocabulary, arch.config.vocab_size)
  count = len(problems.id_p)
  shards = -(-count // knobs.problems_per_shard)
  of_shard = lambda shard: np.arange(count, dtype=np.int32)[shard * knobs.problems_per_shard:][:knobs.problems_per_shard]
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader, metrics.progress(
      what="rollouts", unit="response", total=sum(len(of_shard(shard)) for shard in range(shards)) * knobs.n_cov) as bar:
    for shard in range(shards):
      problem_p = of_shard(shard)
      if folder.has_shard(shard):
        bar.update(len(problem_p) * knobs.n_cov)
        continue
      rollouts = sample(arch, params, problems, problem_p, knobs.n_cov, tokens=tokens, sampling=sampling_of(knobs),
                        seed=run.config.seed, rows=knobs.rows, max_new=knobs.max_new,
                        mesh=run.mesh, bar=bar)
      rollouts, counts = grade(rollouts, problems, vocabulary, grader)
      folder.write_shard(shard, rollouts._asdict(), counts)
  folder.finish(shards, {"vocabulary": vocabulary.fingerprint})
  _doubt(run, folder)


def _doubt(run: Run, folder):
  run.doubt("rollouts", run_lib.useless_responses(folder.manifest()["counts"], run.config.rollouts.max_new),
            f"{folder.path} is finished and stays; for another one change a key of rollouts or train sft further, and remove it")
