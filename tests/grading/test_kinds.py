"""Answers of one value in many spellings, and of many values in like ones: `kinds`, both ways round, for both data sets."""

import pytest

from pav_jax.grading import grading
from tests.grading import conventions
from tests.grading import kinds

CORRECT = grading.Verdict.CORRECT
KINDS = kinds.KINDS + [(what, equal, different) for what, _, equal, different in conventions.CONVENTIONS]


def _grades(grader, pairs, form, dataset):
  """Verdicts of all pairs, in both directions."""
  pairs = [*pairs, *(pair[::-1] for pair in pairs)]
  faults = grader.reference_faults([reference for reference, _ in pairs], dataset)
  pairs = [pair for pair, fault in zip(pairs, faults) if not fault]
  grades = grader.grade([reference for reference, _ in pairs], [form.format(answer) for _, answer in pairs], dataset)
  return [(*pair, grade.answer) for pair, grade in zip(pairs, grades) if grade.verdict == CORRECT], len(pairs)


@pytest.mark.parametrize("form", [r"So the answer is $\boxed{{{}}}$.", "# Answer\n\n{}"])
@pytest.mark.parametrize("kind, equal, different", KINDS, ids=[kind for kind, *_ in KINDS])
def test_math(grader, kind, equal, different, form):
  both = {*equal, *(pair[::-1] for pair in equal)}
  right, _ = _grades(grader, equal, form, "math")
  assert both - {pair[:2] for pair in right} == set()
  wrong, asked = _grades(grader, different, form, "math")
  assert wrong == [] and asked >= len(different)


@pytest.mark.parametrize("kind, equal, different", KINDS, ids=[kind for kind, *_ in KINDS])
def test_every_answer_equals_itself(grader, kind, equal, different):
  texts = [text for pair in equal for text in pair]
  assert {pair[0] for pair in _grades(grader, [(text, text) for text in texts], r"\boxed{{{}}}", "math")[0]} == set(texts)


GSM8K = [
    # equal in both directions
    ("70000", "70 000 dollars"), ("70000", r"7\times10^4"), ("70000", r"7 \times 10^{4}"), ("70000", "70000 (35%)"),
    ("5", "5 = 2 + 3"), ("5", "2 + 3 = 5"),
    ("70000", "$70,000"), ("70000", r"\$70{,}000"), ("0.5", "1/2"), ("0.5", r"\frac{1}{2}"), ("45", "45cm"), ("45", "€45"),
    ("9", r"\textcolor{red}{9}"), ("9", "**9**"),
    ("12000", "1.2e4"), ("26", r"26\text{ eggs}"), ("26", "x = 26"), ("-5", "-$5"), ("10", "10%"), ("1080", "1,080 miles"),
    ("1800", "1.8 thousand"), ("1800", "$1.8 thousand"), ("2000000", r"2\text{ million dollars}"), ("50", "50%"), ("0.5", "50%"), ("0.5", r"50\%"),
    ("50%", "50 percent"), ("5:00", "5:00"),
    ("3", "3.00"), ("1.5", r"1\frac{1}{2}"), ("6", r"2\cdot3"), ("2.5", "2 1/2"),
]  # fmt: skip
NOT_GSM8K = [
    ("9", r"\frac{10}{9}"), ("10", r"\frac{10}{9}"), ("5", "x^5"), ("70", "70 000 dollars"), ("7", r"7\times10^4"),
    ("4", r"7\times10^4"), ("35", "70000 (35%)"), ("2", "5 = 2 + 3"), ("3", "5 = 2 + 3"),
    ("5", "5:00"), ("3", "3:2"), ("1.8", "1.8 thousand"), ("50", "0.5"),
    ("50%", "5"),
    ("50", "50.5"), ("2", r"\frac12"), ("5", "-5"), ("3", r"2\sqrt{3}"), ("2", "2 1/2"), ("1", "1/2"), ("10", "1e10"), ("1.2", "1.2e4"),
]  # fmt: skip


@pytest.mark.parametrize("form", ["The sum.\n#### {}", "The answer is {}.", r"So it is $\boxed{{{}}}$."])
def test_gsm8k(grader, form):
  right, asked = _grades(grader, GSM8K, form, "gsm8k")
  assert asked == 2 * len(GSM8K)
  assert {*GSM8K, *(pair[::-1] for pair in GSM8K)} - {pair[:2] for pair in right} == set()
  wrong, asked = _grades(grader, NOT_GSM8K, form, "gsm8k")
  assert wrong == [] and asked == 2 * len(NOT_GSM8K)
