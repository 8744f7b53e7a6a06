"""Exact values of prefixes, and the first wrong step, where they are known: `arithmetic`, under the demonstrator that the policy imitates."""

import numpy as np

from pav_jax.problems import arithmetic


def dials_of(config) -> arithmetic.Arithmetic:
  """The dials of a config's arithmetic section."""
  dials = config.arithmetic.dials.to_dict()
  return arithmetic.Arithmetic(**(dials | {"operations": tuple(dials["operations"])}))


def step_texts(token_bt: np.ndarray, end_bz: np.ndarray, vocabulary) -> list[list[str]]:
  """The text of each step of each response, without the newlines around it; end_bz as in values.Values."""
  return [[vocabulary.decode(token_t[last + 1:end + 1]).strip("\n")
           for last, end in zip(end_z, end_z[1:]) if end > -2] for token_t, end_z in zip(token_bt, end_bz)]


def are_known(problems) -> bool:
  """Whether these problems have exact values."""
  return set(problems.dataset_p) == {"arithmetic"}


def values(question_b, lines: list[list[str]], width: int, dials: arithmetic.Arithmetic) -> np.ndarray:
  """exact_bz (b, width), Q at the prompt and after each step; NaN from where one left what the demonstrator could write, or ended."""
  exact_bz = np.full((len(lines), width), np.nan)
  for row, (question, response) in enumerate(zip(question_b, lines)):
    q_z = arithmetic.exact_values(arithmetic.parse(str(question), dials), response)[:width]
    exact_bz[row, :len(q_z)] = q_z
  return exact_bz


def value(question: str, text: str, whole: bool, dials: arithmetic.Arithmetic) -> float:
  """Q of a response so far: what it is after the last line; 0 if one is nothing that the demonstrator could write there.

  whole: the last line is at its end; if not, it is left out of account.
  """
  lines = text.split("\n")
  lines = [line for line in (lines if whole else lines[:-1]) if line.strip()]
  return float(np.nan_to_num(arithmetic.exact_values(arithmetic.parse(question, dials), lines)[-1]))


def first_wrong(question_b, lines: list[list[str]], dials: arithmetic.Arithmetic) -> np.ndarray:
  """int (b,): index of each response's first wrong step; -1 without one, also where it stops early.

  A step is wrong where what it prints is false: the number it leads to is not the
  one that the operations to take have led to by then; or where it is nothing that
  the demonstrator could write there. The exact Q need not fall to 0 there: a second
  mistake may make the answer right, as it does in other people's solutions.
  """
  return np.array([_first_wrong(arithmetic.parse(str(question), dials), response) for question, response in zip(question_b, lines)], int)


def _first_wrong(walk: arithmetic.Walk, response: list[str]) -> int:
  true = [walk.start]  # after each day
  for day in walk.days:
    true.append(arithmetic.apply(day.own, true[-1], walk.dials.modulus))
  state = arithmetic.start_state(walk)
  for step, line in enumerate(response):
    state = arithmetic.read_line(walk, state, line)
    if state is None or state.number != (walk.answer if state.answered else true[state.day]):
      return step
  return -1
