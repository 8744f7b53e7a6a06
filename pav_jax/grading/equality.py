r"""Whether two readings (`reading`) are one answer. Pure and quick: nothing is parsed or simplified here.

Numbers are equal exactly, or to 50 digits where one is irrational: no rounding,
so that neither 3.14 nor 3.141593 is π. The conventions, both ways round:

- lists in any order, each item as often; tuples in order; a list equals a tuple
  or a set of its items, a tuple no set;
- the modulus of a congruence may be missing, as a unit; the equation x - 3 = 0 is `x = 3`, but not 3;
- `x = 5` equals 5, not `y = 5`; a list of `x = 1, y = 2` equals (1, 2) in order;
- a pair in brackets is an interval where the other is one, or an inequality;
- a unit that is missing is no fault, two that differ are (`units`);
- 75 % equals 75 and .75;
- a ratio 1:2 equals 2:4 and the fraction 1/2, a time of day only itself, a.m. or p.m. may be missing;

It is no equivalence where a part is missing: 5 equals 5 cm and 5 m.
"""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

from pav_jax.grading import units

_DIGITS = 50
_ENOUGH_POINTS = 3
_PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")


def equal(reference: list, answer: list) -> bool:
  """Whether an answer is the reference; only a reference may accept either of several."""
  if reference[0] == "either":
    return any(equal(item, answer) for item in reference[1]) or equal(["set", reference[1]], answer)
  if answer[0] == "either":
    return False
  return _equal(reference, answer) or _equal(answer, reference)


def _equal(a: list, b: list) -> bool:
  """One direction: `a` is of the kind that decides."""
  kind = a[0]
  if kind in ("set", "list") and len(a[1]) == 1 and b[0] not in ("set", "list"):
    return equal(a[1][0], b)
  if kind == "set" and b[0] not in ("set", "list", "tuple", "intervals") and len(_distinct(a[1])) == 1:
    return equal(a[1][0], b)
  compare = _COMPARE.get(kind)
  return compare(a, b) if compare else False


def _numbers(a: list, b: list) -> bool:
  if b[0] not in ("number", "decimal"):
    return False
  if a[0] == b[0] == "number":
    return a[1] == b[1]
  if "inf" in str(a[1]) + str(b[1]):
    return False
  (a_real, a_imaginary), (b_real, b_imaginary) = _parts(a), _parts(b)
  return _close(a_real, b_real, a_imaginary, b_imaginary)


def _parts(a: list) -> tuple[Decimal, Decimal]:
  with localcontext(prec=_DIGITS + 10):
    if a[0] == "number":
      value = Fraction(a[1])
      return Decimal(value.numerator) / Decimal(value.denominator), Decimal(0)
    return Decimal(a[1]), Decimal(a[2])


def _close(a_real: Decimal, b_real: Decimal, a_imaginary: Decimal, b_imaginary: Decimal) -> bool:
  with localcontext(prec=_DIGITS + 10):
    size = max(map(abs, (a_real, b_real, a_imaginary, b_imaginary)))
    bound = size * Decimal(10) ** -_DIGITS
    return abs(a_real - b_real) <= bound and abs(a_imaginary - b_imaginary) <= bound


def _points(a: Sequence, b: Sequence) -> bool:
  """Whether the values at the fixed points are those of one function: where both have one, without a choice of branches if they can."""
  both = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
  certain = [(x, y) for x, y in both if x[2] and y[2]]
  compared = certain if len(certain) >= _ENOUGH_POINTS else both
  return len(compared) >= _ENOUGH_POINTS and all(
      _close(Decimal(x[0]), Decimal(y[0]), Decimal(x[1]), Decimal(y[1])) for x, y in compared)


def _functions(a: list, b: list) -> bool:
  return b[0] == "function" and _points(a[1], b[1])


def _distinct(items: list) -> list:
  distinct = []
  for item in items:
    if not any(equal(item, other) for other in distinct):
      distinct.append(item)
  return distinct


