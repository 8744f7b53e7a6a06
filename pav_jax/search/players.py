"""Who takes part in a search of a split's problems, and one arm's search with its answers graded."""

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
from pav_jax.search import arms
from pav_jax.search import beam
from pav_jax.search import best_of_n
from pav_jax.search import labels
from pav_jax.search import ledger
from pav_jax.search import ranking
from pav_jax.training.run import Run
from pav_jax.values import exact
from pav_jax.verifiers import process
from pav_jax.verifiers import score
from pav_jax.verifiers import targets

# What a prover's checkpoint may say: a Q, or A itself.
PROVERS = (*targets.VALUES, "advantage")


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section search, or names what is not there; root: the workdir, if there is one."""
  knobs, where = config.search, "config.search"
  errors.one_of(mixture.SPLITS, knobs, where, "split")
  prepare.check_count(config, root, where, "num_problems", knobs.split)
  errors.at_least(1, knobs, where, "num_seeds", "max_n", "candidates", "prover_k", "max_rounds", "max_step", "rows")
  errors.at_least(0, knobs, where, "alpha")
  errors.one_of(best_of_n.RERANKS, knobs, where, "pav_rerank")
  errors.at_least(0, knobs, where, "lookahead_temperature")
  errors.at_least(1, knobs, where, "tune_width")
  prepare.check_count(config, root, where, "tune_problems", "validation")
  sampling_lib.check(knobs, where)
  arms.check(config, where)
  kind = process.check(knobs.verifier, f"{where}.verifier", config.verifier.kinds, targets.PROCESS, root)
  if knobs.widths:
    none = f"{where}.widths {tuple(knobs.widths)}: none, as --config.search.widths=,"
    with errors.at(none if kind == "implicit" else f"{where}.arms"):
      process.check_guide(kind, arms.takes_values(knobs), f"{where}.verifier {knobs.verifier!r}")
  if not knobs.widths and kind != "implicit" or min(knobs.widths, default=1) < 1:
    raise UserError(f"{where}.widths {tuple(knobs.widths)}: one beam at least, each of width 1 or more")
  if knobs.rows < max(knobs.widths, default=1) * knobs.candidates:
    raise UserError(f"{where}.rows {knobs.rows} do not hold a beam of {max(knobs.widths, default=1)} with {knobs.candidates} "
                    "candidates each")
  if knobs.max_step > config.rollouts.max_new:
    raise UserError(f"{where}.max_step {knobs.max_step} is more than a whole response has, config.rollouts.max_new {config.rollouts.max_new}")
  if knobs.rows < max(knobs.tune_width * knobs.candidates, *knobs.settings.candidates):
    raise UserError(f"{where}.rows {knobs.rows} are too few for {where}.tune_width {knobs.tune_width} or {where}.settings.candidates")
  if "orm" not in config.verifier.kinds:
    raise UserError(f"{where} reads the verifier 'orm', which config.verifier.kinds {tuple(config.verifier.kinds)} does not name")
  architecture.check_checkpoint(knobs.policy_checkpoint, f"{where}.policy_checkpoint", root)
  for name, path in dict(knobs.provers).items():
    if path:
      kind = process.check(path, f"{where}.provers.{name}", config.verifier.kinds, PROVERS, root)
      _check_kind(name, kind, knobs.arms, f"{where}.provers.{name}: {path}")
  grading.check(config.grading)


def _check_kind(prover: str, kind: str, names, said: str):
  """UserError for a prover's checkpoint that says no Q where an arm asks for one."""
  asking = [name for name in names for arm, of in [arms.parsed(name)] if of == prover and arm.score == "prover_q"]
  if kind == "advantage" and asking:
    raise UserError(f"{said} is a verifier of A and says no Q, which the arm {asking[0]} asks for")


