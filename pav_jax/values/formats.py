r"""Labels as others write them: one function a format, from a row of a file to solutions with labels.

  trl            `prompt`, `completions`, `labels`: one label a step (TRL's stepwise rows)
  prm800k        `question.problem`, `label.steps[].completions[]` with `text` and `rating`: -1, 0, 1
  math_shepherd  `input` with the tag "ки" behind each step, `label` with + or - in its place
  math_aps       `q`, and prefixes of solutions with a share each; or `question`, `process`, `label`

A label is a number from 0 to 1: true, 1, "+" are 1, false, 0, "-" are 0, and a
fraction stays what it is. null and NaN are no label. What a label is the mean of only
our own export says (`counts`); elsewhere it counts as one outcome.

PRM800K rates alternatives to a step. The chosen steps are one solution, with a
label at each; every alternative is one more, with a label at its own end alone,
so that no label comes twice. A step that the labeller wrote counts as rated 1.
"""

import collections
import math
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from pav_jax.problems.fields import Bad
from pav_jax.problems.fields import Number

NEUTRAL = {"good": 1.0, "bad": 0.0, "out": math.nan}
TAGS = ("ки", "\n\n\n\n\n")  # Math-Shepherd's, and OpenR's
_FIRST_STEP = re.compile(r"step 1\s*:", re.IGNORECASE)
_ANSWER = re.compile(r"^# Answer", re.MULTILINE)  # as PRM800K's last steps end
# Names that a question, a text of a prefix and its share have in what MATH-APS has become.
_QUESTION = ("q", "question", "problem", "prompt")
_PREFIX = ("solution_prefix", "prefix", "state", "text", "process", "partial_solution", "steps", "completion", "response", "solution")
_VALUE = ("mc_value", "mcs", "mc", "value", "label", "labels", "score", "reward")


class Labelled(NamedTuple):
  """A question, the steps of a solution or of a part of one, and what is said of each prefix.

  label_z, count_z: of s + 1 prefixes, the first of which is the bare question;
  label in [0, 1], NaN where nothing is said, count_z its outcomes. ended: the solution is over.
  """

  question: str
  steps: tuple[str, ...]
  label_z: tuple[float, ...]
  count_z: tuple[int, ...]
  ended: bool


def trl(row: dict, counts: collections.Counter) -> Iterator[Labelled]:
  """One solution. Read, too: `counts`, `ended`, `prompt_label` and `prompt_count`, as pav_jax/export.py writes them."""
  del counts
  steps = [_content(step, f"completions[{n}]") for n, step in enumerate(_list(row, "completions"))]
  labels, ended = _labels(_list(row, "labels"), "labels"), row.get("ended", True)
  if len(steps) != len(labels):
    raise Bad("labels", f"{len(labels)} for {len(steps)} completions")
  if not isinstance(ended, bool):
    raise Bad("ended", "neither true nor false")
  # Where eos is a step of its own it has no text.
  _check_steps(steps[:-1] if ended else steps, "completions")
  given = _list(row, "counts") if row.get("counts") is not None else [1] * len(labels)
  given = [_count(x, f"counts[{n}]") for n, x in enumerate(given)]
  if len(given) != len(labels):
    raise Bad("counts", f"{len(given)} for {len(labels)} labels")
  first = _label(row.get("prompt_label"), "prompt_label")
  first_count = _count(row["prompt_count"], "prompt_count") if row.get("prompt_count") is not None else 1
  yield _labelled(_content(row.get("prompt"), "prompt"), steps, [first, *labels], ended, [first_count, *given])


def prm800k(row: dict, counts: collections.Counter, neutral: float = 1.0) -> Iterator[Labelled]:
  """The chosen steps, and each alternative behind those before it. neutral: what a rating of 0 says, NaN for nothing."""
  question = _content(_dict(row, "question").get("problem"), "question.problem")
  said = _dict(row, "label")
  if said.get("finish_reason") == "bad_problem":
    counts["problems that their labeller called broken"] += 1
    return
  chain, labels = [], []
  for n, step in enumerate(_list(said, "steps", "label.") if said.get("steps", ...) is not None else ()):
    where = f"label.steps[{n}]"
    rated = _rated(step, where, counts, neutral)
    if rated is None:
      counts["steps that nobody rated"] += 1
      break
    going_on, alternatives, over = rated
    for text, label in alternatives:
      if not text.strip():
        counts["alternatives without a text"] += 1
      else:
        yield _labelled(question, [*chain, text], [math.nan] * (len(chain) + 1) + [label], bool(_ANSWER.search(text)))
    chain.append(going_on[0])
    labels.append(going_on[1])
    if over:
      break
  if chain:
    yield _labelled(question, chain, [math.nan, *labels], bool(_ANSWER.search(chain[-1])))


