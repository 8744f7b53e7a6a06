r"""One spelling for equal answers, and the questions that spelling decides without mathematics.

The normalisations are those of the published graders of MATH, and what its
references were found to need beyond them. They change how an answer is set,
never what it says: units, percent and lists are kept for `units` and `reading`.
Answers come from `answers`, at most a few thousand characters long.
"""

import re

_LETTERS = str.maketrans({
    **{chr(0xFF10 + i): str(i) for i in range(10)},  # full width
    "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-", "\ufe63": "-", "≈": r"\approx ", "∠": r"\angle ", "ℝ": r"\mathbb{R}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "“": "", "”": "", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "∪": r"\cup ", "∅": r"\emptyset ",
    "°": r"^\circ ",
    "×": r"\times ", "·": r"\cdot ", "÷": r"\div ", "±": r"\pm ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "∈": r"\in ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "％": "%", "…": r"\ldots ",
    "⁄": "/", "′": "'", "θ": r"\theta ", "\x00": "", "\u200b": "",
})  # fmt: skip
# A letter that no keyboard has stands for a dollar that is money, so that the others can go as signs of formulas.
DOLLAR = "\uff04"
_STYLE = (r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|mathtt|mathcal|mathnormal|boxed|fbox|underline)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ")
# In this order; each is one published normalisation of MATH answers or a gap found in its references.
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)\\\$", DOLLAR),
        (r"^[^$]*\$(?=\d)(?=[^$]*$)", lambda match: match[0][:-1] + DOLLAR),  # the only one: '$50'
        (r"(?<=\d),\s*\\!\s*(?=\d{3})|(?<=\d)\s?\{,\s?\}\s?(?=\d{3})|(?<=\d)\\[,!](?=\d{3}(?!\d))", ""),  # thousands: '11,\! 111'
        (r"^\s*\\approx(?![a-zA-Z])", " "),
        (r"\\phantom\s*(?:\{[^{}]*\}|[^{}\\\s])|\\(?:hspace|vspace|label|tag)\b\*?\s*\{[^{}]*\}", " "),
        (r"(?<!\\)\\[!,;: ]|~|\\q?quad\b", " "),
        (r"\\(?:tiny|small|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle|limits|nolimits|hfill|newline|bf|rm|it)(?![a-zA-Z])", " "),
        (r"(?<!\\)\\[()\[\]]|\$", " "),  # signs of formulas
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", " "),
        (r"^[\s&]+|(?:\\\\\s*)+$|(?<!\\)\\$", ""),  # '5\ ' in a box
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:leq|leqslant|leqq)(?![a-zA-Z])", r"\\le"),
        (r"\\(?:geq|geqslant|geqq)(?![a-zA-Z])", r"\\ge"),
        (r"<=(?!=)", r"\\le "),
        (r">=(?!=)", r"\\ge "),
        (r"!=", r"\\ne "),
        (r"(?<![a-zA-Z\\])inf(?![a-zA-Z])", r"\\infty "),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"\^\s*(?:\{\s*((?:\\prime\s*){1,4})\}|(\\prime)(?![a-zA-Z]))", lambda match: "'" * match[0].count("p")),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:neq|not\s*=)(?![a-zA-Z])", r"\\ne"),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r"\\[lr]?[vV]ert(?![a-zA-Z])", "|"),
        (r"\\(?:varnothing|oslash)(?![a-zA-Z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\deg(?:ree)?(?![a-zA-Z])|\\textdegree(?![a-zA-Z])", r"^\\circ "),
        (r"\s?\\?%", r"\\%"),
        (r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}|\\color\s*\{[^{}]*\}", ""),
        (r"\\(?:mathrm|operatorname|text|mathit)\s*\{\s*([ie])\s*\}", r"\1"),
        (r"(?<![\d}/])(?<![\d}/] )\\(?:mathrm|text)\s*\{\s*([a-zA-Z])\s*\}", r"\1"),
        (r"\\(?:[mh]box|text(?:normal|bf|rm|it|sf|tt|up|sc)|emph|mathrm|operatorname)\s*\*?\s*\{", r"\\text{"),
        _STYLE,
        _STYLE,  # one in another
        (r"\\text\s*\{\s*\}", ""),
        (r"\\text\s*\{\s*(\(?[A-H]\)?(?:\s*,\s*\(?[A-H]\)?)+)\s*\}", r"\1"),
        (r"\\text\s*\{[,\s]*and[,\s]*\}|(?<=[\s\d)}\]])and(?=[\s\\(-])(?![^{}]*\})", ","),
        (r"\\text\s*\{[,\s]*or[,\s]*\}|(?<=[\s\d)}\]])or(?=[\s\\(-])(?![^{}]*\})|\\(?:lor|vee)(?![a-zA-Z])", r"\\text{or}"),
        (r",\s*,", ","),
        (r",\s*\\text\{or\}", r"\\text{or}"),
        (r"\\text\s*\{\s*(\uff04?-?[\d.,]+\s*(?:\\%)?)\s*\}|\\text\s*\{(\w+)\}(?=\s*_)", r"\1\2"),
        (r"\\text\s*\{\s*(-?[\d.,]+(?:/\d+)?)\s*([a-zA-Z][a-zA-Z /]*)\}(?=$|\^)", r"\1\\text{ \2}"),  # '\text{24 cm}'
        (r",?\s*\(?[knm]\s*\\in\s*\\mathbb\s*\{?[ZN]\}?\)?\s*$", ""),  # what counts the solutions
        (r"\\log_\{?e\}?(?![a-zA-Z])", r"\\ln "),
        (r"_\s*\\text\s*\{\s*(?:ten|base 10)\s*\}\s*$|(?<=[\d)])_\{?10\}?\s*$", ""),
        # '\frac12', '\frac1{72}', '\frac{625}4', '\frac\pi 2', '\sqrt3'
        (r"\\frac\s*(\d|[a-zA-Z]|\\pi(?![a-zA-Z]))", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([\da-zA-Z]|\\pi(?![a-zA-Z]))", r"\1{\2}"),
        (r"\\binom\s*(\w)\s*(\w)", r"\\binom{\1}{\2}"),
        (r"\\sqrt\s*(\d|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"(?:(?<![a-zA-Z\\])|\\)sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
        (r"(?<![a-zA-Z\\])(pi|sin|cos|tan|ln|log|infinity)(?![a-zA-Z])", r"\\\1 "),
        (r"\\infinity(?![a-zA-Z])", r"\\infty"),
        (r"(?<=[\da-zA-Z)}])\*\*(?=[\d({-])", "^"),
        (r"([_^])\{\s*(\w)\s*\}", r"\1\2"),
        (r"(?<![\d.}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),  # '6 3/4'
    )
)
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_DIGITS_BELOW = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_ROOT = re.compile(r"(?:√|(?<![a-zA-Z\\])sqrt)\s?(\d+)")  # '√12': one number, unlike TeX's \sqrt12
_MARKDOWN = re.compile(r"\*\*(?=[^\s*])([^*]*)\*\*|__(?=[^\s_])([^_]*)__|`+([^`]*)`+")
_REPEATING = re.compile(r"(\d{0,20}+)\.(\d{0,20})(?:\\(?:overline|bar)\s*\{?(\d{1,20})\}?|(?:\((\d{1,20})\)))", re.ASCII)
_DOTTED = re.compile(r"^(-?\d{0,20})\.(\d{0,12}?)(\d{1,6}?)\3{2,}\d{0,5}(?:\.\.\.|\\[lc]?dots)$", re.ASCII)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_ONE_THOUSANDS = re.compile(r"[^,(\[]*?(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)[^,(\[]*")  # 'x = 1,500', '1,000\pi'
_NUMERAL = re.compile(r"([-+]?)(\d*+)(?:\.(\d*+))?", re.ASCII)
_FRACTION = re.compile(r"([-+]?)(?:\\frac\{(-?\d{1,40})\}\{(\d{1,40})\}|(\d{1,40})\s?/\s?(\d{1,40}))", re.ASCII)
_SIDE_BY_SIDE = re.compile(r"(?<![\d_^.])\d++(?:\.\d+)?\s+[\d.]")
_MEANINGLESS = re.compile(r"\\%|(?<!\d)\s+|\s+(?!\d)")
_EDGES = ",;: "
_WORDS = re.compile(r"\(?\s*\\text\s*\{[^{}\w]*\w[^{}]*\}\s*\)?")
_PLAIN_WORDS = re.compile(r"\(?[a-zA-Z](?:[a-zA-Z]|[ .'-](?=[a-zA-Z])){3,}\)?|(?i:yes|no|odd)")
_PLURAL = re.compile(r"(?<=[a-z]{3})s(?![a-z])")
_TIME = re.compile(r"\d:\d\d")
CHOICE_AND_VALUE = re.compile(r"(?:\\text\s*\{)?\s*\(?([A-H])\)\s*\}?\s*[:.]?\s*((?<![A-H])[^\s}].*)")
_CHOICE = re.compile(r"^(?:option|choice|answer)(?=[a-h]$)")


def _repeating(match: re.Match) -> str:
  whole, fixed, repeated = match[1], match[2], match[3] or match[4]
  numerator = int(whole + fixed + repeated) - int(whole + fixed or "0")
  return rf"\frac{{{numerator}}}{{{(10 ** len(repeated) - 1) * 10 ** len(fixed)}}}"


def clean(answer: str) -> str:
  """An answer as plain LaTeX: without layout, styles, and signs of formulas."""
  text = _MARKDOWN.sub(lambda match: next(filter(None, match.groups()), ""), answer)
  text = _SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(_DIGITS_BELOW)}}}", text)
  text = _ROOT.sub(r"\\sqrt{\1}", text).translate(_LETTERS)
  for pattern, replacement in _REWRITES:
    text = pattern.sub(replacement, text)
  text = " ".join(text.split()).strip(_EDGES).rstrip("." + _EDGES)  # '.5' keeps its point
  if dotted := _DOTTED.fullmatch(answer.strip(" $")):
    sign, whole = ("-", dotted[1][1:]) if dotted[1].startswith("-") else ("", dotted[1])
    text = rf"{sign}{whole}.{dotted[2]}\overline{{{dotted[3]}}}"
  text = _REPEATING.sub(_repeating, text)
  if _THOUSANDS.fullmatch(text):
    text = text.replace(",", "").replace(" ", "")
  elif _ONE_THOUSANDS.fullmatch(text) and r"\{" not in text:
    text = text.replace(",", "")
  return text.rstrip("." + _EDGES)


