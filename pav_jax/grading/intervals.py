"""Sets of numbers as readings (`reading`): unions, intersections, what is left without some points."""

from decimal import Decimal
from fractions import Fraction

from pav_jax.grading.structure import Unreadable


def names(readings: list[list]) -> list[str]:
  """What these intervals say of whom, each name one time: 'x < 1 or x > 3' of x, '(1, 2)' of nobody."""
  return sorted({name for reading in readings if reading[0] == "intervals" for name in reading[2:]})


def union(readings: list[list]) -> list:
  """Of intervals and finite sets; Unreadable for anything else."""
  parts, items = [], []
  for reading in readings:
    if reading[0] == "bracket":
      _, opening, closing, (low, high) = reading
      parts.append([low, opening == "[", high, closing == "]"])
    elif reading[0] == "intervals":
      parts += reading[1]
    elif reading[0] in ("set", "list"):
      items += reading[1]
    else:
      raise Unreadable("a union of what is no set")
  if len(name := names(readings)) > 1:
    raise Unreadable("a union of what different names are")
  return ["intervals", parts + [[item, True, item, True] for item in items], *name] if parts else ["set", items]


def without(whole: list, taken: list) -> list:
  """The intervals of all numbers without finitely many; Unreadable for anything else."""
  if whole != ["intervals", [[["number", "-inf"], False, ["number", "inf"], False]]] or taken[0] != "set":
    raise Unreadable("a difference of these sets")
  points = sorted(taken[1], key=_size)
  ends = [["number", "-inf"], *points, ["number", "inf"]]
  return ["intervals", [[low, False, high, False] for low, high in zip(ends, ends[1:])]]


def either(readings: list[list]) -> list:
  """'x < 1 or x > 3': one set of what has one name, else a list."""
  name = names(readings)
  return ["intervals", [part for reading in readings for part in reading[1]], *name] if len(name) < 2 else ["list", readings]


def between(items: list[list]) -> list | None:
  """What two bounds, 'x > 3 and x < 5', leave between them; None where they are no such two."""
  if len(items) != 2 or any(item[0] != "intervals" or len(item[1]) != 1 for item in items) or len(names(items)) > 1:
    return None
  (first,), (second,) = items[0][1], items[1][1]
  if first[0] == ["number", "-inf"]:
    first, second = second, first
  if first[2] != ["number", "inf"] or second[0] != ["number", "-inf"] or first[0] == second[0] or second[2] == first[2]:
    return None
  try:
    return ["intervals", [[*first[:2], *second[2:]]], *names(items)] if _size(first[0]) < _size(second[2]) else None
  except Unreadable:
    return None


def _size(reading: list) -> Fraction | Decimal:
  """A real number to compare with others."""
  if reading[0] == "number" and "inf" not in reading[1]:
    return Fraction(reading[1])
  if reading[0] == "decimal" and reading[2] == "0":
    return Fraction(Decimal(reading[1]))
  raise Unreadable("no real number")
