"""What each step and token is paid, by hand, and the laws of every way to pay."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.policy import credit

NAN = np.nan
Q_BZ = np.array([[0.2, 0.5, 0.4, 0.9], [0.6, 0.1, NAN, NAN]])
OUTCOME_B = np.array([1.0, 0.0])


KNOBS = {"outcome_last": False, "clip": np.inf, "temperature": 0.0, "min_q": 0.0, "min_ratio": 0.8}


def _paid(reward="advantage", **knobs):
  return credit.process_rewards(Q_BZ, OUTCOME_B, **KNOBS | knobs, reward=reward)


@pytest.mark.parametrize("options, want_bs", [
    ({}, [[0.3, -0.1, 0.5], [-0.5, 0, 0]]),
    ({"outcome_last": True}, [[0.3, -0.1, 0.6], [-0.6, 0, 0]]),
    ({"clip": 0.25}, [[0.25, -0.1, 0.25], [-0.25, 0, 0]]),
    ({"reward": "shaping"}, [[0.7, 0.4, 0.5], [-0.5, 0, 0]]),
    ({"reward": "min_form"}, [[-0.1, -0.1, 0], [-0.5, 0, 0]]),
    ({"reward": "first_error"}, [[0, 0, 0], [0, 0, 0]]),
    ({"reward": "value"}, [[0.5, 0.4, 0.9], [0.1, 0, 0]])])
def test_each_option_pays_by_hand(options, want_bs):
  step_bs, _ = _paid(**options)
  assert step_bs.dtype == np.float32
  np.testing.assert_allclose(step_bs, want_bs, atol=1e-6)


def test_clipping_is_counted():
  assert _paid()[1] == 0
  assert _paid(clip=0.25)[1] == 3 / 4


def test_shaping_telescopes_to_the_last_value():
  step_bs, _ = _paid("shaping")
  np.testing.assert_allclose(step_bs[0], Q_BZ[0, -1] - Q_BZ[0, :-1], atol=1e-6)


def test_every_token_of_a_step_is_paid_alike_and_fractions_arrive():
  end_bs = np.array([[1, 2, 5], [0, -1, -1]])
  step_bs = np.array([[0.3, -0.1, 0.5], [-0.5, 9, 9]])
  np.testing.assert_allclose(credit.per_token(step_bs, end_bs, 8),
                             [[0.3, 0.3, -0.1, 0.5, 0.5, 0.5, 0, 0], [-0.5, 0, 0, 0, 0, 0, 0, 0]], atol=1e-7)


def test_unknown_rewards_are_told():
  with pytest.raises(UserError, match="rl.reward 'x' is none of advantage, shaping, min_form, first_error, value"):
    _paid("x")


def test_what_is_to_come_by_hand():
  paid_bt = np.array([[1.0, 2.0, 4.0], [0.0, -1.0, 0.0]])
  np.testing.assert_allclose(credit.to_come(paid_bt), [[7, 6, 4], [-1, -1, 0]])
  np.testing.assert_allclose(credit.to_come(paid_bt, 0.5), [[3, 4, 4], [-0.5, -1, 0]])
  np.testing.assert_allclose(paid_bt, [[1, 2, 4], [0, -1, 0]])  # as it was


PAID_BS = np.array([[0.3, -0.2, 0.1, 0.4], [0.2, 0.1, 7.0, 7.0], [-0.3, 0.5, -0.3, 0.0]])
THERE_BS = np.arange(4) < np.array([[4], [2], [4]])


def test_min_form_without_temperature_is_the_least_up_to_the_worst_step():
  """And of a step up to the worst, the least of what is to come is the least of all."""
  found_bs = credit.min_form(PAID_BS, THERE_BS, 0.0)
  np.testing.assert_allclose(found_bs, [[-0.2, -0.2, 0, 0], [0.1, 0.1, 0, 0], [-0.3, 0, 0, 0]])
  cold_bs = credit.min_form(PAID_BS[:2], THERE_BS[:2], 1e-3)
  np.testing.assert_allclose(cold_bs, found_bs[:2], atol=1e-6)


def test_min_form_is_the_soft_minimum_by_hand():
  """T = .1 and rewards ln 2 / 10 apart: weights 1 to 2, and to 4."""
  r = np.log(2) / 10
  found_bs = credit.min_form(np.array([[2 * r, 0.0, r]]), np.ones((1, 3), bool), 0.1)
  np.testing.assert_allclose(found_bs, [[(2 * r + 2 * r) / 7, 2 * r / 7, 2 * r / 7]], rtol=1e-6)


def test_min_form_of_much_heat_is_the_sums_share():
  """Every step weighs the same: the canonical sum, over the number of steps."""
  hot_bs = credit.min_form(PAID_BS, THERE_BS, 1e9)
  np.testing.assert_allclose(hot_bs, credit.to_come(PAID_BS * THERE_BS) / [[4], [2], [4]], atol=1e-6)


@pytest.mark.parametrize("knobs, want_bs", [
    # Q .5 | .6 .4 .4 .1:  .4 < .8 * .6 is the second step
    ({"min_q": 0.0, "min_ratio": 0.8}, [[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]),
    ({"min_q": 0.0, "min_ratio": 0.5}, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]),
    ({"min_q": 0.5, "min_ratio": 0.0}, [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
    ({"min_q": 0.0, "min_ratio": 0.0}, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])])
def test_wrong_responses_are_paid_up_to_their_first_error(knobs, want_bs):
  """The same values in a right response pay nothing more; a wrong one errs in its last step at the latest, a Q of 0 or not."""
  q_bz = np.array([[0.5, 0.6, 0.4, 0.4, 0.1], [0.5, 0.6, 0.4, 0.4, 0.1], [0.4, 0.4, 0.9, NAN, NAN], [0.0, 0.0, 0.0, 0.0, 0.0]])
  found_bs = credit.first_error(q_bz, np.array([0.0, 1.0, 0.0, 0.0]), **knobs)
  assert found_bs.dtype == np.float32
  np.testing.assert_array_equal(found_bs, want_bs)


def test_with_the_outcome_it_is_one_up_to_the_error_and_nothing_behind():
  """alpha = 1: what a step is paid grows nowhere within a response, and is at least Rex."""
  rng = np.random.default_rng(0)
  q_bz, outcome_b = rng.random((50, 6)), (np.arange(50) % 2).astype(np.float32)
  paid_bs = outcome_b[:, None] + credit.first_error(q_bz, outcome_b, min_q=0.1, min_ratio=0.8)
  assert set(np.unique(paid_bs)) == {0, 1} and (np.diff(paid_bs, axis=1) <= 0).all()
  assert (paid_bs[outcome_b == 1] == 1).all() and (paid_bs[outcome_b == 0, -1] == 0).all()


def test_implicit_rewards_by_hand():
  """And a reward model that is the initial policy pays nothing."""
  log_bt, reference_bt, mask_bt = np.log([[0.5, 0.2, 0.9]]), np.log([[0.25, 0.4, 0.1]]), np.array([[1.0, 1.0, 0.0]])
  np.testing.assert_allclose(credit.implicit(log_bt, reference_bt, mask_bt, 0.5), [[0.5 * np.log(2), -0.5 * np.log(2), 0]], rtol=1e-6)
  assert not credit.implicit(log_bt, log_bt, mask_bt, 0.5).any()
