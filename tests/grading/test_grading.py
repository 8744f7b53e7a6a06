"""Verdicts: exact cases, published answers against themselves, and text that means harm."""

import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from pav_jax import errors
from pav_jax import grade
from pav_jax.grading import answers
from pav_jax.grading import grading
from pav_jax.grading import workers

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("PAV_JAX_DATA", ROOT.parent / "shared" / "data"))
CORRECT, INCORRECT, UNGRADABLE = grading.Verdict.CORRECT, grading.Verdict.INCORRECT, grading.Verdict.UNGRADABLE
SLOW = r"9^{9^{9^9}}"


@pytest.fixture(scope="module", name="grader")
def _grader():
  with grading.Grader(num_workers=2, timeout_s=20) as grader:
    yield grader


def _boxed(answer):
  return rf"So the answer is $\boxed{{{answer}}}$."


EXTRACTED = [
    # dataset, response, answer
    ("gsm8k", "She has 20+6 = <<20+6=26>>26 left.\n#### 26", "26"),
    ("gsm8k", "#### 12\nwait, no\n#### 26", "26"),
    ("gsm8k", "#### $1,234.50.", "1234.50"),
    ("gsm8k", "#### -$5", "-5"),
    ("gsm8k", "#### $-5", "-5"),
    ("gsm8k", "#### <<13*2=26>>26 eggs", "26"),
    ("gsm8k", "She has 20 + 6 = 26.\nA: 26", "26"),
    ("gsm8k", "A: 26 apples\n\nQ: What next?", "26"),
    ("gsm8k", "A: 16 - 3 = 13 eggs a day.\nIn 2 days she has 26", "26"),
    ("gsm8k", "Q: How many?\nA: Let us see. The answer is 26.", "26"),
    ("gsm8k", "The answer is 20 + 6 = 26 apples. There are 3 more.", "26"),
    ("gsm8k", "The answer is unclear. She has 26", "26"),
    ("gsm8k", r"\boxed{13} at first; the final answer is: **26**", "26"),
    ("gsm8k", r"The answer is 13, so twice as many: \boxed{26\text{ eggs}}", "26"),
    ("gsm8k", "# Answer\n\n26 eggs", "26"),
    ("gsm8k", "She sold 20-6=14 eggs, that is 14 eggs", "14"),
    ("gsm8k", "She sold 20-6", "6"),
    ("gsm8k", "She has 26 +", None),
    ("gsm8k", "No idea", None),
    ("gsm8k", "", None),
    ("math", r"$\boxed{1}$ and then $\boxed{\frac{1}{2}}$ as $x=3$", r"\frac{1}{2}"),
    ("math", r"\boxed{\left\{1, \{2\}\right\}}", r"\left\{1, \{2\}\right\}"),
    ("math", r"\boxed{3 \} 4}", r"3 \} 4"),
    ("math", r"\fbox{7}", "7"),
    ("math", r"is $\boxed 5$.", "5"),
    ("math", r"is $\boxed \frac{1}{2}$.", r"\frac{1}{2}"),
    ("math", r"\boxed {17}", "17"),
    ("math", r"\boxed{4}, and as a check # Answer\n5", "4"),
    ("math", "\\boxed{4}\n# Answer\n\n5", "4"),
    ("math", r"\boxed{4} then \boxed{}", None),
    ("math", r"\boxed{4} then \boxed{5", "4"),
    ("math", r"so it is \boxed{5", None),
    ("math", "Work.\n\n# Answer\n\n42", "42"),
    ("math", "# Answer\n\n$x = 5$\n\nwhich is odd", "$x = 5$"),
    ("math", "## Final Answer: 42", "42"),
    ("math", "# Answer\n\n12\n\n# Answer\n\n42", "42"),
    ("math", "#### 42", "42"),
    ("math", "A: 42", "42"),
    ("math", r"Final Answer: The final answer is $\frac{1}{2}$. I hope it is correct.", r"$\frac{1}{2}$"),
    ("math", "**Answer:** 3.5", "3.5"),
    ("math", "The answer is $5$ or $7$.", "$5$ or $7$"),
    ("math", "Hence $x+1=3$ and so $x=2$.", "x=2"),
    ("math", "we get 12 and then 42.", "42"),
    ("math", "we get $x =", None),
    ("arithmetic", "3+4=7\n#### 7", "7"),
    ("arithmetic", "#### 7\n#### 8\n3", "8"),
    ("arithmetic", "3+4=7", None),
    ("arithmetic", "####\n7", None),
]


