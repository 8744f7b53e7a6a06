r"""What an answer says: a value that can be compared without reading the text again.

`read` takes cleaned LaTeX apart where its structure says how (lists, tuples,
sets, intervals, matrices, relations, units) and gives what is left to
`closed_form`. A reading is JSON, a list that begins with its kind:

  ["number", "3/4"]                a rational number; or "inf", "-inf"
  ["huge", digest]                 a rational number of thousands of digits
  ["decimal", re, im]              any other number, to 60 digits
  ["function", [[re, im, 1], …]]   an expression in variables, at fixed points; null where it has no value, 0 for a doubtful one
  ["words", letters]
  ["list" | "set", items]          in any order; a set has each item once
  ["tuple", items]                 in order
  ["bracket", open, close, [a, b]] a pair that may be an interval
  ["intervals", [[a, closed, b, closed], …]], and behind them the name where `x > 3` says it
  ["matrix", rows]
  ["named", name, reading, zero]   `x = 5`; zero as in "equation", null where there is none
  ["equation", zero, name, reading] the values of left - right at fixed points, as a ray; of a linear one the solution, else '', null
  ["inequality", strict, zero]     left < right; the same
  ["quantity", reading, factor, dimensions, nouns]   5 cm, factor 1/100
  ["percent", reading]
  ["ratio", items]  ["time", h, m, s, half]
  ["residue", integer, modulus]    5 (mod 7)
  ["choice", letter, reading]      '(B) 10'
  ["either", items]                a reference that accepts each of them

Raises Unreadable where a text says nothing that can be compared.
"""

from collections.abc import Collection
from fractions import Fraction
import itertools
import re

from pav_jax.grading import boxes
from pav_jax.grading import closed_form
from pav_jax.grading import equality
from pav_jax.grading import intervals
from pav_jax.grading import notations
from pav_jax.grading import spelling
from pav_jax.grading import structure
from pav_jax.grading import units
from pav_jax.grading.structure import Unreadable


_RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", r"\ne": "!=", r"\in": "in",
              r"\approx": "~", r"\equiv": "=="}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_PAIRS = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle", "{": "}"}
_MATRIX = re.compile(r"\\begin\s*\{([bpB]?matrix|array)\}(?:\s*\{[^{}]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_CASES = re.compile(r"\\begin\s*\{(?:cases|aligned)\}(.*)\\end\s*\{(?:cases|aligned)\}", re.DOTALL)
_NAME = re.compile(
    r"(?:\\text\s*\{[^{}]*\}|\\?[a-zA-Z]+|\\(?:angle|triangle|overline|overrightarrow|vec|hat)\s*\{?\s*[a-zA-Z]+\}?"
    r"|\|[a-zA-Z]+\||\[[A-Z]{3,6}\]|[mn]\s*\\angle\s*[A-Z]+)"
    r"(?:_(?:\w|\{[^{}]*\}))?'{0,4}(?:\^\{?-1\}?)?(?:\((?:[a-z](?:,\s*[a-z])*|-?\d{1,4}|[A-Z]{1,3})\))?"
)
_SIDE_OF_ANGLE = re.compile(  # `\\sin A`
    r"\\(?:sin|cos|tan|cot|sec|csc)(?:\^2)?\s?[({]?\s?(?:[a-zA-Z]|\\(?:theta|alpha|beta|gamma|phi)|\\angle\s?\{?\s?[A-Z]{1,3}\}?)\s?[)}]?"
)
_FUNCTIONS = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+|log|ln|exp|pi|infty|emptyset|sqrt|frac)(?![a-zA-Z])|[ei]$")
# '2 hours and 30 minutes'
_TWO_UNITS = re.compile(r"(\d{1,9}\s*(?:\\text\s*\{[^{}]*\}|[a-z]+))\s*(\d{1,9}\s*(?:\\text\s*\{[^{}]*\}|[a-z]+))")
_SPOKEN = ("time", "dollar", "length", "mass", "pound", "month", "gallon")  # what two units in a row add up
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
_CHOICE = re.compile(r"[A-H]")
_INTERVAL_WORDS = {r"\mathbb{R}": ("-inf", "inf"), r"\mathbb R": ("-inf", "inf")}
_MOST_ITEMS, _DEPTH = 200, 30


