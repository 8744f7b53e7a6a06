r"""What a sentence states: of 'The largest $n$ is 34' it is 34.

A sentence is a row of words and of mathematics. Mathematics is a formula
(`$x=2$`, `\(x\)`, `\[x\]`), or a word of LaTeX or a number outside of one
(`\frac{10}{9}`, `x^5`, `70,000`); runs of it hang together, also over 'and',
'or', a comma, and take the words of a unit along.

All functions look at a few thousand characters at most and take linear time.
"""

from fractions import Fraction
import itertools
import math
import re
from typing import NamedTuple

_FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|(?<!\\)\$((?:[^$\\]|\\.){1,2000})\$(?!\d)"
    r"|\\\(((?:[^\\]|\\[^)]){1,2000})\\\)|\\\[((?:[^\\]|\\[^\]]){1,2000})\\\]"
)
_COMMAND = re.compile(r"\\[a-zA-Z]+|\\.")
_PROSE = re.compile(r"[a-zA-Z]{2,}|^[aAI]$")
_MATHS = re.compile(r"[\d\\^_=+*/∞π√%€£¥$]|^[-\u2212(\[{|]?[a-zA-Z][)\]}|]?$")
_TEXT_OR_COMMAND = re.compile(r"\\(?:begin|end|text\w*|mathrm|mbox)\s*\{[^{}]*\}|\\[a-zA-Z]+")
_SENTENCE = re.compile(
    r"(?<![a-zA-Z])(?!(?:and|or|inf|sqrt|pi|sin|cos|tan|log|ln)(?![a-zA-Z]))(?=[A-Z]*[a-z])[a-zA-Z]{2,}(?=[\s,.:$]|$)"
)
_NOT_BUT = re.compile(r"\bnot\b[^.]{0,200}\b(?:but|rather|instead)\b(?! (?:than|of))(.{1,1000})", re.DOTALL)
# What stands before an answer, or behind it, and says that it is none: 'not equal to 5', '5 is not the answer'.
_DENIED = re.compile(
    r"(?:(?:\b(?:not|never|cannot|neither|nor|isnt)|n['\u2019]t)(?: (?:be|equal|equals|to|exactly|simply|just|really|actually|the|an?|in|fact|value|number)){0,4}"
    r"|\b(?:rather than|instead of|anything but|other than)) [$\\(\[*= ]{0,9}\Z", re.IGNORECASE)
_DENIED_BEHIND = re.compile(
    r"[$\\)\]*., ]{0,9}(?:(?:is|was|are)(?: not|n['\u2019]t)|cannot be|can['\u2019]t be) (?:the|an?|our|my)? ?(?:[a-z]+ )?(?:answer|solution|result)\b"
    r"|[$\\)\]*., ]{0,9}(?:is|was|are|which is|which was)(?: (?:wrong|incorrect|false|impossible)|(?: not|n['\u2019]t) (?:right|correct|true|possible))\b", re.IGNORECASE)
