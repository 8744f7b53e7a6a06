"""Readings, thresholds and measures against what can be worked out by hand."""

import numpy as np
import pytest

from pav_jax.evaluation import intervals
from pav_jax.evaluation import judgement
from pav_jax.evaluation import judging
from pav_jax.problems import arithmetic
from pav_jax.problems.benchmarks import CLASSES
from pav_jax.problems.benchmarks import Case
from pav_jax.values import exact

READINGS = judging.READINGS


def case(label, steps=3, benchmark="ProcessBench", subset="gsm8k", wrong=(), right=None, row=[0]):
  row[0] += 1
  return Case("f", row[0], benchmark, subset, f"{subset}-{row[0]}", "q", ("s",) * steps, label, wrong, right)


def oracle(of):
  """1 as long as nothing is wrong, 0 from the first wrong step on."""
  return np.array([1.0] + [float(of.first_wrong == -1 or s < of.first_wrong) for s in range(len(of.steps))])


def measured(found, reading, *names):
  return [found[reading][name]["value"] for name in names]


def test_the_three_readings_of_one_solution():
  q_z = np.array([0.5, 0.4, 0.6, 0.6, 0.0, 0.0], np.float32)
  found = judging.scores(q_z)
  np.testing.assert_allclose(found["q"], [0.4, 0.6, 0.6, 0, 0], atol=1e-7)
  np.testing.assert_allclose(found["advantage"], [-0.1, 0.2, 0, -0.6, 0], atol=1e-7)
  np.testing.assert_allclose(found["progress"], [0.8, 1.5, 1, 0, 1], atol=1e-6)
  # Step 0 keeps .8 of the question's value: that is enough.
  assert {name: judging.first_below(score_s, {"q": 0.5, "advantage": -0.2, "progress": 0.8}[name]) for name, score_s in found.items()} == {
      "q": 0, "advantage": 3, "progress": 3}


def test_a_step_at_tau_is_right_for_the_first_wrong_step_and_wrong_for_prmbench():
  score_s = np.array([0.75, 0.5, 0.25])
  assert judging.first_below(score_s, 0.5) == 2 and judging.first_below(score_s, 0.2) == -1
  assert judging.above(score_s, 0.5, "q").tolist() == [True, False, False]
  assert judging.above(score_s, 0.5, "advantage").tolist() == [True, False, False]
  assert judging.above(score_s, 0.5, "progress").tolist() == [True, True, False]


def test_accuracies_and_their_harmonic_mean():
  # Labels 0 and 2 of erroneous solutions, one hit, one too early; of three correct ones two are left alone.
  sums = judging.case_parts([0, 1, -1, -1, 0], [0, 2, -1, -1, -1]).sum(0)
  assert sums.tolist() == [1, 2, 2, 3, 2]
  assert judging.first_error(sums) == pytest.approx([0.5, 2 / 3, 2 * 0.5 * (2 / 3) / (0.5 + 2 / 3)])
  assert judging.harmonic(0, 0) == 0 and judging.harmonic(0, 1) == 0 and np.isnan(judging.harmonic(np.nan, 1))
  # All wrong everywhere: 0 and 0. Without erroneous solutions there is no accuracy on them, and no mean.
  assert judging.first_error(judging.case_parts([0, 0], [1, -1]).sum(0)).tolist() == [0, 0, 0]
  np.testing.assert_array_equal(judging.first_error(judging.case_parts([-1], [-1]).sum(0)), [np.nan, 1, np.nan])


def test_mr_score_without_reasons():
  # Correct solutions: 2 of 3 called so; erroneous: both called wrong, one at its step.
  sums = judging.case_parts([0, 1, -1, -1, 0], [0, 2, -1, -1, -1]).sum(0)
  tp, tn, fp, fn = 2, 2, 0, 1
  matthews = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
  assert judging.mr_score(sums) == pytest.approx([matthews, 0.2 * matthews + 0.3 * 0.5])
  assert judging.mr_score(judging.case_parts([-1, -1], [0, -1]).sum(0)).tolist() == [0, 0]