def _matched(a: list, b: list) -> bool:
  """Whether each item of one is an item of the other, as often."""
  left = list(b)
  for item in a:
    place = next((i for i, other in enumerate(left) if equal(item, other)), None)
    if place is None:
      return False
    del left[place]
  return not left


def _in_order(a: list, b: list) -> bool:
  return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b))


def _lists(a: list, b: list) -> bool:
  if b[0] == "list":
    names = _names(a[1]), _names(b[1])
    # 'x = 1, y = 2' against '1, 2' tells by their order which is which.
    return _in_order(a[1], b[1]) if any(len(x) > 1 for x in names) and not all(names) else _matched(a[1], b[1])
  if b[0] in ("tuple", "bracket"):
    items = b[1] if b[0] == "tuple" else b[3]
    if b[0] == "bracket" and (b[1], b[2]) != ("(", ")"):
      return False
    return _in_order(_by_name(a[1]), items) if len(_names(a[1])) > 1 else _matched(a[1], items)
  if b[0] == "named" and len(_names(a[1])) > 1 and b[1].startswith("("):  # (x, y) = (1, 2)
    return ["named", b[1][1:-1].split(",")] == ["named", [item[1] for item in a[1]]] and _lists(a, b[2])
  return False


def _by_name(items: list) -> list:
  """'y = 2, x = 1' as x, y: coordinates have an order; of other names the text's own is kept."""
  names = [item[1] for item in items if item[0] == "named"]
  coordinates = len(names) == len(items) and any(set(names) <= set(x) for x in ("xyz", "abcd"))
  return sorted(items, key=lambda item: item[1]) if coordinates else items


def _names(items: list) -> set[str]:
  return {item[1] for item in items if item[0] == "named"}


def _sets(a: list, b: list) -> bool:
  if b[0] == "set":
    return _matched(_distinct(a[1]), _distinct(b[1]))
  return b[0] == "list" and _matched(_distinct(a[1]), b[1])


def _tuples(a: list, b: list) -> bool:
  if b[0] != "matrix":
    return b[0] == "tuple" and _in_order(a[1], b[1])
  rows = b[1]
  if all(len(row) == 1 for row in rows) or len(rows) == 1:
    return _in_order(a[1], [cell for row in rows for cell in row])
  lists = [item[1] if item[0] == "tuple" else item[3] for item in a[1] if item[0] in ("tuple", "bracket")]
  return len(lists) == len(a[1]) == len(rows) and all(map(_in_order, lists, rows))


def _brackets(a: list, b: list) -> bool:
  _, opening, closing, items = a
  if b[0] == "bracket":
    return (opening, closing) == (b[1], b[2]) and _in_order(items, b[3])
  if b[0] == "intervals":
    return len(b[1]) == 1 and _in_order(items, b[1][0][::2]) and b[1][0][1::2] == [opening == "[", closing == "]"]
  return (opening + closing == "()" or opening + closing == "[]" and b[0] == "matrix") and _tuples(["tuple", items], b)


def _intervals(a: list, b: list) -> bool:
  if b[0] != "intervals" or len(a[1]) != len(b[1]) or a[2:] and b[2:] and a[2] != b[2]:
    return False
  left = list(b[1])
  for part in a[1]:
    place = next((i for i, x in enumerate(left) if part[1::2] == x[1::2] and _in_order(part[::2], x[::2])), None)
    if place is None:
      return False
    del left[place]
  return True


def _matrices(a: list, b: list) -> bool:
  return b[0] == "matrix" and len(a[1]) == len(b[1]) and all(_in_order(x, y) for x, y in zip(a[1], b[1]))


def _named(a: list, b: list) -> bool:
  _, name, value, zero = a
  if b[0] == "named":
    return name == b[1] and equal(value, b[2]) or bool(zero and b[3] and _points(zero, b[3]))
  if b[0] == "equation":
    return _points(zero, b[1]) if zero else bool(b[2]) and b[2] == name.lstrip("\\") and equal(value, b[3])
  if b[0] in ("list", "tuple", "bracket", "set") and name.startswith("(") and value[0] == "list":
    return False
  return equal(value, b)


