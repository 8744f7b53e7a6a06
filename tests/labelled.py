"""A run of which the problems are prepared, and nothing else: what the stages of labels need."""

import pathlib
import shutil

import numpy as np

from pav_jax.problems import home as home_lib
from pav_jax.problems import prepared
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import records
from tests import made

QUESTIONS = ["Ann has 9 mod 40", "Ann has 3 mod 7", "Bob has 1 mod 2"]


def problems(path: pathlib.Path) -> pathlib.Path:
  """Fills the path as a workdir: problems/train, problems/validation, problems/test, each with QUESTIONS."""
  for split in ("train", "validation", "test"):
    folder = records.Folder(path / "problems" / split)
    vocabulary = vocabulary_lib.train(made.TEXTS, 400, folder.path / "vocabulary.model")
    folder.start(f"problems/{split}", {"seed": 0, "problems": {"prompt": made.PROMPT, "steps": "newline"}}, {})
    prompts = [home_lib.Home(vocabulary, made.PROMPT, "newline").prompt_t(question) for question in QUESTIONS]
    solution = [*vocabulary.encode("#### 7"), vocabulary.eos_id]
    count = len(QUESTIONS)
    folder.write_shard(0, prepared.Problems(
        np.array([f"{split}/{i}" for i in range(count)]), np.full(count, "arithmetic"), np.array(QUESTIONS), np.full(count, "7"),
        np.array([np.pad(x, (0, 64 - len(x))) for x in prompts], np.int32), np.array([len(x) for x in prompts], np.int32),
        np.tile(np.array(solution, np.int32), (count, 1)), np.full(count, len(solution), np.int32))._asdict(), {"problems": count})
    folder.finish(1, {"vocabulary": vocabulary.fingerprint, "steps": "newline"})
  return path


def copy(root: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
  """The run's problems in another workdir."""
  shutil.copytree(root / "problems", to / "problems")
  return to
