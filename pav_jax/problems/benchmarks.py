"""Files by which process verifiers are judged elsewhere, as they are published.

  ProcessBench       problem, steps, label (0-based first wrong step, -1 none), final_answer_correct, id
  PRMBench           modified_question, modified_process, error_steps (1-based), classification, idx
  MR-MATH, MR-GSM8K  question, model_output_step_format or model_output_steps, model_output_solution_correctness,
                     model_output_solution_first_error_step (1-based, or N/A); or rating (1, or 0 where a step is
                     redundant) in place of the last two

A file is JSON lines, a JSON array or a table, as problems are (problems/files/door.py;
MR-MATH's `.json` are lines). Which benchmark it is of, its fields say. Steps are a
given list and never split again. MR-MATH nests them, the lines of a numbered step:
they are one step, since the label counts those.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from pav_jax.errors import UserError
from pav_jax.problems.fields import Bad
from pav_jax.problems.fields import Number
from pav_jax.problems.files import door
from pav_jax.problems.problem import Malformed

# PRMBench's nine classes, spelt as there, by what they ask of a verifier.
CLASSES = {"simplicity": ("redundency", "circular"),
           "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
           "sensitivity": ("missing_condition", "deception", "multi_solutions")}
_SUBSET = re.compile(r"(.+)-\d+")
_STEP = re.compile(r"(?:step\s*)?(-?\d{1,9})(?:\.0*)?", re.I)


class Case(NamedTuple):
  """A solution with its labels; `row` counts from 1.

  first_wrong: index of the first wrong step from 0, -1 without one. wrong: of
  PRMBench all wrong steps, from 0. answer_right: None where the file does not say.
  """

  file: str
  row: int
  benchmark: str
  subset: str
  id: str
  question: str
  steps: tuple[str, ...]
  first_wrong: int
  wrong: tuple[int, ...] = ()
  answer_right: bool | None = None


class Read(NamedTuple):
  """What a file holds; repeated: PRMBench's items that occur again, of which the first counts; beyond: its error_steps that name no step."""

  cases: list[Case]
  malformed: list[Malformed]
  repeated: int
  beyond: int


def read(path: str) -> Read:
  """The cases of a file, in order. UserError for a file of another kind, a damaged one, or one without a single case."""
  rows = list(_rows(path))
  fields = next((row for _, row in rows if isinstance(row, dict)), {})
  kind = next((kind for _, row in rows if isinstance(row, dict) for kind in _KINDS if _is(row, kind)), None)
  if not rows:
    raise UserError(f"{path} holds no row")
  if kind is None:
    known = "; ".join(f"{kind} ({', '.join(names)})" for kind, names in _KINDS.items())
    raise UserError(f"{path}: no row has the fields of {known}; the first has {', '.join(map(repr, list(fields)[:20])) or 'none'}")
  cases, malformed, beyond, repeated = [], [], 0, 0
  seen = set()
  for number, row in rows:
    try:
      if isinstance(row, Bad):
        raise row
      case, ignored = _PARSE[kind](row, path, number)
    except Bad as bad:
      malformed.append(Malformed(path, str(number), *bad.args))
      continue
    if kind == "PRMBench" and case.id and (case.subset, case.id) in seen:
      repeated += 1
      continue
    seen.add((case.subset, case.id))
    beyond += ignored
    cases.append(case)
  if not cases:
    raise UserError(f"{path}: no row of {len(rows)} is a case of {kind}: {malformed[0]}")
  return Read(cases, malformed, repeated, beyond)


# A field or its other name.
_KINDS = {"PRMBench": ("modified_process", "error_steps"),
          "MR": ("model_output_step_format|model_output_steps", "model_output_solution_correctness|rating"),
          "ProcessBench": ("problem", "steps", "label")}


def _is(row: dict, kind: str) -> bool:
  return all(any(name in row for name in names.split("|")) for names in _KINDS[kind])


def _processbench(row: dict, path: str, number: int) -> tuple[Case, int]:
  steps, name = _steps(row, "steps"), _id(row, "id")
  label = _whole(row.get("label"), "label")
  if not -1 <= label < len(steps):
    raise Bad("label", f"{label} is no step of {len(steps)}, nor -1")
  right = row.get("final_answer_correct")
  if right is not None and right not in (True, False):
    raise Bad("final_answer_correct", f"{_short(right)} is neither true nor false")
  subset = match[1] if (match := _SUBSET.fullmatch(name)) else _stem(path)
  return Case(path, number, "ProcessBench", subset, name, _text(row.get("problem"), "problem"), steps, label,
              answer_right=None if right is None else bool(right)), 0