def numeral(text: str) -> str | None:
  """One spelling for each plain decimal, '007' and '+7.0' being '7'; None for anything else."""
  match = _NUMERAL.fullmatch(text)
  if not match or not (match[2] or match[3]):
    return None
  sign, whole, decimals = match[1], match[2].lstrip("0"), (match[3] or "").rstrip("0")
  value = (whole or "0") + ("." + decimals if decimals else "")
  return ("-" if sign == "-" and value != "0" else "") + value


def fraction(text: str) -> tuple[int, int] | None:
  r"""(numerator, denominator) of a plain decimal of up to 40 digits, of '3/4' and of '-\frac{3}{4}'; None for anything else."""
  if (decimal := numeral(text)) is not None:
    whole, _, decimals = decimal.partition(".")
    return (int(whole + decimals), 10 ** len(decimals)) if len(decimal) <= 40 else None
  match = _FRACTION.fullmatch(text)
  if not match or not int(match[3] or match[5]):
    return None
  return int(match[1] + "1") * int(match[2] or match[4]), int(match[3] or match[5])


def thousands(text: str) -> str:
  """A numeral without its separators of thousands; anything else as it is."""
  return text.replace(",", "").replace(" ", "") if _THOUSANDS.fullmatch(text) else text


def canonical(cleaned: str) -> str:
  r"""One spelling for cleaned answers that differ in nothing but spaces, `\%` and zeros: equal ones are equal."""
  return numeral(spelling := _MEANINGLESS.sub("", cleaned)) or spelling


