"""What theory says of a run's provers, exactly: on `arithmetic`, over all responses to some problems (values/exact_tree.py).

  1. The trees of the first `report.tree_problems` problems of the split searched, read by the policy at temperature 1:
     its Q at every prefix is known from then on.
  2. Every verifier reads them, too; best-of-K of it, and demonstrators with dials of their own (`report.demonstrators`),
     are provers beside it, and what a method of search ranks by, Q^pi + alpha A^mu, is one more.
  3. A row for each: distinguishability and alignment (Theorem 3.1), and what follows from the two:

       pull         alignment / sqrt(distinguishability): what Q^pi gains at a step, where lines are chosen by this
                    prover, per deviation by which the chosen stand out (the breeder's equation)
       correlation  pull / sqrt(Var[A^pi]): of A^mu with A^pi among the lines of a state, weighed by d^pi and pi
       own          the same with what the prover would say without error, where that is known
       chosen       accuracy where each line is the best of `search.candidates` by this prover, exactly: a beam of one

Rankings that differ by a factor have one pull, so rewards of different size can be compared. Intervals are over problems.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.evaluation import intervals
from pav_jax.evaluation import tables
from pav_jax.models import architecture
from pav_jax.problems import arithmetic
from pav_jax.problems import prepared
from pav_jax.search import arms
from pav_jax.search import tune
from pav_jax.training import metrics
from pav_jax.training.run import Run
from pav_jax.values import equations
from pav_jax.values import exact
from pav_jax.values import exact_tree
from pav_jax.verifiers import score

# What the figure over settings sets against what a beam gained.
PREDICTORS = ("distinguishability", "alignment", "pull", "chosen")
# Dials of a demonstrator that leave the problems as they are.
_OWN = ("noise", "lure", "slip", "restate", "give_up")


class Ranking(NamedTuple):
  """What a method of search ranks by, within a state: Q^pi if `own`, and alpha times the advantage of a prover ('' for none)."""

  prover: str
  alpha: float
  own: bool = True


class Ground(NamedTuple):
  """The trees of some problems, their responses, the chances of a policy there, and all that follows from them."""

  problems: prepared.Problems
  trees: exact_tree.Trees
  whole: exact_tree.Responses
  chance_puc: np.ndarray
  pi: exact_tree.Policy


def ground(arch, params, problems: prepared.Problems, vocabulary, dials: arithmetic.Arithmetic, *, rows: int, mesh) -> Ground:
  """Where provers are set against the policy with these parameters. UserError but on `arithmetic`, or where a tree is too large."""
  if not exact.are_known(problems):
    raise UserError(f"report.tree_problems: exact trees are of arithmetic problems, not {', '.join(sorted(set(problems.dataset_p)))}")
  trees = exact_tree.build(problems.question_p, dials)
  whole = exact_tree.responses(trees, vocabulary)
  with metrics.progress(what="report: exact trees", unit="response", total=len(whole.problem_b)) as bar:
    log_prob_bs = exact_tree.log_probs(arch.network, params, problems, whole, rows=rows, mesh=mesh, bar=bar)
  chance_puc = exact_tree.chances(trees, whole, log_prob_bs)
  return Ground(problems, trees, whole, chance_puc, exact_tree.policy(trees, chance_puc))


def verifier_values(of: Ground, arch, params, *, rows: int, mesh) -> np.ndarray:
  """float64 (p, u): what a verifier says at every node, NaN where there is none; arch, params: of its checkpoint, as `architecture.restore` has them."""
  whole, problems = of.whole, of.problems
  score_bz = score.score_responses(
      arch.network, params, problems.prompt_pt, problems.prompt_length_p, whole.problem_b, whole.token_bt, whole.length_b,
      whole.end_bz, rows_per_call=rows, mesh=mesh)
  return exact_tree.at_nodes(of.trees, whole, score_bz)


def _parts(of: Ground, advantage_puc: np.ndarray, candidates: int) -> np.ndarray:
  """float64 (p, 5), what a problem adds to a row: 1, distinguishability, alignment, Var[A^pi], accuracy of the lines chosen."""
  chosen_p = exact_tree.values(of.trees, exact_tree.best_of_candidates(of.chance_puc, advantage_puc, candidates))[:, 0]
  return np.stack([np.ones(len(chosen_p)), *exact_tree.terms(of.pi, advantage_puc), chosen_p], axis=1)


def _over(x, square):
  """x / sqrt(square), NaN where there is nothing to divide by."""
  return np.where(square > 0, x / np.sqrt(np.where(square > 0, square, 1)), np.nan)


def _figures(part_x) -> dict[str, np.ndarray]:
  """A row's figures from sums over problems, the last axis."""
  n, apart, aligned, apart_pi, chosen = np.moveaxis(part_x[..., :5], -1, 0)
  return {"distinguishability": apart / n, "alignment": aligned / n, "pull": _over(aligned, apart * n),
          "correlation": _over(aligned, apart * apart_pi), "chosen": chosen / n}


