"""Steps: aligned columns, and laws on random tokens, for every rule."""

import functools
import re
import time

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import steps

PAD, EOS = 0, 1
PIECES = ["", "", "a", "b", "\n", "\n\n", "c\n", " ", " \n", "\n d", "\\", "begin", "{", "\\end{", "align}", "[as", "y]", "[/asy]", "\\begin{x}\\begin{y}\n",
          "\n\n\na", "\u200b"]
RULES = {name: steps.rule_of(name, PIECES, EOS) for name in steps.RULES}
NAMES = {"eos": "", "nl": "\n", "nlnl": "\n\n", "c+nl": "c\n", "sp": " ", "sp+nl": " \n", "nl+d": "\n d", "nothing": "\u200b"}


def _table(text):
  """Columns: token, 1 where a step ends."""
  token_t, end_t = zip(*(line.rsplit(maxsplit=1) for line in text.strip().splitlines()))
  index = lambda name: EOS if name == "eos" else PIECES.index(NAMES.get(name, name))
  return np.array([index(token.strip()) for token in token_t]), np.flatnonzero(np.array(end_t) == "1")


@pytest.mark.parametrize("table", [
    """
    a    0
    b    0
    nl   1
    b    0
    eos  1
    """, """
    nl   0
    nlnl 0
    a    0
    nl   1
    nlnl 0
    b    0
    nl   1
    """, """
    a    0
    nl   0
    nl   0
    nlnl 1
    """, """
    a    0
    nl   1
    nl   0
    eos  1
    """, """
    a    0
    b    1
    """, """
    nl   0
    nl   1
    """, """
    eos  1
    """, """
    c+nl 1
    c+nl 1
    nl   0
    a    0
    c+nl 1
    nl   0
    c+nl 1
    """, """
    a       0
    nl      1
    sp      0
    sp+nl   0
    nothing 0
    nl      0
    b       0
    nl      1
    sp      0
    eos     1
    """, """
    a     0
    nl    0
    sp    0
    sp+nl 1
    """, """
    a     0
    nl+d  1
    a     0
    nl    1
    """, """
    nl+d  0
    nl    1
    """])
def test_lines(table):
  token_t, end_s = _table(table)
  np.testing.assert_array_equal(steps.step_ends(token_t, RULES["newline"]), end_s)


@pytest.mark.parametrize("table", [
    """
    a     0
    nl    0
    b     0
    nl    0
    nl    1
    nl    0
    b     0
    nlnl  1
    a     0
    eos   1
    """, """
    a     0
    nl    0
    sp    0
    sp+nl 1
    nlnl  0
    b     0
    nl    0
    eos   1
    """, """
    nl    0
    nlnl  0
    c+nl  0
    nl    1
    c+nl  0
    c+nl  0
    nl+d  1
    """, """
    a     0
    nl    0
    nl+d  1
    nlnl  0
    b     1
    """])
def test_blank_lines(table):
  """In the last but one the text ends; in the last, what follows an end in its token begins no step."""
  token_t, end_s = _table(table)
  np.testing.assert_array_equal(steps.step_ends(token_t, RULES["blank"]), end_s)


@pytest.mark.parametrize("table", [
    r"""
    a      0
    nl     1
    \      0
    begin  0
    {      0
    align} 0
    nl     0
    b      0
    nlnl   0
    \end{  0
    align} 0
    nl     1
    a      0
    nl     1
    """, r"""
    [as    0
    y]     0
    c+nl   0
    [/asy] 0
    c+nl   1
    a      0
    eos    1
    """, r"""
    begin  0
    {      0
    nl     1
    \      0
    sp     0
    begin  0
    {      0
    nl     1
    [as    0
    a      0
    y]     0
    nl     1
    """, r"""
    \end{  0
    nl     1
    \      0
    \      0
    begin  0
    {      0
    nl     0
    [/asy] 0
    nl     1
    """])
def test_outside_of_environments(table):
  """Nothing but the marks themselves counts, in whatever tokens; a closing one too many changes nothing."""
  token_t, end_s = _table(table)
  np.testing.assert_array_equal(steps.step_ends(token_t, RULES["outside"]), end_s)


def test_environments_in_environments():
  nl = PIECES.index("\n")
  deep, close = PIECES.index("\\begin{x}\\begin{y}\n"), PIECES.index("\\end{")
  assert steps.step_ends([deep, close, nl, close, nl], RULES["outside"]).tolist() == [4]
  assert steps.step_ends([deep] * 3 + [close] * 5 + [nl] + [close, nl], RULES["outside"]).tolist() == [10]


def _random(rng, length):
  token_t = rng.integers(2, len(PIECES), length)
  if length and rng.random() < 0.5:
    token_t[-1] = EOS
  return token_t


def _seen(text):
  return any(c.isprintable() and not c.isspace() for c in text)


def _ended(name, text):
  """Whether a step that is this text ends in it, by the rule's own words: the text up to each newline is looked at as a whole."""
  for newline in (m.start() for m in re.finditer("\n", text)):
    before = text[:newline]
    if name == "newline" and _seen(before):
      return True
    if name == "blank" and "\n" in before and _seen(before) and not _seen(before.rpartition("\n")[2]):
      return True
  return False


def _by_the_rule(name, token_t):
  """The rule, token by token, as a sampler follows it."""
  ends, start = [], 0
  for t, token in enumerate(token_t):
    text = "".join(PIECES[i] for i in token_t[start:t + 1])
    if token == EOS or _ended(name, text):
      ends.append(t)
      start = t + 1
  if len(token_t) and start < len(token_t):
    if ends and not _seen("".join(PIECES[i] for i in token_t[start:])):
      ends.pop()
    ends.append(len(token_t) - 1)
  return ends


