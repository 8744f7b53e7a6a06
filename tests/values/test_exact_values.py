"""The generated problems' exact values: laws of conditional expectation, and the demonstrator's own tries."""

import random

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import arithmetic
from pav_jax.values import equations
from pav_jax.values import exact

ALL_ON = arithmetic.Arithmetic(
    min_length=2, max_length=4, modulus=7, noise=0.2, lure=0.6, lured=0.5, slip=0.15, restate=0.1, slack=2,
    give_up=0.05, bystanders=0.4)
EASY = arithmetic.Arithmetic(min_length=2, max_length=3, noise=0.05, lure=0.5)
HARD = arithmetic.Arithmetic(min_length=5, max_length=6, modulus=100)


def _walks(dials, count, seed=0):
  return [arithmetic.parse(p.question, dials) for p in arithmetic.generate(dials, seed, count)]


def _mean_value(dials):
  return np.mean([arithmetic.exact_q(walk, arithmetic.start_state(walk)) for walk in _walks(dials, 150)])


def test_values_are_a_martingale():
  rng = random.Random(0)
  for walk in _walks(ALL_ON, 30):
    state = arithmetic.start_state(walk)
    while not state.answered:
      options = arithmetic.outcomes(walk, state)
      assert sum(p for p, _, _ in options) == pytest.approx(1)
      after = sum(p * arithmetic.exact_q(walk, s) for p, _, s in options)
      assert after == pytest.approx(arithmetic.exact_q(walk, state), abs=1e-12)
      for _, line, s in options:
        assert arithmetic.read_line(walk, state, line) == s
      state = rng.choice(options)[2]


def test_values_end_at_the_outcome_and_telescope():
  rng = random.Random(1)
  for walk in _walks(ALL_ON, 30, seed=1):
    lines = arithmetic.sample_lines(walk, arithmetic.start_state(walk), rng)
    q_z = arithmetic.exact_values(walk, lines)
    assert len(lines) <= walk.max_lines + 1
    assert q_z[-1] == float(lines[-1] == f"#### {walk.answer}")
    assert equations.advantages(q_z[None]).sum() == pytest.approx(q_z[-1] - q_z[0])


def test_values_of_the_modules_example():
  text = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4"
  walk = arithmetic.parse(text, arithmetic.Arithmetic(modulus=20, lure=0.6, noise=0.2))
  assert walk.answer == 8 and [day.lured for day in walk.days] == [False, True]
  #  1: 0.8 right; 2: 0.4 right. Wrong once: 4 - 4 = 0, 12 * 3 = 16, 4 * 3 = 12: never 8.
  lines = ["1a +5 = 12", "2b -4 = 8", "#### 8"]
  np.testing.assert_allclose(arithmetic.exact_values(walk, lines), [0.32, 0.4, 1, 1])
  np.testing.assert_allclose(arithmetic.exact_values(walk, ["1b -3 = 4", "2b -4 = 0"]), [0.32, 0, 0])
  for line in ("1a +6 = 13", "1a -3 = 4", "2b -4 = 3", "1c +5 = 12", "1a +5 = 20"):
    np.testing.assert_allclose(arithmetic.exact_values(walk, [line, "#### 8"]), [0.32, np.nan, np.nan])


def test_which_days_lure():
  """A multiplication lures from what is none, on either side, in the share that was asked for."""
  day = lambda own, other: arithmetic.Day(own, other, "", False).lured
  assert day("+1", "*3") and not day("*3", "+1") and not day("*3", "*7") and not day("+1", "-2")
  days = [day for walk in _walks(arithmetic.Arithmetic(lured=0.3), 300) for day in walk.days]
  for sample in ([day.lured for day in days if day.swapped], [day.lured for day in days if not day.swapped]):
    assert abs(np.mean(sample) - 0.3) < 4 * np.sqrt(0.21 / len(sample))
  assert {day.own_key + day.other_key for day in days} == {"ab", "ba"}
  assert abs(np.mean([day.swapped for day in days]) - 0.5) < 4 * np.sqrt(0.25 / len(days))


def test_the_demonstrators_tries_are_unbiased():
  rng, tries, z_scores = random.Random(2), 300, []
  for walk in _walks(ALL_ON, 8, seed=2):
    state = arithmetic.start_state(walk)
    while not state.answered:
      exact = arithmetic.exact_q(walk, state)
      right = sum(arithmetic.sample_lines(walk, state, rng)[-1] == f"#### {walk.answer}" for _ in range(tries))
      sigma = np.sqrt(exact * (1 - exact) / tries)
      assert abs(right / tries - exact) <= 4 * sigma + 1e-9
      z_scores += [(right / tries - exact) / sigma] if sigma else []
      state = arithmetic.outcomes(walk, state)[-1][2]
  assert len(z_scores) > 15 and abs(np.mean(z_scores)) < 4 / np.sqrt(len(z_scores))