def _told(part_px: np.ndarray, figures: Callable, draws: int) -> dict[str, dict[str, float]]:
  """figures(sums over problems) by name, with their intervals over problems."""
  names = list(figures(part_px.sum(axis=0)))
  ends = np.stack(intervals.over_cases([part_px], lambda part_x: np.stack(list(figures(part_x).values()), axis=-1), draws=draws)).T
  return {name: dict(zip(("value", "low", "high"), map(float, x))) for name, x in zip(names, ends)}


def row(of: Ground, name: str, advantage_puc: np.ndarray, *, candidates: int, draws: int, own_puc: np.ndarray | None = None, **more) -> dict:
  """A prover's row; advantage_puc: its A^mu of every line, or a score that differs from it by a number at each node;
  own_puc: the same without error; more: what else the row says."""
  part_px, figures = _parts(of, advantage_puc, candidates), _figures
  if own_puc is not None:
    mean_pu1 = (of.pi.line_puc * own_puc).sum(axis=2, keepdims=True)
    with_own_p = equations.alignment(of.pi.visit_pu, of.pi.line_puc, advantage_puc, own_puc - mean_pu1)
    part_px = np.concatenate([part_px, np.stack([with_own_p, exact_tree.terms(of.pi, own_puc).distinguishability_p], axis=1)], axis=1)
    figures = lambda part_x: _figures(part_x) | {"own": _over(part_x[..., 5], part_x[..., 1] * part_x[..., 6])}
  return {"prover": name, **more} | _told(part_px, figures, draws)


def over_q(of: Ground, advantage_puc: np.ndarray, q_puc: np.ndarray, *, candidates: int, draws: int) -> dict:
  """What a ranking has more than that by Q^pi of its verifier, on the same problems; one that tells nothing apart pulls nothing."""
  both_px = np.concatenate([_parts(of, x, candidates) for x in (advantage_puc, q_puc)], axis=1)
  def figures(part_x):
    mine, theirs = _figures(part_x[..., :5]), _figures(part_x[..., 5:])
    return {name: np.nan_to_num(mine[name]) - np.nan_to_num(theirs[name]) for name in PREDICTORS}
  return _told(both_px, figures, draws)


def rows(of: Ground, said: Mapping[str, np.ndarray], *, own: str, k: float, demonstrators: Mapping[str, arithmetic.Arithmetic],
         methods: Mapping[str, Ranking], candidates: int, draws: int) -> list[dict]:
  """All rows. said: name -> Q at the nodes (p, u) by a verifier; own: which of them is the verifier of Q^pi; k: of best-of-K, a prover of
  the name 'best_of_k' by it, as best_of_8 in `methods` is with a K of its own; demonstrators: name -> dials of one, the truth of the
  verifier of the same name, if there is one; methods: method of search -> what it ranks by."""
  exact_of = {name: exact_tree.demonstrator(of.trees, dials) for name, dials in demonstrators.items()}
  ks = {"best_of_k": k} | {x.prover: arms.best_of(x.prover, k) for x in methods.values() if x.prover not in ("", "best_of_k")}
  best_of = lambda q_pu: {name: equations.best_of_k(q_pu, its_k) for name, its_k in ks.items() if its_k is not None}
  truth = exact_of | {own: of.pi.q_pu} | best_of(of.pi.q_pu)
  said = said | best_of(said[own])
  line = lambda q_pu: exact_tree.advantages(of.trees, q_pu)
  found = []
  add = lambda name, advantage_puc, **more: found.append(row(of, name, advantage_puc, candidates=candidates, draws=draws, **more))
  for name, q_pu in said.items():
    add(name, line(q_pu), own_puc=line(truth[name]) if name in truth else None, by="verifier")
  for name, q_pu in truth.items():
    add(name, line(q_pu), by="exact values")
  for method, rank in methods.items():
    if not rank.prover or rank.prover in said:
      name = " + ".join([own] * rank.own + [f"{rank.alpha:g} {rank.prover}" if rank.own else rank.prover] * bool(rank.prover))
      reward_puc = _reward(line, said, own, rank)
      more = {"over_q": over_q(of, reward_puc, line(said[own]), candidates=candidates, draws=draws)} if rank.prover else {}
      add(name, reward_puc, by="ranking", method=method, **more)
  return found


def _reward(line, said: Mapping[str, np.ndarray], own: str, rank: Ranking) -> np.ndarray:
  if not rank.own:  # within a state the prover's Q ranks as its A
    return line(said[rank.prover])
  return equations.effective_reward(line(said[own]), line(said[rank.prover]), rank.alpha) if rank.prover else line(said[own])


