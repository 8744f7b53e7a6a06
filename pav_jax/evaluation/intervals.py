"""95 % bootstrap intervals over problems and seeds."""

import numpy as np


def bootstrap(accuracy_ps: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
  """(mean, low, high) of accuracy_ps (problems, seeds): the 2.5 and 97.5 percentiles of resampled means.

  Both problems and seeds are drawn with replacement, the same seeds for every
  problem of a draw, since a seed's run shares its randomness.
  """
  rng = np.random.default_rng(seed)
  p, s = accuracy_ps.shape
  # Counts of each index in a resample: the mean is then one product per draw.
  problem_xp = rng.multinomial(p, np.full(p, 1 / p), size=draws) / p
  seed_xs = rng.multinomial(s, np.full(s, 1 / s), size=draws) / s
  mean_x = np.einsum("xp,ps,xs->x", problem_xp, accuracy_ps, seed_xs)
  low, high = np.percentile(mean_x, [2.5, 97.5])
  return float(accuracy_ps.mean()), float(low), float(high)


def paired(first_ps: np.ndarray, second_ps: np.ndarray, *, draws: int = 2000, seed: int = 0):
  """(mean, low, high) of the difference on the same problems; seeds are averaged first, as they are not paired."""
  difference_p1 = (first_ps.mean(axis=1) - second_ps.mean(axis=1))[:, None]
  return bootstrap(difference_p1, draws=draws, seed=seed)
