"""95 % intervals, named by what varies in them."""

import warnings
from collections.abc import Callable
from collections.abc import Sequence

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


def over_cases(groups: Sequence[np.ndarray], statistic: Callable[[np.ndarray], np.ndarray], *, draws: int = 2000,
               seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(value, low, high) of statistic(sums over cases), its plain mean over groups; cases are resampled within each group.

  groups: float (cases, ...), what each case adds to the sums; statistic: sums
  (..., x) of the same trailing shape, with any axes before it, to values. A draw in
  which a value is undefined (NaN) is left out of that value's interval.
  """
  rng = np.random.default_rng(seed)
  values, drawn = [], []
  for part_cx in groups:
    count, sums = len(part_cx), []
    for start in range(0, draws, 100):  # counts of all draws at once would be large
      count_dc = rng.multinomial(count, np.full(count, 1 / count), size=min(100, draws - start))
      sums.append(np.tensordot(count_dc.astype(float), part_cx, axes=1))
    values.append(statistic(part_cx.sum(axis=0)))
    drawn.append(statistic(np.concatenate(sums)))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a value that is undefined in all draws has no interval
    low, high = np.nanpercentile(np.mean(drawn, axis=0), [2.5, 97.5], axis=0)
  return np.mean(values, axis=0), low, high


def over_seeds(accuracy_s: np.ndarray) -> tuple[float, float, float]:
  """(mean, low, high) of a figure of each training seed: Student's t with one degree of freedom fewer than there are seeds.

  What varies is the training; problems are the same for all seeds. Five seeds
  need a factor of 2.78: percentiles of five resampled figures cover 87.5 %.
  """
  count = len(accuracy_s)
  half = stats.t.ppf(0.975, count - 1) * np.std(accuracy_s, ddof=1) / np.sqrt(count)
  mean = float(np.mean(accuracy_s))
  return mean, mean - float(half), mean + float(half)
