"""The search stage: every method on the same problems, with its cost.

  1. For each seed draw `max_n` independent responses per problem, grade them,
     and group their answers by the grader's own equality, for the votes; score
     them with the ORM and the Q verifier, each prompt read once.
     Pass@N, votes and best-of-N for every N come from these (best_of_n.py).
     A PAV can rerank in several ways: all are kept, `pav_rerank` heads the tables.
  2. For each seed and width run every arm of `search.arms` (arms.py, beam.py);
     grade the chosen response and all that finished. `search.verifier` says Q^pi: the
     run's own of kind q, or another kind or checkpoint, as far as that has what is
     asked of it (verifiers/process.py).
  3. Write what was right and what it cost, per problem; accuracies and
     intervals are computed from these records alone.
"""

from etils import epath
import numpy as np

from pav_jax.grading import grading
from pav_jax.rollouts import collect
from pav_jax.search import arms
from pav_jax.search import best_of_n
from pav_jax.search import ledger
from pav_jax.search import players as players_lib
from pav_jax.search import tune
from pav_jax.search.players import Players
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import run as run_lib
from pav_jax.training.run import Run
from pav_jax.values import equations
from pav_jax.values import monte_carlo
from pav_jax.verifiers import implicit
from pav_jax.verifiers import process
from pav_jax.verifiers import score
from pav_jax.verifiers import targets

def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section search, or names what is not there; root: the workdir, if there is one."""
  players_lib.check(config, root)


def run_stage(run: Run):
  """search: problems, sft, verifier -> search/samples, search/beams."""
  knobs = run.config.search
  inputs = [f"problems/{knobs.split}", "sft", "verifier"] + ["search/tuning"] * knobs.tuned
  samples, samples_done = run.start("search/samples", sections=["policy", "search", "grading"], inputs=inputs)
  beams, beams_done = run.start("search/beams", sections=["policy", "search", "grading"], inputs=inputs)
  if samples_done and beams_done:
    _doubt(run, samples)
    return
  players = Players(run, knobs.split, knobs.num_problems)
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
    if not samples_done:
      _all_samples(run, players, grader, samples)
    if not beams_done:
      _all_beams(run, players, grader, beams)
  _doubt(run, samples)


def _doubt(run: Run, folder):
  run.doubt("search", run_lib.useless_responses(folder.manifest()["counts"], run.config.rollouts.max_new),
            f"{folder.path} and the beams beside it are finished and stay")


def _all_samples(run: Run, players: Players, grader, folder):
  knobs = run.config.search
  count = len(players.problems.id_p)
  with metrics.progress(what="search: samples", unit="response", total=knobs.num_seeds * count * knobs.max_n) as bar:
    for seed in range(knobs.num_seeds):
      if folder.has_shard(seed):
        bar.update(count * knobs.max_n)
        continue
      folder.write_shard(seed, *_samples(run, players, grader, seed, bar))
  folder.finish(knobs.num_seeds)


def _samples(run: Run, players: Players, grader, seed: int, bar):
  """(arrays with a row per problem, counts) of one seed."""
  knobs, problems = run.config.search, players.problems
  problem_p = np.arange(len(problems.id_p), dtype=np.int32)
  rollouts = collect.sample(
      players.arch, players.policy.params, problems, problem_p, knobs.max_n, tokens=players.tokens,
      sampling=collect.sampling_of(knobs), seed=players_lib.seed_of(run, seed, 0), rows=knobs.rows,
      max_new=run.config.rollouts.max_new, mesh=run.mesh, bar=bar)
  grades = collect.grades_of(rollouts, problems, players.vocabulary, grader)
  rollouts, counts = collect.with_grades(rollouts, grades)
  answer_b, comparisons = grader.classes(grades, [str(d) for d in problems.dataset_p[rollouts.problem_b]],
                                         rollouts.problem_b.tolist())
  answer_b, counts = hosts.agreed(np.array(answer_b)), counts | comparisons
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, players.vocabulary,
                                      run.config.monte_carlo.max_steps)
  q_bz = process.of_responses(run, *players.process, problems, rollouts, end_bz, knobs.rows)
  orm_bz = score.score_responses(
      players.verifiers["orm"].network, players.verifiers["orm"].params, problems.prompt_pt, problems.prompt_length_p,
      rollouts.problem_b, rollouts.token_bt, rollouts.length_b, end_bz, rows_per_call=knobs.rows, mesh=run.mesh)
  if players.kind == "implicit":
    reward_bs = implicit.process_rewards(q_bz)
  elif players.kind in targets.VERDICTS:
    reward_bs = q_bz[:, 1:]
  else:
    reward_bs = equations.effective_reward(
        q_bz[:, 1:], equations.advantages(equations.best_of_k(q_bz, knobs.prover_k)), knobs.alpha)
  square = lambda x_b: x_b.reshape(len(problem_p), knobs.max_n)
  arrays = {
      "seed_p": np.full(len(problem_p), seed), "problem_p": problem_p,
      "right_pn": square(rollouts.verdict_b == grading.Verdict.CORRECT), "answer_pn": square(answer_b),
      "length_pn": square(rollouts.length_b),
      "orm_pn": square(best_of_n.at_end(orm_bz)), "q_pn": square(best_of_n.at_end(q_bz))}
  arrays |= {f"pav_{how}_pn": square(best_of_n.effective_score(reward_bs, how)) for how in best_of_n.RERANKS}
  arrays["pav_pn"] = arrays[f"pav_{knobs.pav_rerank}_pn"]
  prompt_p = problems.prompt_length_p
  for name, flops in (("policy", players.policy.network.flops), ("verifier", players.verifiers["orm"].network.flops)):
    verifier = name == "verifier"
    prompt_cost = ledger.prompts(flops, prompt_p, verifier=verifier)
    arrays[f"{name}_prompt_flops_p"] = prompt_cost.verifier_flops_p if verifier else prompt_cost.policy_flops_p
    start_pn, new_pn = np.broadcast_to(prompt_p[:, None], arrays["length_pn"].shape), arrays["length_pn"]
    arrays[f"{name}_flops_pn"] = (flops(start_pn, start_pn + new_pn, 0) if verifier else
                                  flops(start_pn - 1, start_pn - 1 + new_pn, new_pn)).astype(float)
  arrays["prompt_length_p"] = prompt_p
  return arrays, counts


def cells(knobs) -> list[tuple[str, int, int]]:
  """(arm, width, seed) of every search the config asks for, in order."""
  return [(arm, width, seed) for seed in range(knobs.num_seeds) for width in knobs.widths for arm in knobs.arms]


def _all_beams(run: Run, players: Players, grader, folder):
  knobs, count = run.config.search, len(players.problems.id_p)
  todo, tuned = cells(knobs), tune.chosen(run)
  with metrics.progress(what="search: beams", unit="problem", total=len(todo) * count) as bar:
    for shard, (arm, width, seed) in enumerate(todo):
      if folder.has_shard(shard):
        bar.update(count)
        continue
      folder.write_shard(shard, *players_lib.searched(run, players, grader, arm, arms.settings_of(arm, knobs, tuned.get(arm)), width, seed, bar))
  folder.finish(len(todo), {"label tokens": players.label_tokens})
