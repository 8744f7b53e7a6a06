r"""Answers in text: where a response states one.

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

A response that ran out of tokens states what a closed box or `####` states, and
nothing else: its last number is no answer, and where 'The answer is' stands near
its end, the answer itself may be cut.
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


def extract_answer(response: str, dataset: str, ended: bool = True) -> str | None:
  """The answer a response states, as written there (GSM8K: the bare number), or None. ended: it was not cut off."""
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
    if not ended and not match[0].startswith("####"):
      continue
    stated = _stated_at(response, match)
    answer = _first_number(stated) if dataset == "gsm8k" else stated
    if answer:
      return answer
  if box is not None:
    return _first_number(box)
  tail = response[-_TAIL:].rstrip()
  if cut_off or not ended or _DANGLING.search(tail):
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