def _equations(a: list, b: list) -> bool:
  return b[0] == "equation" and _points(a[1], b[1])


def _inequalities(a: list, b: list) -> bool:
  return b[0] == "inequality" and a[1] == b[1] and _points(a[2], b[2])


def _quantities(a: list, b: list) -> bool:
  _, value, factor, dimensions, nouns = a
  if b[0] == "quantity":
    if not units.agree(_unit(dimensions, nouns), _unit(*b[3:])):
      return False
    return equal(_times_factor(value, Fraction(factor)), _times_factor(b[1], Fraction(b[2])))
  if dimensions == [["degree", 1]] and equal(_times_factor(value, _PI / 180), b):
    return True
  return b[0] not in ("percent", "ratio", "time") and equal(value, b)


def _residues(a: list, b: list) -> bool:
  if b[0] == "residue":
    return a[2] == b[2] and (int(a[1]) - int(b[1])) % int(a[2]) == 0
  return b[0] == "number" and a[1] == b[1]


def _choices(a: list, b: list) -> bool:
  if b[0] == "choice":
    return a[1] == b[1] and equal(a[2], b[2])
  return b == ["words", a[1]] or b[0] != "words" and equal(a[2], b)


def _unit(dimensions: list, nouns: list) -> units.Unit:
  return units.Unit(tuple((name, power) for name, power in dimensions), tuple(nouns))


def _times_factor(reading: list, factor: Fraction) -> list:
  """A number times a factor; of anything else its kind and the factor, which equals only itself."""
  if reading[0] == "number" and "inf" not in reading[1]:
    product = Fraction(reading[1]) * factor
    return ["decimal", *map(str, _parts(["number", str(product)]))] if product.denominator > 10**60 else ["number", str(product)]
  if reading[0] == "decimal":
    with localcontext(prec=_DIGITS + 10):
      size = Decimal(factor.numerator) / Decimal(factor.denominator)
      return ["decimal", *(str(part * size) for part in _parts(reading))]
  return ["tuple", [reading, ["number", str(factor)]]]


def _percents(a: list, b: list) -> bool:
  if b[0] == "percent":
    return equal(a[1], b[1])
  if b[0] in ("number", "decimal", "function"):
    return equal(a[1], b) or a[1][0] == b[0] == "number" and Fraction(a[1][1]) / 100 == Fraction(b[1])
  return False


def _ratios(a: list, b: list) -> bool:
  terms = [Fraction(term[1]) for term in a[1]]
  if b[0] == "ratio":
    others = [Fraction(term[1]) for term in b[1]]
    return len(terms) == len(others) and all(x * others[0] == y * terms[0] for x, y in zip(terms, others)) and any(terms)
  if b[0] != "number" or len(terms) != 2 or not terms[1] or "inf" in b[1]:
    return False
  value = Fraction(b[1])
  return value.denominator > 1 and terms[0] / terms[1] == value


def _times(a: list, b: list) -> bool:
  if b[0] != "time":
    return False
  if bool(a[4]) != bool(b[4]):  # 16:30 is 4:30 p.m.; 4:30 has the half of the day missing, as a number its unit
    plain, halved = (b, a) if a[4] else (a, b)
    hours = halved[1], halved[1] % 12 + 12 * (halved[4] == "p")
    return plain[1] in hours and plain[2:4] == halved[2:4]
  return a[1:] == b[1:]


_COMPARE = {
    "number": _numbers, "decimal": _numbers, "function": _functions, "words": lambda a, b: a == b, "huge": lambda a, b: a == b,
    "list": _lists, "set": _sets, "tuple": _tuples, "bracket": _brackets, "intervals": _intervals, "matrix": _matrices,
    "named": _named, "equation": _equations, "inequality": _inequalities, "quantity": _quantities, "percent": _percents,
    "ratio": _ratios, "choice": _choices, "time": _times, "residue": _residues,
}  # fmt: skip