@pytest.mark.parametrize("dataset, response, answer", EXTRACTED)
def test_extracts_the_stated_answer(dataset, response, answer):
  assert answers.extract_answer(response, dataset) == answer


CUT_OFF = [
    # dataset, response, answer if it ended, answer if it was cut off
    ("math", "we get 12 and then 42", "42", None),
    ("math", "Hence $x+1=3$ and so $x=2$.", "x=2", None),
    ("math", r"The answer is $\frac{1}{2}$.", r"$\frac{1}{2}$", None),
    ("math", "# Answer\n\n42", "42", None),
    ("math", r"\boxed{4} and so on, up to 5", "4", "4"),
    ("math", r"it is \boxed{5", None, None),
    ("math", "#### 42", "42", "42"),
    ("gsm8k", "She has 20+6 = 26", "26", None),
    ("gsm8k", "A: 16 - 3", "16", None),
    ("gsm8k", "The answer is 26.", "26", None),
    ("gsm8k", "She has 26.\n#### 26", "26", "26"),
    ("gsm8k", r"She has \boxed{26} eggs and 3", "26", "26"),
    ("arithmetic", "3+4=7\n#### 7", "7", "7"),
    ("arithmetic", "3+4=7", None, None),
]


@pytest.mark.parametrize("dataset, response, ended, cut_off", CUT_OFF)
def test_without_an_end_only_a_mark_states_an_answer(dataset, response, ended, cut_off):
  assert answers.extract_answer(response, dataset) == ended
  assert answers.extract_answer(response, dataset, ended=False) == cut_off


def test_grading_knows_which_responses_ended(grader):
  responses = ["so 5", "so 5", r"\boxed{5}", r"\boxed{5}"]
  grades = grader.grade(["5"] * 4, responses, "math", [True, False, True, False])
  assert grades == [(CORRECT, "5", ""), (UNGRADABLE, None, "no answer"), (CORRECT, "5", ""), (CORRECT, "5", "")]
  assert grader.grade(["5"] * 4, responses, "math", ended=False)[0].verdict == UNGRADABLE


def test_an_unknown_data_set_is_an_error():
  with pytest.raises(ValueError, match="maths"):
    answers.extract_answer("5", "maths")


