"""Claims by hand-made results, each on both sides; those of the recorded figures are the recorded ones."""

import json
import pathlib

import pytest

from pav_jax.didactic import stage
from pav_jax.didactic import verdicts

RECORDS = pathlib.Path(__file__).parents[2] / "docs/results/records/didactic"


def _row(low, high, **at):
  return {"mean": (low + high) / 2, "share": (low + high) / 2, "low": low, "high": high, **at}


def test_a_prover_is_faster_if_the_whole_interval_says_so():
  curve = lambda *m: {"iteration": [50, 100, 150], "success": {
      "mean": m, "low": [x - 0.05 for x in m], "high": [x + 0.05 for x in m]}}
  rows = [{"arm": arm, "optimizer": "adam", **curve(0.0, middle, 0.9)} for arm, middle in (
      ("effective", 0.7), ("outcome", 0.1), ("weighed", 0.65))]
  ratios = [_row(0.9, 5.0, optimizer="adam"), _row(8.0, 20.0, optimizer="sgd")]
  claims = verdicts.claims("fig3a", {"rows": rows, "ratios": ratios})
  assert claims == {
      "adam: the effective reward is faster than the outcome": False,
      "sgd: the effective reward is faster than the outcome": True,
      "the gain is larger under SGD than under Adam": True,
      "adam, after 100 iterations: a better Q^pi alone is above the outcome": True,
      "adam, after 100 iterations: the effective reward is above a better Q^pi": False}


@pytest.mark.parametrize("last, declines", [((180, 220), True), ((110, 140), False)])
def test_the_decline_needs_intervals_apart(last, declines):
  rows = [_row(*at, optimizer="adam", gamma=g) for g, at in ((1.0, (200, 210)), (10.0, (100, 120)), (1000.0, last))]
  assert verdicts.claims("fig3b", {"rows": rows}) == {
      "adam: the weakest prover is slower than the best": True, "adam: the strongest prover is slower than the best": declines}
  rows = [_row(*at, case="learned 100", gamma=g) for g, at in ((3.0, (0.2, 0.3)), (10.0, (0.8, 0.9)))]
  rows.append(_row(*((0.4, 0.7) if declines else (0.7, 0.85)), case="learned 100", gamma=1000.0))
  assert verdicts.claims("decline", {"rows": rows}) == {"learned 100: the strongest prover is worse than the best": declines}


def test_a_bound_holds_only_without_exception():
  row = lambda share, off: {"prover": "mu", "reading": "root", "eta": 0.1, "violated": {"share": share}, "law_off": off}
  bound, law = "mu, root: the printed bound holds in every draw at the least eta", (
      "the first-order law holds within 1 % in every draw at the least eta")
  for share, off, want in ((0.0, 0.001, (True, True)), (0.001, 0.02, (False, False))):
    claims = verdicts.claims("theorem", {"rows": [row(share, off)], "eta_of_points": 0.1})
    assert (claims[bound], claims[law]) == want


def test_advantages_help_search_only_at_every_width():
  rows = [_row(*at, sweep="width", rollouts=8, width=w, alpha=a, gamma=50.0) for w, a, at in (
      (1, 0.0, (0.1, 0.2)), (2, 0.0, (0.2, 0.3)), (1, 0.5, (0.3, 0.4)), (2, 0.5, (0.25, 0.4)))]
  rows += [_row(*at, sweep="gamma", rollouts=8, width=1, alpha=0.5, gamma=g) for g, at in (
      (1.0, (0.1, 0.2)), (50.0, (0.3, 0.4)), (1000.0, (0.2, 0.35)))]
  claims = verdicts.claims("search", {"rows": rows, "alpha": 0.5, "best_of_n": [{"share": 0.05}, {"share": 0.25}]})
  assert list(claims.values()) == [False, False, True, False]
  rows[3] |= _row(0.35, 0.4)
  assert verdicts.claims("search", {"rows": rows, "alpha": 0.5, "best_of_n": []})["8 rollouts: Q + A is above Q at every width"]


@pytest.mark.parametrize("figure", stage.FIGURES)
def test_the_recorded_figures_bear_their_recorded_claims(figure):
  """And another seed gives the same claims, but for those recorded as differing."""
  results = json.loads((RECORDS / f"{figure}.json").read_text())["facts"]["results"]
  recorded = json.loads((RECORDS / "seeds.json").read_text())[figure]
  assert verdicts.claims(figure, results) == {claim: held["0"] for claim, held in recorded.items()}
