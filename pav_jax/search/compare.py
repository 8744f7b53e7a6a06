"""The search stage: every method on the same problems, with its cost.

  1. For each seed draw `max_n` independent responses per problem, grade them,
     and group their answers by the grader's own equality, for the votes; score
     them with the ORM and the Q verifier, each prompt read once.
     Pass@N, votes and best-of-N for every N come from these (best_of_n.py).
     A PAV can rerank in several ways: all are kept, `pav_rerank` heads the tables.
  2. For each seed and width run the beam by Q^pi and, for every prover named,
     the beam by Q^pi + alpha A^mu (beam.py); grade the chosen response and all
     that finished. `search.verifier` says Q^pi: the run's own of kind q, or another
     kind or checkpoint, as far as that has what is asked of it (verifiers/process.py).
  3. Write what was right and what it cost, per problem; accuracies and
     intervals are computed from these records alone.
"""

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import mixture
from pav_jax.problems import prepare
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import beam
from pav_jax.search import best_of_n
from pav_jax.search import ledger
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

PROVERS = ("best_of_k", "q", "advantage")
_SAYS = {"q": targets.VALUES, "advantage": ("advantage",)}  # of which kinds search.prover_checkpoint is for these


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section search, or names what is not there; root: the workdir, if there is one."""
  knobs, where = config.search, "config.search"
  errors.one_of(mixture.SPLITS, knobs, where, "split")
  prepare.check_count(config, root, where, "num_problems", knobs.split)
  errors.at_least(1, knobs, where, "num_seeds", "max_n", "candidates", "prover_k", "max_rounds", "max_step", "rows")
  errors.at_least(0, knobs, where, "alpha")
  errors.one_of(best_of_n.RERANKS, knobs, where, "pav_rerank")
  sampling_lib.check(knobs, where)
  provers, kinds = tuple(knobs.provers), config.verifier.kinds
  kind = process.check(knobs.verifier, f"{where}.verifier", kinds, targets.PROCESS, root)
  if knobs.widths:
    none = f"{where}.widths {tuple(knobs.widths)}: none, as --config.search.widths=,"
    with errors.at(none if kind == "implicit" else f"{where}.alpha"):
      process.check_guide(kind, knobs.alpha, f"{where}.verifier {knobs.verifier!r}")
  if not knobs.widths and kind != "implicit" or min(knobs.widths, default=1) < 1:
    raise UserError(f"{where}.widths {tuple(knobs.widths)}: one beam at least, each of width 1 or more")
  if knobs.rows < max(knobs.widths, default=1) * knobs.candidates:
    raise UserError(f"{where}.rows {knobs.rows} do not hold a beam of {max(knobs.widths, default=1)} with {knobs.candidates} "
                    "candidates each")
  if knobs.max_step > config.rollouts.max_new:
    raise UserError(f"{where}.max_step {knobs.max_step} is more than a whole response has, config.rollouts.max_new {config.rollouts.max_new}")
  if set(provers) - set(PROVERS) or not provers or len(set(provers)) < len(provers):
    raise UserError(f"{where}.provers {provers}: each is one of {', '.join(PROVERS)}, and comes once")
  if "q" in provers and not knobs.prover_checkpoint:
    raise UserError(f"{where}.provers names 'q': {where}.prover_checkpoint must say whose Q it is")
  for kind in ("orm", *["advantage"] * ("advantage" in provers and not knobs.prover_checkpoint)):
    if kind not in kinds:
      raise UserError(f"{where} reads the verifier {kind!r}, which config.verifier.kinds {tuple(kinds)} does not name")
  architecture.check_checkpoint(knobs.policy_checkpoint, f"{where}.policy_checkpoint", root)
  for prover, wanted in _SAYS.items():
    if knobs.prover_checkpoint and (prover in provers or not set(provers) & set(_SAYS)):
      process.check(knobs.prover_checkpoint, f"{where}.prover_checkpoint", kinds, wanted if prover in provers else targets.KINDS, root)
  grading.check(config.grading)


class Players:
  """Everybody the stage needs: the policy, the verifiers by kind, vocabulary, problems, tables."""

  def __init__(self, run: Run):
    knobs = run.config.search
    folder = run.folder(f"problems/{knobs.split}")
    self.problems = prepared.read(folder, knobs.num_problems)
    self.vocabulary = prepared.vocabulary(folder)
    self.arch, params = architecture.restore(
        knobs.policy_checkpoint or str(run.folder("sft").path / "best"), run.config.policy, self.vocabulary, run.mesh)
    self.policy = beam.Player(self.arch.network, params)
    self.tokens = jobs_lib.token_tables(self.vocabulary, self.arch.config.vocab_size)
    root = run.root
    paths = {"orm": (str(root / "verifier/orm/best"), ("orm",)), "q": (process.path_of(knobs.verifier, root), targets.PROCESS)}
    if "advantage" in knobs.provers:
      paths["advantage"] = (process.path_of(knobs.prover_checkpoint or "advantage", root), _SAYS["advantage"])
    if "q" in knobs.provers:
      paths["prover"] = (process.path_of(knobs.prover_checkpoint, root), _SAYS["q"])
    self.verifiers = {}
    for name, (path, kinds) in paths.items():
      arch, params, kind = process.restore(path, run.config.verifier.model, self.vocabulary, run.mesh, kinds)
      self.verifiers[name] = beam.Player(arch.network, params)
      if name == "q":
        self.process, self.kind = (arch, params), kind
        if knobs.widths:  # a checkpoint that was not there when the config was checked
          process.check_guide(kind, knobs.alpha, f"search.verifier {path}")


def run_stage(run: Run):
  """search: problems, sft, verifier -> search/samples, search/beams."""
  knobs = run.config.search
  inputs = [f"problems/{knobs.split}", "sft", "verifier"]
  samples, samples_done = run.start("search/samples", sections=["policy", "search", "grading"], inputs=inputs)
  beams, beams_done = run.start("search/beams", sections=["policy", "search", "grading"], inputs=inputs)
  if samples_done and beams_done:
    _doubt(run, samples)
    return
  players = Players(run)
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
      sampling=collect.sampling_of(knobs), seed=_seed(run, seed, 0), rows=knobs.rows,
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


def cells(knobs) -> list[tuple[str, str, float, int, int]]:
  """(method, prover kind, alpha, width, seed) of every beam search the config asks for, in order."""
  methods = [("q_beam", "best_of_k", 0.0)]
  for i, kind in enumerate(knobs.provers):
    methods.append(("pav_beam" if i == 0 else f"pav_beam_{kind}", kind, knobs.alpha))
  return [(*method, width, seed) for seed in range(knobs.num_seeds) for width in knobs.widths for method in methods]


def _all_beams(run: Run, players: Players, grader, folder):
  knobs, count = run.config.search, len(players.problems.id_p)
  todo = cells(knobs)
  with metrics.progress(what="search: beams", unit="problem", total=len(todo) * count) as bar:
    for shard in range(len(todo)):
      if folder.has_shard(shard):
        bar.update(count)
        continue
      folder.write_shard(shard, *_beam(run, players, grader, todo[shard], bar))
  folder.finish(len(todo))


def _beam(run: Run, players: Players, grader, cell, bar):
  """(arrays with a row per problem, counts) of one beam search."""
  method, kind, alpha, width, seed = cell
  knobs, problems = run.config.search, players.problems
  verifiers = [players.verifiers["q"]]
  if alpha and kind != "best_of_k":
    verifiers.append(players.verifiers["prover" if kind == "q" else "advantage"])
  found = beam.search(
      players.policy, verifiers, problems.prompt_pt, problems.prompt_length_p,
      np.arange(len(problems.id_p), dtype=np.int32), players.tokens, prover=beam.Prover(kind, knobs.prover_k),
      alpha=alpha, width=width, candidates=knobs.candidates, max_rounds=knobs.max_rounds,
      max_new=run.config.rollouts.max_new, max_step=knobs.max_step, sampling=collect.sampling_of(knobs),
      seed=_seed(run, seed, width), rows=knobs.rows, distinct=knobs.distinct, mesh=run.mesh, bar=bar)
  count = len(problems.id_p)
  lengths = np.concatenate([found.length_p[:, None], found.pool_length_pk], axis=1)
  responses = np.concatenate([found.token_pt[:, None], found.pool_token_pkt], axis=1)
  texts = [players.vocabulary.decode(t[:n]) for row_t, row_n in zip(responses, lengths) for t, n in zip(row_t, row_n)]
  each = lambda x_p: [str(x) for x in np.repeat(x_p, lengths.shape[1])]
  last = np.take_along_axis(responses, np.maximum(lengths - 1, 0)[..., None], axis=2)
  grades = grader.grade(each(problems.answer_p), texts, each(problems.dataset_p), (last == players.vocabulary.eos_id).ravel())
  right = np.array([g.verdict == grading.Verdict.CORRECT for g in grades]).reshape(lengths.shape) & (lengths > 0)
  arrays = {"method_p": np.full(count, method), "width_p": np.full(count, width), "seed_p": np.full(count, seed),
            "alpha_p": np.full(count, alpha), "prover_p": np.full(count, kind if alpha else ""),
            "right_p": right[:, 0], "passed_p": right[:, 1:].any(axis=1)}
  for by in beam.CHOICES[1:]:  # the same search, another final choice; "prover" says something where that is a Q
    arrays[f"right_by_{by}_p"] = np.take_along_axis(right[:, 1:], beam.chosen(found, by)[:, None], axis=1)[:, 0]
  arrays |= found.cost._asdict()
  return arrays, {"searches": count, "unanswered": int((found.length_p == 0).sum()), "rounds": found.rounds}


def _seed(run: Run, seed: int, purpose: int) -> int:
  """The randomness of a seed; both beams of a width share theirs, so that they differ in the score alone."""
  return int(np.random.SeedSequence([run.config.seed, 11, seed, purpose]).generate_state(1)[0] >> 1)
