"""One table over several trainings of the same settings: what varies in its intervals is the training.

  1. Each run directory holds one training of policy and verifiers, and its search.
  2. A row for every method and N: its accuracy in each training, the mean, Student's t interval over
     trainings (`intervals.over_seeds`), mean FLOPs a problem, label tokens behind its verifiers.
  3. Differences, paired by training: every arm that ranks by progress less every other method
       n      at equal width
       flops  at equal FLOPs: the cheapest N of the other whose mean FLOPs are at least the arm's, so that it never has less
       best   the other at its most accurate N of at most the arm's FLOPs, chosen on these very problems, in its favour:
              of one that gets worse with width
"""

import math
from collections.abc import Sequence

import numpy as np

from pav_jax.errors import UserError
from pav_jax.evaluation import intervals
from pav_jax.evaluation import tables
from pav_jax.search import arms

# Scores of search/ranking.py that hold an advantage.
PROGRESS = ("effective", "prover_a")


def is_progress(method: str) -> bool:
  """Whether a method of search, under its usual final choice, ranks by progress, and needs no exact values."""
  base = method.partition("@")[0]
  return base in arms.ARMS and arms.ARMS[base].score in PROGRESS and not tables.is_oracle(method) and not tables.is_choice(method)


def accuracies(searches: Sequence[tables.Search], method: str, n: int) -> np.ndarray:
  """Mean accuracy (x,) in each of x trainings."""
  return np.array([search.cell(method, n).accuracy_ps.mean() for search in searches])


def row(searches: Sequence[tables.Search], method: str, n: int, label_tokens: Sequence[int | None]) -> dict:
  """Accuracy over trainings, each training's, FLOPs a problem and label tokens of a method at an N."""
  accuracy_x = accuracies(searches, method, n)
  mean, low, high = intervals.over_seeds(accuracy_x)
  known = [tokens for tokens in label_tokens if tokens is not None]
  return {"method": method, "n": n, "accuracy": mean, "low": low, "high": high, "by_training": accuracy_x.round(6).tolist(),
          "flops": _flops(searches, method, n), "label_tokens": float(np.mean(known)) if len(known) == len(label_tokens) else None}


def difference(searches: Sequence[tables.Search], first: tuple[str, int], second: tuple[str, int]) -> dict:
  """Accuracy of the first less that of the second, paired by training; `ratio`: the second's FLOPs over the first's."""
  apart_x = accuracies(searches, *first) - accuracies(searches, *second)
  mean, low, high = intervals.over_seeds(apart_x)
  return {"method": first[0], "width": first[1], "other": second[0], "n": second[1], "difference": mean, "difference_low": low,
          "difference_high": high, "by_training": apart_x.round(6).tolist(),
          "ratio": _flops(searches, *second) / _flops(searches, *first)}


def rival(searches: Sequence[tables.Search], first: tuple[str, int], other: str, by: str) -> int | None:
  """The N at which `other` stands against the first, by 'n', 'flops' or 'best'; None where none has been run that serves."""
  if by == "n":
    found = [first[1]]
  elif other in tables.INDEPENDENT:
    found = range(1, min(s.max_n for s in searches) + 1)
  else:
    found = sorted(n for m, n in searches[0].beams if m == other)
  there = lambda n: other in tables.INDEPENDENT or all((other, n) in s.beams for s in searches)
  limit = _flops(searches, *first)
  if by == "best":
    cheap = [n for n in found if there(n) and _flops(searches, other, n) <= limit]
    return max(cheap, key=lambda n: accuracies(searches, other, n).mean(), default=None)
  return next((n for n in found if there(n) and (by == "n" or _flops(searches, other, n) >= limit)), None)


def compare(searches: Sequence[tables.Search]) -> dict[str, list[dict]]:
  """`rows` and `differences` of all methods.

  UserError for fewer than two trainings, or where they do not have the same methods.
  """
  if len(searches) < 2:
    raise UserError("one training says nothing of how trainings vary: two run directories at least")
  beams = searches[0].beams
  if not beams:
    raise UserError("these runs have searched with no arm: search.widths names at least one")
  for search in searches[1:]:
    if set(search.beams) != set(beams):
      apart = sorted(set(search.beams) ^ set(beams))[0]
      raise UserError(f"not every run has searched {apart[0]} at width {apart[1]}: the same search.arms and search.widths for all")
  tokens = lambda method: [search.label_tokens(method) for search in searches]
  powers = [2 ** i for i in range(min(s.max_n for s in searches).bit_length())]
  methods = [*((m, n) for m in tables.INDEPENDENT for n in powers), *beams]
  rows = [row(searches, m, n, tokens(m)) for m, n in methods]
  others = [*(m for m in tables.INDEPENDENT if not tables.is_oracle(m)), *dict.fromkeys(m for m, _ in beams if not m.endswith("_pass"))]
  differences = []
  for first in beams:
    if not is_progress(first[0]):
      continue
    for other in others:
      for by in ("n", "flops", "best"):
        n = rival(searches, first, other, by)
        if n is not None and (other, n) != first:
          differences.append({"by": by} | difference(searches, first, (other, n)))
  return {"rows": rows, "differences": differences}


def _flops(searches: Sequence[tables.Search], method: str, n: int) -> float:
  return math.fsum(search.cell(method, n).costs.flops for search in searches) / len(searches)
