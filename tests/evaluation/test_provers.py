"""Provers by theory: the rows of two days by hand, of verifiers whose errors are known, and what a figure over settings takes."""

import dataclasses

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.evaluation import figures
from pav_jax.evaluation import page
from pav_jax.evaluation import provers
from pav_jax.problems import arithmetic
from pav_jax.values import exact_tree

TEXT = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4"
DIALS = arithmetic.Arithmetic(min_length=2, max_length=2, modulus=20, lure=0.6, noise=0.2)


def ground(texts=(TEXT,)):
  """Where the policy is the demonstrator itself."""
  trees = exact_tree.build(texts, DIALS)
  chance_puc = np.zeros(trees.child_puc.shape)
  for p, (walk, states) in enumerate(zip(trees.walks, trees.states)):
    for u, state in enumerate(states):
      chances = [] if state.answered else [chance for chance, _, _ in arithmetic.outcomes(walk, state)]
      chance_puc[p, u, :len(chances)] = chances
  return provers.Ground(None, trees, None, chance_puc, exact_tree.policy(trees, chance_puc))


def test_a_row_by_hand():
  """A^pi is .08, -.32 at the prompt and .6, -.4 at 12, where .8 of the responses come by; the prover sees the second alone, upside down
  in the own values it should have."""
  of = ground()
  advantage_puc = np.zeros(of.chance_puc.shape)
  advantage_puc[0, 1] = 0.5, 0.2
  found = provers.row(of, "half", advantage_puc, candidates=2, draws=20, own_puc=-advantage_puc, by="verifier")
  value = {key: x["value"] for key, x in found.items() if isinstance(x, dict)}
  apart, aligned, apart_pi = 0.8 * 0.24 * 0.09, 0.8 * 0.24 * 0.3, 0.0256 + 0.192
  assert value == pytest.approx({
      "distinguishability": apart, "alignment": aligned, "pull": aligned / apart**0.5, "correlation": aligned / (apart * apart_pi)**0.5,
      "chosen": 0.8 * (1 - 0.6**2), "own": -1.0})
  assert (found["prover"], found["by"]) == ("half", "verifier")
  # One problem: nothing varies.
  assert all(x["low"] == pytest.approx(x["value"]) == pytest.approx(x["high"]) for x in found.values() if isinstance(x, dict))


def test_a_prover_that_says_nothing_has_no_pull():
  found = provers.row(ground(), "constant", np.full((1, 11, 2), 0.3), candidates=3, draws=20, by="verifier")
  assert found["distinguishability"]["value"] == 0 and np.isnan(found["pull"]["value"]) and np.isnan(found["correlation"]["value"])
  assert found["chosen"]["value"] == pytest.approx(0.32) and "own" not in found


def test_the_rows_of_a_run():
  """The verifier of Q is exact; the prover's is a shrunken one of its demonstrator: distinguishability falls, pull and correlation do not."""
  of = ground([p.question for p in arithmetic.generate(DIALS, 0, 20)])
  better = dataclasses.replace(DIALS, lure=0.2, noise=0.05)
  said = {"q": of.pi.q_pu, "prover": 0.3 + 0.5 * exact_tree.demonstrator(of.trees, better)}
  found = provers.rows(of, said, own="q", k=4, demonstrators={"demonstrator": DIALS, "prover": better}, candidates=3, draws=20, methods={
      "q_beam": provers.Ranking("", 0.5), "pav_beam": provers.Ranking("best_of_k", 0.5), "pav_beam@prover": provers.Ranking("prover", 0.5),
      "prover_a_beam@prover": provers.Ranking("prover", 0.5, own=False), "pav_beam@x": provers.Ranking("unread", 0.5)})
  at = {(r["prover"], r["by"]): r for r in found}
  assert list(at) == [("q", "verifier"), ("prover", "verifier"), ("best_of_k", "verifier"), ("demonstrator", "exact values"),
                      ("prover", "exact values"), ("q", "exact values"), ("best_of_k", "exact values"), ("q", "ranking"),
                      ("q + 0.5 best_of_k", "ranking"), ("q + 0.5 prover", "ranking"), ("prover", "ranking")]
  value = lambda name, by, key: at[name, by][key]["value"]
  for name in ("q", "prover", "best_of_k"):
    assert value(name, "verifier", "own") == pytest.approx(1)
    assert value(name, "verifier", "pull") == pytest.approx(value(name, "exact values", "pull"))
  assert value("prover", "verifier", "distinguishability") == pytest.approx(0.25 * value("prover", "exact values", "distinguishability"))
  assert value("q", "verifier", "correlation") == pytest.approx(1) == pytest.approx(value("demonstrator", "exact values", "correlation"))
  assert value("q", "verifier", "alignment") == pytest.approx(value("q", "verifier", "distinguishability"))
  assert [at[name, "ranking"]["method"] for name in ("q", "q + 0.5 best_of_k", "q + 0.5 prover")] == ["q_beam", "pav_beam", "pav_beam@prover"]
  assert at["prover", "ranking"]["method"] == "prover_a_beam@prover"
  assert value("prover", "ranking", "pull") == value("prover", "verifier", "pull")
  # Alignment is linear in the prover.
  assert value("q + 0.5 prover", "ranking", "alignment") == pytest.approx(
      value("q", "verifier", "alignment") + 0.5 * value("prover", "verifier", "alignment"))
  # Nothing beats the exact values of the policy in pull, and they choose better than it draws.
  assert max(r["pull"]["value"] for r in found) <= value("q", "verifier", "pull") + 1e-12
  assert value("q", "verifier", "chosen") > of.pi.q_pu[:, 0].mean() + 0.1
  drawn = page._provers({"problems": 20, "responses": 80, "share": 1.0, "accuracy": 0.5, "candidates": 3, "rows": found},
                        {"provers": figures.provers_figure(found)})
  assert "<svg" in drawn and "exact values" in drawn and drawn.count("<tr>") == 1 + len(found)