def diagnose(run: Run) -> dict:
  """What the report has of it, as JSON values: problems, share (of the policy's responses in the trees), accuracy (exact, at temperature 1), rows."""
  knobs, search = run.config.report, run.config.search
  split = run.folder(f"problems/{search.split}")
  problems, vocabulary = prepared.read(split, knobs.tree_problems), prepared.vocabulary(split)
  dials = exact.dials_of(run.config)
  restore = lambda path, section: architecture.restore(path, section, vocabulary, run.mesh)
  arch, params = restore(search.policy_checkpoint or str(run.folder("sft").path / "best"), run.config.policy)
  of = ground(arch, params, problems, vocabulary, dials, rows=search.rows, mesh=run.mesh)
  checkpoints, methods = named(run)
  said = {name: verifier_values(of, *restore(path, run.config.verifier.model), rows=search.rows, mesh=run.mesh)
          for name, path in checkpoints.items()}
  return {"problems": len(problems.id_p), "responses": len(of.whole.problem_b), "share": float(of.pi.share_p.mean()),
          "accuracy": float(of.pi.q_pu[:, 0].mean()), "k": search.prover_k, "candidates": search.candidates,
          "rows": rows(of, said, own="q", k=search.prover_k,
                       demonstrators={"demonstrator": dials} | demonstrators(knobs.demonstrators, dials), methods=methods,
                       candidates=search.candidates, draws=knobs.bootstrap_draws)}


def named(run: Run) -> tuple[dict[str, str], dict[str, Ranking]]:
  """(prover -> checkpoint of its Q, arm of search -> what it ranks the lines of a state by): whom this run's search reads, the
  verifier of Q^pi as 'q'. Left out are arms that rank by no verifier of a Q, and those whose way of keeping is another's."""
  search = run.config.search
  paths = {"q": str(run.folder("verifier").path / "q" / "best")} | {name: path for name, path in dict(search.provers).items() if path}
  settings = tune.chosen(run)
  found = {}
  for name in search.arms:
    arm, prover = arms.parsed(name)
    if arm.way != "beam" or arm.knob == "lookahead" or arm.score in ("random", "constant") or prover in arms.SPECIAL:
      continue
    alpha = arms.settings_of(name, search, settings.get(name))["alpha"]
    found[name] = Ranking("" if arm.score == "q" else prover or "best_of_k", alpha, own=arm.score in ("q", "effective"))
  return paths, found


def demonstrators(texts, dials: arithmetic.Arithmetic) -> dict[str, arithmetic.Arithmetic]:
  """name -> dials, of texts like 'prover: noise=.1 lure=.4', which say in what one differs from the run's own. UserError for another text."""
  found = {}
  for text in texts:
    name, _, changes = text.partition(":")
    try:
      changed = {key: float(value) for key, value in (part.split("=") for part in changes.split())}
    except ValueError as error:
      raise UserError(f"report.demonstrators: {text!r} is not like 'name: noise=.1 lure=.4'") from error
    if not name.strip() or not changed or set(changed) - set(_OWN) or name.strip() in found:
      raise UserError(f"report.demonstrators: {text!r} is not like 'name: noise=.1 lure=.4', a new name with some of {', '.join(_OWN)}")
    found[name.strip()] = arithmetic.Arithmetic(**(vars(dials) | changed))
  return found


def check(config):
  """UserError for what means nothing in report.tree_problems and report.demonstrators."""
  dials = exact.dials_of(config)
  demonstrators(config.report.demonstrators, dials)
  if config.report.tree_problems:
    exact_tree.check(dials)


def points(report: Mapping, setting: str) -> list[dict]:
  """A run's beams as points of the figure over settings: what theory says of the ranking, and what it gained over the Q beam of its width.

  report: a report.json. distinguishability, alignment, pull, chosen: the ranking's, less the Q beam's; gain: in accuracy. All with
  intervals. any: share of problems with a right answer among all that finished, less the Q beam's.
  """
  told = {r["method"]: r for r in report["diagnostics"].get("provers", {}).get("rows", ()) if "over_q" in r}
  any_right = {(r["method"], r["n"]): r["accuracy"] for r in report["search"]}
  found = []
  for r in report["equal_n"]:
    beam, width = r["beam"], r["width"]
    if r["method"] == "q_beam" and beam in told:
      found.append({"setting": setting, "method": beam, "width": width, "prover": told[beam]["prover"], **told[beam]["over_q"],
                    "gain": {"value": r["difference"], "low": r["difference_low"], "high": r["difference_high"]},
                    "any": any_right[f"{beam}_pass", width] - any_right["q_beam_pass", width]})
  return found


def sentence(point: Mapping) -> str:
  """What theory says a beam gains over the Q beam, and what it gained."""
  said = lambda x, digits, scale=1: f"{scale * x['value']:+.{digits}f} [{scale * x['low']:+.{digits}f}, {scale * x['high']:+.{digits}f}]"
  way = lambda x: "gains" if x["low"] > 0 else "loses" if x["high"] < 0 else "neither gains nor loses"
  predicted, measured = way(point["pull"]), way(point["gain"])
  verdict = "as it was" if predicted == measured else "which was not decided" if measured == "neither gains nor loses" else f"but it {measured}"
  return (f"{tables.name_of(point['method'])} of {point['width']} ({point['prover']}): its pull is {said(point['pull'], 4)} over that of Q, so theory says that "
          f"it {predicted}, {verdict}: {said(point['gain'], 1, 100)} points.")
