"""95 % intervals, named by what varies in them."""

import numpy as np
from scipy import stats


def over_problems(accuracy_ps: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
  """(mean, low, high) of accuracy_ps (problems, s), s draws of each: percentiles of the mean over resampled problems.

  What varies is the problem, and with it its own draws, whose mean stands for it.
  Draws are not resampled beside: two or five of them would say too little of their
  spread. All of it is about one trained policy.
  """
  accuracy_p = accuracy_ps.mean(axis=1)
  # Counts of each problem in a resample: the mean is then one product per draw.
  count_xp = np.random.default_rng(seed).multinomial(len(accuracy_p), np.full(len(accuracy_p), 1 / len(accuracy_p)), size=draws)
  low, high = np.percentile(count_xp @ accuracy_p / len(accuracy_p), [2.5, 97.5])
  return float(accuracy_p.mean()), float(low), float(high)


def paired(first_ps: np.ndarray, second_ps: np.ndarray, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
  """(mean, low, high) of the difference on the same problems, over problems; draws are averaged first, as they are not paired."""
  return over_problems((first_ps.mean(axis=1) - second_ps.mean(axis=1))[:, None], draws=draws, seed=seed)


def over_seeds(accuracy_s: np.ndarray) -> tuple[float, float, float]:
  """(mean, low, high) of a figure of each training seed: Student's t with one degree of freedom fewer than there are seeds.

  What varies is the training; problems are the same for all seeds. Five seeds
  need a factor of 2.78: percentiles of five resampled figures cover 87.5 %.
  """
  count = len(accuracy_s)
  half = stats.t.ppf(0.975, count - 1) * np.std(accuracy_s, ddof=1) / np.sqrt(count)
  mean = float(np.mean(accuracy_s))
  return mean, mean - float(half), mean + float(half)