def _brute(score_cs, label_c):
  """The best harmonic mean of all thresholds, by trying one at and one beside each score."""
  taus = np.unique(np.concatenate(score_cs))
  taus = np.concatenate([taus, taus - 1e-6, taus + 1e-6])
  value = lambda tau: judging.first_error(judging.case_parts([judging.first_below(x, tau) for x in score_cs], label_c).sum(0))[2]
  return max(map(value, taus)), value


def test_tau_is_the_best_of_all_thresholds():
  rng = np.random.default_rng(0)
  for _ in range(60):
    score_cs = [rng.integers(0, 8, rng.integers(1, 5)) / 8 for _ in range(9)]
    label_c = [-1, 0, *(int(rng.integers(-1, len(x))) for x in score_cs[2:])]
    best, value = _brute(score_cs, label_c)
    tau = judging.best_tau(score_cs, label_c, 0.5)
    assert value(tau) == pytest.approx(best)
    if value(0.5) == pytest.approx(best):
      assert tau == 0.5  # of equals the usual one


def test_tau_lies_in_the_middle_where_the_usual_one_is_worse():
  # Right steps at .3, wrong ones at .1: any threshold in (.1, .3] is perfect.
  score_cs, label_c = [np.array([0.3, 0.1]), np.array([0.3, 0.3]), np.array([0.1])], [1, -1, 0]
  assert judging.best_tau(score_cs, label_c, 0.5) == pytest.approx(0.2)
  assert judging.best_tau(score_cs, label_c, 0.3) == 0.3
  assert judging.best_tau(score_cs[:2], [-1, -1], 0.5) is None and judging.best_tau([], [], 0.5) is None


def test_an_oracle_is_found_perfect_and_a_constant_as_poor_as_it_is():
  cases = [case(-1), case(0), case(2), case(1, right=True), case(-1, subset="math"), case(0, subset="math"), case(1, 2, subset="math"),
           case(-1, subset="empty of wrong ones")]
  found = judgement.judge(cases, [oracle(x) for x in cases], {}, draws=50)
  assert {r: (x["tau"], x["from"]) for r, x in found["tau"].items()} == {"q": (0.5, "gsm8k"), "advantage": (-0.05, "gsm8k"), "progress": (0.8, "fixed")}
  bench = found["benchmarks"]["ProcessBench"]
  for reading in READINGS:
    for subset in ("gsm8k", "math"):
      assert measured(bench["subsets"][subset], reading, "erroneous", "correct", "f1") == [1, 1, 1]
    assert measured(bench["subsets"]["empty of wrong ones"], reading, "erroneous", "correct", "f1") == [None, 1, None]
    # Only subsets with both kinds are in the mean.
    assert bench["mean"]["subsets"] == 2 and bench["mean"][reading]["f1"] == {"value": 1, "low": 1, "high": 1}
    assert bench["right answer, wrong step"]["cases"] == 1 and measured(bench["right answer, wrong step"], reading, "erroneous") == [1]
  # A constant above tau calls nothing wrong; below it the first step of everything, which is right once in three, and once in two.
  for value, first, correct in ((0.7, (0, 0), 1), (0.3, (1 / 3, 1 / 2), 0)):
    flat = judgement.judge(cases, [np.full(len(x.steps) + 1, value) for x in cases], {"q": 0.5}, draws=50)["benchmarks"]["ProcessBench"]
    for subset, share in zip(("gsm8k", "math"), first):
      assert measured(flat["subsets"][subset], "q", "erroneous", "correct", "f1") == [pytest.approx(share), correct, 0]
      assert measured(flat["subsets"][subset], "advantage", "erroneous", "correct", "f1") == [0, 1, 0]
      assert measured(flat["subsets"][subset], "progress", "erroneous", "correct", "f1") == [0, 1, 0]
    assert measured(flat["mean"], "q", "erroneous", "correct", "f1") == [pytest.approx(np.mean(first)), correct, 0]


def test_the_mean_over_subsets_is_plain():
  """Not weighted by cases: nine cases of one subset weigh as much as two of another."""
  cases = [case(0), case(-1), *(case(0, subset="math") for _ in range(8)), case(-1, subset="math")]
  # The oracle on the first subset; on the second nothing is called wrong.
  q_cz = [oracle(x) if x.subset == "gsm8k" else np.ones(4) for x in cases]
  mean = judgement.judge(cases, q_cz, {}, draws=50)["benchmarks"]["ProcessBench"]["mean"]
  assert measured(mean, "q", "erroneous", "correct", "f1") == [0.5, 1, 0.5]


