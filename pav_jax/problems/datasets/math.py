r"""MATH as a TFDS builder, in its publisher's split and in PRM800K's.

`hendrycks`: train 7,500, test 5,000. `prm800k`: train 12,000, test 500
(MATH-500), so its train holds most of the other's test: never train on one
and report the other. Two problems of both trains box nothing
(`problem.EMPTY_BOXES`); they are left out, counted and logged, so that 7,498
and 11,998 remain.
"""

import dataclasses

import tensorflow_datasets as tfds

from pav_jax.problems import problem
from pav_jax.problems.datasets import builder

_MATH_URL = "https://people.eecs.berkeley.edu/~hendrycks/MATH.tar"
# The file is in git-lfs: the raw address gives only a pointer.
_PRM800K_URL = "https://media.githubusercontent.com/media/openai/prm800k/main/prm800k/math_splits/test.jsonl"


@dataclasses.dataclass(eq=False)
class MathConfig(builder.Config):
  """prm800k: whose split; known: rows that may lack an answer."""

  prm800k: bool = False
  known: frozenset[str] = problem.EMPTY_BOXES


class PavMath(tfds.core.GeneratorBasedBuilder):
  """Competition problems with worked solutions.

  Bump VERSION whenever grading/boxes.py reads another answer from a solution: prepared data is never read again.
  """

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {"1.0.0": "First.", "2.0.0": "Several boxes that a solution adds up are one answer, a list or a choice."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      "MATH.tar.gz, MATH.tar or the extracted folder MATH/{train,test}/<subject>/<number>.json; for PRM800K's split "
      "also prm800k/math_splits/test.jsonl of github.com/openai/prm800k (git-lfs). What is absent is downloaded.")
  BUILDER_CONFIGS = [MathConfig(name="hendrycks"), MathConfig(name="prm800k", prm800k=True)]

  def _info(self):
    return builder.info(self, r"Competition problems; the answer stands in the last \boxed{}, or in several that are added up.",
                        "https://github.com/hendrycks/math", "Hendrycks et al. 2021, arXiv 2103.03874")

  def _split_generators(self, dl_manager):
    path = builder.find(dl_manager, ["MATH", "MATH.tar.gz", "MATH.tar"], _MATH_URL)
    if self.builder_config.prm800k:
      test_path = builder.find(dl_manager, ["prm800k/math_splits/test.jsonl"], _PRM800K_URL)
      rows = {split: problem.read_prm800k(path, test_path, split) for split in ("train", "test")}
    else:
      rows = {split: problem.read_math(path, split) for split in ("train", "test")}
    return builder.generators(self, rows, self.builder_config.known)

  def _generate_examples(self, rows):
    return rows
