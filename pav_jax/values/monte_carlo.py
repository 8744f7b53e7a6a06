"""Values by Monte Carlo: continuations of the prefixes of every seed (section 4.2, App. D).

  1. Cut each seed response into steps; its prefixes are z = 0 (the bare
     prompt), 1, ..., H; after the last the outcome is known, nothing is sampled.
  2. For the other prefixes of the first `seeds_per_problem` seeds of a problem
     sample continuations under the labelling policy, as `strategy` says; all
     prefixes of a seed are read in one pass. Further seeds bring their outcome
     alone, which is what an ORM learns from.
       uniform    n_mc of every prefix (the paper's *random*)
       adaptive   where they tell most (`rounds.adaptive`; ours)
       first_pit  n_mc of every prefix up to the first pit (`first_pit.py`)
     With `reuse` one counts at every prefix it passes (`tree.py`; ours).
  3. Q-hat = share of correct ones. An ungradable continuation is not correct, nor
     a truncated one without a marked answer. Both are counted.

The labelling policy is pi, or the one of `monte_carlo.checkpoint` (a prover mu).
"""

from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import prepared
from pav_jax.problems import steps
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import run as run_lib
from pav_jax.training.run import Run
from pav_jax.values import equations
from pav_jax.values import first_pit
from pav_jax.values import rounds as rounds_lib
from pav_jax.values import tree as tree_lib

STRATEGIES = ("uniform", "adaptive", "first_pit")


class Strategy(NamedTuple):
  """How continuations are spent; n_mc: of every prefix, or (adaptive) of one of even chances and mean length.

  siblings: the outcomes of a problem's other seeds count at the prefixes they
  pass, with `reuse`; only for seeds of the labelling policy, and not for first_pit.
  The rest: see `rounds.adaptive` and `first_pit`.
  """

  name: str = "uniform"
  n_mc: int = 20
  reuse: bool = False
  siblings: bool = False
  pilot: int = 2
  prior: tuple[float, float] = (0.3, 0.7)
  probes: int = 8
  pit_max_q: float = 0.0
  high_q: float = 0.5


def strategy_of(knobs, siblings: bool) -> Strategy:
  """The settings of a monte_carlo section; UserError for one that means nothing."""
  wanted = Strategy(knobs.strategy, knobs.n_mc, knobs.reuse, siblings and knobs.reuse, knobs.adaptive.pilot,
                    tuple(knobs.adaptive.prior), knobs.first_pit.probes, knobs.first_pit.pit_max_q, knobs.first_pit.high_q)
  if wanted.name not in STRATEGIES:
    raise UserError(f"monte_carlo.strategy {wanted.name!r} is none of {', '.join(STRATEGIES)}")
  if wanted.n_mc < 1 or knobs.seeds_per_problem == 0 or knobs.seeds_per_problem < -1:
    raise UserError("monte_carlo: n_mc must be at least 1 and seeds_per_problem at least 1, or -1 for all")
  if wanted.pilot < 1 or len(wanted.prior) != 2 or min(wanted.prior) <= 0:
    raise UserError("monte_carlo.adaptive: pilot must be at least 1 and prior two numbers above 0")
  if wanted.probes < 1 or not 0 <= wanted.pit_max_q < 1 or not 0 <= wanted.high_q <= 1:
    raise UserError("monte_carlo.first_pit: probes must be at least 1, pit_max_q in [0, 1) and high_q in [0, 1]")
  return wanted


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
  end_bs, count_b = steps.step_ends_bs(token_bt, length_b, vocabulary.step_rule, max_steps, merge=True)
  end_bs = np.where(end_bs < 0, -2, end_bs)
  prompt_b1 = np.full((len(end_bs), 1), -1, np.int32)
  return np.concatenate([prompt_b1, end_bs], axis=1).astype(np.int32), int((count_b > max_steps).sum())


