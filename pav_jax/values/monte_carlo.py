"""Values by Monte Carlo, every prefix of every seed (section 4.2, the *random* strategy).

  1. Cut each seed response into steps; its prefixes are z = 0 (the bare
     prompt), 1, ..., H; after the last the outcome is known, nothing is sampled.
  2. For every other prefix of the first `seeds_per_problem` seeds of a problem
     sample n_mc continuations under the labelling policy; all prefixes of a
     seed are read in one pass. Further seeds bring their outcome alone, which
     is what an ORM learns from.
  3. Q-hat = share of correct ones. An ungradable continuation is not correct; a
     truncated one is graded by what it says. Both are counted.

The labelling policy is pi, or the one of `monte_carlo.checkpoint` (a prover mu).
"""

from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.problems import grading
from pav_jax.problems import prepared
from pav_jax.problems import steps
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.training import metrics
from pav_jax.training.run import Run
from pav_jax.values import equations


class Values(NamedTuple):
  """Labels of the prefixes of each response; row i is row i of the rollouts.

  end_bz: int32, index in the response of each prefix's last token: -1 for the
  bare prompt, -2 where there is no such prefix. successes_bz of continuations_bz.
  """

  end_bz: np.ndarray
  successes_bz: np.ndarray
  continuations_bz: np.ndarray

  @property
  def q_bz(self) -> np.ndarray:
    """Q-hat, NaN where there is no prefix."""
    return equations.monte_carlo(self.successes_bz, self.continuations_bz)


def prefix_ends(token_bt, length_b, vocabulary, max_steps: int):
  """(end_bz with -1 for the bare prompt and -2 for none, rows whose steps beyond max_steps were joined to one)."""
  end_bs, count_b = steps.step_ends_bs(token_bt, length_b, vocabulary.newline_v, vocabulary.eos_id, max_steps,
                                       merge=True, content_v=vocabulary.content_v)
  end_bs = np.where(end_bs < 0, -2, end_bs)
  prompt_b1 = np.full((len(end_bs), 1), -1, np.int32)
  return np.concatenate([prompt_b1, end_bs], axis=1).astype(np.int32), int((count_b > max_steps).sum())


def sampled_prefixes(rollouts: collect.Rollouts, end_bz: np.ndarray, seeds_per_problem: int) -> np.ndarray:
  """bool (b, z): the prefixes that get continuations; the whole response, which ended or used its budget up, needs none."""
  last_bz = end_bz == rollouts.length_b[:, None] - 1
  chosen_b = np.full(len(end_bz), True) if seeds_per_problem == -1 else rollouts.sample_b < seeds_per_problem
  return (end_bz > -2) & ~last_bz & chosen_b[:, None]


def label(arch: architecture.Architecture, params, problems: prepared.Problems, rollouts: collect.Rollouts,
          end_bz: np.ndarray, vocabulary, grader: grading.Grader, *, n_mc: int, seeds_per_problem: int, sampling, seed: int,
          rows: int, max_new: int, mesh=None, bar=None):
  """(Values, counts): n_mc continuations of every prefix but the last, for seeds_per_problem seeds (-1: all)."""
  prompt_length_b = problems.prompt_length_p[rollouts.problem_b]
  token_bt = prepared.join_rows(
      problems.prompt_pt[rollouts.problem_b], prompt_length_b, rollouts.token_bt, rollouts.length_b, 1)
  width = problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]  # one shape for every shard
  token_bt = np.pad(token_bt, ((0, 0), (0, width - token_bt.shape[1])))
  last_bz = end_bz == rollouts.length_b[:, None] - 1
  row_j, z_j = np.nonzero(sampled_prefixes(rollouts, end_bz, seeds_per_problem))
  row_r, z_r = np.repeat(row_j, n_mc).astype(np.int32), np.repeat(z_j, n_mc).astype(np.int32)
  m_r = np.tile(np.arange(n_mc, dtype=np.int32), len(row_j))
  kept_r = end_bz[row_r, z_r] + 1
  # A response never exceeds max_new, wherever it was cut.
  jobs = jobs_lib.Jobs(row_r, prompt_length_b[row_r] + kept_r, np.maximum(max_new - kept_r, 0).astype(np.int32),
                       np.stack([rollouts.problem_b[row_r], rollouts.sample_b[row_r], z_r, m_r], axis=1))
  done = jobs_lib.run(
      arch.network, params, token_bt, prompt_length_b + rollouts.length_b, jobs,
      jobs_lib.token_tables(vocabulary, arch.config.vocab_size), rows=rows,
      share=jobs_lib.rows_of_lane(len(row_r) / max(1, len(np.unique(row_r)))), max_new=max_new, sampling=sampling,
      seed=seed, mesh=mesh, bar=bar)
  responses = [vocabulary.decode(np.concatenate([rollouts.token_bt[b, :k], t[:n]]))
               for b, k, t, n in zip(row_r, kept_r, done.token_rt, done.length_r)]
  rows_p = rollouts.problem_b[row_r]
  grades = grader.grade([str(a) for a in problems.answer_p[rows_p]], responses,
                        [str(d) for d in problems.dataset_p[rows_p]])
  correct_r = np.array([g.verdict == grading.Verdict.CORRECT for g in grades])
  successes_bz = np.zeros(end_bz.shape, np.int32)
  continuations_bz = np.zeros(end_bz.shape, np.int32)
  np.add.at(successes_bz, (row_r, z_r), correct_r)
  np.add.at(continuations_bz, (row_r, z_r), 1)
  right_b = rollouts.verdict_b == grading.Verdict.CORRECT
  continuations_bz[last_bz] = 1
  successes_bz += last_bz & right_b[:, None]
  counts = {"prefixes": int((end_bz > -2).sum()), "continuations": len(row_r), "tokens": int(done.length_r.sum()),
            "truncated": int((~done.ended_r).sum()), "correct": int(correct_r.sum()),
            "ungradable": sum(g.verdict == grading.Verdict.UNGRADABLE for g in grades)}
  return Values(end_bz, successes_bz, continuations_bz), counts


