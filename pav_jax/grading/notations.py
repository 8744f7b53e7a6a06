"""Numbers with a notation of their own, as readings (`reading`): times, ratios, numbers of another base, `1.2e4`, congruences."""

from fractions import Fraction
import re

from pav_jax.grading.structure import Unreadable

# '5 \pmod{7}', '5 (mod 7)', '5 \text{ (mod 7)}'
MODULUS = re.compile(
    r"\s?(?:(?P<open>\()?\s?(?:\\p?mod|(?(open)\\bmod|(?!))|\\text\s?\{\s?mod(?:ulo)?\s?\}|(?<![a-zA-Z\\])mod(?:ulo)?)"
    r"|(?P<text>\\text\s?\{\s?\(?\s?mod(?:ulo)?))\s?\{?\s?(?P<modulus>[1-9]\d{0,20})\s?\}?(?(open)\s?\))(?(text)\s?\)?\s?\}?)$"
)
_RATIO = re.compile(r"\d{1,12}(?:\.\d{1,12})?(?:\s*:\s*\d{1,12}(?:\.\d{1,12})?)+")
_TIME = re.compile(r"(\d{1,2})\s*:\s*([0-5]\d)(?:\s*:\s*([0-5]\d))?\s*(?:([ap])\.?\s*m\.?)?\s*", re.IGNORECASE)
_HOUR = re.compile(r"(\d{1,2})\s*(?:\\text\s*\{)?\s*([ap])\.?\s*m\.?\s*\}?", re.IGNORECASE)
_BASED = re.compile(
    r"\(?\s*(?:\\text\s*\{)?\s*(-?[0-9a-zA-Z]{1,60}(?:\.[0-9a-zA-Z]{1,60})?)\s*\}?\s*\)?\s*_\s*\{?\s*(?:\\text\s*\{)?\s*"
    r"(?:base\s*\}?\s*)?(\d{1,2}|[a-z]{3,8})\s*\}?\s*\}?"
)
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "twelve": 12, "sixteen": 16}
_SCIENTIFIC = re.compile(
    r"([-+]?\d{1,40}(?:\.\d{0,40})?|[-+]?\.\d{1,40})\s*(?:[eE]|\\(?:times|cdot)\s*10\s*\^)\s*\{?\s*([-+]?\d{1,3})\s*\}?"
)


def read(text: str) -> list | None:
  """The reading of such a number; None for anything else."""
  if match := _TIME.fullmatch(re.sub(r"\\text|[{}]", " ", text).strip()):
    hours, minutes, seconds = (int(x or 0) for x in match.groups()[:3])
    return ["time", hours, minutes, seconds, (match[4] or "").lower()]
  if match := _HOUR.fullmatch(text):
    return ["time", int(match[1]), 0, 0, match[2].lower()]
  if _RATIO.fullmatch(text):
    return ["ratio", [["number", str(Fraction(part.strip()))] for part in text.split(":")]]
  if match := _SCIENTIFIC.fullmatch(text):
    return ["number", str(Fraction(match[1]) * Fraction(10) ** int(match[2]))]
  if match := _BASED.fullmatch(text):
    base = _BASES.get(match[2]) or (int(match[2]) if match[2].isdigit() else 0)
    try:
      if "." in match[1] and 2 <= base <= 36:
        whole, _, decimals = match[1].partition(".")
        return ["number", str(Fraction(int(whole + decimals, base), base ** len(decimals)))]
      if not 2 <= base <= 36 or not any(x.isdigit() for x in match[1]):
        return None
      return ["number", str(int(match[1], base))]
    except ValueError:
      return None
  return None


def congruent(reading: list, modulus: str) -> list:
  """What `reading` says with this modulus behind it: each of its integers as a residue. Unreadable for anything else."""
  if reading[0] == "number" and reading[1].lstrip("-").isdigit():
    return ["residue", reading[1], modulus]
  if reading[0] == "named":
    return ["named", reading[1], congruent(reading[2], modulus), None]
  if reading[0] in ("list", "set"):
    return [reading[0], [congruent(item, modulus) for item in reading[1]]]
  if reading[0] == "residue":
    return reading
  raise Unreadable("a modulus of what is no integer")
