"""Published answers: each equal to itself, in a second usual spelling too, and to nothing else.

The data is not part of the project: PAV_JAX_DATA names its folder, and without it these tests skip.
"""

import collections
import io
import json
import os
import pathlib
import re
import tarfile

import pytest

from pav_jax.grading import answers
from pav_jax.grading import boxes
from pav_jax.grading import grading
from pav_jax.grading import structure
from tests.grading import kinds

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("PAV_JAX_DATA", ROOT.parent / "shared" / "data"))
CORRECT, INCORRECT, UNGRADABLE = grading.Verdict.CORRECT, grading.Verdict.INCORRECT, grading.Verdict.UNGRADABLE
NO_ANSWER = {"train/number_theory/7115.json", "train/number_theory/7117.json"}  # their boxes are empty


def _file(name):
  path = DATA / name
  if not path.exists():
    pytest.skip(f"no real data: {path} is absent (PAV_JAX_DATA names the folder)")
  return path


def _real(name):
  return [json.loads(line) for line in _file(name).read_text(encoding="utf-8").splitlines()]


def _perturbed(answer):
  """The answer with one more in its first digit; text gets another letter."""
  if re.search(r"\d", answer):
    return re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), answer, count=1)
  return re.sub(r"[a-zA-Z](?=\W*$)", "z", answer)


@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_agrees_with_itself(grader, split):
  solutions = [row["answer"] for row in _real(f"gsm8k/{split}.jsonl")]
  references = [solution.rpartition("####")[2].strip() for solution in solutions]
  assert {grade.verdict for grade in grader.grade(references, solutions, "gsm8k")} == {CORRECT}
  assert {grade.verdict for grade in grader.grade(solutions, solutions, "gsm8k")} == {CORRECT}
  wrong = [f"The answer is {_perturbed(reference)}." for reference in references]
  assert {grade.verdict for grade in grader.grade(solutions, wrong, "gsm8k")} == {INCORRECT}


def test_math_500_agrees_with_itself(grader):
  rows = _real("prm800k/math_splits/test.jsonl")
  golds = [row["answer"] for row in rows]
  for form in ("# Answer\n\n{}", "The answer is ${}$.", "So we find ${}$.", r"\fbox{{{}}}"):
    grades = grader.grade(golds, [form.format(gold) for gold in golds], "math")
    assert [gold for gold, grade in zip(golds, grades) if grade.verdict != CORRECT] == []
  grades = grader.grade([row["solution"] for row in rows], [row["solution"] for row in rows], "math")
  assert {grade.verdict for grade in grades} == {CORRECT}
  grades = grader.grade(golds, [kinds.boxed(_perturbed(gold)) for gold in golds], "math")
  assert [gold for gold, grade in zip(golds, grades) if grade.verdict == CORRECT] == []


@pytest.fixture(scope="module", name="solutions")
def _solutions():
  """name -> solution of all of MATH."""
  with tarfile.open(fileobj=io.BytesIO(_file("MATH.tar.gz").read_bytes())) as archive:
    return {member.name.partition("/")[2]: json.load(archive.extractfile(member))["solution"]
            for member in archive if member.name.endswith(".json")}  # fmt: skip


def _other_fractions(answer):
  other = {r"\frac": r"\dfrac", r"\dfrac": r"\tfrac", r"\tfrac": r"\frac"}
  return re.sub(r"\\[dt]?frac(?![a-zA-Z])", lambda match: other[match[0]], answer)


def _other_brackets(answer):
  if r"\left" in answer:
    return re.sub(r"\\(?:left|right)(?=[()\[\]])", "", answer)
  pairs = answer.count("(") == answer.count(")") and "[" not in answer and "]" not in answer
  return re.sub(r"(?<!\\)\(", r"\\left(", re.sub(r"(?<!\\)\)", r"\\right)", answer)) if pairs else answer


def _other_spaces(answer):
  parts = re.split(r"(\\(?:text|mbox|textbf|begin|end)\s*\{[^{}]*\})", answer)
  for i in range(0, len(parts), 2):
    parts[i] = re.sub(r",(?!\d{3}(?!\d)|\\!)\s*", ", ", parts[i])
    parts[i] = re.sub(r"(?<=[\w)}])\s*([-+=])\s*(?=[\w\\(])", r" \1 ", parts[i])
  return f" {''.join(parts)} "


def _other_order(answer):
  parts = structure.split(answer, (",",))
  one = len(parts) == 1 or re.search(r"\d,\s?(?:\\!)?\s?\d{3}(?!\d)", answer) or "=" in answer
  return answer if one or boxes.OR_ELSE in answer else ", ".join(reversed(parts))


@pytest.mark.parametrize("respell, least", [(_other_fractions, 2000), (_other_brackets, 450), (_other_spaces, 12400), (_other_order, 150)])
def test_every_reference_of_math_equals_itself_in_a_second_spelling(grader, solutions, respell, least):
  stated = {name: answers.reference_answer(solution, "math") for name, solution in solutions.items()}
  assert {name for name, answer in stated.items() if not answer} == NO_ANSWER
  spelt = {name: (answer, respell(answer)) for name, answer in stated.items() if answer and boxes.OR_ELSE not in answer}
  spelt = {name: both for name, both in spelt.items() if both[0] != both[1]}
  assert len(spelt) >= least
  grades = grader.grade([answer for answer, _ in spelt.values()], [kinds.boxed(other) for _, other in spelt.values()], "math")
  assert [(name, *both, grade.reason) for (name, both), grade in zip(spelt.items(), grades) if grade.verdict != CORRECT] == []


def test_every_reference_of_math_can_be_compared_with(grader, solutions):
  named = {name: solution for name, solution in solutions.items() if name not in NO_ANSWER}
  faults = grader.reference_faults(list(named.values()), "math")
  assert {name: fault for name, fault in zip(named, faults) if fault} == {}


def test_references_of_several_boxes(solutions):
  """Of the solutions with several boxes these state several answers; the others say one again, or correct it."""
  kinds = collections.Counter()
  for solution in solutions.values():
    last = boxes.boxed(solution[max(solution.rfind(r"\boxed"), solution.rfind(r"\fbox")) :]).content
    content = boxes.boxed(solution).content
    if content != last:
      kinds["either" if boxes.OR_ELSE in content else "or" if r"\text{ or }" in content else "list"] += 1
  assert kinds == {"list": 15, "or": 10, "either": 6}
