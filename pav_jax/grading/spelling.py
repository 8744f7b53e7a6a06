"""One spelling for equal answers, and the questions that spelling decides without mathematics.

The normalisations are those of the published graders of MATH, and what its
references were found to need beyond them. Answers come from `answers`, at most
a few thousand characters long.
"""

import re

_LETTERS = str.maketrans({
    "\u2212": "-", "\u2013": "-", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∪": r"\cup ",
    "°": "", "×": r"\times ", "·": r"\cdot ", "≤": r"\le ", "≥": r"\ge ", "\x00": "",
})  # fmt: skip
# In this order; each is one published normalisation of MATH answers or a gap found in its references.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r",\s*\\!\s*(?=\d{3})|\{,\}(?=\d{3})", ""),  # thousands: '11,\! 111'
        (r"^\s*\\approx(?![a-zA-Z])", " "),
        (r"(?<!\\)\\[!,;: ]|~|\\q?quad\b|\\displaystyle\b|\\phantom\b\s*(?:\{[^{}]*\}|.)", " "),
        (r"(?<!\\)\\[()\[\]]|\\?\$", " "),  # math delimiters and dollars
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])", r"\\ge"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", " "),
        (r"\s*\\?%", r"\\%"),
        (r"\\(?:mbox|textbf|textrm|textit|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{", r"\\text{"),
        (r"\\text\s*\{[,\s]*(?:and|or)[,\s]*\}|(?<=\d)\s+(?:and|or)\s+(?=-?\d)", ","),
        (r",\s*,", ","),
        (r"\\text\s*\{\s*(-?[\d.,]+)\s*\}|\\text\s*\{(\w+)\}(?=\s*_)", r"\1\2"),
        (r"(?<=\d)_\{?10\}?$", ""),
        # '\frac12', '\frac1{72}', '\frac{625}4', '\frac\pi 2', '\sqrt3'
        (r"\\frac\s*(\d|\\pi(?![a-zA-Z]))", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([\da-zA-Z]|\\pi(?![a-zA-Z]))", r"\1{\2}"),
        (r"\\sqrt\s*(\d)", r"\\sqrt{\1}"),
        (r"([_^])\{\s*(\w)\s*\}", r"\1\2"),
        (r"(?<![\d.}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),  # '6 3/4'
    )
)
# A unit behind a number is no part of the value, but 'million' and 'p.m.' are.
_UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi))\s*(?:\\text\s*\{(?P<text>[^{}]*)\}"
    r"|(?<=\s)(?P<word>(?:[cmk]?m|k?g|ft|in|mi|mph|lbs?|days?|[a-zA-Z]{4,})(?:[ /][a-zA-Z]+)*))"
    r"(?:\s*\^\s*\{?\d\}?)?$"
)
_VALUE_WORDS = re.compile(r"illion|thousand|hundred|dozen|\b(?:[ap]\.?\s?m|and|or)\b|\d", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!\d|,|\s*\d)")
_NUMERAL = re.compile(r"([-+]?)(\d*+)(?:\.(\d*+))?", re.ASCII)
_REPEATING = re.compile(r"(\d{0,20}+)\.(\d{0,20})\\(?:overline|bar)\s*\{?(\d{1,20})\}?", re.ASCII)
_BASED = re.compile(r"\(?(-?[\w.]+)\)?_\{?(\d+)\}?")
_SIDE_BY_SIDE = re.compile(r"(?<![\d_^.])\d++(?:\.\d+)?\s+[\d.]")
_MEANINGLESS = re.compile(r"\\%|(?<!\d)\s+|\s+(?!\d)")
_EDGES = ",;: "
_WORDS = re.compile(r"\(?\s*\\text\s*\{[^{}\w]*\w[^{}]*\}\s*\)?")


def _fraction(match: re.Match) -> str:
  whole, fixed, repeated = match.groups(default="")
  numerator = int(whole + fixed + repeated) - int(whole + fixed or "0")
  return rf"\frac{{{numerator}}}{{{(10 ** len(repeated) - 1) * 10 ** len(fixed)}}}"


def clean(answer: str) -> str:
  """An answer as LaTeX that math-verify reads: without layout, units, dollars and degrees."""
  text = answer.translate(_LETTERS)
  for pattern, replacement in _REWRITES:
    text = pattern.sub(replacement, text)
  text = " ".join(text.split()).strip(_EDGES).rstrip("." + _EDGES)  # '.5' keeps its point
  text = _REPEATING.sub(_fraction, text)
  unit = _UNIT.search(text)
  if unit and not _VALUE_WORDS.search(unit["text"] or unit["word"] or ""):
    text = text[: unit.start()]
  if _THOUSANDS.fullmatch(text):
    text = text.replace(",", "").replace(" ", "")
  return text.rstrip("." + _EDGES)


def numeral(text: str) -> str | None:
  """One spelling for each plain decimal, '007' and '+7.0' being '7'; None for anything else."""
  match = _NUMERAL.fullmatch(text)
  if not match or not (match[2] or match[3]):
    return None
  sign, whole, decimals = match[1], match[2].lstrip("0"), (match[3] or "").rstrip("0")
  value = (whole or "0") + ("." + decimals if decimals else "")
  return ("-" if sign == "-" and value != "0" else "") + value


def canonical(cleaned: str) -> str:
  r"""One spelling for cleaned answers that differ in nothing but spaces, `\%` and zeros: equal ones are equal."""
  return numeral(spelling := _MEANINGLESS.sub("", cleaned)) or spelling


def equal_as_text(reference: str, answer: str) -> bool | None:
  r"""Whether two cleaned answers are equal, where their spelling decides; None where mathematics must.

  Decides what math-verify gets wrong: it ignores the base of `21_8`, adds the
  numbers in `3 4`, takes words for products of letters and lists for sets.
  """
  if canonical(reference) == canonical(answer):
    return True
  numerals = numeral(reference), numeral(answer)
  if None not in numerals:
    return numerals[0] == numerals[1]
  if _WORDS.fullmatch(reference) or _WORDS.fullmatch(answer):
    return _letters(reference) == _letters(answer)
  bases = _BASED.fullmatch(reference), _BASED.fullmatch(answer)
  if any(bases):
    return all(bases) and canonical(bases[0][1]) == canonical(bases[1][1]) and bases[0][2] == bases[1][2]
  lengths = _list_length(reference), _list_length(answer)
  if min(lengths) > 1 and lengths[0] != lengths[1] and r"\pm" not in reference + answer:
    return False
  return None


def is_words(cleaned: str) -> bool:
  r"""Whether a cleaned answer is text, such as '\text{(A)}' or '\text{even}'."""
  return bool(_WORDS.fullmatch(cleaned))


def is_ambiguous(cleaned: str) -> bool:
  """Whether numbers stand side by side, '3 4', which has no one value."""
  return bool(_SIDE_BY_SIDE.search(cleaned))


def _letters(cleaned: str) -> str:
  return re.sub(r"\\text|[\s.(){}]", "", cleaned).lower()


def _list_length(cleaned: str) -> int:
  depth, length = 0, 1
  for character in cleaned:
    depth += (character in "([{") - (character in ")]}")
    length += character in ",;" and depth == 0
  return length