def sampled_prefixes(rollouts: collect.Rollouts, end_bz: np.ndarray, seeds_per_problem: int) -> np.ndarray:
  """bool (b, z): the prefixes that get continuations; the whole response, which ended or used its budget up, needs none."""
  last_bz = end_bz == rollouts.length_b[:, None] - 1
  chosen_b = np.full(len(end_bz), True) if seeds_per_problem == -1 else rollouts.sample_b < seeds_per_problem
  return (end_bz > -2) & ~last_bz & chosen_b[:, None]


def sampler(arch: architecture.Architecture, params, problems: prepared.Problems, rollouts: collect.Rollouts,
            end_bz: np.ndarray, vocabulary, grader: grading.Grader, *, sampling, seed: int, rows: int, share: int, max_new: int,
            mesh=None, bar=None):
  """(draw, tally): draw(row_r, z_r, m_r) -> Drawn under the policy, graded; tally, a dict, adds up what it did.

  share: rows of a lane, the same for all rounds: lanes of another width would be another program.
  """
  prompt_length_b = problems.prompt_length_p[rollouts.problem_b]
  token_bt = prepared.join_rows(
      problems.prompt_pt[rollouts.problem_b], prompt_length_b, rollouts.token_bt, rollouts.length_b, 1)
  width = problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]  # one shape for every shard
  token_bt = np.pad(token_bt, ((0, 0), (0, width - token_bt.shape[1])))
  tally = dict.fromkeys(("continuations", "tokens", "truncated", "correct", "ungradable"), 0)

  def draw(row_r, z_r, m_r) -> rounds_lib.Drawn:
    kept_r = end_bz[row_r, z_r] + 1
    name_rn = np.stack([rollouts.problem_b[row_r], rollouts.sample_b[row_r], z_r, m_r], axis=1).astype(np.int32)
    # A response never exceeds max_new, wherever it was cut.
    jobs = jobs_lib.Jobs(row_r.astype(np.int32), prompt_length_b[row_r] + kept_r,
                         np.maximum(max_new - kept_r, 0).astype(np.int32), name_rn)
    done = jobs_lib.run(
        arch.network, params, token_bt, prompt_length_b + rollouts.length_b, jobs,
        jobs_lib.token_tables(vocabulary, arch.config.vocab_size), rows=rows, share=share, max_new=max_new,
        sampling=sampling, seed=seed, mesh=mesh, bar=bar)
    responses = [vocabulary.decode(np.concatenate([rollouts.token_bt[b, :k], t[:n]]))
                 for b, k, t, n in zip(row_r, kept_r, done.token_rt, done.length_r)]
    rows_p = rollouts.problem_b[row_r]
    grades = grader.grade([str(a) for a in problems.answer_p[rows_p]], responses,
                          [str(d) for d in problems.dataset_p[rows_p]], done.ended_r)
    correct_r = hosts.agreed(np.array([g.verdict == grading.Verdict.CORRECT for g in grades]))
    for name, n in (("continuations", len(row_r)), ("tokens", done.length_r.sum()), ("truncated", (~done.ended_r).sum()),
                    ("correct", correct_r.sum()),
                    ("ungradable", sum(g.verdict == grading.Verdict.UNGRADABLE for g in grades))):
      tally[name] += int(n)
    return rounds_lib.Drawn(done.token_rt, done.length_r, correct_r)

  return draw, tally


