"""Steps: aligned columns, and laws on random tokens."""

import time

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import steps

EOS, PAD = 1, 0
#            ids 0      1      2      3      4      5      6
PIECES = ["<pad>", "<eos>", "a", "b", "\n", "\n\n", "c\n"]
NEWLINE_V = np.array(["\n" in piece for piece in PIECES])
CONTENT_V = np.array([piece.strip("\n") != "" for piece in PIECES])


def _table(text):
  """Columns: token, 1 where a step ends."""
  token_t, end_t = zip(*(line.rsplit(maxsplit=1) for line in text.strip().splitlines()))
  names = {"eos": "<eos>", "nl": "\n", "nlnl": "\n\n", "c+nl": "c\n"}
  return (np.array([PIECES.index(names.get(token.strip(), token.strip())) for token in token_t]),
          np.flatnonzero(np.array(end_t) == "1"))


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
    """])
def test_aligned_columns(table):
  token_t, end_s = _table(table)
  np.testing.assert_array_equal(steps.step_ends(token_t, NEWLINE_V, EOS, CONTENT_V), end_s)


def _random(rng, length):
  token_t = rng.choice([2, 3, 4, 5, 6], length)
  if length and rng.random() < 0.5:
    token_t[-1] = EOS
  return token_t


def _by_the_rule(token_t):
  """The rule, token by token, as a sampler follows it."""
  ends, content = [], False
  for t, token in enumerate(token_t):
    content |= bool(CONTENT_V[token])
    if (NEWLINE_V[token] and content) or token == EOS:
      ends.append(t)
      content = False
  if len(token_t) and (not ends or ends[-1] < len(token_t) - 1):
    if ends and not content:
      ends.pop()
    ends.append(len(token_t) - 1)
  return ends


def test_laws_on_random_tokens():
  rng = np.random.default_rng(0)
  for _ in range(500):
    token_t = _random(rng, rng.integers(0, 14))
    end_s = steps.step_ends(token_t, NEWLINE_V, EOS, CONTENT_V)
    assert end_s.dtype == np.int32 and end_s.tolist() == _by_the_rule(token_t)
    parts = steps.split(token_t, NEWLINE_V, EOS, CONTENT_V)
    np.testing.assert_array_equal(steps.join(parts), token_t)
    assert [len(part) for part in parts] == np.diff(end_s, prepend=-1).tolist() and all(map(len, parts))
    # Causality: all that a prefix has ended stays ended; only its last step may still grow.
    for cut in range(len(token_t)):
      prefix_s = steps.step_ends(token_t[:cut], NEWLINE_V, EOS, CONTENT_V)[:-1]
      assert prefix_s.tolist() == end_s[:len(prefix_s)].tolist()


def test_no_tokens_no_steps():
  assert steps.step_ends([], NEWLINE_V, EOS).shape == (0,)
  assert steps.split([], NEWLINE_V, EOS) == [] and steps.join([]).shape == (0,)
  ends_bs, count_b = steps.step_ends_bs(np.zeros((2, 0), int), [0, 0], NEWLINE_V, EOS, 3)
  assert ends_bs.shape == (2, 3) and count_b.tolist() == [0, 0]


def test_tokens_after_eos_are_a_bug():
  with pytest.raises(ValueError, match="go on after eos"):
    steps.step_ends([2, EOS, 2], NEWLINE_V, EOS)


def test_batch_equals_rows():
  rng = np.random.default_rng(1)
  rows = [_random(rng, rng.integers(0, 14)) for _ in range(300)]
  # Rubbish after the length must not matter: newlines, eos, ids that do not exist.
  tokens_bt = rng.choice([-100, 1, 2, 4, 100], (300, 14))
  for row, token_t in zip(tokens_bt, rows):
    row[:len(token_t)] = token_t
  ends_bs, count_b = steps.step_ends_bs(tokens_bt, [len(row) for row in rows], NEWLINE_V, EOS, 14,
                                        content_v=CONTENT_V)
  assert ends_bs.dtype == count_b.dtype == np.int32
  for row, end_s, count in zip(rows, ends_bs, count_b):
    assert end_s[:count].tolist() == _by_the_rule(row) and (end_s[count:] == -1).all()


def test_too_many_steps():
  #                    a  nl  b  nl  a  eos
  tokens_bt = np.array([[2, 4, 3, 4, 2, 1], [2, 2, 2, 1, 0, 0]])
  with pytest.raises(UserError, match=r"row 0 has 3 steps, more than max_steps = 2 \(1 of 2 rows have\)"):
    steps.step_ends_bs(tokens_bt, [6, 4], NEWLINE_V, EOS, 2)
  ends_bs, count_b = steps.step_ends_bs(tokens_bt, [6, 4], NEWLINE_V, EOS, 2, merge=True)
  assert ends_bs.tolist() == [[1, 5], [3, -1]] and count_b.tolist() == [3, 1]


def test_a_hundred_thousand_rows():
  rng = np.random.default_rng(2)
  tokens_bt = rng.choice([2, 3, 4], (100_000, 64))
  begin = time.perf_counter()
  steps.step_ends_bs(tokens_bt, np.full(100_000, 64), NEWLINE_V, EOS, 64)
  assert time.perf_counter() - begin < 10
