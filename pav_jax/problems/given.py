"""Steps that somebody else cut: their token ids, and where each of them ends.

  1. A step is encoded by itself. Line breaks at its end are taken off: the
     separator stands for them.
  2. The separator's ids are appended behind it. Texts are never joined first:
     what follows a step could merge with its end.
  3. Behind the last step stands eos instead, where the solution is over.

Line ends of other systems are newlines, as where problems are read.

However many lines a given step has, it is never split again. Where nobody has
cut a text, `cut` does it by the run's own rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pav_jax.problems import fields
from pav_jax.problems import steps as steps_lib

_SEPARATORS = {"newline": "\n", "blank": "\n\n", "outside": "\n"}


class Given(NamedTuple):
  """A response: int32 token_t; end_s, int32, the index in token_t of each step's last token, ascending."""

  token_t: np.ndarray
  end_s: np.ndarray


def separator_of(rule: str) -> str:
  """What stands between two steps under a rule of steps.py. UserError for a name that is none."""
  steps_lib.check(rule)
  return _SEPARATORS[rule]


def tokens(steps: Sequence[str], vocabulary, *, separator: str, ended: bool = True) -> Given:
  """The ids of given steps, one end for each.

  A last step may be empty: eos alone, as behind a final newline.
  vocabulary: as in vocabulary.py. separator: a text, `separator_of` the run's
  rule. ended: the solution is over, so that eos stands behind its last step;
  else the separator does.
  """
  between, token_t, end_s = vocabulary.encode(separator), [], []
  for number, step in enumerate(steps, 1):
    token_t += vocabulary.encode(fields.with_newlines(step).rstrip("\n"))
    token_t += [vocabulary.eos_id] if ended and number == len(steps) else between
    end_s.append(len(token_t) - 1)
  return Given(np.array(token_t, np.int32), np.array(end_s, np.int32))


def cut(text: str, vocabulary, *, ended: bool = True) -> Given:
  """The ids of a whole solution, its steps those of the vocabulary's rule, as a stage cuts what a policy wrote.

  Nothing is dropped: what a policy wrote can end in a newline, and is then, in search and in training, a line, and a step that is eos
  alone. Whoever means no such step takes the white space off.
  """
  text = fields.with_newlines(text)
  token_t = np.array(vocabulary.encode(text) + [vocabulary.eos_id] * ended, np.int32)
  return Given(token_t, steps_lib.step_ends(token_t, vocabulary.step_rule))


def split(given: Given) -> list[np.ndarray]:
  """The ids of each step, its end included."""
  return np.split(given.token_t, given.end_s[:-1] + 1)
