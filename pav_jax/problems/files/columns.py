"""A row of somebody's file -> a `Problem`, by the names of its columns.

  1. A column is the first of the names given for it that the row has.
  2. The answer is a text, a number, or a list of all answers that are asked
     for. If its column is one of the solution's, or none is named, it is what
     the solution marks: a box, `####`, 'The answer is'.
  3. A solution is a text or a list of steps. These are joined by blank lines,
     which end a step under every rule of `steps`.
  4. How answers are compared is said by the column `dataset` where it names one
     of `problem.FAMILIES`; whatever else it says, `family` counts.
  5. Line ends of other systems become newlines, spaces of other widths a space,
     and spaces of no width nothing. In the bytes that a vocabulary spells them
     in, `steps` could not tell them from letters: a line that looks blank is no
     step.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from pav_jax.problems import fields as fields_lib
from pav_jax.problems.fields import Bad
from pav_jax.problems.problem import FAMILIES
from pav_jax.problems.problem import Problem
from pav_jax.problems.problem import stated_answer

# What stands in place of an answer where a set has none.
PLACEHOLDERS = frozenset({"proof", "notfound", "not found", "n/a", "na", "null", "nan", "no answer", "unknown", "todo", "tbd",
                          "answer not found", "see solution", "see the solution", "?", "-", "--", "...", "…"})
_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_NOTHING = re.compile("[\u200b\u2060\ufeff]")


class Columns(NamedTuple):
  """For each part of a problem the names that its column may have; none: there is no such column, and `answer` is in the solution's."""

  question: tuple[str, ...] = ("question", "problem", "query")
  answer: tuple[str, ...] = ("answer", "final_answer", "expected_answer")
  solution: tuple[str, ...] = ("solution", "generated_solution", "response")
  id: tuple[str, ...] = ("id", "unique_id")
  dataset: tuple[str, ...] = ("dataset",)

  def names(self) -> tuple[str, ...]:
    """All names, each once."""
    return tuple(dict.fromkeys(name for part in self for name in part))

  def missing(self, there: list[str]) -> tuple[str, str]:
    """(what keeps a file with these columns from being read, with the way out; what was asked for by name and need not be there)."""
    wanted = self._asdict() | {"answer": self.answer or self.solution}
    lines = {part: f"no column {' or '.join(names)}; there are {', '.join(there[:30])}: problems.columns.{part}=NAME"
             for part, names in wanted.items() if not set(names) & set(there)}
    if "answer" in lines:
      lines["answer"] += ", or, to take what a solution states, the name of the solution's column"
    asked = [line for part, line in lines.items() if wanted[part] and wanted[part] != self._field_defaults[part]]
    return lines.get("question") or lines.get("answer") or "", "; ".join(asked)


def problem(fields: Mapping, columns: Columns, name: str, family: str) -> Problem:
  """The problem in a row; name: its id where the row has none. Raises Bad."""
  at = {part: next((n for n in names if fields.get(n) is not None), names[0] if names else "")
        for part, names in (columns._asdict() | {"answer": columns.answer or columns.solution}).items()}
  said = fields.get(at["dataset"])
  said = said.lower() if isinstance(said, str) else ""
  family = said if said in FAMILIES else family
  question = plain(fields_lib.text(fields, at["question"]))
  solution = _solution(fields, at["solution"])
  if at["answer"] in columns.solution:
    marks = _solution(fields, at["answer"])
    answer = stated_answer(marks, family)
    if not answer:
      raise Bad(at["answer"], r"marks no answer (\boxed{}, #### or 'The answer is')" if marks else "missing")
  else:
    answer = _answer(fields, at["answer"])
    if family == "math" and "####" in answer:
      raise Bad(at["answer"], "holds a solution (####), no answer: "
                f"problems.columns.solution={at['answer']} takes what it states, with problems.family=gsm8k")
  if answer.lower().strip("$ .") in PLACEHOLDERS:
    raise Bad(at["answer"], f"{answer!r} is no answer")
  return Problem(fields_lib.text(fields, at["id"], default=name, number=True) or name, family, question, solution, answer)


def plain(text: str) -> str:
  """The text with newlines as its only line ends and spaces as its only spaces (and tabs)."""
  return _NOTHING.sub("", _SPACES.sub(" ", fields_lib.with_newlines(text)))


def _answer(fields: Mapping, name: str) -> str:
  value = fields.get(name)
  if not isinstance(value, list):
    return fields_lib.text(fields, name, number=True).strip()
  if not value:
    raise Bad(name, "empty")
  return ", ".join(_items(value, name, "answer", number=True)).strip()


def _solution(fields: Mapping, name: str) -> str:
  value = fields.get(name)
  if not isinstance(value, list):
    return plain(fields_lib.text(fields, name, default=""))
  return "\n\n".join(plain(step).strip("\n") for step in _items(value, name, "step"))


def _items(value: list, name: str, what: str, *, number: bool = False) -> list[str]:
  found = []
  for i, item in enumerate(value, 1):
    try:
      found.append(fields_lib.text({name: item}, name, number=number))
    except Bad as bad:
      raise Bad(name, f"{what} {i} is {bad.args[1]}") from bad
  return found
