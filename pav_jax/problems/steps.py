r"""Steps: spans of token ids that join back to exactly the same ids, and the rules that end them.

  newline  a step ends at the end of its line
  blank    at the first blank line (nothing, or white space alone, between two newlines)
  outside  at the end of a line, but not inside of a LaTeX environment,
           \begin{...} to \end{...}, or of [asy] to [/asy]

A rule is an automaton over characters, made into tables over a vocabulary. So it
is causal: whether a step ends at a token hangs on the tokens up to it, whatever
follows, and a sampler stops at it by looking into the same tables:

1. A step ends at the token in which the rule ends it, once the step has content.
2. White space before any content belongs to the step that follows it: a line of
   spaces is no step.
3. The last step ends at eos, or where the tokens end.
4. White space after the last content joins the last step; nothing else would be
   in theirs.

Content is every character that leaves a mark, so neither white space nor what is
never seen; eos is content and an end, so that stopping after a finished line is a
step, and so an action, of its own. A token belongs to one step with all its
characters, also with those behind the end of the step.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError

RULES = ("newline", "blank", "outside")
_OPENING, _CLOSING = (r"\begin{", "[asy]"), (r"\end{", "[/asy]")
_DEEPEST = 7  # environments in environments; what is deeper counts as so deep


class Rule(NamedTuple):
  """A rule's tables over a vocabulary; state 0 is the start of a response.

  class_v: the class of a token; 0 is eos's, and no other's. next_cs, ends_cs: for
  a token of class c in state s the state behind it, and whether a step ends
  there. begun_s: the step that the state is in has content.
  """

  class_v: np.ndarray
  next_cs: np.ndarray
  ends_cs: np.ndarray
  begun_s: np.ndarray


def check(name: str) -> None:
  """Raises UserError unless there is a rule of that name."""
  if name not in RULES:
    raise UserError(f"problems.steps {name!r} is none of {', '.join(RULES)}")


def rule_of(name: str, texts: Sequence[str], eos_id: int) -> Rule:
  """The rule over a vocabulary whose i-th token says texts[i]; one that says nothing (a control token) is content."""
  check(name)
  # Characters that no rule tells apart are one, and so are runs of them.
  letters = "".join(sorted(set("".join(_OPENING + _CLOSING)))) if name == "outside" else ""
  kind = lambda c: c if c == "\n" or c in letters else "x" if c.isprintable() and c != " " else " "
  plain = lambda text: re.sub("x+", "x", "".join(map(kind, text)))
  move = {"newline": _newline, "blank": _blank, "outside": _outside}[name]
  states = [(False, 0, "")]
  number = {states[0]: 0}
  moves = {character: [] for character in "\n x" + letters}
  for state in states:  # which grows
    for character, found in moves.items():
      found.append(move(state, character))
    for new in (_emptied(state), *(found[-1][0] for found in moves.values())):
      if new not in number:
        number[new] = len(states)
        states.append(new)
  next_of = {c: np.array([number[state] for state, _ in found]) for c, found in moves.items()}
  ends_of = {c: np.array([ends for _, ends in found]) for c, found in moves.items()}
  emptied_s = np.array([number[_emptied(state)] for state in states])

  @functools.cache
  def whole(text: str) -> int:
    """The class of a token of these characters. What follows an end in it begins nothing: it belongs to the step that ends."""
    state_s, ends_s = np.arange(len(states)), np.zeros(len(states), bool)
    for character in text:
      ends_s |= ends_of[character][state_s]
      state_s = next_of[character][state_s]
    return classes.setdefault((*np.where(ends_s, emptied_s[state_s], state_s), *ends_s), len(classes) + 1)

  classes = {}
  class_v = np.array([0 if i == eos_id else whole(plain(text) or "x") for i, text in enumerate(texts)], np.int32)
  next_cs, ends_cs = np.split(np.array([[0] * len(states) + [1] * len(states), *classes], np.int32), 2, axis=1)
  return Rule(class_v, next_cs, ends_cs.astype(bool), np.array([begun for begun, *_ in states]))


# A state: whether the step has content; the depth of environments, or 1 at a line that is blank so far; what may become \begin{.
def _emptied(state):
  return (False, *state[1:])


def _newline(state, character):
  if character == "\n":
    return (False, 0, ""), state[0]
  return (state[0] or character != " ", 0, ""), False


def _blank(state, character):
  begun, blank, _ = state
  if character == "\n":
    return ((False, 0, ""), True) if begun and blank else ((begun, 1, ""), False)
  return ((begun, blank, ""), False) if character == " " else ((True, 0, ""), False)


def _outside(state, character):
  begun, depth, seen = state
  if character == "\n":
    return ((False, 0, ""), begun) if not depth else ((begun, depth, ""), False)
  seen += character
  if seen in _OPENING + _CLOSING:
    return (True, min(depth + 1, _DEEPEST) if seen in _OPENING else max(depth - 1, 0), ""), False
  while not any(mark.startswith(seen) for mark in _OPENING + _CLOSING):
    seen = seen[1:]
  return (begun or character != " ", depth, seen), False


def _ends_bt(tokens_bt, length_b, rule: Rule) -> np.ndarray:
  """True at each step's last token."""
  rows, width = tokens_bt.shape
  if (length_b < 0).any() or (length_b > width).any():
    raise ValueError(f"lengths outside 0..{width}")
  real_bt = np.arange(width) < length_b[:, None]
  if not width:
    return real_bt
  class_tb = rule.class_v[np.where(real_bt, tokens_bt, 0).T]
  early_b = ((class_tb == 0).T & (np.arange(width) < length_b[:, None] - 1)).any(axis=1)
  if early_b.any():
    raise ValueError(f"row {int(early_b.argmax())}: tokens go on after eos")
  # One index into a flat table, and rows side by side: several times as fast.
  next_x, ends_x, at_tb = rule.next_cs.ravel(), rule.ends_cs.ravel(), class_tb * rule.next_cs.shape[1]
  ends_tb, begun_tb = np.zeros((2, width, rows), bool)
  state_b = np.zeros(rows, np.int32)
  for t in range(width):
    at_b = at_tb[t] + state_b
    ends_tb[t], state_b = ends_x[at_b], next_x[at_b]
    begun_tb[t] = rule.begun_s[state_b]
  ends_bt, begun_bt = ends_tb.T & real_bt, begun_tb.T
  # The last token always ends the last step. If nothing has begun since the end before it, it takes that one's place.
  row_b = np.flatnonzero(length_b)
  last_b = length_b[row_b] - 1
  loose_b = ~begun_bt[row_b, last_b] & ~ends_bt[row_b, last_b] & ends_bt[row_b].any(1)
  previous_b = width - 1 - ends_bt[row_b, ::-1].argmax(1)
  ends_bt[row_b[loose_b], previous_b[loose_b]] = False
  ends_bt[row_b, last_b] = True
  return ends_bt


