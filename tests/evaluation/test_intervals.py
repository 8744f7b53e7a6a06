"""Intervals against what is known of them: width 0, a textbook's figure, how often they hold the truth."""

import numpy as np
import pytest

from pav_jax.evaluation import intervals


def test_seeds_by_hand():
  """Five figures of mean 3 and deviation sqrt(2.5): half a width is 2.776 sqrt(2.5 / 5)."""
  assert intervals.over_seeds(np.array([1.0, 2, 3, 4, 5])) == pytest.approx((3, 3 - 1.9632, 3 + 1.9632), abs=1e-4)
  assert intervals.over_seeds(np.array([0.5, 0.5])) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("count", [2, 5])
def test_seeds_cover_the_truth_as_often_as_they_say(count):
  rng, trials = np.random.default_rng(0), 4000
  found = [intervals.over_seeds(rng.standard_normal(count)) for _ in range(trials)]
  assert np.mean([low <= 0 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.012)


def test_problems_carry_the_spread_of_their_draws():
  """Draws of a coin for each problem: the interval over problems is as wide as the mean's own deviation says, for 1 or 2 draws."""
  rng = np.random.default_rng(1)
  for draws in (1, 2):
    _, low, high = intervals.over_problems((rng.random((4000, draws)) < 0.5).astype(float), draws=2000)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(4000 * draws), rel=0.1)