_ALSO = re.compile(r",?\s*(?:(?:and|but)\s+)?(?:not|rather than|instead of)\s*")  # 'it is 5, not 6'
_WORD_IS = re.compile(r"(?:[a-zA-Z]+ ){1,8}is ([A-Z][a-z]+|\(?[A-H]\)?)")  # 'The day is Monday'
_ASIDE = re.compile(r"\s\([^()]{1,100}\)[\s.!*]*$")  # '70,000 (that is 35%).'
_VERB = re.compile(r"(?:is|are|equals?|be|was|gives)[:,]?", re.IGNORECASE)
_LABEL = re.compile(r"(?<=[a-zA-Z]):(?=[\d$(-])")  # 'Total:3+4'
_REASONS = ("because", "since", "which", "where", "when")
_JOINS = ("and", "or", ",", "&")
# Behind these a sentence goes on to something else; a unit does not begin with them.
_NOT_A_UNIT = frozenset(
    "because since as which so when for that if where by with from in on at after before then thus hence therefore but while "
    "is are was were has have had can will would we you he she it they i the this there not than to and or".split()
)
_UNIT_WORDS, _BESIDE = 4, 100
_THOUSANDS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SEVERAL = re.compile(r"-?\$?\d++(?:[.,]\d++)*+(?:(?:\s*+(?:[,;]|and\b|or\b)\s++-?\$?|\s++-?)\d++(?:[.,]\d++)*+)++")  # '18 18', '18, 20'
_NUMERAL = r"\d{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!)\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?![\d ]*\d)|\d+"
_CURRENCY = r"\\?[$€£¥]"
# '-$5', '70 000 dollars', '70,000.50 (35%)', '7 \times 10^4'
_QUANTITY = re.compile(
    rf"\\?\$?\s*(?P<sign>[-\u2212+])?\s*(?:{_CURRENCY}\s*(?P<inner>[-\u2212])?)?\{{?"
    rf"(?P<whole>{_NUMERAL})?(?P<decimals>\.\d+)?(?P<divisor>/\d+)?\}}?"
    r"(?:\s*(?:\\times|\\cdot|×|\*)\s*10\s*(?:\^|\*\*)\s*\{?(?P<power>-?\d{1,2})\}?)?(?:[eE](?P<exponent>[-+]?\d{1,2}))?"
    r"(?P<unit>[^\d=<>+*/^_()]*)(?:\([^()]*\))?[\s.*$]*",
    re.ASCII,
)
_LAST_ROW = re.compile(r"\\\\\s*&\s*=([^\\&]*(?:\\[a-zA-Z{][^\\&]*)*)\\end\{[a-z]+\*?\}[\s.$\]]*\Z")  # '\\ &= 5 \end{align}'
_STYLE = re.compile(r"\\(?:textcolor|color)\s*\{[^{}]*\}|\\(?:textbf|mathbf|boldsymbol|underline|boxed)\s*(?=\{)")
_TWO_UNITS = re.compile(r"\d+ [a-z]+,? (?:and )?\d+ [a-z]+")  # '2 hours and 30 minutes'
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}.])[-\u2212])?(?:{_CURRENCY}[ \t]?(?P<inner>-)?)?"
    r"(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<decimals>\.\d+)?(?P<divisor>/\d+)?",
    re.ASCII,
)
_EQUALS = re.compile(r"(?<![<>!\\])=")
# What makes a text more than a number with words around it.
_LATEX = re.compile(
    r"\\(?:[dtc]?frac|sqrt|pi|times|cdot|div|binom|pm)(?![a-zA-Z])|[_^√÷×]|\d(?:\s*[-+*xX]\s*|\s/\s)\d|\d\s+\d+/\d|\d[eE][-+]?\d|\d:\d"
)


class Piece(NamedTuple):
  text: str
  maths: bool


def denied(before: str, behind: str = "") -> bool:
  """Whether the words before an answer or behind it say that it is none."""
  before = " ".join(before[-_BESIDE:].split()) + " "
  return bool(_DENIED.search(before) or _DENIED_BEHIND.match(" ".join(behind[:_BESIDE].split())))


def value(sentence: str) -> str | None:
  """What a sentence states (MATH), as written there; a sentence of words alone states itself, 'not 5' nothing."""
  if not _SENTENCE.search(_TEXT_OR_COMMAND.sub(" ", sentence)):
    return sentence.strip() or None
  if correction := _NOT_BUT.search(sentence):
    return value(correction[1])
  pieces = _pieces(sentence)
  if not any(piece.maths for piece in pieces) and (named := _WORD_IS.fullmatch(sentence.strip())):
    return named[1]
  if not any(piece.maths for piece in pieces) or all(piece.maths or piece.text in _JOINS for piece in pieces):
    return sentence.strip() or None
  maths = next((i for i, piece in enumerate(pieces) if piece.maths), 0)
  reason = next((i for i in range(maths, len(pieces)) if _goes_on(pieces, i)), len(pieces))
  pieces = pieces[:reason]
  verbs = [i for i, piece in enumerate(pieces) if not piece.maths and _VERB.fullmatch(piece.text)]
  for i in reversed(verbs):  # 'The largest $n$ is 34'
    if any(piece.maths for piece in pieces[i + 1 :]):
      return _first_run(pieces[i + 1 :])
  return _first_run(pieces)


def _goes_on(pieces: list[Piece], i: int) -> bool:
  """Whether a sentence goes on to its reasons at this word."""
  word = pieces[i].text.lower()
  return word in _REASONS or word == "as" and i > 0 and pieces[i - 1].text.endswith(",")