def step_ends(tokens_t: np.ndarray, rule: Rule) -> np.ndarray:
  """The index of each step's last token, ascending, int32; no tokens, no steps."""
  tokens_bt = np.asarray(tokens_t, np.int64).reshape(1, -1)
  return np.flatnonzero(_ends_bt(tokens_bt, np.array([tokens_bt.shape[1]]), rule)[0]).astype(np.int32)


def split(tokens_t: np.ndarray, rule: Rule) -> list[np.ndarray]:
  """The steps themselves; `join(split(x)) == x`."""
  tokens_t = np.asarray(tokens_t)
  return np.split(tokens_t, step_ends(tokens_t, rule) + 1)[:-1]


def join(steps: Sequence[np.ndarray]) -> np.ndarray:
  """The tokens of all steps."""
  return np.concatenate(steps) if len(steps) else np.zeros(0, np.int32)


def step_ends_bs(tokens_bt: np.ndarray, length_b: np.ndarray, rule: Rule, max_steps: int, *,
                 merge: bool = False) -> tuple[np.ndarray, np.ndarray]:
  """`step_ends` of every row, padded with -1, and how many steps each row has.

  A row of more than `max_steps` steps is a UserError, or, with `merge`, its
  last step takes all that is left; its count stays the true one, so that
  `count_b > max_steps` tells which rows those were.
  """
  tokens_bt, length_b = np.asarray(tokens_bt), np.asarray(length_b)
  ends_bt = _ends_bt(tokens_bt, length_b, rule)
  count_b = ends_bt.sum(1).astype(np.int32)
  if (count_b > max_steps).any() and not merge:
    row = int((count_b > max_steps).argmax())
    raise UserError(f"row {row} has {count_b[row]} steps, more than max_steps = {max_steps} "
                    f"({int((count_b > max_steps).sum())} of {len(count_b)} rows have)")
  ends_bs = np.full((len(count_b), max_steps), -1, np.int32)
  row_e, t_e = np.nonzero(ends_bt)
  s_e = np.arange(len(row_e)) - (np.cumsum(count_b) - count_b)[row_e]
  kept_e = s_e < max_steps
  ends_bs[row_e[kept_e], s_e[kept_e]] = t_e[kept_e]
  if max_steps:
    ends_bs[count_b > max_steps, -1] = length_b[count_b > max_steps] - 1
  return ends_bs, count_b