class Players:
  """Everybody a search needs: the policy, the verifiers by name, vocabulary, problems, tables."""

  def __init__(self, run: Run, split: str, num_problems: int):
    knobs = run.config.search
    folder = run.folder(f"problems/{split}")
    self.problems = prepared.read(folder, num_problems)
    self.vocabulary = prepared.vocabulary(folder)
    self.arch, params = architecture.restore(
        knobs.policy_checkpoint or str(run.folder("sft").path / "best"), run.config.policy, self.vocabulary, run.mesh)
    self.policy = beam.Player(self.arch.network, params)
    self.tokens = jobs_lib.token_tables(self.vocabulary, self.arch.config.vocab_size)
    self.dials = exact.dials_of(run.config)
    provers = {arms.parsed(name)[1] for name in knobs.arms}
    own = ("orm", "q", *["advantage"] * ("advantage" in provers))
    paths = {"orm": (process.path_of("orm", run.root), ("orm",)), "q": (process.path_of(knobs.verifier, run.root), targets.PROCESS)}
    if "advantage" in provers:
      paths["advantage"] = (process.path_of("advantage", run.root), ("advantage",))
    paths |= {name: (process.path_of(path, run.root), PROVERS) for name, path in dict(knobs.provers).items() if name in provers}
    if "exact" in provers and not exact.are_known(self.problems):
      raise UserError(f"config.search.arms: @exact needs arithmetic problems, not {', '.join(sorted(set(self.problems.dataset_p)))}")
    self.verifiers, self.kinds, self.label_tokens = {}, {"exact": "q"}, {}
    for name, (path, kinds) in paths.items():
      arch, params, kind = process.restore(path, run.config.verifier.model, self.vocabulary, run.mesh, kinds)
      self.verifiers[name] = beam.Player(arch.network, params)
      self.kinds[name] = "advantage" if kind == "advantage" else "q"
      self.label_tokens[name] = labels.behind(path, kind or name)  # the first checkpoints do not say their kind
      if name == "q":
        self.process, self.kind = (arch, params), kind
        if knobs.widths:  # a checkpoint that was not there when the config was checked
          process.check_guide(kind, arms.takes_values(knobs), f"search.verifier {path}")

  def judges(self, rank: ranking.Ranking, prover: str) -> beam.Judges:
    """Those whom a ranking reads, and nobody else."""
    reads_q, reads_prover = rank.reads
    return beam.Judges(self.verifiers["q"] if reads_q else None, self.verifiers.get(prover) if reads_prover else None,
                       self.exact_values if reads_prover and prover == "exact" else None)

  def exact_values(self, problem_r, token_rt, length_r) -> np.ndarray:
    """float64 (r,): the demonstrator's Q after these responses' last lines; 0 where there is no problem (-1)."""
    found_r = np.zeros(len(problem_r))
    for r in np.flatnonzero(problem_r >= 0):
      token_t = token_rt[r, :length_r[r]]
      text, ended = self.vocabulary.decode(token_t), len(token_t) > 0 and token_t[-1] == self.vocabulary.eos_id
      found_r[r] = exact.value(str(self.problems.question_p[problem_r[r]]), text, ended or text.endswith("\n"), self.dials)
    return found_r


def searched(run: Run, players: Players, grader, arm: str, settings: dict, width: int, seed: int, bar):
  """(arrays with a row per problem, counts) of one arm's search; settings: as `arms.settings_of` gives them."""
  knobs, problems, (form, prover) = run.config.search, players.problems, arms.parsed(arm)
  k = arms.best_of(prover, knobs.prover_k)
  said = ranking.Prover(players.kinds[prover]) if k is None else ranking.Prover("best_of_k", k)
  rank = ranking.Ranking(form.score, said, settings["alpha"])
  judges, places = players.judges(rank, prover), arms.places(width, settings, knobs.candidates)
  count = len(problems.id_p)
  found = beam.search(
      players.policy, judges, problems.prompt_pt, problems.prompt_length_p, np.arange(count, dtype=np.int32), players.tokens,
      way=beam.Way(rank, form.way, places, settings["candidates"], settings["lookahead"], knobs.lookahead_temperature,
                   settings["particle_temperature"], knobs.distinct),
      max_rounds=knobs.max_rounds, max_new=run.config.rollouts.max_new, max_step=knobs.max_step, sampling=collect.sampling_of(knobs),
      seed=seed_of(run, seed, width), rows=knobs.rows, mesh=run.mesh, bar=bar)
  lengths = np.concatenate([found.length_p[:, None], found.pool_length_pk], axis=1)
  responses = np.concatenate([found.token_pt[:, None], found.pool_token_pkt], axis=1)
  texts = [players.vocabulary.decode(t[:n]) for row_t, row_n in zip(responses, lengths) for t, n in zip(row_t, row_n)]
  each = lambda x_p: [str(x) for x in np.repeat(x_p, lengths.shape[1])]
  last = np.take_along_axis(responses, np.maximum(lengths - 1, 0)[..., None], axis=2)
  grades = grader.grade(each(problems.answer_p), texts, each(problems.dataset_p), (last == players.vocabulary.eos_id).ravel())
  right = np.array([g.verdict == grading.Verdict.CORRECT for g in grades]).reshape(lengths.shape) & (lengths > 0)
  named = prover or ("best_of_k" if form.prover == "may" and rank.reads != (False, False) else "")
  arrays = {"method_p": np.full(count, arm), "width_p": np.full(count, width), "seed_p": np.full(count, seed),
            "places_p": np.full(count, places), "setting_p": np.full(count, float(settings[form.knob])),
            "alpha_p": np.full(count, settings["alpha"] if form.score in ("effective", "random") else 0.0),
            "prover_p": np.full(count, named), "right_p": right[:, 0], "passed_p": right[:, 1:].any(axis=1)}
  second, extra = (None, ledger.nothing(count)) if judges.q is not None or rank.by == "constant" else _second_opinion(run, players, found)
  arrays |= _other_choices(found, right[:, 1:], judges, rank, form.way, second) | found.cost._asdict()
  arrays |= {"second_scored_p": extra.scored_p, "second_flops_p": extra.verifier_flops_p}
  return arrays, {"searches": count, "unanswered": int((found.length_p == 0).sum()), "rounds": found.rounds}