EQUAL = [
    # reference, answer: equal in both directions
    (r"\frac{1}{2}", "0.5"), (r"\frac12", r"\dfrac{1}{2}"), (r"\frac{1}{2}", "1/2"), (r"\frac{625}4", "156.25"),
    (r"2\sqrt{3}", r"\sqrt{12}"), (r"\sqrt3", r"\sqrt{3}"), ("(x+1)^2", "x^2+2x+1"), ("x+y", "y + x"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"), ("(1,2]", r"\left( 1, 2 \right]"), ("-2,2", "2, -2"),
    ("4,5", r"4 \text{ and } 5"), (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}"),
    (r"(-\infty,2)\cup(3,\infty)", r"\left(-\infty, 2\right) \cup \left(3, \infty\right)"),
    (r"\begin{pmatrix} 1 \\ -2 \end{pmatrix}", r"\begin{bmatrix}1\\-2\end{bmatrix}"),
    (r"\begin{pmatrix} 1/2 & 0 \end{pmatrix}", r"\begin{pmatrix} \frac12 & 0 \end{pmatrix}"),
    (r"\text{(A)}", "A"), (r"\text{(A)}", "(A)"), (r"\text{Anna}", "anna"), (r"\mbox{four}", r"\text{four}"),
    (r"2516_8", "2516_{8}"), ("42_{10}", "42"), (r"75\%", "75"), (r"75\%", "0.75"), (r"30^\circ", "30"),
    (r"30^{\circ}", r"30\text{ degrees}"), (r"\$18.90", "18.9"), (r"\$32,\!348", "32348"), ("10,080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"), (r"6\frac{3}{4}", "6 3/4"), (r"6 \frac34", r"\frac{27}{4}"),
    ("x=5", "5"), (r"x \in [-2,7]", "[-2,7]"), ("y = 2x + 3", "2x+3"), (r"440\text{ cm}^2", "440"),
    (r"\frac{68}{3}\text{ pounds}", r"\frac{68}{3}"), ("5 apples", "5"), ("1:2", r"\frac{1}{2}"), ("7.", "7"),
    ("2007 + \\frac\\pi 2", r"2007+\frac{\pi}{2}"), ("3π", r"3\pi"), ("−5", "-5"), (".5", "0.50"), ("007", "7"),
    ("x - 2y = 3", "x-2y=3"),
    (r"12\pi", r"12 \pi \text{ square cm}"), ("5", "5 candles"), ("5", "5 grams"), (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"\frac{37}{300}", r"0.12\overline{3}"), ("a + b + c", "c+b+a"), (r"\text{13}", "13"), (r"\sin^2 t", r"\sin^2(t)"),
]  # fmt: skip
DIFFERENT = [
    ("2516_8", "2516"), ("2516_8", "2516_9"), ("2516_8", "1358"), ("7", "3 4"), ("1", "1 1/2"), ("11/2", "1 1/2"),
    (r"\text{even}", r"\text{neve}"), (r"\text{even}", "odd"), (r"\text{(A)}", "B"), ("1,3,3", "1,3"), ("1,2", "1,2,3"),
    ("(1,2)", "[1,2]"), ("(1,2)", "(2,1)"), ("x=5", "y=5"), ("3", r"3\text{ million}"), ("5", "-5"), ("1.5", "1,5"),
    (r"\frac{1}{3}", "0.33"), (r"\pi", "3.14"), ("2", r"\pm 2"), ("2", r"2 t"), ("x+1", "x-1"), ("1:2", "2:1"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"), ("5", "5 or 7"), ("0.5", "50"),
    (".5", "5"),
    (r"111,\!111", "111"), ("4", r"\text{four}"), ("100", "1000"), (r"\text{4:30 p.m.}", r"\text{4:30 a.m.}"),
]  # fmt: skip


@pytest.mark.parametrize("reference, answer", EQUAL)
def test_equal_answers_are_correct(grader, reference, answer):
  for one, other in ((reference, answer), (answer, reference), (reference, reference)):
    assert grader.grade([one], [_boxed(other)], "math") == [(CORRECT, other, "")]


@pytest.mark.parametrize("reference, answer", DIFFERENT)
def test_different_answers_are_not_correct(grader, reference, answer):
  assert grader.grade([reference], [_boxed(answer)], "math")[0].verdict != CORRECT


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


def test_extraction_takes_linear_time():
  def seconds(text):
    start = time.process_time()
    answers.extract_answer(text, "math")
    return time.process_time() - start

  for piece in (r"\boxed{", r"\boxed ", "{", "# Answer\n", "A:\n", "$", r"\\", "<<", "1,"):
    small, large = (min(seconds(piece * n) for _ in range(3)) for n in (5_000, 40_000))
    # Eight times the text; quadratic time would be sixty-four times.
    assert large < 25 * small + 0.01, piece


@pytest.fixture(scope="module", name="pool")
def _pool():
  pool = workers.Workers(num_workers=1, timeout_s=2, memory_bytes=4 << 30)
  pool.judge([workers.Task("7", "x+1")])
  yield pool
  pool.close()


def _servers(pool):
  """Process ids of the forked servers of a pool."""
  found = []
  for worker in pool._workers:
    children = pathlib.Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children")
    found += map(int, children.read_text().split())
  return found


SUMS = [workers.Task("7", f"{n}+1") for n in range(30)]
SUMS_OUTCOMES = {task: "correct" if task.answer == "6+1" else "incorrect" for task in SUMS}


def test_an_overrunning_answer_is_alone_in_its_timeout(pool):
  slow = [workers.Task("7", SLOW), workers.Task("7", "100000000!")]
  start = time.monotonic()
  assert pool.judge(SUMS + slow) == {**SUMS_OUTCOMES, **dict.fromkeys(slow, "timeout")}
  assert 4 <= time.monotonic() - start < 10
  assert grading._verdict("timeout") == (UNGRADABLE, "timeout")


def test_a_worker_killed_between_answers_is_replaced(pool):
  for worker in pool._workers:
    os.killpg(worker._process.pid, signal.SIGKILL)
  assert pool.judge(SUMS) == SUMS_OUTCOMES


def test_an_answer_that_kills_its_worker_twice_is_given_up(pool):
  killed = []

  def kill_busy_servers():
    while len(killed) < 2:
      time.sleep(0.3)
      for server in set(_servers(pool)) - set(killed):
        os.kill(server, signal.SIGKILL)
        killed.append(server)

  thread = threading.Thread(target=kill_busy_servers)
  thread.start()
  outcomes = pool.judge([workers.Task("7", SLOW)])
  thread.join()
  assert outcomes == {workers.Task("7", SLOW): "worker died"}
  assert grading._verdict("worker died") == (UNGRADABLE, "worker died")
  assert pool.judge(SUMS) == SUMS_OUTCOMES


def test_workers_load_no_accelerator_library(pool):
  for server in _servers(pool):
    maps = pathlib.Path(f"/proc/{server}/maps").read_text()
    assert "python" in maps and "jaxlib" not in maps and "tensorflow" not in maps


def test_the_memory_limit_holds():
  # Less than the libraries hold already: every larger allocation fails.
  pool = workers.Workers(num_workers=1, timeout_s=20, memory_bytes=1 << 20)
  outcomes = pool.judge([workers.Task("7", "+".join(map(str, range(200))))])
  pool.close()
  assert not set(outcomes.values()) & {"correct", "incorrect", "timeout"}


def test_closing_leaves_no_process(pool):
  pool.judge([workers.Task("7", "6+1")])
  pids = [worker._process.pid for worker in pool._workers] + _servers(pool)
  assert len(pids) == 2
  pool._workers[0].send([workers.Task("7", SLOW)])  # an idle server ends by itself, a busy one does not
  time.sleep(0.1)
  pool.close()
  time.sleep(0.2)
  for pid in pids:
    state = pathlib.Path(f"/proc/{pid}/stat")
    # A killed server may wait, as a zombie, for the system's first process to collect it.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_each_distinct_answer_is_judged_once(monkeypatch):
  asked = []

  def judge(self, tasks):
    asked.extend(tasks)
    return {task: "correct" if task.answer in (None, "2/4") else "incorrect" for task in asked}

  monkeypatch.setattr(workers.Workers, "judge", judge)
  grader = grading.Grader()
  # Numbers and the same text need no worker at all.
  grades = grader.grade(["72"] * 4, ["#### 72", "#### 72.0", "#### 73", "no"], "gsm8k")
  assert [grade.verdict for grade in grades] == [CORRECT, CORRECT, INCORRECT, UNGRADABLE]
  assert not asked
  half = r"\frac{1}{2}"
  grades = grader.grade([half] * 3000, [_boxed(half), _boxed("x"), _boxed("2/4")] * 1000, "math")
  assert [grade.verdict for grade in grades] == [CORRECT, INCORRECT, CORRECT] * 1000
  # One task to see that the reference parses, one for each answer that is not its text.
  assert sorted(asked, key=str) == [(half, "2/4"), (half, "x"), (half, None)]
  assert grader.grade([half] * 3000, [_boxed("2/4")] * 3000, "math") == [grades[2]] * 3000
  assert len(asked) == 3
  # The same answer to another reference is another question.
  assert grader.grade(["x"], [_boxed("2/4")], "math")[0].verdict == CORRECT
  assert sorted(asked[3:], key=str) == [("x", "2/4"), ("x", None)]


HALVES = [r"\frac{1}{2}", "3", r"\frac12", "0.5", "3", r"\dfrac{1}{2}", "1/2"]


def test_answers_of_one_value_are_one_class(grader):
  grades = grader.grade([r"\frac{1}{2}"] * 8, [*map(_boxed, HALVES), "no idea"], "math")
  found, counts = grader.classes(grades, "math", [0] * 8)
  assert found == [0, 1, 0, 0, 1, 0, 0, -1]
  # Four spellings (\dfrac is \frac): three pairs with the first, then the rest, which is one; both directions.
  assert counts == {"comparisons of answers": 6}
  # Another problem's answers are other classes, of other answers: nobody is compared across.
  found, _ = grader.classes(grades[:4], "math", [0, 1, 1, 0])
  assert found == [0, 0, 1, 0]
  assert grader.classes([], "math", []) == ([], {})


def _answers(grader, stated, reference="7"):
  """Their classes and the counts, as a judge of our own sees it."""
  grades = grader.grade([reference] * len(stated), [_boxed(a) for a in stated], "math")
  return grader.classes(grades, "math", [0] * len(stated))


def test_classes_are_greedy_where_equality_is_none(monkeypatch):
  """b = a only with b as the reference; c = b, but not a; the order decides who opens."""
  equal = {("b", "a"), ("b", "c"), ("c", "b")}
  asked = []

  def judge(self, tasks):
    tasks = list(tasks)
    asked.extend(tasks)
    return {t: "correct" if t.answer is None or (t.reference, t.answer) in equal else "incorrect" for t in tasks}

  monkeypatch.setattr(workers.Workers, "judge", judge)
  grader = grading.Grader()
  assert _answers(grader, ["a", "b", "c", "b"])[0] == [0, 0, 1, 0]  # c is not compared with b, who opens nothing
  assert _answers(grader, ["b", "a", "c"])[0] == [0, 0, 0]
  assert _answers(grader, ["c", "a", "b"])[0] == [0, 1, 0]
  before = len(asked)
  assert _answers(grader, ["c", "a", "b"] * 100)[0] == [0, 1, 0] * 100
  assert len(asked) == before  # each pair was judged once


def test_what_could_not_be_graded_is_equal_to_itself_alone(monkeypatch):
  def judge(self, tasks):
    tasks = list(tasks)
    assert not any(t.answer == "9^9" and t.reference != "7" for t in tasks), "it would take its time again"
    slow = lambda t: t.answer == "9^9" or {t.reference, t.answer} == {"x", "y"}
    return {t: "timeout" if slow(t) else "unparsable" if t.answer == "5 +" else "correct" for t in tasks}

  monkeypatch.setattr(workers.Workers, "judge", judge)
  grader = grading.Grader()
  long = "x+" * 600
  found, counts = _answers(grader, ["9^9", "5 +", long + "1", long + "2", "9^{9}", "x", "y", "z"])
  assert found[:5] == [0, 1, 2, 3, 0] and found[5:] == [4, 5, 4]
  # Against words they are wrong rather than ungradable, and still not equal to one another.
  assert _answers(grader, [long + "1", long + "2"], r"\text{even}")[0] == [0, 1]
  # x with y and z, both directions; y alone is left. A comparison that ran out of time shows in the counts.
  assert counts == {"comparisons of answers": 4, "comparisons: timeout": 2}


def test_grades_keep_the_order_of_the_rows(grader):
  pairs = [(str(a), f"{b}+1") for a, b in itertools.product(range(6), range(6))]
  grades = grader.grade([a for a, _ in pairs], [_boxed(b) for _, b in pairs], "math")
  assert [grade.verdict == CORRECT for grade in grades] == [int(a) == int(b[0]) + 1 for a, b in pairs]
  assert grader.grade([], [], "math") == []
  with pytest.raises(ValueError):
    grader.grade(["1"], ["2", "3"], "math")


def test_importing_loads_no_heavy_library():
  code = (
      "import sys, pav_jax.grade\n"
      "print({'jax', 'tensorflow', 'gemma', 'sympy', 'math_verify', 'numpy'} & set(sys.modules))"
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


def _real(name):
  path = DATA / name
  if not path.exists():
    pytest.skip(f"no real data: {path} is absent (PAV_JAX_DATA names the folder)")
  return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
  grades = grader.grade(golds, [_boxed(_perturbed(gold)) for gold in golds], "math")
  assert [gold for gold, grade in zip(golds, grades) if grade.verdict == CORRECT] == []
