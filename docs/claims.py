"""Verdicts of docs/templates/results/claims.md: computed from the intervals of the records, never typed.

  holds           every interval of the row lies above the value at which the claim would be wrong
  does not hold   one of them lies below it
  open            else: an interval holds that value
  not run         there is no record

A row's interval is the record's own where it has one of the difference. Else it is made here: paired by training where both sides
have a figure of each, and between the far ends of the two intervals where they have not, which is wider than it need be.
"""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from pav_jax.evaluation import intervals

ROOT = pathlib.Path(__file__).resolve().parents[1]
EACH = ("by_training", "by_seed")  # what a record calls the figures of its trainings


def there(path: str) -> bool:
  """Whether a record has been committed."""
  return (ROOT / path).exists()


def three(x) -> tuple[float, float, float]:
  """(middle, low, high) of a list of these, or of a record's row: its difference, where it has one, else its figure."""
  if isinstance(x, Sequence):
    return tuple(x)
  if "difference" in x:
    return x["difference"], x["difference_low"], x["difference_high"]
  if isinstance(x.get("accuracy"), Sequence):
    return tuple(x["accuracy"])
  return next(x[name] for name in ("accuracy", "share", "mean", "median") if name in x), x["low"], x["high"]


def verdict(found: Sequence, at: float = 0.0) -> str:
  """One word, or two, on a claim that all of these figures are above `at`."""
  if not found:
    return "not run"
  ends = [three(x)[1:] for x in found]
  return "holds" if all(low > at for low, _ in ends) else "does not hold" if any(high < at for _, high in ends) else "open"


def over_seeds(held: Sequence[dict[str, bool]]) -> str:
  """The verdict on claims that a record has as true or false by seed, as didactic/seeds.json: of all of them, with every seed."""
  said = [x for by_seed in held for x in by_seed.values()]
  return "holds" if all(said) else "open" if any(said) else "does not hold"


def less(one: dict, other: dict) -> tuple[float, float, float]:
  """(middle, low, high) of the first row's figure less the second's: paired by training where both have them, else by far ends."""
  for each in EACH:
    if each in one and each in other and len(one[each]) == len(other[each]) > 1:
      return intervals.over_seeds(np.subtract(one[each], other[each]))
  (middle, low, high), (other_middle, other_low, other_high) = three(one), three(other)
  return middle - other_middle, low - other_high, high - other_low


def cheapest(rows: Sequence[dict], other: dict) -> dict | None:
  """Of rows with `flops`, the cheapest whose figure is shown to lie above the other's: itself, `over`, and `times`, the other's FLOPs
  over its own; None where none does."""
  above = [row for row in rows if less(row, other)[1] > 0]
  row = min(above, key=lambda row: row["flops"], default=None)
  return row and {"row": row, "over": less(row, other), "times": other["flops"] / row["flops"]}


def times(ratios: Sequence[float | None]) -> tuple[float, float, float] | None:
  """Geometric mean of ratios of trainings, with Student's t interval of their logarithms; None where one of them has no number."""
  return None if None in ratios else tuple(math.exp(x) for x in intervals.over_seeds(np.log(ratios)))


def carries(record: dict) -> dict[str, str]:
  """Which of what a record should have it has: 'yes', 'no', or the part of it."""
  trainings = record.get("trainings", [{}])
  has = lambda *names: any(name in record or all(name in training for training in trainings) for name in names)
  sections = record.get("sections") or trainings[0].get("config") or record.get("config") or {}
  whole = {"policy", "verifier"} <= set(sections)
  return {
      "config": "yes" if whole else "in part" if has("config", "search") else "no",
      "versions": "yes" if has("versions") else "no", "seeds": "yes" if has("seed", "seeds") else "no",
      "hardware": "yes" if has("machine") else "no",
      "minutes": "yes" if has("minutes", "stages") else "no"}
