"""The prepared problems of a run, read back without TensorFlow, and rows for training."""

from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training.records import Folder


class Problems(NamedTuple):
  """A split: text fields as str arrays, prompts (with BOS) and solutions (with EOS) as padded ids."""

  id_p: np.ndarray
  dataset_p: np.ndarray
  question_p: np.ndarray
  answer_p: np.ndarray
  prompt_pt: np.ndarray
  prompt_length_p: np.ndarray
  solution_pt: np.ndarray
  solution_length_p: np.ndarray


def read(folder: Folder, count: int = -1) -> Problems:
  """The first `count` problems of a split (-1: all), padding no wider than needed. UserError if there are fewer."""
  arrays = folder.read()
  have = len(arrays["id_p"])
  if count > have:
    raise UserError(f"{folder.path} has {have} problems, {count} are asked for")
  problems = Problems(**{name: arrays[name] for name in Problems._fields})
  trim = lambda x_pt, length_p: x_pt[:, :-(-int(length_p.max()) // 8) * 8]
  problems = problems._replace(
      prompt_pt=trim(problems.prompt_pt, problems.prompt_length_p),
      solution_pt=trim(problems.solution_pt, problems.solution_length_p))
  return problems if count == -1 else Problems(*(x[:count] for x in problems))


def vocabulary(folder: Folder) -> vocabulary_lib.Vocabulary:
  """The vocabulary that the run's ids are of (it travels with the problems), with its rule of steps. UserError if it is another by now."""
  facts = folder.manifest()["facts"]
  # Problems prepared before there was a choice have lines.
  found = vocabulary_lib.load(folder.path / "vocabulary.model", facts.get("steps", "newline"))
  if found.fingerprint != facts["vocabulary"]:
    raise UserError(f"{folder.path / 'vocabulary.model'} is damaged: its checksum is not the manifest's; "
                    "one of the other splits has it, too")
  return found


def join_rows(prompt_bt, prompt_length_b, response_bt, response_length_b, multiple: int = 8) -> np.ndarray:
  """token_bt: each prompt followed by its response, right-padded with 0 to a multiple."""
  total_b = prompt_length_b + response_length_b
  width = -(-int(total_b.max()) // multiple) * multiple
  at_bt = np.arange(width)[None, :]
  from_prompt_bt = at_bt < prompt_length_b[:, None]
  from_response_bt = ~from_prompt_bt & (at_bt < total_b[:, None])
  pick = lambda x_bt, i_bt: np.take_along_axis(x_bt, np.clip(i_bt, 0, x_bt.shape[1] - 1), axis=1)
  token_bt = np.where(from_prompt_bt, pick(prompt_bt, np.broadcast_to(at_bt, from_prompt_bt.shape)),
                      pick(response_bt, at_bt - prompt_length_b[:, None]))
  return np.where(from_prompt_bt | from_response_bt, token_bt, 0).astype(np.int32)
