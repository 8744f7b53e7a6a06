r"""Units: what stands behind a number (or before it, `\$5`), and when two of them are one.

`split` parts an answer into value and unit. A unit is

- a measure: powers of dimensions and a factor, so that 100 cm are 1 m and
  3 m are not 3 cm; money counts as one, without rates between currencies;
- a noun ('5 apples'), kept as its words;
- nothing, for 'units' and for what only repeats the number ('5 in total').

A number without a unit equals one with any (`equality`): published answers
leave it out at will. Two units that both stand there must agree.
"""

from fractions import Fraction
import re
from typing import NamedTuple

from pav_jax.grading import spelling

_METRE, _SECOND, _GRAM, _DOLLAR = "length", "time", "mass", "dollar"
# name -> (dimension, its power, factor); one spelling a line, singular and lower case.
_MEASURES = {
    name: (dimension, power, Fraction(factor))
    for names, dimension, power, factor in (
        ("mm millimeter millimetre", _METRE, 1, "1/1000"), ("cm centimeter centimetre", _METRE, 1, "1/100"),
        ("dm decimeter decimetre", _METRE, 1, "1/10"), ("m meter metre", _METRE, 1, 1), ("km kilometer kilometre", _METRE, 1, 1000),
        ("in inch inche", _METRE, 1, "254/10000"), ("ft foot feet", _METRE, 1, "3048/10000"), ("yd yard", _METRE, 1, "9144/10000"),
        ("mi mile", _METRE, 1, "1609344/1000"),
        ("l liter litre", _METRE, 3, "1/1000"), ("ml milliliter millilitre", _METRE, 3, "1/1000000"),
        ("gallon gal", "gallon", 1, 1), ("quart", "gallon", 1, "1/4"), ("pint", "gallon", 1, "1/8"), ("cup", "gallon", 1, "1/16"),
        ("s sec second", _SECOND, 1, 1), ("min minute", _SECOND, 1, 60), ("h hr hour", _SECOND, 1, 3600),
        ("day", _SECOND, 1, 86400), ("week", _SECOND, 1, 604800), ("month", "month", 1, 1), ("yr year", "month", 1, 12),
        ("mg milligram", _GRAM, 1, "1/1000"), ("g gram", _GRAM, 1, 1), ("kg kilogram kilo", _GRAM, 1, 1000),
        ("lb pound", "pound", 1, 1), ("oz ounce", "pound", 1, "1/16"), ("ton", "ton", 1, 1),
        ("dollar buck usd", _DOLLAR, 1, 1), ("cent penny pennie", _DOLLAR, 1, "1/100"),
        ("nickel", "nickel", 1, 1), ("dime", "dime", 1, 1),
        ("euro eur", "euro", 1, 1), ("gbp", "sterling", 1, 1), ("yen", "yen", 1, 1),
        ("degree deg", "degree", 1, 1), ("radian rad", "radian", 1, 1),
        ("fahrenheit", "fahrenheit", 1, 1), ("celsius", "celsius", 1, 1),
    )
    for name in names.split()
}  # fmt: skip
_COMPOUNDS = {"mph": "mile per hour", "kmph": "km per hour", "kmh": "km per hour", "kph": "km per hour", "cc": "cubic cm"}
_SIGNS = {spelling.DOLLAR: "dollar", "€": "euro", "£": "gbp", "¥": "yen", "¢": "cent"}
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cubed": 3}
_MULTIPLES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12, "pair": 2,
}  # fmt: skip
_IGNORED = frozenset("unit in the a of total altogether each left more way different possible whole and".split()) - {"in"}
_PERCENT = frozenset("percent percentage pct".split())
_TEXT = r"\\text\s*\{[^{}]*\}"
_POWER = r"\s*\^\s*\{?[23]\}?"
# Words behind a value: in \text{}, or plain: longer ones, and short ones that are measures.
_SHORT = "|".join(sorted((name for name in _MEASURES if 2 <= len(name) <= 3), key=len, reverse=True))
_WORD = rf"(?:(?:{_SHORT})s?|mph|sq|cu|[a-zA-Z]{{4,}})\.?"
_PLAIN = rf"{_WORD}(?:(?:\s*/\s*|\s+)[a-zA-Z]+)*"
_UNIT = re.compile(
    rf"(?<=[\d)}}\]a-z!])(?P<unit>\s*(?:{_TEXT}(?:{_POWER})?(?:\s*(?:(?:/|\\cdot|\\times)\s*)?{_TEXT}(?:{_POWER})?)*"
    rf"|(?:(?<=[\d)}}\]] )|(?<=[\d)}}\]]))\s*{_PLAIN}(?:{_POWER})?|(?<=\d )[mgshL](?:{_POWER})?(?:\s*/\s*[a-z]+(?:{_POWER})?)?"
    rf"|[€£¥¢{spelling.DOLLAR}]|\^\\circ\s*(?:[CF]|\\text\s*\{{\s*[CF]\s*\}})?))$"
)
_SIGN_BEFORE = re.compile(rf"(-?)\s*([€£¥{spelling.DOLLAR}])\s*(?=[-\d.\\(])")
_ORDINAL = re.compile(r"(\d)\s*\^?\s*\{?(?:\\text\s*\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th))\}?$")
_LONGEST = 120  # characters
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_HALF_DAY = re.compile(r"\b[ap]\.?\s?m\b\.?\s*\}?$", re.IGNORECASE)