def with_own_outcome(values: Values, right_b: np.ndarray) -> Values:
  """The same labels with one more continuation each: the seed's own ending, which pi drew from that very prefix.

  It is unbiased and costs nothing, and it labels the seeds whose prefixes were
  not sampled. Only for seeds and labels of the same policy. right_b: bool, the
  seeds' outcomes. The whole response keeps its one label.
  """
  there_bz = values.end_bz > -2
  earlier_bz = there_bz & (np.arange(there_bz.shape[1]) < there_bz.sum(axis=1, keepdims=True) - 1)
  return values._replace(successes_bz=values.successes_bz + (earlier_bz & right_b[:, None]),
                         continuations_bz=values.continuations_bz + earlier_bz)


def read(run: Run) -> tuple[collect.Rollouts, Values]:
  """The seeds and their labels."""
  rollouts = collect.Rollouts(**run.folder("rollouts").read())
  return rollouts, Values(**run.folder("values").read())


def run_stage(run: Run):
  """values: problems, sft, rollouts -> values/."""
  knobs = run.config.monte_carlo
  folder, done = run.start(
      "values", sections=["policy", "monte_carlo", "grading", "rollouts.max_new"],
      inputs=["problems/train", "sft", "rollouts"])
  if done:
    return
  problems = prepared.read(run.folder("problems/train"))
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  rollouts = collect.Rollouts(**run.folder("rollouts").read())
  if not len(rollouts.problem_b):
    raise UserError(f"{run.folder('rollouts').path} holds no response")
  if knobs.n_mc < 1 or knobs.seeds_per_problem == 0:
    raise UserError("monte_carlo: n_mc must be at least 1 and seeds_per_problem at least 1, or -1 for all")
  arch, params = architecture.restore(
      knobs.checkpoint or str(run.folder("sft").path / "best"), run.config.policy, vocabulary, run.mesh)
  end_bz, joined = prefix_ends(rollouts.token_bt, rollouts.length_b, vocabulary, knobs.max_steps)
  wanted_bz = sampled_prefixes(rollouts, end_bz, knobs.seeds_per_problem)
  count = len(end_bz)
  shards = -(-count // knobs.responses_per_shard)
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader, metrics.progress(
      what="values", unit="continuation", total=int(wanted_bz.sum()) * knobs.n_mc) as bar:
    for shard in range(shards):
      row_b = np.arange(count)[shard * knobs.responses_per_shard:][:knobs.responses_per_shard]
      some = collect.Rollouts(*(x[row_b] for x in rollouts))
      if folder.has_shard(shard):
        bar.update(int(wanted_bz[row_b].sum()) * knobs.n_mc)
        continue
      values, counts = label(
          arch, params, problems, some, end_bz[row_b], vocabulary, grader, n_mc=knobs.n_mc, seeds_per_problem=knobs.seeds_per_problem,
          sampling=collect.sampling_of(knobs), seed=run.config.seed + 1, rows=knobs.rows,
          max_new=run.config.rollouts.max_new, mesh=run.mesh, bar=bar)
      folder.write_shard(shard, values._asdict(), counts)
  folder.finish(shards, {"responses with more than max_steps steps": joined})