def test_demonstrators_are_read_from_texts():
  found = provers.demonstrators(("better: noise=.05 lure=.2", "other: slip=0.5"), DIALS)
  assert found == {"better": dataclasses.replace(DIALS, noise=0.05, lure=0.2), "other": dataclasses.replace(DIALS, slip=0.5)}
  for text in ("better", "better:", ": noise=.1", "better: noise", "better: noise=x", "better: modulus=7", "better: noise=2"):
    with pytest.raises(UserError):
      provers.demonstrators((text,), DIALS)
  with pytest.raises(UserError):
    provers.demonstrators(("better: noise=.05", "better: noise=.1"), DIALS)


def test_what_a_ranking_has_over_q_is_paired():
  """Exact Q against a verifier that says nothing, and against itself: where nothing varies between the two, the interval is a point."""
  of = ground([p.question for p in arithmetic.generate(DIALS, 0, 20)])
  exact, nothing = exact_tree.advantages(of.trees, of.pi.q_pu), np.zeros(of.chance_puc.shape)
  found = provers.over_q(of, exact, nothing, candidates=3, draws=50)
  alone = provers.row(of, "q", exact, candidates=3, draws=50)
  assert found["pull"] == pytest.approx(alone["pull"]) and found["alignment"] == pytest.approx(alone["alignment"])
  assert found["chosen"]["value"] == pytest.approx(alone["chosen"]["value"] - of.pi.q_pu[:, 0].mean())
  same = provers.over_q(of, 2 * exact, exact, candidates=3, draws=50)
  assert list(same["pull"].values()) == pytest.approx([0, 0, 0], abs=1e-12) and same["alignment"]["low"] > 0


def test_points_and_sentences_are_over_the_q_beam_of_the_same_width():
  measure = lambda value: {"value": value, "low": value - 0.1, "high": value + 0.1}
  row = lambda method, **more: {"prover": method, "by": "ranking", "method": method, **more}
  over = {key: measure(0.3) for key in provers.PREDICTORS}
  against = lambda beam, method, width, difference: {"beam": beam, "method": method, "width": width, "difference": difference,
                                                     "difference_low": difference - 0.1, "difference_high": difference + 0.1}
  found = lambda method, n, accuracy: {"method": method, "n": n, "accuracy": accuracy}
  report = {"diagnostics": {"provers": {"rows": [row("q_beam"), row("pav_beam_q", over_q=over)]}},
            "search": [found("q_beam_pass", 4, 0.3), found("pav_beam_q_pass", 4, 0.45)],
            "equal_n": [against("pav_beam_q", "q_beam", 4, 0.25), against("pav_beam_q", "majority", 4, 0.5), against("pav_beam", "q_beam", 4, 0.0)]}
  [point] = provers.points(report, "rare")
  assert (point["setting"], point["method"], point["width"], point["pull"]) == ("rare", "pav_beam_q", 4, measure(0.3))
  assert point["gain"] == pytest.approx(measure(0.25)) and point["any"] == pytest.approx(0.15)
  assert provers.sentence(point) == ("PAV beam of 4 (pav_beam_q): its pull is +0.3000 [+0.2000, +0.4000] over that of Q, so theory says that it gains, as it was: "
                                     "+25.0 [+15.0, +35.0] points.").replace("PAV beam", provers.tables.name_of("pav_beam_q"))
  assert ", which was not decided: " in provers.sentence(point | {"gain": measure(0.05)})
  assert "says that it loses, but it gains: " in provers.sentence(point | {"pull": measure(-0.3)})
  assert "says that it neither gains nor loses, but it gains: " in provers.sentence(point | {"pull": measure(0.0)})
  assert provers.points({"diagnostics": {}, "search": [], "equal_n": []}, "none") == []
  for y in ("gain", "any"):
    assert figures.prediction_figure([point], y).startswith("<svg")