def test_tau_is_chosen_on_gsm8k_alone():
  rng = np.random.default_rng(1)
  cases = [case(int(rng.integers(-1, 3)), subset=subset) for subset in ("gsm8k", "math") for _ in range(30)]
  q_cz = [rng.random(4) for _ in cases]
  scores = lambda q_cz: [judging.scores(q_z) for q_z in q_cz]
  first = judgement.thresholds(cases, scores(q_cz), {})
  others = [q_z if x.subset == "gsm8k" else rng.random(4) / 9 for x, q_z in zip(cases, q_cz)]
  moved = [x if x.subset == "gsm8k" else x._replace(first_wrong=0) for x in cases]
  assert judgement.thresholds(moved, scores(others), {}) == first and first["q"]["from"] == first["advantage"]["from"] == "gsm8k"
  own = [q_z / 2 if x.subset == "gsm8k" else q_z for x, q_z in zip(cases, q_cz)]
  assert judgement.thresholds(cases, scores(own), {})["q"] != first["q"]
  # Given ones win; without GSM8K's part, or with wrong or right ones alone in it, there is nothing to choose by.
  assert judgement.thresholds(cases, scores(q_cz), {"q": 0.3})["q"] == {"tau": 0.3, "from": "given"}
  assert judgement.thresholds(cases[30:], scores(q_cz[30:]), {})["q"] == {"tau": 0.5, "from": "fixed"}
  one_kind = [x._replace(first_wrong=0) if x.subset == "gsm8k" else x for x in cases]
  assert judgement.thresholds(one_kind, scores(q_cz), {})["advantage"] == {"tau": -0.05, "from": "fixed"}


def test_prm_score_by_hand():
  # Steps of two items: wrong are 1 of the first, 0 and 2 of the second.
  right_cs = [np.array([True, False, False]), np.array([True, True, False])]
  part_cx = judging.step_parts(right_cs, [(1,), (0, 2)])
  assert part_cx.tolist() == [[1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1]]
  f1_correct, f1_wrong = 2 * 2 / (2 * 2 + 1 + 1), 2 * 2 / (2 * 2 + 1 + 1)
  assert judging.prm_score(part_cx.sum(0)) == pytest.approx([(f1_correct + f1_wrong) / 2, f1_correct, f1_wrong, 2 / 3, 2 / 3, 1 / 2])
  # multi_solutions: nothing is wrong, and F1 of correct steps alone counts.
  sums = judging.step_parts([np.array([True, True, False])], [()]).sum(0)
  assert judging.prm_score(sums, correct_alone=True)[0] == pytest.approx(2 * 2 / (2 * 2 + 1))
  assert judging.prm_score(sums)[0] == pytest.approx(2 * 2 / (2 * 2 + 1) / 2)


def test_prmbench_of_an_oracle_and_of_a_constant():
  names = sum(CLASSES.values(), ())
  cases = [case(-1 if name == "multi_solutions" else 1, 3, "PRMBench", name, () if name == "multi_solutions" else (1, 2)) for name in names]
  # GSM8K's part of another file in the same run does not move PRMBench's thresholds.
  cases += [case(-1), case(0)]
  known = [oracle(x) * 0.4 + 0.55 * (x.benchmark == "PRMBench") for x in cases]
  found = judgement.judge(cases, known, {"q": 0.6}, draws=50)["benchmarks"]["PRMBench"]
  assert found["tau"] == {"q": 0.6, "advantage": -0.05, "progress": 0.8}
  assert measured(found["all"], "q", "prm_score", "f1_correct", "f1_wrong", "accuracy_first_wrong") == [1, 1, 1, 1]
  assert all(measured(x, "q", "prm_score") == [1] for x in found["classes"].values()) and set(found["groups"]) == set(CLASSES)
  # .95, .95, .55, .55: by progress and difference the step after the first wrong one loses nothing: 8 of 16 wrong steps are found.
  tp, fp, tn = 8 + 3, 8, 8
  for reading in ("advantage", "progress"):
    assert measured(found["all"], reading, "f1_correct", "f1_wrong") == pytest.approx([2 * tp / (2 * tp + fp), 2 * tn / (2 * tn + fp)])
  # A constant at tau, which is not above it, calls every step wrong by Q and none by the other two.
  flat = judgement.judge(cases, [np.full(4, 0.5) for _ in cases], {}, draws=50)["benchmarks"]["PRMBench"]
  correct, wrong = 8 + 3, 16
  assert measured(flat["all"], "q", "prm_score", "f1_correct", "f1_wrong") == pytest.approx([wrong / (2 * wrong + correct), 0, 2 * wrong / (2 * wrong + correct)])
  for reading in ("advantage", "progress"):
    assert measured(flat["all"], reading, "prm_score", "f1_correct", "f1_wrong") == pytest.approx(
        [correct / (2 * correct + wrong), 2 * correct / (2 * correct + wrong), 0])
    assert measured(flat["classes"]["multi_solutions"], reading, "prm_score") == [1]
    # The plain mean of a group: 2 / (2 + 2) / 2 of the classes with one right step and two wrong ones, 1 of multi_solutions.
    assert flat["groups"]["sensitivity"][reading] == pytest.approx((0.25 + 0.25 + 1) / 3)


