"""What the configs of the didactic figures share: the paper's world, network, SFT and RL (section 3.3, appendix B).

Not the paper's, which does not state them: the learning rate of SFT, SGD and unit-gradient SGD, and how often success is taken.
"""

import ml_collections


def figure(name: str, **sections) -> ml_collections.ConfigDict:
  """A config of one figure. mesh: main makes it; seeds are side by side on one device."""
  return ml_collections.ConfigDict({
      "stage": "didactic", "figure": name, "again": False, "seed": 0, "mesh": {"data": -1, "fsdp": 1, "model": 1},
      **sections})


def world() -> dict:
  """The planted sub-sequence."""
  return {"length": 10, "vocabulary": 15, "planted": (3, 6, 0, 3, 5), "eos_ends": True}


def learner(iterations: int, **target: float) -> dict:
  """Sections of a figure that trains: each run has that many iterations or, with a target, ends once all seeds came to it."""
  return {
      "seeds": 10, "world": world(), "policy": {"width": 128, "layers": 3},
      "sft": {"gamma": 5.0, "iterations": 50, "batch_size": 64, "learning_rate": 1e-3},
      "rl": {"learning_rate": {"adam": 1e-3, "sgd": 0.3, "unit": 0.1}, "iterations": iterations, "batch_size": 64,
             "chunk": 10, **target}}


def tree() -> dict:
  """Random trees: spread of the policies' logits, chance that a leaf has no reward."""
  return {"depth": 3, "branching": 3, "spread": 1.0, "sparsity": 0.5}