def equal_as_text(reference: str, answer: str) -> bool | None:
  r"""Whether two cleaned answers are equal, where their spelling decides; None where mathematics must."""
  if canonical(reference) == canonical(answer):
    return True
  numerals = numeral(reference), numeral(answer)
  if None not in numerals:
    return numerals[0] == numerals[1]
  both = reference, answer
  if any(map(is_words, both)) and not any(map(CHOICE_AND_VALUE.fullmatch, both)):
    return words(reference) == words(answer)
  return None


def is_words(cleaned: str) -> bool:
  r"""Whether a cleaned answer is text, such as '\text{(A)}' or 'even'."""
  return bool(_WORDS.fullmatch(cleaned) and not _TIME.search(cleaned) or _PLAIN_WORDS.fullmatch(cleaned))


def is_ambiguous(cleaned: str) -> bool:
  """Whether numbers stand side by side, '3 4', which has no one value."""
  return bool(_SIDE_BY_SIDE.search(cleaned))


def words(cleaned: str) -> str:
  """Letters and digits of words: '(A)' is 'a', as are 'A' and 'option A'."""
  text = _PLURAL.sub("", cleaned.lower())
  return _CHOICE.sub("", re.sub(r"\\text|\.(?!\d)|(?<![\d({])(?<!^)-|[\s(){}'*]", "", text))