def _prmbench(row: dict, path: str, number: int) -> tuple[Case, int]:
  steps, name, known = _steps(row, "modified_process"), _id(row, "idx"), sum(CLASSES.values(), ())
  said = row.get("error_steps")
  if not isinstance(said, list):
    raise Bad("error_steps", f"not a list but {type(said).__name__}")
  named = {_whole(x, "error_steps") - 1 for x in said}
  wrong = tuple(sorted(x for x in named if 0 <= x < len(steps)))
  kind = row.get("classification")
  if kind is None:  # `idx` begins with it
    kind = next((x for x in known if name.startswith(f"{x}_")), None)
  if kind not in known:
    raise Bad("classification", "missing" if kind is None else f"{_short(kind)} is none of {', '.join(known)}")
  question = next((x for x in ("modified_question", "question", "original_question") if row.get(x)), "modified_question")
  return Case(path, number, "PRMBench", kind, name, _text(row.get(question), question), steps, wrong[0] if wrong else -1, wrong), len(named) - len(wrong)


def _mr(row: dict, path: str, number: int) -> tuple[Case, int]:
  steps = _steps(row, "model_output_step_format" if "model_output_step_format" in row else "model_output_steps")
  name = _id(row, "uuid" if "uuid" in row else "id")
  redundant = "model_output_solution_correctness" not in row
  label = _redundant(row, steps) if redundant else _mr_label(row, steps)
  answer = str(row.get("model_output_answer_correctness", "")).strip().lower()
  return Case(path, number, "MR redundant" if redundant else "MR", _stem(path), name, _text(row.get("question"), "question"), steps, label,
              answer_right={"correct": True, "wrong": False, "incorrect": False}.get(answer)), 0


def _mr_label(row: dict, steps: tuple[str, ...]) -> int:
  field, where = "model_output_solution_correctness", "model_output_solution_first_error_step"
  right = {"correct": True, "true": True, "wrong": False, "incorrect": False, "false": False}.get(str(row[field]).strip().lower())
  if right is None:
    raise Bad(field, f"{_short(row[field])} is neither correct nor wrong")
  said = row.get(where)
  none = said is None or isinstance(said, float) and math.isnan(said) or str(said).strip().lower() in ("n/a", "na", "none", "")
  if right and not none:
    raise Bad(where, f"{_short(said)} in a correct solution")
  if right:
    return -1
  if none:
    raise Bad(where, "missing in a wrong solution")
  label = _whole(said, where) - 1
  if not 0 <= label < len(steps):
    raise Bad(where, f"{_short(said)} is no step of {len(steps)}, counted from 1")
  return label


def _redundant(row: dict, steps: tuple[str, ...]) -> int:
  rating = row["rating"]
  if not isinstance(rating, list) or len(rating) != len(steps):
    raise Bad("rating", f"not a list of {len(steps)}, one for each step")
  return next((s for s, x in enumerate(rating) if _whole(x, "rating") < 1), -1)


_PARSE = {"ProcessBench": _processbench, "PRMBench": _prmbench, "MR": _mr}


def _text(value, name: str) -> str:
  if not isinstance(value, str) or isinstance(value, Number):
    raise Bad(name, "missing" if value is None else f"not a string but {'a number' if isinstance(value, Number) else type(value).__name__}")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise Bad(name, f"half a surrogate pair at character {error.start}") from error
  return value


def _steps(row: dict, name: str) -> tuple[str, ...]:
  """A list of steps; one that is a list itself, of lines, is one step."""
  value = row.get(name)
  if not isinstance(value, list) or not value:
    raise Bad(name, "missing" if value is None else "empty" if value == [] else f"not a list but {type(value).__name__}")
  if [] in value:
    raise Bad(name, f"step {value.index([])} has no line")
  return tuple("\n".join(_text(line, name) for line in step) if isinstance(step, list) else _text(step, name) for step in value)


def _id(row: dict, name: str) -> str:
  value = row.get(name)
  return "" if value is None else _text(str.__str__(value) if isinstance(value, str) else str(value), name)


def _whole(value, name: str) -> int:
  """A whole number, also spelt 2.0, '2' or 'Step 2'."""
  if isinstance(value, str) and (match := _STEP.fullmatch(value.strip())):
    return int(match[1])
  if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value in (math.inf, -math.inf) or value != int(value):
    raise Bad(name, "missing" if value is None else f"{_short(value)} is no whole number")
  return int(value)


def _short(value) -> str:
  return (str.__str__(value) if isinstance(value, Number) else repr(value))[:80]


def _stem(path: str) -> str:
  return re.split(r"[\\/]", path)[-1].split(".")[0] or path


def _rows(path: str) -> Iterator[tuple[int, dict | Bad]]:
  """(row, its fields or what is wrong with it)."""
  paths, _ = door.files_of(path, "test")
  if len(paths) > 1:
    raise UserError(f"{path} is a folder of {len(paths)} files: name the files")
  for number, row in door.rows(paths[0]):
    yield int(number), row
