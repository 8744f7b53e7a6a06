"""Verdicts: exact cases, published answers against themselves, and text that means harm."""

import itertools
import json
import pathlib
import subprocess
import sys
import time

import pytest

from pav_jax import errors
from pav_jax import grade
from pav_jax.grading import answers
from pav_jax.grading import grading
from pav_jax.grading import workers
from tests.grading import kinds

ROOT = pathlib.Path(__file__).parents[2]
CORRECT, INCORRECT, UNGRADABLE = grading.Verdict.CORRECT, grading.Verdict.INCORRECT, grading.Verdict.UNGRADABLE
SLOW = r"9^{9^{9^9}}"


def test_grading_knows_which_responses_ended(grader):
  responses = ["so 5", "so 5", r"\boxed{5}", r"\boxed{5}"]
  grades = grader.grade(["5"] * 4, responses, "math", [True, False, True, False])
  assert grades == [(CORRECT, "5", ""), (UNGRADABLE, None, "no answer"), (CORRECT, "5", ""), (CORRECT, "5", "")]
  assert grader.grade(["5"] * 4, responses, "math", ended=False)[0].verdict == UNGRADABLE


CASES = [
    # dataset, reference, response, verdict, reason
    ("gsm8k", "So 4*18 = <<4*18=72>>72.\n#### 72", "#### 72", CORRECT, ""),
    ("gsm8k", "72", "The answer is $72.00.", CORRECT, ""),
    ("gsm8k", "1,080", "#### 1080 miles", CORRECT, ""),
    ("gsm8k", "72", "#### 73", INCORRECT, ""),
    ("gsm8k", "72", "#### -72", INCORRECT, ""),
    ("gsm8k", "72", "I do not know.", UNGRADABLE, "no answer"),
    ("arithmetic", "17", "9+8=17\n#### 17", CORRECT, ""),
    ("arithmetic", "#### 17", "#### 18", INCORRECT, ""),
    ("arithmetic", "17", "9+8=17", UNGRADABLE, "no answer"),
    ("arithmetic", "17", "#### 1 7", UNGRADABLE, "unparsable"),
    ("math", r"The sum is $\boxed{5}$.", "# Answer\n\n5", CORRECT, ""),
    ("math", "5", r"\boxed{5 +}", UNGRADABLE, "unparsable"),
    ("math", "5", r"\boxed{}", UNGRADABLE, "no answer"),
]


@pytest.mark.parametrize("dataset, reference, response, verdict, reason", CASES)
def test_verdicts(grader, dataset, reference, response, verdict, reason):
  assert grader.grade([reference], [response], dataset)[0][::2] == (verdict, reason)


def test_a_long_reference_is_called_long(grader):
  fault = grader.reference_faults(["x+" * 600 + "1", "x"], "math")
  assert fault == ["has 1201 characters, more than 1000", ""]
  assert grader.reference_faults([r"\boxed{" + "x+" * 600 + "1}"], "math") == fault[:1]


def test_a_reference_that_accepts_either_gives_no_answer_that_right(grader):
  reference = r"$\boxed{(0,0)}$ and $\boxed{(1,1)}$. (Either point is an acceptable answer.)"
  responses = [kinds.boxed(x) for x in ("(0,0)", "(1,1)", "(1,1),(0,0)", "(2,2)")] + [reference]
  grades = grader.grade([reference] * 5, responses, "math")
  assert [grade.verdict for grade in grades] == [CORRECT, CORRECT, CORRECT, INCORRECT, CORRECT]
  assert grader.grade(["(0,0)", "(1,1)"], [reference] * 2, "math")[0].verdict == INCORRECT


BAD_REFERENCES = [
    ("math", ""), ("math", r"We get $\boxed{}$."), ("math", "5 +"), ("math", r"\frac{1}{"), ("gsm8k", "#### none"),
    ("gsm8k", "He pays 3 for 4 of them, 12 in all."), ("arithmetic", "x"), ("arithmetic", "####"),
]  # fmt: skip


