r"""Rows that would poison a run, found before anything is made of them.

No problem at all, so that they count against `problems.max_malformed`:

  references with which the grader can compare nothing

Problems, but not what they seem. They are told, and stay unless
`problems.leave_out` names their kind:

  contradiction  the answer is another than the one that the solution marks
  duplicate      the question was there before
  leak           the question is in the test split too, or in validation
  escapes        `\n` spelt out where a line should end, or a backslash that
                 JSON took for its own: `\frac` is a form feed and "rac"
  special        the text spells a special token, as `<eos>`; it is encoded as
                 text (`vocabulary`), but for Gemma's marks of a turn, which a
                 prompt may want
  unsolved       there is no solution to imitate, so that `sft` would refuse it;
                 RL needs none. Not looked for in the test split

Problems of our own generator are exact, apart and sometimes wrong on purpose:
only their references are looked at.
"""

import collections
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.problems.problem import Malformed
from pav_jax.problems.problem import Problem
from pav_jax.problems.problem import stated_answer
from pav_jax.training import metrics

KINDS = {"contradiction": "answers contradict their own solution", "duplicate": "questions occur before",
         "leak": "questions are held out, too", "escapes": r"texts hold a \n spelt out or a backslash that JSON has eaten",
         "special": "texts spell a special token", "unsolved": "have no solution, and stage sft needs one"}
# Not LaTeX's own: \nu, \neq, \nabla, and the four that go on in capitals.
_ESCAPES = re.compile(r"(?<!\\)\\n(?![a-z]|(?:Left|Right|Vdash|VDash))|[\x08\x0c]")
_SPECIAL = re.compile(r"<(?:unused\d+|pad|eos|bos|unk|start_of_turn|end_of_turn)>")
_BLOCK = 1000


class Finding(NamedTuple):
  """One problem, of which `said` tells what is odd."""

  kind: str
  problem: Problem
  said: str


def check(leave_out: Collection[str]):
  """UserError for a kind that there is not."""
  if unknown := set(leave_out) - KINDS.keys():
    raise UserError(f"config.problems.leave_out {min(unknown)!r} is none of {', '.join(KINDS)}")


def unsound(problems: Sequence[Problem], places: Sequence[tuple[str, str]], grader: grading.Grader) -> list[tuple[Problem, Malformed]]:
  """The problems whose reference the grader cannot compare with, each with the reason; places: the file or set and the row of each."""
  found = []
  for start in metrics.progress(range(0, len(problems), _BLOCK), what="references", unit=f"x{_BLOCK}", delay=3):
    some = problems[start:start + _BLOCK]
    faults = grader.reference_faults([p.answer for p in some], [p.dataset for p in some])
    found += [(p, Malformed(*place, "answer", f"the reference {fault}"))
              for p, place, fault in zip(some, places[start:start + _BLOCK], faults) if fault]
  return found


def look(problems: Sequence[Problem], held_out: Mapping[str, str], grader: grading.Grader, *, imitated: bool = False) -> list[Finding]:
  """What is odd with these problems, whose references are sound.

  held_out: `key` of a question -> the split that it must not leave. imitated: their solutions are what `sft` learns from.
  """
  found, first = [], {}
  for problem in problems:
    question = key(problem.question)
    if question in first:
      found.append(Finding("duplicate", problem, f"{first[question]} asks the same"))
    first.setdefault(question, problem.id)
    if question in held_out:
      found.append(Finding("leak", problem, f"it is in {held_out[question]}"))
    if imitated and not problem.solution.strip():
      found.append(Finding("unsolved", problem, _short(problem.question)))
    text = f"{problem.question}\n{problem.solution}"
    for kind, pattern in (("escapes", _ESCAPES), ("special", _SPECIAL)):
      if match := pattern.search(text):
        found.append(Finding(kind, problem, repr(text[max(match.start() - 15, 0):match.end() + 15])))
  return found + _contradictions(problems, grader)


def _contradictions(problems: Sequence[Problem], grader: grading.Grader) -> list[Finding]:
  marked = [(p, stated) for p in problems if p.solution and (stated := stated_answer(p.solution, p.dataset)) not in (None, p.answer)]
  found = []
  for start in metrics.progress(range(0, len(marked), _BLOCK), what="solutions", unit=f"x{_BLOCK}", delay=3):
    some = marked[start:start + _BLOCK]
    grades = grader.grade([p.answer for p, _ in some], [p.solution for p, _ in some], [p.dataset for p, _ in some])
    found += [Finding("contradiction", p, f"the answer is {_short(p.answer)}, the solution marks {_short(stated)}")
              for (p, stated), grade in zip(some, grades) if grade.verdict == grading.Verdict.INCORRECT]
  return found


def key(question: str) -> str:
  """What two questions that differ in white space alone have in common."""
  return " ".join(question.split())


def lines(findings: Iterable[Finding], of: str, count: int, leave_out: Collection[str]) -> list[str]:
  """A line for each kind found among `count` problems: how many, what happens to them, and the first. of: what they are of.

  Of a kind that all are of, none says how to leave it out: nothing would be left.
  """
  by_kind = collections.defaultdict(list)
  for finding in findings:
    by_kind[finding.kind].append(finding)
  said = []
  for kind in KINDS:
    if some := by_kind[kind]:
      way = "left out" if kind in leave_out else "kept" + f"; problems.leave_out={kind} leaves them out" * (len(some) < count)
      said.append(f"{of}: {len(some)} of {count} {KINDS[kind]} ({way}); first {some[0].problem.id}: {some[0].said}")
  return said


def _short(text: str) -> str:
  return repr(text if len(text) <= 40 else text[:37] + "...")