def _rated(step, where: str, counts, neutral: float):
  """((text, label) of the step that goes on, the same of each other one, whether the solution ends here); None: there is none."""
  if not isinstance(step, dict):
    raise Bad(where, "not an object")
  rated = []
  for n, completion in enumerate(_list(step, "completions", f"{where}.") if step.get("completions") is not None else []):
    field = f"{where}.completions[{n}]"
    text = _content(completion, field, "text")
    rating = _number(completion.get("rating")) if isinstance(completion, dict) else None
    if rating not in (-1, 0, 1, None) or isinstance(rating, bool):
      raise Bad(f"{field}.rating", f"{rating!r} is none of -1, 0, 1")
    if rating == 0:
      counts["neutral ratings"] += 1
    rated.append((text, {None: math.nan, -1: 0.0, 0: neutral, 1: 1.0}[rating]))
  chosen, human = _number(step.get("chosen_completion")), step.get("human_completion")
  if chosen is not None:
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not 0 <= chosen < len(rated):
      raise Bad(f"{where}.chosen_completion", f"{chosen!r} is no place among {len(rated)} completions")
    going_on, others, over = rated[chosen], rated[:chosen] + rated[chosen + 1:], False
  elif human is not None:
    going_on, others, over = (_content(human, f"{where}.human_completion", "text"), 1.0), rated, False
  elif rated:
    going_on, others, over = rated[0], rated[1:], True
  else:
    return None
  _check_steps([going_on[0]], f"{where}.completions")
  return going_on, others, over


def math_shepherd(row: dict, counts: collections.Counter) -> Iterator[Labelled]:
  """One solution; "Step 1:" parts it from the question, or, without one, the last question mark before the first tag."""
  text, said = _text(row, "input"), _text(row, "label")
  pieces, labels, at = text.split(TAGS[0]), [], 0
  for piece in pieces[:-1]:
    at += len(piece)
    if said[at - len(piece):at] != piece or said[at:at + 1] not in ("+", "-"):
      raise Bad("label", f"is not the input with + or - for tag {len(labels) + 1} of {len(pieces) - 1}")
    labels.append(_label(said[at], "label"))
    at += 1
  if not labels:
    raise Bad("input", f"no tag {TAGS[0]!r}")
  steps, rest = pieces[:-1], pieces[-1].strip()
  first = next((n for n, piece in enumerate(pieces) if _FIRST_STEP.search(piece)), None)
  if first is not None:  # tags before it stand inside of the question
    begin = list(_FIRST_STEP.finditer(pieces[first]))[-1].start()
    question = "".join([*pieces[:first], pieces[first][:begin]])
    steps, labels = [pieces[first][begin:], *pieces[first + 1:-1]] if first < len(labels) else [], labels[first:]
    counts["tags inside of a question"] += first
  else:
    question, mark, step = steps[0].rpartition("?")
    question, steps = question + mark, [step, *steps[1:]]
    if not mark:
      raise Bad("input", "no 'Step 1:' and no '?' ends the question")
  if rest and first != len(pieces) - 1:
    counts["last steps without a tag"] += 1
  steps = [step.strip() for step in steps]
  _check_steps(steps, "input")
  if not steps:
    raise Bad("input", "no step with a tag")
  yield _labelled(question.strip(), steps, [math.nan, *labels], not rest)


def math_aps(row: dict, counts: collections.Counter) -> Iterator[Labelled]:
  """Prefixes, each a solution of one step with a label at its end; of a tree, each node; or steps with tags and their labels."""
  question = _content(row.get(_name(row, _QUESTION)), _name(row, _QUESTION))
  if "states" in row or isinstance(row.get("reasoning_steps"), list):
    name = "states" if "states" in row else "reasoning_steps"
    found = {}
    for n, state in enumerate(_list(row, name)):
      where = f"{name}[{n}]"
      if not isinstance(state, dict):
        raise Bad(where, "not an object")
      prefix, value = _name(state, _PREFIX, f"{where}."), _name(state, _VALUE, f"{where}.")
      text = _content(state[prefix], f"{where}.{prefix}").removeprefix(question).strip()
      # One state comes with each of its rollouts.
      key = (text, _label(state[value], f"{where}.{value}"))
      counts["prefixes that come again"] += key in found
      found[key] = None
    for text, label in found:
      yield _labelled(question, [text] * bool(text), [math.nan] * bool(text) + [label], False)
  elif isinstance(row.get("reasoning_steps"), dict):
    yield from _nodes(question, row["reasoning_steps"])
  else:
    prefix, name = _name(row, _PREFIX), _name(row, _VALUE)
    if isinstance(row[prefix], list):
      steps = [_content(step, f"{prefix}[{n}]") for n, step in enumerate(row[prefix])]
      _check_steps(steps, prefix)
    else:
      text = _text(row, prefix).removeprefix(question)
      tag = next((tag for tag in TAGS if tag in text), None)
      steps = [piece.strip() for piece in (text.split(tag) if tag else [text]) if piece.strip()]
    if isinstance(row[name], list):
      labels = _labels(row[name], name)
    else:
      labels = [math.nan] * (len(steps) - 1) + [_label(row[name], name)]
    if len(labels) != max(len(steps), 1):
      raise Bad(name, f"{len(labels)} for {len(steps)} steps")
    yield _labelled(question, steps, [math.nan] * bool(steps) + labels, False)