@pytest.mark.parametrize("dataset, reference", BAD_REFERENCES)
def test_a_reference_without_an_answer_is_named(grader, dataset, reference):
  with pytest.raises(errors.UserError, match="train/7: the reference"):
    grader.require_sound(["5", reference], ["math", dataset], ["train/6", "train/7"])
  with pytest.raises(errors.UserError, match="row 1"):
    grader.grade(["5", reference], ["#### 5"] * 2, ["math", dataset])


def test_check_references_stands_alone():
  grading.check_references(["#### 72", "3"], "gsm8k")
  with pytest.raises(errors.UserError, match="row 1: the reference states no answer"):
    grading.check_references(["#### 72", "####"], "gsm8k")


HOSTILE = {
    "brackets": r"\boxed{" + "(" * 100_000 + "}",
    "open boxes": r"\boxed{" * 100_000,
    "nested boxes": r"\boxed{" * 100_000 + "}" * 100_000,
    "a long number": r"\boxed{" + "9" * 100_000 + "}",
    "a long sum": r"\boxed{" + "9" * 900 + "+1}",
    "zeros": r"\boxed{" + "0" * 100_000 + "x}",
    "NUL": "\\boxed{\x00\\frac\x00}",
    "a surrogate": "\\boxed{\ud800}",
    "unbalanced": r"\boxed{\frac{1}{}",
    "deep roots": r"\boxed{" + r"\sqrt{" * 150 + "2" + "}" * 151,
    "spaces": r"\boxed{5" + " " * 100_000 + "x}",
    "markers": "answer is " * 20_000,
    "hashes": "#" * 100_000,
    "notes": "<<a" * 50_000,
    "commas": "#### " + "1,234," * 20_000,
    "code": r"""\boxed{__import__("os").abort()}""",
    "1/0": r"\boxed{1/0}",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("dataset", answers.DATASETS)
def test_hostile_text_is_neither_correct_nor_slow(grader, name, dataset):
  grader.grade(["7"], [r"\boxed{x+1}"], "math")  # start the workers first
  start = time.monotonic()
  assert grader.grade(["7"], [HOSTILE[name]], dataset)[0].verdict != CORRECT
  assert time.monotonic() - start < 5


def _watch(monkeypatch, said):
  """Workers that read as `said` does; what they were asked for, in order."""
  asked = []

  def read(self, texts):
    texts = list(texts)
    asked.extend(texts)
    return {text: said(text) for text in texts}

  monkeypatch.setattr(workers.Workers, "read", read)
  return asked


def test_each_distinct_answer_is_read_once(monkeypatch):
  asked = _watch(monkeypatch, {"2^{-1}": '["number", "1/2"]', "x": '["words", "x"]'}.get)
  grader = grading.Grader()
  # Numbers and the same text need no worker at all.
  grades = grader.grade(["72"] * 4, ["#### 72", "#### 72.0", "#### 73", "no"], "gsm8k")
  assert [grade.verdict for grade in grades] == [CORRECT, CORRECT, INCORRECT, UNGRADABLE]
  half = r"\frac{1}{2}"
  grades = grader.grade([half] * 3, [kinds.boxed(half), kinds.boxed("2/4"), kinds.boxed(r"\text{half}")], "math")
  assert [grade.verdict for grade in grades] == [CORRECT, CORRECT, INCORRECT]
  assert not asked
  grades = grader.grade([half] * 3000, [kinds.boxed(half), kinds.boxed("x"), kinds.boxed("2^{-1}")] * 1000, "math")
  assert [grade.verdict for grade in grades] == [CORRECT, INCORRECT, CORRECT] * 1000
  assert sorted(asked) == ["2^{-1}", "x"]
  # Nor does another reference make it read again.
  assert grader.grade(["x"], [kinds.boxed("2^{-1}")], "math")[0].verdict == INCORRECT
  assert grader.grade(["0.5"] * 10, [kinds.boxed("2^{-1}")] * 10, "gsm8k") == [(CORRECT, "2^{-1}", "")] * 10
  assert sorted(asked) == ["2^{-1}", "x"]


HALVES = [r"\frac{1}{2}", "3", r"\frac12", "0.5", "3", r"\dfrac{1}{2}", "1/2"]


def test_answers_of_one_value_are_one_class(grader):
  grades = grader.grade([r"\frac{1}{2}"] * 8, [*map(kinds.boxed, HALVES), "no idea"], "math")
  found, counts = grader.classes(grades, "math", [0] * 8)
  assert found == [0, 1, 0, 0, 1, 0, 0, -1]
  # All halves are one reading: it is compared with the other one, once.
  assert counts == {"comparisons of answers": 1}
  # Another problem's answers are other classes, of other answers: nobody is compared across.
  found, counts = grader.classes(grades[:4], "math", [0, 1, 1, 0])
  assert found == [0, 0, 1, 0] and counts == {"comparisons of answers": 1}
  assert grader.classes([], "math", []) == ([], {})


def _answers(grader, stated, reference="7"):
  """Their classes and the counts."""
  grades = grader.grade([reference] * len(stated), [kinds.boxed(a) for a in stated], "math")
  return grader.classes(grades, "math", [0] * len(stated))


def test_classes_are_greedy_where_a_part_is_missing(grader):
  """5 is 5 cm and 5 m, which are two: the order decides who opens."""
  assert _answers(grader, ["5", r"5\text{ cm}", r"5\text{ m}", "5"])[0] == [0, 0, 0, 0]
  assert _answers(grader, [r"5\text{ cm}", "5", r"5\text{ m}"])[0] == [0, 0, 1]
  assert _answers(grader, [r"5\text{ cm}", r"5\text{ m}", "5"])[0] == [0, 1, 0]


def test_many_answers_cost_one_reading_each(monkeypatch):
  asked = _watch(monkeypatch, lambda text: f'["decimal", "{len(text)}", "1"]')
  grader = grading.Grader()
  stated = ["x+" * n + "1" for n in range(1, 41)] * 25
  found, counts = _answers(grader, stated)
  assert found == list(range(40)) * 25
  assert len(asked) == 40 and counts == {"comparisons of answers": 40 * 39 // 2}


def test_what_could_not_be_read_is_equal_to_itself_alone(monkeypatch):
  said = {"9^9": "timeout", "x": '["words", "x"]', "y": "out of memory"}
  asked = _watch(monkeypatch, lambda text: said.get(text, "unparsable"))
  grader = grading.Grader()
  long = "x+" * 600
  found, counts = _answers(grader, ["9^9", "5 +", long + "1", long + "2", "9^{9}", "x"])
  assert found == [0, 1, 2, 3, 0, 4] and counts == {"comparisons of answers": 0}
  assert asked.count("9^9") == 1  # it would take its time again
  # Against words they are wrong rather than ungradable, and still not equal to one another; who is left out is counted.
  found, counts = _answers(grader, [long + "1", long + "2", "y", "x", "y"], r"\text{even}")
  assert found == [0, 1, 2, 3, 2] and counts == {"comparisons of answers": 0, "not compared: out of memory": 1}


def test_grades_keep_the_order_of_the_rows(grader):
  pairs = [(str(a), f"{b}+1") for a, b in itertools.product(range(6), range(6))]
  grades = grader.grade([a for a, _ in pairs], [kinds.boxed(b) for _, b in pairs], "math")
  assert [grade.verdict == CORRECT for grade in grades] == [int(a) == int(b[0]) + 1 for a, b in pairs]
  assert grader.grade([], [], "math") == []
  with pytest.raises(ValueError):
    grader.grade(["1"], ["2", "3"], "math")


def test_importing_loads_no_heavy_library():
  code = (
      "import sys, pav_jax.grade\n"
      "print({'jax', 'tensorflow', 'gemma', 'sympy', 'latex2sympy2_extended', 'numpy'} & set(sys.modules))"
  )
  run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert run.stdout == "set()\n"


def _run(*arguments):
  command = [sys.executable, "-m", "pav_jax.grade", *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_grades_good_rows_and_reports_bad_ones(tmp_path):
  good = [
      {"id": 1, "reference": "#### 72", "response": "#### 72", "dataset": "gsm8k"},
      {"reference": r"\frac{1}{2}", "response": r"\boxed{0.5}", "dataset": "math", "verdict": "old"},
      {"reference": "5", "response": r"\boxed{6}", "dataset": "math"},
      {"reference": "5", "response": rf"\boxed{{{SLOW}}}", "dataset": "math"},
      {"reference": "5", "response": "Café \u2028", "dataset": "math"},
      {"reference": "5", "response": "so 5", "dataset": "math", "ended": False},
  ]
  bad = [
      (b'{"reference": "5", "resp', "row 7: not JSON"),
      (b'{"reference": "5", "response": "caf\xe9"}', "row 8: not UTF-8 at byte 35"),
      (b'{"reference": "5", "dataset": "math"}', "row 9: field 'response': missing"),
      (b'{"reference": "5", "response": 5, "dataset": "math"}', "row 10: field 'response': not a string but int"),
      (b'{"reference": "5", "response": "5", "dataset": "m\\n"}', r"row 11: field 'dataset': 'm\n' is not one of"),
      (b'{"reference": "5 +", "response": "5", "dataset": "math"}', "row 12: field 'reference': is unparsable: '5 +'"),
      (b'{"reference": "5", "response": "5", "dataset": "math", "ended": 1}', "row 13: field 'ended': not true or false but int"),
      (b"[1]", "row 14: not an object but list"),
      (b"[" * 100_000, "row 15: not JSON"),
  ]
  path = tmp_path / "rows.jsonl"
  path.write_bytes(b"\n".join([json.dumps(row).encode() for row in good] + [line for line, _ in bad]) + b"\n\n")
  run = _run(path, "--timeout=1", "--workers=1")
  assert run.returncode == 1, run.stderr
  assert "Traceback" not in run.stderr
  for _, report in bad:
    assert f"{path}: {report}" in run.stderr
  output = tmp_path / "rows.graded.jsonl"
  assert run.stdout == (
      f"{output}: 2 correct, 1 incorrect, 3 ungradable, 9 error (ungradable: 2 no answer, 1 timeout)\n"
  )
  written = [json.loads(line) for line in output.read_bytes().splitlines()]
  verdicts = ["correct", "correct", "incorrect", "ungradable", "ungradable", "ungradable"] + ["error"] * 9
  assert [row["verdict"] for row in written] == verdicts
  assert written[0] == {**good[0], "verdict": "correct", "answer": "72", "reason": ""}
  assert [row["reason"] for row in written[3:6]] == ["timeout", "no answer", "no answer"]
  assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.graded.jsonl", "rows.jsonl"]


def test_the_command_ends_well_or_says_why_not(tmp_path, capsys):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"reference": "5", "response": "#### 5", "dataset": "arithmetic"}\n')
  assert grade.main([str(path), f"--output={tmp_path}/out.jsonl"]) == 0
  run = capsys.readouterr()
  assert run.out == f"{tmp_path}/out.jsonl: 1 correct, 0 incorrect, 0 ungradable, 0 error\n"
  assert "1/1" in run.err  # progress
  for arguments in (
      [f"{path}.none"], [path, f"--output={path}"], [path, "--workers=0"], [path, "--timeout=-1"], [tmp_path],
      [path, f"--output={tmp_path}/none/out.jsonl"],
  ):  # fmt: skip
    assert grade.main(list(map(str, arguments))) == 2
    run = capsys.readouterr()
    assert run.err.startswith("error: ") and run.err.count("\n") == 1 and not run.out




@pytest.mark.parametrize("answer", ["e^{10^{10}}", "e^{-10^{7}}", "ie^{10^{8}}", r"\pi^{10^{7}}", "e^{10^{25}}"])
def test_what_no_decimal_can_hold_stops_nothing(answer):
  with grading.Grader(num_workers=1) as grader:
    (grade,) = grader.grade(["7"], [rf"\boxed{{{answer}}}"], "math")
  assert grade.verdict != grading.Verdict.CORRECT
