"""Choosing among samples, against enumeration and by hand."""

import itertools

import numpy as np
import pytest

from pav_jax.grading import grading
from pav_jax.search import best_of_n

NAN = np.nan


def test_pass_at_n_is_the_mean_over_all_draws():
  right_pn = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]], bool)
  for n in range(1, 6):
    want_p = [np.mean([row[list(drawn)].any() for drawn in itertools.combinations(range(5), n)]) for row in right_pn]
    np.testing.assert_allclose(best_of_n.pass_at_n(right_pn, n), want_p)
  for n in (0, 6):
    with pytest.raises(ValueError):
      best_of_n.pass_at_n(right_pn, n)


def test_one_sample_is_the_policy():
  rng = np.random.default_rng(0)
  right_pn, score_pn = rng.random((6, 8)) < 0.4, rng.random((6, 8))
  answer_pn = np.where(right_pn, 0, rng.integers(-1, 3, (6, 8)))
  policy_p = right_pn.mean(axis=1)
  np.testing.assert_allclose(best_of_n.pass_at_n(right_pn, 1), policy_p)
  np.testing.assert_allclose(best_of_n.best_of(right_pn, score_pn, 1), policy_p)
  right_pn &= answer_pn >= 0
  np.testing.assert_allclose(best_of_n.vote(right_pn, answer_pn, np.ones((6, 8)), 1), right_pn.mean(axis=1))


def test_best_of_is_the_mean_over_all_sets():
  right_pn = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]], bool)
  score_pn = np.array([[0.9, 0.2, 0.5, 0.5, 1.0], [0.1, 0.1, 0.1, 0.1, 0.1]])  # ties: the earlier one stands first
  for n in range(1, 6):
    sets = [list(chosen) for chosen in itertools.combinations(range(5), n)]
    want_p = [np.mean([row[chosen][score[chosen].argmax()] for chosen in sets])
              for row, score in zip(right_pn, score_pn)]
    np.testing.assert_allclose(best_of_n.best_of(right_pn, score_pn, n), want_p)
  np.testing.assert_allclose(best_of_n.best_of(right_pn, score_pn, 2), [0.6, 0.4])
  with pytest.raises(ValueError):
    best_of_n.best_of(right_pn, score_pn, 6)


def test_groups():
  np.testing.assert_array_equal(best_of_n.groups(np.array([[0.9, 0.2, 0.5, 0.5, 1.0]]), 2), [[[0.9, 0.2], [0.5, 0.5]]])


@pytest.mark.parametrize("answers, weights, right", [
    ((3, 5, 3, 4), (1, 1, 1, 1), (1, 0, 1, 0)),           # 3 wins
    ((5, 3, 5, 3), (1, 1, 1, 1), (1, 0, 1, 0)),           # a tie: the earliest
    ((-1, -1, -1, 4), (1, 1, 1, 1), (0, 0, 0, 1)),        # no answer has no vote, however often
    ((5, 3, 3, 4), (0.9, 0.2, 0.3, 0.1), (1, 0, 0, 0)),   # weighted: .9 against .5
    ((5, 3, 3, 4), (0.4, 0.2, 0.3, 0.1), (0, 1, 1, 0)),   # weighted: .4 against .5
    ((-1, 4, -1, 4), (9, 0, 9, 0), (0, 1, 0, 1)),         # nor has it weight
])
def test_votes(answers, weights, right):
  right_pn = np.array([right], bool)
  np.testing.assert_array_equal(best_of_n.vote(right_pn, np.array([answers]), np.array([weights], float), 4), [1.0])
  np.testing.assert_array_equal(best_of_n.vote(~right_pn, np.array([answers]), np.array([weights], float), 4), [0.0])


def test_a_vote_counts_answers_and_not_spellings():
  """Regression: five spellings of the right answer lost to a wrong one that was said twice."""
  stated = [r"\frac{1}{2}", "3", r"\frac12", "0.5", "3", r"\dfrac{1}{2}", "1/2"]
  with grading.Grader() as grader:
    grades = grader.grade([r"\frac{1}{2}"] * 7, [rf"\boxed{{{answer}}}" for answer in stated], "math")
    answer_n, _ = grader.classes(grades, "math", [0] * 7)
  right_pn = np.array([[g.verdict == grading.Verdict.CORRECT for g in grades]])
  assert right_pn.tolist() == [[True, False, True, True, False, True, True]]
  np.testing.assert_array_equal(best_of_n.vote(right_pn, np.array([answer_n]), np.ones((1, 7)), 7), [1.0])
  spelt_n = [stated.index(answer) for answer in stated]
  np.testing.assert_array_equal(best_of_n.vote(right_pn, np.array([spelt_n]), np.ones((1, 7)), 7), [0.0])


def test_nobody_answered():
  ones_pn = np.ones((1, 3))
  np.testing.assert_array_equal(best_of_n.vote(ones_pn.astype(bool), np.full((1, 3), -1), ones_pn, 3), [0.0])


def test_effective_score():
  q_bz = np.array([[0.2, 0.5, 0.8], [0.4, 0.1, NAN]])
  reward_bs = np.array([[0.6, 0.9], [-0.1, NAN]])
  np.testing.assert_allclose(best_of_n.at_end(q_bz), [0.8, 0.1])
  np.testing.assert_allclose(best_of_n.effective_score(reward_bs, "last"), [0.9, -0.1])
  np.testing.assert_allclose(best_of_n.effective_score(reward_bs, "mean"), [0.75, -0.1])
  np.testing.assert_allclose(best_of_n.effective_score(reward_bs, "min"), [0.6, -0.1])
