r"""Answers in text: where a response states one, and one spelling for equal ones.

Pure string work, in time linear in the text whatever the text is: nothing is
evaluated, and every regular expression runs over a bounded window or cannot
backtrack.

Where the answer stands (`extract_answer`):

1. MATH: the last closed `\boxed{}`; an empty box is no answer.
2. Otherwise the last marker that holds one: `#### 26`, `# Answer` with the
   answer behind or below it, `The answer is 26.`, `Answer: 26`, a last line
   `A: 26`. In GSM8K a box is a marker like the others.
3. Otherwise, as the usual harnesses do, the end of the text: its last number
   (GSM8K), its last formula or else number (MATH). A text that breaks off, in
   an open box or behind an operator, has no answer; nor does generated
   arithmetic without `####`, whose format is part of the problem.
"""

import collections
import re

DATASETS = ("gsm8k", "math", "arithmetic")

_MARKER = re.compile(
    r"^[ \t]*#{1,6}[ \t*]*(?:final[ \t]+)?answer\b"  # '# Answer'
    r"|#{4,}"
    r"|\banswer(?:\*{0,2}:|[ \t]+is\b)"  # 'Answer:', 'The final answer is'
    r"|^[ \t]*\*{0,2}(?P<initial>(?-i:A)):",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)(?:\s*(?P<open>\{)|(?![a-zA-Z{]))")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")
_SENTENCE_END = re.compile(r"\.\**(?=\s|$)")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}.])[-\u2212])?(?:\\?[$€£¥][ \t]?(?P<inner_sign>-)?)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<decimals>\.\d+)?(?P<divisor>/\d+)?",
    re.ASCII,
)
_FORMULA = re.compile(r"(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_DANGLING = re.compile(r"[-+*/=,(\[{^_<>:\\]\s*$")
# No answer is this long; the windows keep hostile text from costing more than its own length.
_WINDOW, _TAIL, _MARKERS_TRIED = 4000, 300, 20


def extract_answer(response: str, dataset: str) -> str | None:
  """The answer a response states, as written there (GSM8K: the bare number), or None."""
  if dataset not in DATASETS:
    raise ValueError(f"unknown dataset {dataset!r}, not one of {DATASETS}")
  if dataset == "arithmetic":
    line = response.rpartition("####")[2].partition("\n")[0] if "####" in response else ""
    return line.strip() or None
  if dataset == "gsm8k":
    response = _CALCULATOR_NOTE.sub("", response)
  box_start, box, cut_off = _last_box(response)
  if dataset == "math" and box is not None:
    return box.strip() or None
  for match in reversed(collections.deque(_MARKER.finditer(response), maxlen=_MARKERS_TRIED)):
    if box is not None and match.start() < box_start:
      break
    stated = _stated_at(response, match)
    answer = _first_number(stated) if dataset == "gsm8k" else stated
    if answer:
      return answer
  if box is not None:
    return _first_number(box)
  tail = response[-_TAIL:].rstrip()
  if cut_off or _DANGLING.search(tail):
    return None
  numbers = _numbers(tail)
  if dataset == "math" and (formulas := _FORMULA.findall(tail)):
    return "".join(formulas[-1]).strip() or None
  return numbers[-1] if numbers else None


def reference_answer(reference: str, dataset: str) -> str | None:
  """The answer of a reference: a published solution with its marker, or the bare answer."""
  if "####" in reference if dataset != "math" else _BOX.search(reference):
    return extract_answer(reference, dataset)
  if dataset == "gsm8k":
    # A bare number only: a solution that lost its last line must not pass for its first number.
    numbers = _numbers(reference)
    return numbers[0] if len(numbers) == 1 and len(reference.split()) <= 3 else None
  return reference.strip() or None


def _last_box(text: str) -> tuple[int, str | None, bool]:
  """Start and content of the last box that closes; whether a later one stays open."""
  boxes = list(_BOX.finditer(text))
  closing, stack = {}, []
  # One pass pairs all braces, so that a hundred thousand open boxes cost no more than one.
  for brace in _BRACE.finditer(text, boxes[0].start()) if boxes else ():
    if brace.group() == "{":
      stack.append(brace.start())
    elif brace.group() == "}" and stack:
      closing[stack.pop()] = brace.start()
  cut_off = False
  for box in reversed(boxes):
    if box["open"] and box.end() - 1 in closing:
      return box.start(), text[box.end() : closing[box.end() - 1]], cut_off
    if not box["open"]:  # '\boxed 5': TeX takes one token, MATH's authors mean up to the '$'.
      line = text[box.end() : box.end() + _WINDOW].partition("\n")[0]
      content = line.partition("$")[0] if "$" in line else "".join(line.split()[:1])
      return box.start(), content, cut_off
    cut_off = True
  return -1, None, cut_off


def _stated_at(text: str, marker: re.Match) -> str:
  """What stands behind a marker: the rest of its sentence, or the paragraph below."""
  rest = text[marker.end() : marker.end() + _WINDOW].lstrip(" \t*:")
  line, newline, below = rest.partition("\n")
  # 'A:' opens many a response; it marks the answer only where nothing follows but the next question.
  if marker["initial"] and below.strip() and not below.lstrip().startswith("Q:"):
    return ""
  if newline and not line.strip():
    line = re.split(r"\n[ \t]*\n", below.strip(), maxsplit=1)[0]
  return _SENTENCE_END.split(line.strip(), maxsplit=1)[0].strip(" \t\n*")


def _numbers(text: str) -> list[str]:
  """All numbers of a text as plain numerals, without currency signs and thousands commas."""
  numbers = []
  for match in _NUMBER.finditer(text):
    if match["digits"] or match["decimals"]:
      sign = "-" if match["sign"] or match["inner_sign"] else ""
      whole = (match["digits"] or "0").replace(",", "")
      numbers.append(sign + whole + (match["decimals"] or "") + (match["divisor"] or ""))
  return numbers


def _first_number(text: str) -> str | None:
  # '5 + 3 = 8 apples' states 8.
  numbers = _numbers(text[:_WINDOW].replace(r"\!", "").replace("{,}", ",").rpartition("=")[2])
  return numbers[0] if numbers else None


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
    r"(?<=[\d})])\s*(?:\\text\s*\{(?P<text>[^{}]*)\}"
    r"|(?<=\s)(?P<word>(?:[cmk]?m|k?g|ft|in|mi|mph|lbs?|days?|[a-zA-Z]{4,})(?:[ /][a-zA-Z]+)*))"
    r"(?:\s*\^\s*\{?\d\}?)?$"
)
_VALUE_WORDS = re.compile(r"illion|thousand|hundred|dozen|[ap]\.?\s?m\b|and|or\b|\d", re.IGNORECASE)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!\d|,|\s*\d)")
_NUMERAL = re.compile(r"([-+]?)(\d*+)(?:\.(\d*+))?", re.ASCII)
_BASED = re.compile(r"\(?(-?[\w.]+)\)?_\{?(\d+)\}?")
_SIDE_BY_SIDE = re.compile(r"(?<![\d_^.])\d++(?:\.\d+)?\s+[\d.]")
_MEANINGLESS = re.compile(r"\\%|(?<!\d)\s+|\s+(?!\d)")
_WORDS = re.compile(r"\(?\s*\\text\s*\{([^{}]*)\}\s*\)?")


def clean(answer: str) -> str:
  """An answer as LaTeX that math-verify reads: without layout, units, dollars and degrees."""
  text = answer.translate(_LETTERS)
  for pattern, replacement in _REWRITES:
    text = pattern.sub(replacement, text)
  text = " ".join(text.split()).strip(".,;: ")
  unit = _UNIT.search(text)
  if unit and not _VALUE_WORDS.search(unit["text"] or unit["word"] or ""):
    text = text[: unit.start()]
  if _THOUSANDS.fullmatch(text):
    text = text.replace(",", "").replace(" ", "")
  return text.strip(".,;: ")


def numeral(text: str) -> str | None:
  """One spelling for each plain decimal, '007' and '+7.0' being '7'; None for anything else."""
  match = _NUMERAL.fullmatch(text)
  if not match or not (match[2] or match[3]):
    return None
  sign, whole, decimals = match[1], match[2].lstrip("0"), (match[3] or "").rstrip("0")
  value = (whole or "0") + ("." + decimals if decimals else "")
  return ("-" if sign == "-" and value != "0" else "") + value


def equal_as_text(reference: str, answer: str) -> bool | None:
  r"""Whether two cleaned answers are equal, where their spelling decides; None where mathematics must.

  Decides what math-verify gets wrong: it ignores the base of `21_8`, adds the
  numbers in `3 4`, takes words for products of letters and lists for sets.
  """
  if _spelling(reference) == _spelling(answer):
    return True
  numerals = numeral(reference), numeral(answer)
  if None not in numerals:
    return numerals[0] == numerals[1]
  if _WORDS.fullmatch(reference) or _WORDS.fullmatch(answer):
    return _letters(reference) == _letters(answer)
  bases = _BASED.fullmatch(reference), _BASED.fullmatch(answer)
  if any(bases):
    return all(bases) and _spelling(bases[0][1]) == _spelling(bases[1][1]) and bases[0][2] == bases[1][2]
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


def _spelling(cleaned: str) -> str:
  return numeral(spelling := _MEANINGLESS.sub("", cleaned)) or spelling


def _letters(cleaned: str) -> str:
  return re.sub(r"\\text|[\s.(){}]", "", cleaned).lower()


def _list_length(cleaned: str) -> int:
  depth, length = 0, 1
  for character in cleaned:
    depth += (character in "([{") - (character in ")]}")
    length += character in ",;" and depth == 0
  return length