def test_mr_has_the_same_measures_and_its_own():
  cases = [case(1, benchmark="MR", subset="mr", right=True), case(-1, benchmark="MR", subset="mr", right=True)]
  found = judgement.judge(cases, [oracle(x) for x in cases], {}, draws=50)["benchmarks"]["MR"]["subsets"]["mr"]
  assert measured(found, "q", "erroneous", "correct", "f1", "matthews", "mr_score") == [1, 1, 1, 1, 0.5]


def test_intervals_over_cases_are_those_of_the_resampled_measure():
  rng = np.random.default_rng(0)
  hit_c = rng.random(200) < 0.3
  part_cx = judging.case_parts(np.where(hit_c, 0, 1), [0] * 200)
  value, low, high = intervals.over_cases([part_cx], lambda sum_x: judging.first_error(sum_x)[..., :1])
  mean, at_low, at_high = intervals.over_problems(hit_c[:, None].astype(float))
  assert value[0] == pytest.approx(mean) and low[0] == pytest.approx(at_low, abs=0.01) and high[0] == pytest.approx(at_high, abs=0.01)
  # The mean of two independent groups is narrower by the root of two.
  _, low2, high2 = intervals.over_cases([part_cx, part_cx], lambda sum_x: judging.first_error(sum_x)[..., :1])
  assert (high2 - low2)[0] == pytest.approx((high - low)[0] / 2**0.5, rel=0.1)


def test_arithmetic_has_first_wrong_steps_that_exact_values_find():
  """Its files read as ProcessBench's: the exact label by an oracle, and what the demonstrator's own values make of it."""
  dials = arithmetic.Arithmetic(noise=0.2, lure=0.3, slip=0.1)
  cases, q_cz = [], []
  for problem in arithmetic.generate(dials, 3, 60):
    lines = problem.solution.split("\n")
    label, = exact.first_wrong([problem.question], [lines], dials)
    right = lines[-1] == f"#### {problem.answer}"
    cases.append(case(int(label), len(lines), right=right))
    q_cz.append(arithmetic.exact_values(arithmetic.parse(problem.question, dials), lines))
    assert right or label != -1  # a wrong answer has a wrong step
    # The exact value falls at the wrong step, and nowhere before.
    falls_s = np.diff(q_cz[-1]) < 0
    assert label == -1 and not falls_s.any() or falls_s.argmax() == label
  assert {x.first_wrong for x in cases} >= {-1, 0, 1, 2}
  found = judgement.judge(cases, [oracle(x) for x in cases], {}, draws=50)["benchmarks"]["ProcessBench"]["subsets"]["gsm8k"]
  assert all(measured(found, reading, "erroneous", "correct", "f1") == [1, 1, 1] for reading in READINGS)
  found = judgement.judge(cases, q_cz, {"advantage": -1e-9}, draws=50)["benchmarks"]["ProcessBench"]["subsets"]["gsm8k"]
  assert measured(found, "advantage", "f1") == [1] and measured(found, "q", "f1")[0] > 0.5