def _nodes(question: str, root) -> Iterator[Labelled]:
  """Every node of a tree, with a label at its own end; the root is the question."""
  left = [((), root, "reasoning_steps")]
  while left:
    above, node, where = left.pop()
    if not isinstance(node, dict):
      raise Bad(where, "not an object")
    name = _name(node, _VALUE, f"{where}.")
    label, steps = _label(node[name], f"{where}.{name}"), above
    if where != "reasoning_steps":
      steps = (*above, _content(node.get("text"), f"{where}.text").strip())
      _check_steps(steps[-1:], f"{where}.text")
    yield _labelled(question, steps, [math.nan] * len(steps) + [label], False)
    children = _list(node, "children", f"{where}.") if node.get("children") is not None else []
    left += reversed([(steps, child, f"{where}.children[{n}]") for n, child in enumerate(children)])


FORMATS: dict[str, Callable[..., Iterator[Labelled]]] = {
    "trl": trl, "prm800k": prm800k, "math_shepherd": math_shepherd, "math_aps": math_aps}


def _labelled(question: str, steps: Sequence[str], labels: Sequence[float], ended: bool, counts: Sequence[int] | None = None) -> Labelled:
  if not question.strip():
    raise Bad("", "its question is empty")
  known = [not math.isnan(label) for label in labels]
  count_z = tuple(n * there for n, there in zip(counts or [1] * len(labels), known))
  label_z = tuple(label if n else math.nan for label, n in zip(labels, count_z))
  return Labelled(question, tuple(steps), label_z, count_z, ended)


def _label(value, field: str) -> float:
  if value is None or value != value:  # a table's null
    return math.nan
  number = _number(value)
  number = {"+": 1.0, "-": 0.0}.get(number) if isinstance(number, str) else number
  if not isinstance(number, (bool, int, float)) or not 0 <= number <= 1:
    raise Bad(field, f"{_shown(value)} is no label: a number from 0 to 1, true, false, '+', '-' or null")
  return float(number)


def _labels(values: list, field: str) -> list[float]:
  return [_label(value, f"{field}[{n}]") for n, value in enumerate(values)]


def _count(value, field: str) -> int:
  value = _number(value)
  if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
    raise Bad(field, f"{_shown(value)} is no number of outcomes")
  return value


def _number(value):
  """A number that came spelt as in a JSON file, as what it is; anything else unchanged."""
  if not isinstance(value, Number):
    return value
  return int(value) if value.removeprefix("-").isdecimal() else float(value)


def _shown(value) -> str:
  """A number as it is spelt, anything else quoted; cut where it is long."""
  is_number = isinstance(value, (Number, int, float)) and not isinstance(value, bool)
  return str(value)[:40] if is_number else repr(str(value)[:40])


def _name(row: dict, names: Sequence[str], where: str = "") -> str:
  """The first of these names that the row has."""
  found = next((name for name in names if row.get(name) is not None), None)
  if found is None:
    raise Bad(where.rstrip("."), f"none of the fields {', '.join(names)} in it; there are {', '.join(repr(x)[1:-1] for x in row)[:200] or 'none'}")
  return found


def _list(row: dict, name: str, where: str = "") -> list:
  if not isinstance(row.get(name), list):
    raise Bad(where + name, "missing" if row.get(name) is None else "not a list")
  return row[name]


def _dict(row: dict, name: str) -> dict:
  if not isinstance(row.get(name), dict):
    raise Bad(name, "missing" if row.get(name) is None else "not an object")
  return row[name]


def _text(row: dict, name: str) -> str:
  return _content(row.get(name), name)


def _content(value, field: str, name: str = "content") -> str:
  """A text, also of a message, an object with `name`, or of those of a list that are not the system's."""
  if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
    return "\n\n".join(_content(message, field, name) for message in value if message.get("role") != "system")
  if isinstance(value, dict):
    value = value.get(name)
  if not isinstance(value, str) or isinstance(value, Number):
    raise Bad(field, "missing" if value is None else "not a string")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise Bad(field, f"half a surrogate pair at character {error.start}") from error
  return str(value)


def _check_steps(steps: Sequence[str], field: str):
  empty = next((n for n, step in enumerate(steps, 1) if not step.strip()), None)
  if empty is not None:
    raise Bad(field, f"step {empty} of {len(steps)} is empty")