def spend(strategy: Strategy, rollouts: collect.Rollouts, end_bz: np.ndarray, seeds_per_problem: int, draw):
  """(Values, counts): rounds of draw(row_r, z_r, m_r) -> rounds.Drawn, as the strategy says, for seeds_per_problem seeds (-1: all)."""
  sampled_bz = sampled_prefixes(rollouts, end_bz, seeds_per_problem)
  if not sampled_bz.any():
    raise UserError("no prefix to continue")
  right_b = rollouts.verdict_b == grading.Verdict.CORRECT
  last_b = (end_bz > -2).sum(axis=1) - 1
  tree = tree_lib.build(rollouts, end_bz, sampled_bz, strategy.reuse)
  free_bz = np.zeros((2, *end_bz.shape), np.int64)
  start, counts = rounds_lib.nothing(tree.size), {"prefixes": int((end_bz > -2).sum())}
  if strategy.name == "first_pit":
    found, sampled_bz, rounds, counts["probes"] = first_pit.run(
        tree, rollouts, right_b, last_b, draw, n_mc=strategy.n_mc, probes=strategy.probes,
        pit_max_q=strategy.pit_max_q, high_q=strategy.high_q)
  else:
    seeds_2u = _seeds(tree, rollouts, right_b) if strategy.siblings else np.zeros((2, tree.size), np.int64)
    if strategy.siblings:  # a seed's own outcome is not among its labels: see with_own_outcome
      free_bz = seeds_2u[:, tree.node_bz] - np.stack([np.broadcast_to(right_b[:, None], end_bz.shape), np.ones(end_bz.shape)])
    ask = lambda now: rounds_lib.top_up(now, tree, strategy.n_mc)
    if strategy.name == "adaptive":
      ask = lambda now: rounds_lib.adaptive(now, tree, n_mc=strategy.n_mc, pilot=strategy.pilot, prior=strategy.prior,
                                            seed_successes_u=seeds_2u[0], seeds_u=seeds_2u[1])
    found, rounds = rounds_lib.run(tree, rollouts, ask, draw, start)
  successes_bz, continuations_bz = (np.where(sampled_bz, x_u[tree.node_bz] + free_bz[i], 0).astype(np.int32)
                                    for i, x_u in enumerate((found.successes_u, found.continuations_u)))
  last_bz = np.arange(end_bz.shape[1]) == last_b[:, None]
  continuations_bz[last_bz] = 1
  successes_bz[last_bz] = right_b
  counts |= {"rounds": rounds, "labelled prefixes": int(sampled_bz.sum()),
             "samples of prefixes": int(continuations_bz[~last_bz].sum())}
  return Values(end_bz, successes_bz, continuations_bz), counts


def _seeds(tree: tree_lib.Tree, rollouts: collect.Rollouts, right_b: np.ndarray) -> np.ndarray:
  """int64 (2, u): right ones and all of the seeds that pass each node."""
  b_x, u_x = tree_lib.seeds_passed(tree, rollouts)
  return np.stack([np.bincount(u_x, weight_x, tree.size) for weight_x in (right_b[b_x], np.ones(len(b_x)))]).astype(np.int64)


def label(arch: architecture.Architecture, params, problems: prepared.Problems, rollouts: collect.Rollouts,
          end_bz: np.ndarray, vocabulary, grader: grading.Grader, *, strategy: Strategy, seeds_per_problem: int, sampling,
          seed: int, rows: int, max_new: int, mesh=None, bar=None):
  """(Values, counts): the labels of these seeds under the policy; the arguments are those of `sampler` and `spend`."""
  sampled_bz = sampled_prefixes(rollouts, end_bz, seeds_per_problem)
  jobs_per_source = strategy.n_mc * sampled_bz.sum() / max(1, sampled_bz.any(axis=1).sum())
  draw, tally = sampler(
      arch, params, problems, rollouts, end_bz, vocabulary, grader, sampling=sampling, seed=seed, rows=rows,
      share=jobs_lib.rows_of_lane(jobs_per_source), max_new=max_new, mesh=mesh, bar=bar)
  values, counts = spend(strategy, rollouts, end_bz, seeds_per_problem, draw)
  q_x = values.q_bz[~np.isnan(values.q_bz)]
  labels = {"labels": len(q_x), "labels of 0": int((q_x == 0).sum()), "labels of 1": int((q_x == 1).sum())}
  return values, counts | tally | labels


