"""What is said of a verifier: exact small cases, and the definitions written out."""

import types

import numpy as np
import pytest

import fakes
from fakes import A, B, EOS, NL, PAD, RIGHT
from pav_jax.evaluation import diagnostics
from pav_jax.problems import arithmetic
from pav_jax.values import exact
from pav_jax.values import monte_carlo

NAN = float("nan")


def test_auc_is_the_chance_of_a_right_order():
  rng = np.random.default_rng(0)
  score_x, right_x = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.4
  pairs = [(r > w) + (r == w) / 2 for r in score_x[right_x] for w in score_x[~right_x]]
  assert diagnostics.auc(score_x, right_x) == pytest.approx(np.mean(pairs))
  assert np.isnan(diagnostics.auc(score_x, np.ones(60, bool)))


def test_auc_within_takes_pairs_of_one_response_alone():
  score_bs = np.array([[0.1, 0.2, 0.9], [5.0, 4.0, 4.0]])
  right_bs = np.array([[True, False, True], [True, False, False]])
  judged_bs = np.array([[True, True, True], [True, True, False]])
  # Row 0: .1 < .2 lost, .9 > .2 won; row 1: won. The unjudged step is in no pair.
  assert diagnostics.within_auc(score_bs, right_bs, judged_bs) == pytest.approx(2 / 3)
  assert np.isnan(diagnostics.within_auc(score_bs, np.ones((2, 3), bool), judged_bs))


def test_calibration_error():
  found = diagnostics.calibration(np.array([0.1, 0.3, 0.8, 1.0]), np.array([0, 1, 1, 1]), 2)
  # Below a half: said .2, happened .5; above: said .9, happened 1.
  assert found["error"] == pytest.approx((0.3 + 0.1) / 2)
  assert [row["count"] for row in found["bins"]] == [2, 2]


def test_steps_and_their_exact_values_stay_in_line():
  """Regression: texts cut at every newline fell out of line with the steps behind a blank line, or behind merged steps."""
  token_bt = np.array([[A, NL, NL, B, NL, RIGHT, EOS], [NL, A, NL, RIGHT, EOS, PAD, PAD]], np.int32)
  end_bz, _ = monte_carlo.prefix_ends(token_bt, np.array([7, 5]), fakes.VOCABULARY, 4)
  assert exact.step_texts(token_bt, end_bz, fakes.VOCABULARY) == [["a", "b", "#### 7"], ["a", "#### 7"]]
  end_bz, _ = monte_carlo.prefix_ends(token_bt, np.array([7, 5]), fakes.VOCABULARY, 2)
  assert exact.step_texts(token_bt, end_bz, fakes.VOCABULARY)[0] == ["a", "b\n#### 7"]
  dials = arithmetic.Arithmetic(modulus=20, noise=0.2, lure=0.6)
  question = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4"
  exact_bz = exact.values(
      [question] * 2, [["1a +5 = 12", "2b -4 = 8", "#### 8"], ["1a +5 = 12", "what", "#### 8"]], 5, dials)
  np.testing.assert_allclose(exact_bz, [[0.32, 0.4, 1, 1, NAN], [0.32, 0.4, NAN, NAN, NAN]])


def test_first_wrong_steps_are_found_with_a_tau_of_other_problems():
  """Two responses to each of four problems; tau comes from the first two, by whose values alone it changes."""
  problem_b, label_b = np.repeat(np.arange(4), 2), np.array([1, -1] * 4)
  q_bz = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, NAN]] * 2 + [[0.5, 0.4, 0.1], [0.5, 0.2, NAN], [0.5, 0.4, 0.3], [0.5, 0.4, NAN]])
  rows = {(r["values"], r["reading"]): r for r in diagnostics.first_wrong({"a": diagnostics.readings(q_bz), "b": diagnostics.readings(q_bz / 4)}, label_b, problem_b, 200)}
  of_q = rows["a", "q"]
  # Perfect on the first half for tau in (.1, .4]. On the second: at .1 found, at .3 not; .2 is called wrong, .4 not.
  assert of_q["tau"] == pytest.approx(0.25) and (of_q["cases"], of_q["erroneous"]) == (4, 2)
  assert [of_q[m]["value"] for m in ("acc_erroneous", "acc_correct", "f1")] == [0.5, 0.5, 0.5]
  # Over problems: problem 2 found its wrong step and spoilt its right response, problem 3 the other way about.
  assert (of_q["acc_erroneous"]["low"], of_q["acc_erroneous"]["high"]) == (0, 1)
  assert rows["b", "q"]["tau"] == pytest.approx(0.25 / 4) and rows["a", "progress"]["tau"] == 0.8
  # Every first step keeps .8 of the question's value or loses, .4 / .5 and .2 / .5; then .1 / .4 and .3 / .4.
  assert [rows["a", "progress"][m]["value"] for m in ("acc_erroneous", "acc_correct")] == [1, 0.5]
  assert diagnostics.first_wrong({"a": diagnostics.readings(q_bz[:2])}, label_b[:2], problem_b[:2], 200) == []


def _run(kind_prover_k=1):
  section = types.SimpleNamespace
  return section(config=section(report=section(calibration_bins=10), verifier=section(prover_k=kind_prover_k)))


def test_a_perfect_verifier_is_found_perfect():
  exact_bz = np.array([[0.3, 0.6, 1.0, 1.0], [0.3, 0.1, 0.0, NAN], [0.5, 0.8, 0.2, 0.0]])
  found = {"calibration": {}, "exact": {}, "step_auc": {}}
  diagnostics.assess(found, "q", exact_bz, exact_bz, np.array([True, False, False]), _run())
  advantage_bz = np.concatenate([np.full((3, 1), NAN), (1 + np.diff(exact_bz)) / 2], axis=1)
  diagnostics.assess(found, "advantage", advantage_bz, exact_bz, np.array([True, False, False]), _run())
  assert all(x == pytest.approx(1) for x in found["exact"].values()) and len(found["exact"]) == 3
  # Steps whose exact advantage is nought are neither right nor wrong.
  assert {k: v for k, v in found["step_auc"].items() if "judged" not in k} == {
      "q: all steps": 1, "q: steps of one response": 1, "advantage: all steps": 1, "advantage: steps of one response": 1}
  assert found["step_auc"]["q: steps judged"] == 7
  # A verdict is of the step itself, and foretells no outcome; implicit rewards are differences of log-odds.
  of = {"calibration": {}, "exact": {}, "step_auc": {}}
  verdict_bz = np.where(np.arange(4) > 0, np.nan_to_num(advantage_bz), 0.9)
  diagnostics.assess(of, "relative", np.where(np.isnan(exact_bz), NAN, verdict_bz), exact_bz, np.array([True, False, False]), _run())
  diagnostics.assess(of, "implicit", 0.98 * exact_bz + 0.01, exact_bz, np.array([True, False, False]), _run())
  assert set(of["calibration"]) == {"implicit"} and of["exact"]["A, correlation of the relative verifier"] == pytest.approx(1)
  assert {name: x for name, x in of["step_auc"].items() if "all" in name} == {"relative: all steps": 1, "implicit: all steps": 1}
  assert of["step_auc"]["relative: steps judged"] == of["step_auc"]["implicit: steps judged"] == 7
  upside_down = {"calibration": {}, "exact": {}, "step_auc": {}}
  diagnostics.assess(upside_down, "q", 1 - exact_bz, exact_bz, np.array([True, False, False]), _run())
  assert upside_down["step_auc"]["q: all steps"] == 0
