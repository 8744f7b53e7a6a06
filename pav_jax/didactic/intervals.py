"""95 % intervals: of a share (Wilson), of a statistic over seeds and of a curve (bootstrap); spreads of draws."""

import numpy as np
from scipy import stats

_RESAMPLES = 2000


def ends(count: int) -> tuple[float, float]:
  """(low, high): the percentiles over resampled seeds that are a 95 % interval of `count` of them.

  Of few seeds the 2.5 and 97.5 percentiles are too narrow: a resample of n varies
  sqrt((n - 1) / n) as much as it should, and its tails are a normal's, not Student's.
  These are widened by both (Hesterberg 2015, 10.1080/00031305.2015.1089789, expanded percentiles).
  """
  tail = 100 * float(stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf(0.025, count - 1)))
  return tail, 100 - tail


def share(right: int, count: int) -> dict:
  """share, low, high of `right` among `count` independent trials, by Wilson's interval."""
  z, middle = 1.959964, right / count
  half = z * np.sqrt(middle * (1 - middle) / count + z * z / (4 * count * count))
  low, high = ((middle + z * z / (2 * count) + side * half) / (1 + z * z / count) for side in (-1, 1))
  return {"share": middle, "low": round(float(low), 12), "high": round(float(high), 12)}


def shares(right_x: np.ndarray) -> dict:
  """`share` of the true ones of a bool vector of at least one."""
  return share(int(np.sum(right_x)), len(right_x))


def bootstrap(value_i: np.ndarray, statistic=np.mean) -> dict:
  """mean, low, high: the statistic and its interval over resampled seeds (`ends`); value_i (seeds, ...)."""
  rng = np.random.default_rng(0)
  found = [statistic(value_i[rng.integers(0, len(value_i), len(value_i))]) for _ in range(_RESAMPLES)]
  return dict(zip(("mean", "low", "high"), map(float, (statistic(value_i), *np.percentile(found, ends(len(value_i)))))))


def curve(value_ie: np.ndarray) -> dict:
  """mean, low, high: lists, the mean over seeds and its interval at every point."""
  rng = np.random.default_rng(0)
  count = len(value_ie)
  mean_xe = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES) / count @ value_ie
  low, high = np.percentile(mean_xe, ends(count), axis=0)
  return {name: [round(float(v), 5) for v in x] for name, x in
          (("mean", value_ie.mean(axis=0)), ("low", low), ("high", high))}


def spread(value_x: np.ndarray, low: float) -> dict:
  """low, median, high: the median and the percentiles `low` and 100 - low of draws."""
  return dict(zip(("low", "median", "high"), map(float, np.percentile(value_x, [low, 50, 100 - low]))))