def with_own_outcome(values: Values, right_b: np.ndarray) -> Values:
  """The same labels with one more continuation each: the seed's own ending, which pi drew from that very prefix.

  It is unbiased and costs nothing, and it labels the seeds whose prefixes were
  not sampled. Only for seeds and labels of the same policy, drawn alike. right_b: bool, the
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


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section monte_carlo, or names what is not there; root: the workdir, if there is one."""
  knobs, where = config.monte_carlo, "config.monte_carlo"
  strategy_of(knobs, siblings=False)
  errors.at_least(1, knobs, where, "max_steps", "rows", "responses_per_shard")
  if knobs.seeds_per_problem > config.rollouts.n_cov:
    raise UserError(f"{where}.seeds_per_problem {knobs.seeds_per_problem} is more than config.rollouts.n_cov {config.rollouts.n_cov}; "
                    "-1 is all")
  sampling_lib.check(knobs, where)
  architecture.check_checkpoint(knobs.checkpoint, f"{where}.checkpoint", root)
  grading.check(config.grading)


def run_stage(run: Run):
  """values: problems, sft, rollouts -> values/."""
  knobs = run.config.monte_carlo
  folder, done = run.start(
      "values", sections=["policy", "monte_carlo", "grading", "rollouts.max_new"],
      inputs=["problems/train", "sft", "rollouts"])
  if done:
    _doubt(run, folder)
    return
  problems = prepared.read(run.folder("problems/train"))
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  rollouts = collect.Rollouts(**run.folder("rollouts").read())
  if not len(rollouts.problem_b):
    raise UserError(f"{run.folder('rollouts').path} holds no response")
  # Seeds of another policy than the labels', or drawn otherwise, are no samples of its values.
  seeds = run.made_with("rollouts", "rollouts")
  strategy = strategy_of(knobs, siblings=(knobs.checkpoint == seeds.checkpoint and
                                          collect.sampling_of(knobs) == collect.sampling_of(seeds)))
  arch, params = architecture.restore(
      knobs.checkpoint or str(run.folder("sft").path / "best"), run.config.policy, vocabulary, run.mesh)
  end_bz, joined = prefix_ends(rollouts.token_bt, rollouts.length_b, vocabulary, knobs.max_steps)
  wanted_bz = sampled_prefixes(rollouts, end_bz, knobs.seeds_per_problem)
  count = len(end_bz)
  shards = -(-count // knobs.responses_per_shard)
  of_shard = lambda shard: np.arange(count)[shard * knobs.responses_per_shard:][:knobs.responses_per_shard]
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader, metrics.progress(
      what="values", unit="continuation", total=sum(int(wanted_bz[of_shard(shard)].sum()) for shard in range(shards)) * knobs.n_mc) as bar:
    for shard in range(shards):
      row_b = of_shard(shard)
      some = collect.Rollouts(*(x[row_b] for x in rollouts))
      expected = int(wanted_bz[row_b].sum()) * knobs.n_mc
      if folder.has_shard(shard):
        bar.update(expected)
        continue
      values, counts = label(
          arch, params, problems, some, end_bz[row_b], vocabulary, grader, strategy=strategy,
          seeds_per_problem=knobs.seeds_per_problem, sampling=collect.sampling_of(knobs), seed=run.config.seed + 1,
          rows=knobs.rows, max_new=run.config.rollouts.max_new, mesh=run.mesh, bar=bar)
      bar.total += counts["continuations"] - expected  # what a strategy spends is known afterwards
      folder.write_shard(shard, values._asdict(), counts)
  folder.finish(shards, {"responses with more than max_steps steps": joined})
  _doubt(run, folder)


def _doubt(run: Run, folder):
  counts = folder.manifest()["counts"]
  doubts = run_lib.useless_responses(counts, run.config.rollouts.max_new, "continuations")
  labels = counts.get("labels", 0)  # not in folders of before
  for value in (0, 1):
    if labels and counts[f"labels of {value}"] == labels:
      doubts.append(f"all {labels} labels are {value}: a verifier can learn nothing from them")
  run.doubt("values", doubts, f"{folder.path} is finished and stays; for another one change rollouts or monte_carlo, "
            "and remove what was made with the old ones")