def _second_opinion(run: Run, players: Players, found: beam.Found) -> tuple[np.ndarray, ledger.Cost]:
  """(Q^pi at the end of all that finished (p, k), -inf where nothing did; its cost): of a search that Q^pi has not steered.

  Who is best of many by one verifier is so by its errors, too; another verifier does not share them.
  """
  problems, network, length_pk = players.problems, players.verifiers["q"].network, found.pool_length_pk
  problem_x, k_x = np.nonzero(length_pk > 0)
  score_pk = np.full(length_pk.shape, -np.inf)
  length_x, prompt_x = length_pk[problem_x, k_x], problems.prompt_length_p[problem_x]
  if len(problem_x):
    score_pk[problem_x, k_x] = score.score_responses(
        network, players.verifiers["q"].params, problems.prompt_pt, problems.prompt_length_p, problem_x.astype(np.int32),
        found.pool_token_pkt[problem_x, k_x], length_x, length_x[:, None] - 1, rows_per_call=run.config.search.rows, mesh=run.mesh)[:, 0]
  count = len(length_pk)
  return score_pk, (ledger.prompts(network.flops, problems.prompt_length_p, verifier=True)
                    + ledger.scored(network.flops, problem_x, prompt_x, length_x, count))


def _other_choices(found: beam.Found, right_pk, judges: beam.Judges, rank: ranking.Ranking, way: str, second_pk) -> dict[str, np.ndarray]:
  """right_by_CHOICE_p, float: the same search with another final choice than the usual; NaN where there is no such other one.

  second_pk: what `_second_opinion` says, for the choice by Q^pi where the search has not read it; None where it has.
  right_by_draw_p: the chance that a finished particle drawn at random is right.
  """
  usual = beam.usual_choice(judges, rank.prover)
  # By exact values the choice would be by the reference answer.
  says_q = rank.prover.kind == "q" and judges.prover is not None
  there = {"q": judges.q is not None, "prover": says_q, "effective": rank.by not in ("q", "prover_q", "constant")}
  found_by = {}
  for by in beam.CHOICES:
    right_p = np.take_along_axis(right_pk, beam.chosen(found, by)[:, None], axis=1)[:, 0].astype(float)
    found_by[f"right_by_{by}_p"] = right_p if there[by] and by != usual else np.full(len(right_p), np.nan)
  if second_pk is not None:
    found_by["right_by_q_p"] = np.take_along_axis(right_pk, second_pk.argmax(axis=1)[:, None], axis=1)[:, 0].astype(float)
  drawn_p = right_pk.sum(axis=1) / np.maximum((found.pool_length_pk > 0).sum(axis=1), 1)
  return found_by | {"right_by_draw_p": drawn_p if way == "particles" else np.full(len(drawn_p), np.nan)}


def seed_of(run: Run, seed: int, purpose: int) -> int:
  """The randomness of a seed; all arms of a width share theirs, so that those with as many candidates differ in the score alone."""
  return int(np.random.SeedSequence([run.config.seed, 11, seed, purpose]).generate_state(1)[0] >> 1)