def read(text: str, depth: int = 0) -> list:
  """The reading of a cleaned answer."""
  text = structure.bare(text)
  if not text or depth > _DEPTH:
    raise Unreadable(text)
  if boxes.OR_ELSE in text and depth == 0:
    return ["either", [read(part, 1) for part in text.split(boxes.OR_ELSE)]]
  if congruence := notations.MODULUS.search(text):
    of = structure.bare(text[: congruence.start()])
    return notations.congruent(read(of.replace(r"\equiv", "="), depth + 1), congruence["modulus"])
  parts = structure.split(text.replace(r"\text{or}", r"\textor "), (r"\textor",))
  if len(parts) > 1:
    return _alternatives([read(part, depth + 1) for part in parts])
  quantity = units.split(text)
  plain = spelling.thousands(quantity.value)
  if plain != quantity.value:  # '1,234 cm' is one number
    return _quantity(quantity._replace(value=plain), depth)
  parts = structure.split(text, (",", ";"))
  if len(parts) > 1:
    return _list(parts, depth)
  return _one(text, depth)


def _alternatives(readings: list[list]) -> list:
  """What 'or' makes of them: a union of intervals, else a set."""
  if all(reading[0] == "intervals" for reading in readings):
    return intervals.either(readings)
  items = []
  for reading in readings:
    items += reading[1] if reading[0] in ("list", "set") else [reading]
  return ["set", items]


def _list(parts: list[str], depth: int) -> list:
  parts = [part for part in parts if part]
  if len(parts) > _MOST_ITEMS:
    raise Unreadable("a list this long")
  items = []
  for part in parts:
    item = read(part, depth + 1)
    items += item[1] if item[0] == "list" and _SIGN.search(part) else [item]  # '0, \pm 2'
  if len(items) == 1:
    return items[0]
  if items[0][0] == "named" and all(item[0] not in ("named", "equation", "inequality", "intervals") for item in items[1:]):
    items = [["named", items[0][1], item, None] if item[0] != "named" else item for item in items]  # 'x = 1, 2'
  return _compound(items) or intervals.between(items) or ["list", items]


def _compound(items: list[list], dimensions: Collection[str] = ("time", "dollar")) -> list | None:
  """'2 hours, 30 minutes' as one quantity."""
  if not all(item[0] == "quantity" and item[1][0] == "number" and item[3] in [[[name, 1]] for name in dimensions] for item in items):
    return None
  factors = [Fraction(item[2]) for item in items]
  if any(item[3] != items[0][3] for item in items) or any(a <= b for a, b in itertools.pairwise(factors)):
    return None
  total = sum(Fraction(item[1][1]) * factor for item, factor in zip(items, factors))
  return ["quantity", ["number", str(total / factors[-1])], items[-1][2], items[0][3], []]


def _one(text: str, depth: int) -> list:
  if _SIGN.search(text) and not (text.startswith(r"\{") and structure.closes_last(text)):
    return _signs(text, depth)
  sides, relations = _sides(text)
  if relations:
    return _related(sides, relations, depth)
  if match := _CASES.fullmatch(text):
    return _list(re.split(r"\\\\", match[1].replace("&", " ")), depth)
  if _MATRIX.fullmatch(text):
    return _matrix(text, depth)
  parts = structure.split(text, (r"\cup",))
  if len(parts) > 1:
    return intervals.union([read(part, depth + 1) for part in parts])
  parts = structure.split(text, (r"\setminus", r"\backslash"))
  if len(parts) == 2:
    return intervals.without(*(read(part, depth + 1) for part in parts))
  tokens = structure.tokens(text)
  if tokens[0] in _PAIRS and structure.is_closing(tokens[-1].strip()) and structure.closes_last(text):
    return _bracketed(tokens[0], tokens[-1].strip(), text[len(tokens[0]) : -len(tokens[-1])], depth)
  if text == r"\emptyset":
    return ["set", []]
  if text in _INTERVAL_WORDS:
    low, high = _INTERVAL_WORDS[text]
    return ["intervals", [[["number", low], False, ["number", high], False]]]
  if spelling.is_words(text) or _CHOICE.fullmatch(text):
    return ["words", spelling.words(text)]
  if match := spelling.CHOICE_AND_VALUE.fullmatch(text):
    return ["choice", spelling.words(match[1]), read(match[2], depth + 1)]
  return _special(text) or _quantity(units.split(text), depth)