def number(text: str) -> str | None:
  """The number a text states (GSM8K) as a plain numeral; LaTeX that is none as it is; None where there is none."""
  sides = [side for side in _EQUALS.split(text) if side.strip()]
  for i, side in enumerate(reversed(sides)):  # '5 = 2 + 3' and '2 + 3 = 5 apples' both state 5
    if (plain := _plain(side)) is not None:
      return plain
    if len(sides) > 1 and not _LATEX.search(side) and (numbers := _numbers(side)):
      return numbers[-1 if i else 0]  # '20 + 6 = 26 apples are left of 30', 'or 20 = x'
  if len(sides) > 1:
    return number(sides[-1])
  if (stated := value(text)) is None:
    return None
  if (plain := _plain(stated)) is not None:
    return plain
  if stated.strip() != text.strip() and _EQUALS.search(stated):
    return number(stated)
  if _LATEX.search(stated) or _TWO_UNITS.fullmatch(stated) or _SEVERAL.fullmatch(stated):
    return _bare(stated)
  numbers = _numbers(text)
  return numbers[0] if numbers else None


def is_bare(text: str) -> bool:
  """Whether a text is one number, with words of a unit, brackets or the sum it comes from, and no sentence."""
  pieces = _pieces(text)
  words = sum(not piece.maths for piece in pieces)
  if words > 3 or not any(piece.maths for piece in pieces):
    return False
  sides = [side for side in _EQUALS.split(text) if side.strip()]
  return any(_plain(side) is not None for side in sides) or words == 0 and bool(_LATEX.search(text))


def last(text: str, plain: bool) -> str | None:
  """The last run of mathematics in a text. plain: as a numeral where it is one (GSM8K)."""
  if aligned := _LAST_ROW.search(text):
    text = aligned[1]
  aside = _ASIDE.search(text) if plain else None
  if aside and re.search(r"\d", text[: aside.start()]):
    text = text[: aside.start()]
  pieces = _pieces(text)
  for end in range(len(pieces) - 1, -1, -1):
    if pieces[end].maths and _says_something(pieces[end].text):
      start = end
      while start and not (plain and pieces[start].text[:1].isdigit()):
        before = pieces[start - 1]
        joined = not before.maths and before.text in _JOINS and start > 1 and pieces[start - 2].maths and not plain
        if not (before.maths or joined) or before.maths and re.search(r"[.;:!?]$", before.text):
          break
        start -= 1 + joined
      if denied(_text(pieces[:start]), _text(pieces[end + 1 :])):
        before = next((i for i in range(start - 1, -1, -1) if pieces[i].maths), None)
        between = "" if before is None else " ".join(piece.text for piece in pieces[before + 1 : start])
        return last(_text(pieces[: before + 1]), plain) if _ALSO.fullmatch(between) else None
      run = _bare(_text(pieces[start : end + 1])).lstrip("=:,; ")
      if plain and (found := number(run)) is not None or not plain and (found := run or None):
        return found
  return None


def _says_something(text: str) -> bool:
  return not re.match(r"\$?\s*\^|\$?\\(?:blacksquare|square)\b", text) and bool(re.search(r"\d|\\[a-zA-Z]|[∞π√]|\$|[a-zA-Z]\s*[-+*/=^]|[-+*/=^]\s*[a-zA-Z]", text))


def _pieces(text: str) -> list[Piece]:
  """The words and formulas of a text, in order."""
  pieces, end = [], 0
  for formula in _FORMULA.finditer(text):
    if formula[0][1:2].isdigit() and _SENTENCE.search(_TEXT_OR_COMMAND.sub(" ", formula[0])):
      continue  # '$6, which is less than the $7'
    pieces += _words(text[end : formula.start()])
    pieces.append(Piece(formula[0], True))
    end = formula.end()
  return pieces + _words(text[end:])


