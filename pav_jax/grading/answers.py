r"""Answers in text: where a response states one.

Pure string work, in time linear in the text whatever the text is: nothing is
evaluated, and every regular expression runs over a bounded window or cannot
backtrack.

Where the answer stands (`extract_answer`):

1. MATH: what its boxes state (`boxes`); an empty box is no answer, nor is a
   closed one that a later open box takes back.
2. Otherwise the last marker that holds one: `#### 26`, `# Answer` with the
   answer behind or below it, `The answer is 26.`, `Answer: 26`, a last line
   `A: 26`. In GSM8K a box is a marker like the others. Of a sentence behind a
   marker, 'The largest $n$ is 34', `phrases` takes what it says. What a later
   marker denies, 'the answer is not 5', is no answer.
3. Otherwise, as the usual harnesses do, the end of the text: its last formula
   or number, whole. A text that breaks off, in an open box or behind an
   operator, has no answer; nor does generated arithmetic without `####`, whose
   format is part of the problem.

GSM8K's answers are numbers: of `70 000 dollars` or `$70,000 (35%)` the answer is
70000, of `5 = 2 + 3` 5. What is no plain number stays as it is, `2\sqrt{3}`,
and is compared by value.

A response that ran out of tokens states what a closed box or `####` states, and
nothing else: its last number is no answer, and where 'The answer is' stands near
its end, the answer itself may be cut.
"""

import collections
import re

from pav_jax.grading import boxes
from pav_jax.grading import phrases

DATASETS = ("gsm8k", "math", "arithmetic")

_MARKER = re.compile(
    r"^[ \t]*#{1,6}[ \t*]*(?:final[ \t]+)?answer\b"  # '# Answer'
    r"|#{4,}(?![ \t*]*(?:step|part|case|solution|conclusion|explanation|summary|calculation)\b)"
    r"|\banswer(?:\*{0,2}:|[ \t]+is\b)"  # 'Answer:', 'The final answer is'
    r"|\bcorrect[ \t]+(?:option|choice)[ \t]+is\b"
    r"|^[ \t]*\*{0,2}(?P<initial>(?-i:A)):",
    re.IGNORECASE | re.MULTILINE,
)
# 'It is not true that the', 'a wrong': before 'answer is 5'.
_UNTRUE = re.compile(
    r"\b(?:(?:not|n['\u2019]t) (?:true|right|correct|the case|possible)|wrong|false|incorrect|untrue|impossible)"
    r"(?: to (?:say|think|claim|assume))?(?: that)?(?: the)?(?: final| correct| right)? \Z", re.IGNORECASE)
_WRONG = re.compile(r"\bwhich (?:is|was|would be) (?:wrong|incorrect|false|impossible|absurd|not (?:right|correct|true|possible))\b", re.IGNORECASE)
_NOT = re.compile(r"(?:[a-z]{2,9}ly )?(?:not|never)\b", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_NEGATIVE = re.compile(r"(?<![\d)}$] )\b(?:negative|minus)\s+(?=[$\\(]*\d)|(?<![\d)}$] )\u2013\s+(?=[$\\(]*\d)", re.IGNORECASE)
_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")
_SENTENCE_END = re.compile(r"(?<!\.)\.\**(?=\s|$)")
_DANGLING = re.compile(r"(?:(?<!\*)\*|[-+/=,(\[{^_<>:]|(?<!\\)\\[(\[]?)$")
# No answer is this long; the windows keep hostile text from costing more than its own length.
_WINDOW, _TAIL, _MARKERS_TRIED = 4000, 300, 20


def extract_answer(response: str, dataset: str, ended: bool = True) -> str | None:
  """The answer a response states, as written there (GSM8K: the bare number where it is one), or None.

  ended: it was not cut off.
  """
  if dataset not in DATASETS:
    raise ValueError(f"unknown dataset {dataset!r}, not one of {DATASETS}")
  if dataset == "arithmetic":
    line = response.rpartition("####")[2].partition("\n")[0] if "####" in response else ""
    return line.strip() or None
  value = phrases.value
  if dataset == "gsm8k":
    response = _CALCULATOR_NOTE.sub("", response)
    value = phrases.number
  box_start, box, cut_off = boxes.boxed(response)
  if dataset == "math" and box is not None:
    return box or None if not cut_off else None
  denied = set()
  for match in reversed(collections.deque(_MARKER.finditer(response), maxlen=_MARKERS_TRIED)):
    if box is not None and match.start() < box_start:
      break
    if not ended and not match[0].startswith("####"):
      continue
    stated = _stated_at(response, match)
    untrue = bool(_UNTRUE.search(response, max(0, match.start() - 80), match.start()) or _WRONG.search(stated))
    if untrue or _NOT.match(stated):
      denied.add(value(re.split(r"[,;:]\s", _NOT.sub("", stated, count=1))[0]))
    answer = value(stated)
    if answer and not untrue and answer not in denied:
      return answer
  if box is not None and not cut_off:
    return phrases.number(box[:_WINDOW])
  tail = response[-_TAIL:].rstrip()
  if box is not None or cut_off or denied or not ended or _DANGLING.search(tail):
    return None
  return phrases.last(tail, dataset == "gsm8k")


def reference_answer(reference: str, dataset: str) -> str | None:
  """The answer of a reference: a published solution with its marker, or the bare answer."""
  if "####" in reference if dataset != "math" else _BOX.search(reference):
    return extract_answer(reference, dataset)
  if dataset == "gsm8k":
    # A bare answer only: a solution that lost its last line must not pass for its first number.
    return phrases.number(reference) if len(reference) <= _WINDOW // 4 and phrases.is_bare(reference) else None
  return reference.strip() or None


def _stated_at(text: str, marker: re.Match) -> str:
  """What stands behind a marker: the rest of its sentence, or the paragraph below."""
  rest = text[marker.end() : marker.end() + _WINDOW].lstrip(" \t*:")
  rest = re.sub(r"-(\$|\\\()", r"\1-", _NEGATIVE.sub("-", rest)) if _NEGATIVE.search(rest) else rest
  line, newline, below = rest.partition("\n")
  # 'A:' opens many a response; it marks the answer only where nothing follows but the next question.
  if marker["initial"] and below.strip() and not below.lstrip().startswith("Q:"):
    return ""
  if not line.strip(" $\\[(") and newline:
    line = line.strip() + " " + re.split(r"\n[ \t]*\n", below.strip(), maxsplit=1)[0]
  return _SENTENCE_END.split(line.strip(), maxsplit=1)[0].strip(" \t\n*")