def _signs(text: str, depth: int) -> list:
  """The values that stand behind plus-minus signs: all together where minus-plus occurs, too, else each for itself."""
  signs = re.findall(r"\\[pm][mp](?![a-zA-Z])", text)
  if len(signs) > 3:
    raise Unreadable("many signs")
  choices = itertools.product("+-", repeat=len(signs)) if r"\mp" not in text else [
      [("+", "-")[(sign == r"\mp") ^ flip] for sign in signs] for flip in (False, True)]  # fmt: skip
  readings = []
  for choice in choices:
    left = iter(choice)
    readings.append(read(re.sub(r"\\[pm][mp](?![a-zA-Z])", lambda _, left=left: f" {next(left)} ", text), depth + 1))
  return ["list", readings]


def _sides(text: str) -> tuple[list[str], list[str]]:
  """Text between the relation signs outside of brackets, and those signs."""
  sides, signs = structure.parts_at(text, _RELATIONS)
  return sides, [_RELATIONS[sign] for sign in signs]


def _related(sides: list[str], relations: list[str], depth: int) -> list:
  if not sides[0] and relations == ["="]:  # '= 5'
    return read(sides[1], depth + 1)
  if not all(sides) or len(sides) > 10 or "==" in relations:
    raise Unreadable("a relation without sides")
  kinds = set(relations)
  if kinds == {"in"} and len(sides) == 2:
    return ["named", _compact(sides[0]), read(sides[1], depth + 1), None]
  if "~" in kinds:  # '2/3, or about 0.67'
    return read(" = ".join(sides[: relations.index("~") + 1]), depth + 1) if relations[0] == "=" or not _is_name(sides[0]) else (
        ["named", _compact(sides[0]), read(sides[1], depth + 1), None])
  if kinds == {"="}:
    if len(sides) == 2 and _is_called(sides[1]) and not _is_called(sides[0]):
      sides = sides[::-1]
    if _is_called(sides[0]) or _is_tuple_of_names(sides[0]):
      value, *others = [read(side, depth + 1) for side in sides[:0:-1]]
      # Of 'A = \\pi r^2 = 9 \\pi' the last side says what A is; numbers on the way there must be that one.
      if not all(equality.equal(value, other) for other in others if other[0] != "function" or value[0] == "function"):
        raise Unreadable("an equation that does not hold")
      is_equation = len(sides) == 2 and (len(sides[0]) == 1 and value[0] == "function" or not _is_name(sides[0]) and sides[0][0] == "\\")
      zero = closed_form.ray(*sides) if is_equation else None
      return ["named", _compact(sides[0]), value, zero]
    readings = [_try(side, depth) for side in sides]
    # '5 = 2 + 3'; what is false says nothing.
    if None not in readings and all(equality.equal(readings[0], reading) for reading in readings[1:]):
      return readings[0]
    if len(sides) == 2 and not all(reading and reading[0] in ("number", "decimal") for reading in readings):
      return ["equation", closed_form.ray(*sides), *(closed_form.root(*sides) or ("", None))]
    raise Unreadable("an equation that does not hold")
  return _inequality(sides, relations, depth)


def _inequality(sides: list[str], relations: list[str], depth: int) -> list:
  place = [i for i, side in enumerate(sides) if _is_name(side) and not re.search(r"^\||\^", side)]  # |x| < 3 says less than x < 3
  lone = len(place) == 1 and not set(relations) - {"<", ">", "<=", ">=", "!="}
  if lone and len(sides) == 2 and "!=" in relations:
    value = read(sides[1 - place[0]], depth + 1)
    return ["intervals", [[["number", "-inf"], False, value, False], [value, False, ["number", "inf"], False]], _compact(sides[place[0]])]
  if lone and "!=" not in relations and (len(sides) == 2 or len(sides) == 3 and place == [1]):
    low, high = [["number", "-inf"], False], [["number", "inf"], False]
    for i, side in enumerate(sides):
      if i != place[0]:
        relation = relations[0] if i == 0 else relations[-1]
        relation = relation if i < place[0] else _FLIPPED[relation]  # as 'side relation name'
        bound = [read(side, depth + 1), "=" in relation]
        if "<" in relation:
          low = bound
        else:
          high = bound
    return ["intervals", [[*low, *high]], _compact(sides[place[0]])]
  if not set(relations) <= _FLIPPED.keys():
    raise Unreadable("these relations")
  single = []
  for left, right, relation in zip(sides, sides[1:], relations):
    pair = (left, right) if "<" in relation else (right, left)
    single.append(["inequality", "=" not in relation, closed_form.ray(*pair, directed=True)])
  return single[0] if len(single) == 1 else ["list", single]


