#!/usr/bin/env bash
# math-verify takes answers of different value for equal: a thin space between thousands adds them up, clock times and ratios
# are divided out, lists lose repeated entries, number bases are dropped.
#
# Seen with math-verify 0.9.0 and latex2sympy2-extended 1.11.0 (the newest in November 2026), default settings, Python 3.11.
# Each pair is plain LaTeX as answers of MATH have it, boxed, reference and answer read alike. As a reward such a pair pays for
# a wrong answer; the first one pays nothing for a right answer besides (1\,234 is not 1234).
# So: decide spellings, lists, units, bases and small numbers before mathematics is asked, as pav_jax/grading does.
#
#   bash findings/math_verify_readings.sh    needs python3.11 or later, pip and a package index
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  'math-verify[antlr4_13_2]==0.9.0' latex2sympy2-extended==1.11.0
cat > "$folder/seen.py" <<'PYTHON'
import importlib.metadata

from math_verify import parse
from math_verify import verify

EQUAL = [  # reference, answer, what was read of the answer
    ("235", r"1\,234", "1 + 234"), ("1.2", r"\langle 1,2\rangle", "a decimal comma"), ("2:15", "4:30", "4 / 30"),
    (r"\{0,1\}", "(0,1)", "a set equals an interval"), ("1,2,2", "1,1,2", "sets"), ("21_8", "21_7", "no base"),
    ("7", "3 4", "3 + 4"), ("3.141593", r"\pi", "six digits"), ("1/3^{80}", "1/3^{81}", "six digits behind the point"),
    (r"3\text{ m}", r"3\text{ cm}", "no unit")]
boxed = lambda answer: parse(r"\boxed{" + answer + "}")
print(f"math-verify {importlib.metadata.version('math-verify')} takes for equal:")
for reference, answer, why in EQUAL:
  equal = verify(boxed(reference), boxed(answer))
  print(f"  {reference:12} {answer:20} {equal}   ({why})")
  assert equal, f"the behaviour has changed: {reference} and {answer}"
assert not verify(boxed("1234"), boxed(r"1\,234")), r"the behaviour has changed: 1234 and 1\,234"
print(r"and not for equal: 1234 and 1\,234")
PYTHON
"$folder/venv/bin/python" "$folder/seen.py"
