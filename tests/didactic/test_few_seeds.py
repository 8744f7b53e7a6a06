"""Intervals over few seeds hold the truth as often as they say."""

import numpy as np
import pytest

from pav_jax.didactic import intervals


def test_percentiles_by_hand():
  """Ten seeds: sqrt(10 / 9) times 2.262 deviations of a normal; many: 2.5 and 97.5."""
  assert intervals.ends(10) == pytest.approx((0.855, 99.145), abs=2e-3)
  assert intervals.ends(100_000) == pytest.approx((2.5, 97.5), abs=1e-3)


def test_ten_seeds_cover_the_truth():
  """Percentiles at 2.5 and 97.5 would in 90 %."""
  rng, trials = np.random.default_rng(0), 400
  found = [intervals.bootstrap(rng.standard_normal(10)) for _ in range(trials)]
  assert np.mean([x["low"] <= 0 <= x["high"] for x in found]) == pytest.approx(0.95, abs=0.025)
  curves = [intervals.curve(rng.standard_normal((10, 1))) for _ in range(trials)]
  assert np.mean([x["low"][0] <= 0 <= x["high"][0] for x in curves]) == pytest.approx(0.95, abs=0.025)
