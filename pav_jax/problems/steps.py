"""Steps: spans of token ids, split at newlines, that join back to exactly the same ids.

The rule is causal, so that a sampler may stop at it:
1. A step ends at a token that holds a newline, once the step has content.
2. Newlines before any content belong to the step that follows them.
3. The last step ends at eos, or where the tokens end.
4. Newlines after the last content join the last step; nothing else would be in theirs.

Content is every token that is not newlines alone; eos is content, so that
stopping after a finished line is a step, and so an action, of its own.

`content_v` is for vocabularies in which a piece holds a newline *and*
something else: such a token always ends a step. Left out, a newline's piece
holds nothing else, as in Gemma's vocabulary and ours.
"""

from collections.abc import Sequence

import numpy as np

from pav_jax.errors import UserError


def _ends_bt(tokens_bt, length_b, newline_v, eos_id, content_v) -> np.ndarray:
  """True at each step's last token."""
  rows, width = tokens_bt.shape
  if (length_b < 0).any() or (length_b > width).any():
    raise ValueError(f"lengths outside 0..{width}")
  real_bt = np.arange(width) < length_b[:, None]
  if not width:
    return real_bt
  tokens_bt = np.where(real_bt, tokens_bt, 0)
  eos_bt = (tokens_bt == eos_id) & real_bt
  newline_bt = newline_v[tokens_bt]
  content_bt = (~newline_v if content_v is None else content_v)[tokens_bt] | eos_bt
  last_b = np.maximum(length_b - 1, 0)
  early_b = eos_bt.sum(1) > eos_bt[np.arange(rows), last_b]
  if early_b.any():
    raise ValueError(f"row {int(early_b.argmax())}: tokens go on after eos")
  # A newline before this token has ended its step or found it empty: either way nothing is pending.
  # So a newline ends a step iff it has content itself or follows a token that is no newline.
  before_bt = np.zeros_like(newline_bt)
  before_bt[:, 1:] = ~newline_bt[:, :-1]
  ends_bt = ((newline_bt & (content_bt | before_bt)) | eos_bt) & real_bt
  # The last token always ends the last step. If it is a newline that ended nothing, it takes the
  # place of the end before it.
  row_b = np.flatnonzero(length_b)
  last_b = last_b[row_b]
  loose_b = newline_bt[row_b, last_b] & ~ends_bt[row_b, last_b] & ends_bt[row_b].any(1)
  previous_b = width - 1 - ends_bt[row_b, ::-1].argmax(1)
  ends_bt[row_b[loose_b], previous_b[loose_b]] = False
  ends_bt[row_b, last_b] = True
  return ends_bt


def step_ends(tokens_t: np.ndarray, newline_v: np.ndarray, eos_id: int,
              content_v: np.ndarray | None = None) -> np.ndarray:
  """The index of each step's last token, ascending, int32; no tokens, no steps."""
  tokens_bt = np.asarray(tokens_t, np.int64).reshape(1, -1)
  length_b = np.array([tokens_bt.shape[1]])
  return np.flatnonzero(_ends_bt(tokens_bt, length_b, newline_v, eos_id, content_v)[0]).astype(np.int32)


def split(tokens_t: np.ndarray, newline_v: np.ndarray, eos_id: int,
          content_v: np.ndarray | None = None) -> list[np.ndarray]:
  """The steps themselves; `join(split(x)) == x`."""
  tokens_t = np.asarray(tokens_t)
  return np.split(tokens_t, step_ends(tokens_t, newline_v, eos_id, content_v) + 1)[:-1]


def join(steps: Sequence[np.ndarray]) -> np.ndarray:
  """The tokens of all steps."""
  return np.concatenate(steps) if len(steps) else np.zeros(0, np.int32)


def step_ends_bs(tokens_bt: np.ndarray, length_b: np.ndarray, newline_v: np.ndarray, eos_id: int,
                 max_steps: int, *, merge: bool = False,
                 content_v: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
  """`step_ends` of every row, padded with -1, and how many steps each row has.

  A row of more than `max_steps` steps is a UserError, or, with `merge`, its
  last step takes all that is left; its count stays the true one, so that
  `count_b > max_steps` tells which rows those were.
  """
  tokens_bt, length_b = np.asarray(tokens_bt), np.asarray(length_b)
  ends_bt = _ends_bt(tokens_bt, length_b, newline_v, eos_id, content_v)
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