def _words(text: str) -> list[Piece]:
  """Text without formulas, cut where white space stands outside of braces."""
  words, depth, word = [], 0, ""
  text = _LABEL.sub(": ", text)
  for part in re.findall(r"\\\s|\\.|[{}]|\s+|[^\\{}\s]+|\\", text):
    depth += (part == "{") - (part == "}" and depth > 0)
    if part.isspace() and depth == 0:
      words.append(word)
      word = ""
    else:
      word += part
  pieces = []
  for word in filter(None, [*words, word]):
    core = word.strip("*\"'`").rstrip(".,;:!?*")
    unknown = _COMMAND.sub("", re.sub(r"\\(?:text\w*|mathrm|mbox|color)\s*\{[^{}]*\}", "", core))
    # '45cm' is mathematics, 'x-axis' and '4th' are as well as 'hence' words.
    maths = bool(_MATHS.search(core)) and (not _PROSE.search(unknown) or core[:1] in "$€£¥(-\u2212.0123456789")
    pieces.append(Piece(re.sub(r"^\*+|\*+(?=[.,;:!?]?$)", "", word), maths))
  return pieces


def _first_run(pieces: list[Piece]) -> str | None:
  """The first run of mathematics, over 'and', 'or' and commas, with the unit behind it."""
  start = next(i for i, piece in enumerate(pieces) if piece.maths)
  end = start + 1
  if denied(_text(pieces[:start]), _text(pieces[end:])):
    return None
  while end < len(pieces):
    if pieces[end].maths and not re.search(r"[.;:!?]$", pieces[end - 1].text):
      end += 1
    elif pieces[end].text in _JOINS and end + 1 < len(pieces) and pieces[end + 1].maths:
      end += 2
    else:
      break
  unit = [word for piece in pieces[end:] if (word := piece.text.strip("().,;"))]
  if unit and len(unit) <= _UNIT_WORDS and not any(word.lower() in _NOT_A_UNIT - {"and", "to"} for word in unit):
    # '12 cm', '5 apples left', '2 hours and 30 minutes'
    if unit[0] != "and" and not pieces[end - 1].text.endswith((",", ";", ".")):
      end = len(pieces)
  return _bare(_text(pieces[start:end])) or None


def _text(pieces: list[Piece]) -> str:
  return " ".join(piece.text for piece in pieces)


def _bare(text: str) -> str:
  """Without the signs around one formula."""
  text = text.strip().rstrip(".,;:")
  formula = _FORMULA.fullmatch(text)
  return next(filter(None, formula.groups())).strip() if formula else text


def _plain(text: str) -> str | None:
  """The numeral of a text that is one number with a unit, currency, brackets or a power of ten; percent keep their sign."""
  match = _QUANTITY.fullmatch(_STYLE.sub("", _bare(text.strip(" \t\n*").rstrip("."))))
  if not match or not (match["whole"] or match["decimals"]):
    return None
  if len(match["unit"].split()) > _UNIT_WORDS or _LATEX.search(match["unit"]) or "\\" in _COMMAND.sub("", match["unit"]):
    return None
  if re.search(r"\\(?!text|mathrm|mbox|%|[$,!; ()\[\]])", match["unit"]) or re.match(r"\s*(?:[a-zA-Z]$|\()", match["unit"]):
    return None
  numeral = _numeral(match, re.sub(r"[^\d]", "", match["whole"] or "0"))
  power = match["power"] or match["exponent"]
  words = re.findall(r"\\?%|[a-z]+", re.sub(r"\\(?:text|mathrm|mbox)", "", match["unit"].lower()))
  thousands = list(itertools.takewhile(_THOUSANDS.__contains__, words))
  if thousands and not power and not match["divisor"]:  # '1.8 thousand'
    return str(Fraction(numeral) * math.prod(map(_THOUSANDS.get, thousands)))
  if not power:
    return numeral + "%" * (words[:1] in (["%"], ["\\%"], ["percent"]))
  return str(Fraction(numeral) * Fraction(10) ** int(power)) if not match["divisor"] else None


def _numeral(match: re.Match, whole: str) -> str:
  sign = "-" if (match["sign"] or "").strip("+") or match["inner"] else ""
  return sign + whole + (match["decimals"] or "") + (match["divisor"] or "")


def _numbers(text: str) -> list[str]:
  """All numbers of a text as plain numerals, without currency signs and thousands commas."""
  text = text.replace(r"\!", "").replace("{,}", ",")
  return [
      _numeral(match, (match["whole"] or "0").replace(",", ""))
      for match in _NUMBER.finditer(text)
      if match["whole"] or match["decimals"]
  ]