@pytest.mark.parametrize("name", ["newline", "blank"])
def test_tables_are_the_rule(name):
  rng = np.random.default_rng(0)
  for _ in range(1000):
    token_t = _random(rng, rng.integers(0, 14))
    assert steps.step_ends(token_t, RULES[name]).tolist() == _by_the_rule(name, token_t), [PIECES[i] for i in token_t]


def test_outside_is_lines_where_no_environment_is_open():
  """By whole texts: lines in environments are joined by hand, then cut as lines are."""
  rng, lines = np.random.default_rng(3), ["a", "[asy]", "b [/asy]", r"\begin{x}", r"c\end{x}", " ", "", r"\begin", "[as y]"]
  characters = sorted(set("".join(lines) + "\n"))
  cut = {name: functools.partial(steps.step_ends, rule=steps.rule_of(name, ["", *characters], 0)) for name in steps.RULES}
  for _ in range(200):
    depth, joined = 0, ""
    text = "\n".join(rng.choice(lines, rng.integers(1, 12)))
    for line in text.split("\n"):
      depth = max(0, depth + (line in ("[asy]", r"\begin{x}")) - (line in ("b [/asy]", r"c\end{x}")))
      joined += line + (" " if depth else "\n")
    ids = lambda text: [1 + characters.index(c) for c in text]
    assert cut["outside"](ids(text)).tolist() == cut["newline"](ids(joined[:-1])).tolist(), text


@pytest.mark.parametrize("name", steps.RULES)
def test_laws_on_random_tokens(name):
  rng, rule = np.random.default_rng(0), RULES[name]
  for _ in range(500):
    token_t = _random(rng, rng.integers(0, 14))
    end_s = steps.step_ends(token_t, rule)
    assert end_s.dtype == np.int32
    parts = steps.split(token_t, rule)
    np.testing.assert_array_equal(steps.join(parts), token_t)
    assert [len(part) for part in parts] == np.diff(end_s, prepend=-1).tolist() and all(map(len, parts))
    # A step has something that is seen; a text of white space alone is one step.
    assert len(parts) == 1 or all(EOS in part or _seen("".join(PIECES[i] for i in part)) for part in parts)
    # Causality: all that a prefix has ended stays ended; only its last step may still grow.
    for cut in range(len(token_t)):
      prefix_s = steps.step_ends(token_t[:cut], rule)[:-1]
      assert prefix_s.tolist() == end_s[:len(prefix_s)].tolist()


def test_no_tokens_no_steps():
  rule = RULES["newline"]
  assert steps.step_ends([], rule).shape == (0,)
  assert steps.split([], rule) == [] and steps.join([]).shape == (0,)
  ends_bs, count_b = steps.step_ends_bs(np.zeros((2, 0), int), [0, 0], rule, 3)
  assert ends_bs.shape == (2, 3) and count_b.tolist() == [0, 0]


def test_tokens_after_eos_are_a_bug():
  with pytest.raises(ValueError, match="go on after eos"):
    steps.step_ends([2, EOS, 2], RULES["newline"])


@pytest.mark.parametrize("name", ["newline", "blank"])
def test_batch_equals_rows(name):
  rng = np.random.default_rng(1)
  rows = [_random(rng, rng.integers(0, 14)) for _ in range(300)]
  # Rubbish after the length must not matter: newlines, eos, ids that do not exist.
  tokens_bt = rng.choice([-100, 1, 2, 4, 100], (300, 14))
  for row, token_t in zip(tokens_bt, rows):
    row[:len(token_t)] = token_t
  ends_bs, count_b = steps.step_ends_bs(tokens_bt, [len(row) for row in rows], RULES[name], 14)
  assert ends_bs.dtype == count_b.dtype == np.int32
  for row, end_s, count in zip(rows, ends_bs, count_b):
    assert end_s[:count].tolist() == _by_the_rule(name, row) and (end_s[count:] == -1).all()


def test_too_many_steps():
  #                    a  nl  b  nl  a  eos
  tokens_bt = np.array([[2, 4, 3, 4, 2, 1], [2, 2, 2, 1, 0, 0]])
  with pytest.raises(UserError, match=r"row 0 has 3 steps, more than max_steps = 2 \(1 of 2 rows have\)"):
    steps.step_ends_bs(tokens_bt, [6, 4], RULES["newline"], 2)
  ends_bs, count_b = steps.step_ends_bs(tokens_bt, [6, 4], RULES["newline"], 2, merge=True)
  assert ends_bs.tolist() == [[1, 5], [3, -1]] and count_b.tolist() == [3, 1]


def test_an_unknown_rule_is_refused():
  with pytest.raises(UserError, match="problems.steps 'lines' is none of newline, blank, outside"):
    steps.check("lines")


def test_a_hundred_thousand_rows():
  rng = np.random.default_rng(2)
  tokens_bt = rng.choice([2, 3, 4], (100_000, 64))
  begin = time.process_time()
  steps.step_ends_bs(tokens_bt, np.full(100_000, 64), RULES["newline"], 64)
  assert time.process_time() - begin < 10


@pytest.mark.parametrize("rule", steps.RULES)
@pytest.mark.parametrize("blank", ["\n", "\r\n", " \n", "\t\r\n", "\x0b\n", "\u2003\n", "\u200b\n"])
def test_blank_lines_are_no_steps(rule, blank):
  characters = ["", *sorted(set("ab\r\n" + blank))]
  ids = [characters.index(c) for c in f"a\r\n\r\n{blank * 3}b\r\n\r\n"]
  found = ["".join(characters[i] for i in step) for step in steps.split(ids, steps.rule_of(rule, characters, 0))]
  assert [step.strip("\u200b \t\r\n\x0b\u2003") for step in found] == ["a", "b"]
