"""Exact values of prefixes, where there are some: `arithmetic`, under the demonstrator that the policy imitates."""

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
