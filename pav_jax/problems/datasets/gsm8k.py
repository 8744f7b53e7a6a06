"""GSM8K as a TFDS builder: train 7,473, test 1,319."""

import dataclasses

import tensorflow_datasets as tfds

from pav_jax.problems import problem
from pav_jax.problems.datasets import builder

_URL = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/{split}.jsonl"


@dataclasses.dataclass(eq=False)
class Gsm8kConfig(builder.Config):
  """strip_notes: whether the calculator's `<<48/2=24>>` go from the solutions."""

  strip_notes: bool = True


class PavGsm8k(tfds.core.GeneratorBasedBuilder):
  """Named apart from TFDS's own gsm8k, with which it shares a registry."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "First."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      "gsm8k/train.jsonl and gsm8k/test.jsonl from grade_school_math/data of github.com/openai/grade-school-math; "
      "without them they are downloaded from there.")
  BUILDER_CONFIGS = [Gsm8kConfig(name="plain"), Gsm8kConfig(name="notes", strip_notes=False)]

  def _info(self):
    return builder.info(self, "Grade-school word problems; the answer stands after ####.",
                        "https://github.com/openai/grade-school-math", "Cobbe et al. 2021, arXiv 2110.14168")

  def _split_generators(self, dl_manager):
    return builder.generators(self, {
        split: problem.read_gsm8k(builder.find(dl_manager, [f"gsm8k/{split}.jsonl"], _URL.format(split=split)),
                                  split, strip_notes=self.builder_config.strip_notes)
        for split in ("train", "test")})

  def _generate_examples(self, rows):
    return rows