def _try(text: str, depth: int) -> list | None:
  try:
    return read(text, depth + 1)
  except Unreadable:
    return None


def _compact(text: str) -> str:
  return re.sub(r"\\text|[\s{}()]" if _SIDE_OF_ANGLE.fullmatch(text) else r"\\text|[\s{}]", "", text)


def _is_name(text: str) -> bool:
  """A letter, a word, `f(x)`, `\\angle ABC`: what an answer is called."""
  if not _NAME.fullmatch(text) or _FUNCTIONS.match(text):
    return False
  plain = re.fullmatch(r"[a-zA-Z]+", text)
  return not plain or len(text) == 1 or text.isupper() or len(text) > 3  # 'xy = 1' is an equation


def _is_called(text: str) -> bool:
  """A name, or the sine of an angle that has one."""
  return _is_name(text) or bool(_SIDE_OF_ANGLE.fullmatch(text))


def _is_tuple_of_names(text: str) -> bool:
  whole = text.startswith("(") and structure.closes_last(text)
  return whole and all(_is_name(part) for part in structure.split(text[1:-1], (",",)))


def _bracketed(opening: str, closing: str, inner: str, depth: int) -> list:
  parts = structure.split(inner, (",", ";"))
  if opening == r"\{":
    rule = structure.split(inner, (r"\mid", "|", ":"))
    if len(rule) == 2:  # {x | x > 3}
      return _related(*_sides(rule[1]), depth + 1)
    items = []
    for part in parts:
      reading = read(part, depth + 1)
      items += reading[1] if reading[0] == "list" else [reading]
    return ["set", items]
  if len(parts) > _MOST_ITEMS or not all(parts):
    raise Unreadable("an empty place")
  if len(parts) == 1:
    if {opening, closing} == {"(", ")"}:
      return read(inner, depth + 1)
    reading = read(inner, depth + 1)
    return reading if reading[0] == "matrix" else ["tuple", [reading]]
  items = [read(part, depth + 1) for part in parts]
  if any(item[0] == "list" for item in items):  # (±1, 2)
    choices = itertools.product(*(item[1] if item[0] == "list" else [item] for item in items))
    return ["list", [["tuple", list(choice)] for choice in choices]]
  if len(items) == 2 and opening in "([" and closing in ")]":
    return ["bracket", opening, closing, items]
  if {opening, closing} in ({"(", ")"}, {"[", "]"}, {r"\langle", r"\rangle"}):
    return ["tuple", items]
  raise Unreadable("these brackets")


def _matrix(text: str, depth: int) -> list:
  body = _MATRIX.fullmatch(text)[2]
  rows = [row.strip() for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?", body)]
  rows = rows[:-1] if not rows[-1] else rows
  if len(rows) > 20 or r"\begin" in body:
    raise Unreadable("this matrix")
  return ["matrix", [[read(cell, depth + 1) for cell in row.split("&")] for row in rows]]


def _special(text: str) -> list | None:
  """Two units, and what has a notation of its own."""
  if match := _TWO_UNITS.fullmatch(text):
    items = [_quantity(units.split(part), 0) for part in match.groups()]
    if all(item[0] == "quantity" for item in items):
      if not (total := _compound(items, _SPOKEN)):
        raise Unreadable("two quantities")  # not a product of letters
      return total
  return notations.read(text)


def _quantity(quantity: units.Quantity, depth: int) -> list:
  value = structure.bare(quantity.value)
  if not quantity.is_bare():
    if quantity.multiple > 1:
      value = rf"({value})\cdot {quantity.multiple}"
    reading = read(value, depth + 1)
    if quantity.percent:
      return ["percent", reading]
    if quantity.unit == units.Unit():
      return reading
    return ["quantity", reading, str(quantity.factor), [list(x) for x in quantity.unit.dimensions], list(quantity.unit.nouns)]
  if (plain := spelling.fraction(value)) is not None:
    return ["number", str(Fraction(*plain))]
  if spelling.is_ambiguous(value):
    raise Unreadable("numbers side by side")
  return closed_form.read(value)