class Unit(NamedTuple):
  """Dimensions with powers in order of name, and words that measure nothing; both empty for none."""
  dimensions: tuple[tuple[str, int], ...] = ()
  nouns: tuple[str, ...] = ()


class Quantity(NamedTuple):
  value: str
  unit: Unit = Unit()
  factor: Fraction = Fraction(1)  # from the unit as written to that of its dimensions
  multiple: int = 1  # 'million'
  percent: bool = False

  def is_bare(self) -> bool:
    """Whether nothing stands beside the value."""
    return self == Quantity(self.value)


def split(text: str) -> Quantity:
  """Value and unit of a cleaned answer; the whole of it is the value where no unit stands there."""
  ordinal = _ORDINAL.sub(r"\1", text)
  if ordinal != text:
    return Quantity(ordinal)
  sign = _SIGN_BEFORE.match(text)
  before = _SIGNS[sign[2]] if sign else ""
  if sign:
    text = sign[1] + text[sign.end() :]
  found = _UNIT.search(text, max(0, len(text) - _LONGEST)) if not _HALF_DAY.search(text) else None
  if found and found["unit"].lstrip().startswith("^") and _TRIGONOMETRY.search(text):  # the degrees are the angle's
    found = None
  value = text[: found.start()].rstrip() if found else text
  words = _words(found["unit"]) if found else ""
  if value.endswith(r"\%"):
    return Quantity(value[:-2].rstrip(), percent=True)
  if not value or (found and value[-1].isalpha() and not re.search(r"\\[a-z]+$", value) and "text" not in found["unit"]):
    return Quantity(text)
  return _read(value, words, before)


def _words(text: str) -> str:
  text = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
  text = re.sub(r"\^\\circ\s*([CF])?", lambda match: {"C": " celsius", "F": " fahrenheit", None: " degree"}[match[1]], text)
  text = "".join(f" {_SIGNS[x]} " if x in _SIGNS else x for x in text)
  return re.sub(r"\\cdot|\\times|[.,;:()\\]", " ", text).replace("/", " per ")


def _read(value: str, words: str, before: str = "") -> Quantity:
  factor, multiple, powers, nouns, percent = Fraction(1), 1, {}, [], False
  if before:  # '\$5 per hour': the sign is not what is divided by
    dimension, power, factor = _MEASURES[before]
    powers[dimension] = power
  tokens = re.findall(r"[a-zA-Z]+|\^\s*\{?[23]\}?", " ".join(_COMPOUNDS.get(word.lower(), word) for word in words.split()))
  direction, waiting, last = 1, 1, None
  for i, token in enumerate(tokens):
    name = token.lower() if len(token) > 1 else token.replace("L", "l")
    single = name[:-1] if name not in _MEASURES and name.endswith("s") and (len(name) > 3 or name[:-1] in _MEASURES) else name
    if token.startswith("^") or name in ("squared", "cubed"):
      power = int(re.sub(r"\D", "", token) or _POWERS[name])
      if last:
        factor *= last[2] ** (last[3] * (power - 1))
        powers[last[0]] += last[1] * last[3] * (power - 1)
    elif name in _POWERS:
      waiting = _POWERS[name]
    elif name == "per":
      direction = -1
    elif single in _MULTIPLES and (i == 0 or tokens[i - 1].lower() in _MULTIPLES):
      multiple *= _MULTIPLES[single]
    elif single in _PERCENT:
      percent = True
    elif single in _MEASURES and not (single == "in" and i and i + 1 < len(tokens)):
      dimension, power, size = _MEASURES[single]
      if dimension in ("fahrenheit", "celsius"):
        powers.pop("degree", None)
      factor *= size ** (waiting * direction)
      powers[dimension] = powers.get(dimension, 0) + power * waiting * direction
      last, waiting = (dimension, power, size, direction), 1
    elif single not in _IGNORED and single not in ("in", "cu"):
      nouns.append(single)
  dimensions = tuple(sorted((name, power) for name, power in powers.items() if power))
  return Quantity(value, Unit(dimensions, () if dimensions else tuple(nouns)), factor, multiple, percent)


def agree(one: Unit, other: Unit) -> bool:
  """Whether two units can be of one answer; one that is not there agrees with any."""
  if one == Unit() or other == Unit():
    return True
  if one.dimensions or other.dimensions:
    return one.dimensions == other.dimensions
  return bool({noun[:4] for noun in one.nouns} & {noun[:4] for noun in other.nouns})
