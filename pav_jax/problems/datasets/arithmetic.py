"""Generated arithmetic as a TFDS builder: train, validation and test share no question."""

import dataclasses
import hashlib
import json

import tensorflow_datasets as tfds

from pav_jax.errors import UserError
from pav_jax.problems.arithmetic import Arithmetic, generate
from pav_jax.problems.datasets import builder
from pav_jax.problems.problem import Problem

# Fixed for good: every run with the same dials is measured on the same problems.
TEST_SEED = 20_241_010


@dataclasses.dataclass(eq=False)
class ArithmeticConfig(builder.Config):
  """Dials, sizes and seeds; the name, unless given, is a digest of them, as prepared data is found by its name."""

  name: str = ""
  dials: Arithmetic = Arithmetic()
  train_size: int = 12_000
  validation_size: int = 500
  test_size: int = 500
  train_seed: int = 1
  validation_seed: int = 2
  # Another one only to see whether a result holds on fresh problems.
  test_seed: int = TEST_SEED

  def __post_init__(self):
    for field in ("train_size", "validation_size", "test_size"):
      if getattr(self, field) < 1:
        raise UserError(f"arithmetic.{field}: {getattr(self, field)} is below 1")
    if len({self.train_seed, self.validation_seed, self.test_seed}) < 3:
      raise UserError(f"arithmetic: train_seed, validation_seed and test_seed {self.test_seed} must differ")
    if not self.name:
      made_of = [dataclasses.asdict(self.dials), self.train_size, self.validation_size, self.test_size,
                 self.train_seed, self.validation_seed, self.test_seed]
      self.name = "x" + hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


class PavArithmetic(tfds.core.GeneratorBasedBuilder):
  """Bump VERSION whenever `generate` gives other problems: prepared data is never generated again."""

  VERSION = tfds.core.Version("2.0.0")
  RELEASE_NOTES = {"2.0.0": "The problem says by key which operation to take."}
  BUILDER_CONFIGS = [
      ArithmeticConfig(name="default"),
      ArithmeticConfig(name="small", dials=Arithmetic(min_length=2, max_length=3, modulus=10), train_size=1_000,
                       validation_size=100, test_size=100),
  ]

  def _info(self):
    return builder.info(self, "Generated chains of operations; every prefix has a known value.",
                        "https://arxiv.org/abs/2410.08146", "")

  def _split_generators(self, dl_manager):
    del dl_manager
    config = self.builder_config
    problems, collisions = disjoint(config)
    generators = builder.generators(self, {split: problems[split] for split in ("train", "validation", "test")})
    self.info.metadata["collisions"] = collisions
    return generators

  def _generate_examples(self, rows):
    return rows


def disjoint(config: ArithmeticConfig) -> tuple[dict[str, list[Problem]], dict[str, int]]:
  """The splits at their full sizes, and how many problems each lost because an earlier one holds the question."""
  problems, collisions, taken = {}, {}, set()
  # The test split first, so that neither other seed nor size changes it.
  for split, seed, size in (("test", config.test_seed, config.test_size),
                            ("validation", config.validation_seed, config.validation_size),
                            ("train", config.train_seed, config.train_size)):
    count = size
    while True:
      drawn = generate(config.dials, seed, count)
      kept = [problem for problem in drawn if problem.question not in taken]
      if len(kept) >= size:
        break
      count += size - len(kept)
    problems[split], collisions[split] = kept[:size], len(drawn) - len(kept)
    taken.update(problem.question for problem in kept[:size])
  return problems, collisions