def test_demonstrations_succeed_as_often_as_their_values_say():
  problems = arithmetic.generate(ALL_ON, 3, 300)
  right_p = np.array([p.solution.endswith(f"#### {p.answer}") for p in problems])
  exact_p = np.array([arithmetic.exact_values(arithmetic.parse(p.question, ALL_ON), [])[0] for p in problems])
  assert abs((right_p - exact_p).mean()) < 4 * np.sqrt((exact_p * (1 - exact_p)).mean() / 300)
  assert {p.answer for p in problems} == {str(n) for n in range(7)}


def test_parse_is_the_inverse_of_question():
  for dials in (ALL_ON, EASY, HARD):
    for problem in arithmetic.generate(dials, 4, 40):
      assert arithmetic.question(arithmetic.parse(problem.question, dials)) == problem.question
  for text in ("From 7 mod 16 with where", "From 7 mod 7 with 1=a where 1a +5 1b -3", "From 7 mod 16 with 1=a where 1a +5",
               "From 7 mod 16 with 1=a where 1a +5 1b -3 oh", "From 7 mod 16 with 2=a where 1a +5 1b -3"):
    with pytest.raises(UserError):
      arithmetic.parse(text, EASY)


def test_problems_are_the_same_for_the_same_seed_and_all_different():
  problems = arithmetic.generate(EASY, 5, 200)
  assert problems == arithmetic.generate(EASY, 5, 200)
  assert problems[:50] == arithmetic.generate(EASY, 5, 50)
  assert len({p.question for p in problems}) == len({p.id for p in problems}) == 200
  assert problems[0].question != arithmetic.generate(EASY, 6, 1)[0].question


def test_difficulty_is_set_by_the_dials():
  assert 0.42 < _mean_value(EASY) < 0.62
  assert 0.03 < _mean_value(HARD) < 0.08


@pytest.mark.parametrize("change, message", [
    (dict(operations=("+1", "+2", "/3")), "'/3'"), (dict(operations=("+1", "+2", "+2")), "three different"),
    (dict(min_length=0), "1 <= min"), (dict(min_length=4, max_length=3), "min <= max"), (dict(modulus=2), "modulus"),
    (dict(noise=1.5), "noise"), (dict(lure=-0.1), "lure"), (dict(slip=2.0), "slip"),
    (dict(operations=("+1", "+2", "-3")), "lured above 0"), (dict(operations=("*2", "*3", "*7")), "lured above 0"),
    (dict(restate=0.6, give_up=0.6), "exceed 1"), (dict(slack=-1), "slack")])
def test_dials_that_mean_nothing(change, message):
  with pytest.raises(UserError, match=message):
    arithmetic.Arithmetic(**change)


def test_too_few_problems():
  dials = arithmetic.Arithmetic(min_length=1, max_length=1, modulus=3, operations=("+1", "+3", "-2"), lured=0)
  with pytest.raises(UserError, match="fewer than"):
    arithmetic.generate(dials, 0, 5000)


def test_the_first_wrong_step_is_the_first_false_line():
  text = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4"
  dials = arithmetic.Arithmetic(modulus=20, lure=0.6, noise=0.2, restate=0.1)
  right = ["1a +5 = 12", "2b -4 = 8", "#### 8"]
  for lines, step in (
      (right, -1), (right[:1], -1), ([], -1),  # stopping early is no wrong step
      (["1a +5 = 12", "so 12", "2b -4 = 8", "#### 8"], -1),
      (["1a +5 = 13", "2b -4 = 9", "#### 9"], 0), (["1b -3 = 4", "2b -4 = 0", "#### 0"], 0),  # a slip; the other operation
      (["1a +5 = 12", "2a *3 = 16", "#### 16"], 1), (["1a +5 = 12", "so 13", "2b -4 = 8", "#### 8"], 1),
      (["1a +5 = 12", "2b -4 = 8", "#### 9"], 2), (["1a +5 = 12", "#### 12"], 1), (right + ["so 8"], 3),
      (["1a +5 = 12", "what", "#### 8"], 1), (["2b -4 = 8", "#### 8"], 0),
      (["1b -3 = 4", "2b -4 = 8", "#### 8"], 0)):  # a right answer by two mistakes
    assert exact.first_wrong([text], [lines], dials).tolist() == [step], lines


def test_the_value_of_a_response_so_far():
  """Day two lures: the demonstrator takes *3 in seven of ten; a line that is under way is left out of account."""
  question, dials = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4", arithmetic.Arithmetic(modulus=20)
  value = lambda text, whole=True: exact.value(question, text, whole, dials)
  assert value("") == pytest.approx(0.9 * 0.3) and value("1a +5 = 12\n") == pytest.approx(0.3)
  assert value("1a +5 = 12\n2b -4", whole=False) == pytest.approx(0.3) and value("1a +5 = 12\n2b -4") == 0
  assert value("1a +5 = 12\n2b -4 = 8\n") == 1 and value("1a +5 = 12\n2a *3 = 16\n") == 0
  assert value("1a +5 = 12\n2b -4 = 8\n#### 8") == 1 and value("1a +5 = 12\n2b -4 = 8\n#### 9") == 0
