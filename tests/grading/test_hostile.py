"""Patterns repeated up to the longest answer: no function of text may take more than a moment."""

import itertools
import signal
import time

import pytest

from pav_jax.grading import notations
from pav_jax.grading import phrases
from pav_jax.grading import spelling
from pav_jax.grading import structure
from pav_jax.grading import units

PIECES = (
    r"\text{", r"\text{a}", r"\text{ cm } ", r"\text{cm}^2", "1 ", "a ", "(", "[", "{", "}", r"\{", r"\frac", r"\frac{1}",
    "1,", "1/2 ", "**", "$", "x=", r"\pm", "1:2:",
    "cm ", "m/s ", "/s", " / s", "\\\\", r"\sqrt", " ", "1", "_", "^", r"^\circ", r"\text{or}", "and ", "or ", "%", "&",
    r"\cup", "<", "e1", ".", r"\overline{1}", "-", "√(",
    "`", r"\mathbf{", r"\textcolor{a}{", "per ", "hundred ", "(A) ", "x(", "p.m.", r"\(", r"\[", "$1$ and ", "=", "'", "10^",
    r"\times 10", "|", ";", ", ", r"\phantom", "inf ",
    "U (", "1 000 ", "not ", "not 5 ", "18 18, ", "1 thousand ", "5:00 ", "rather than ", "mod 7 ", r"\pmod{7}", "f'", r"^{\prime}", "is not the answer ",
)  # fmt: skip
AROUND = (("", ""), ("1", ""), ("1 ", "!"), ("(", ")"), ("1", " cm!"), ("1 cm", "!"), ("{", "x"))
LIMIT_S = 1.0


class _Slow(Exception):
  pass


def _stop(*unused):
  raise _Slow


def _of_text(text):
  cleaned = spelling.clean(text[:1000])
  for spelt in (cleaned, text[:1000]):
    units.split(spelt)
    for question in (spelling.canonical, spelling.fraction, spelling.is_words, spelling.is_ambiguous, spelling.words, structure.bare):
      question(spelt)
    spelling.equal_as_text(spelt, "7")
    structure.split(spelt, (",",))
    notations.MODULUS.search(spelt)
    notations.read(spelt)
  phrases.value(text)
  phrases.number(text)
  phrases.is_bare(text[:1000])
  for plain in (True, False):
    phrases.last(text[:300], plain)


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_is_slow(piece):
  before = signal.signal(signal.SIGALRM, _stop)  # what takes for ever must fail, too
  try:
    for (start, end), length in itertools.product(AROUND, (1000, 4000)):
      signal.setitimer(signal.ITIMER_REAL, 20)
      text = (start + piece * 4000)[: length - len(end)] + end
      began = time.process_time()
      try:
        _of_text(text)
      except _Slow:
        pytest.fail(f"{start!r} + n {piece!r} + {end!r}: no end")
      assert time.process_time() - began < LIMIT_S, (start, end)
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
