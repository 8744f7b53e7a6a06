"""A run's folder without the run: a vocabulary, problems, a policy and two verifiers that have learnt nothing."""

import pathlib

import jax
import numpy as np

from configs import default
from pav_jax.models import architecture
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import checkpoint
from pav_jax.training import records
from pav_jax.training import state

PROMPT = "Q: {question}\n"
TEXTS = [f"Q: Ann has {i} mod 40. 1: Ann +{i % 9} Bob *{i % 7}\n1: +{i % 9} = {i * 3 % 40}\n2: *{i % 7} = {i}\n#### {i}"
         for i in range(40)] * 20


def run(path: pathlib.Path, steps: str = "newline") -> pathlib.Path:
  """Fills the path as a workdir: problems/test, sft/best, verifier/q/best, other/best (another verifier, which does not say its kind)."""
  folder = records.Folder(path / "problems" / "test")
  vocabulary = vocabulary_lib.train(TEXTS, 400, folder.path / "vocabulary.model")
  folder.start("problems/test", {"seed": 0, "problems": {"prompt": PROMPT, "steps": steps}}, {})
  folder.finish(0, {"vocabulary": vocabulary.fingerprint, "steps": steps})
  arch = architecture.build(default.model(vocab_size=400), vocabulary)
  for seed, name in enumerate(("sft", "verifier/q", "other")):
    # Twice as far from 0 as they are born: scores that differ.
    params = jax.tree.map(lambda x: 2 * x, arch.network.init(jax.random.key(seed)))
    save(path / name / "best", params, arch.meta({"sft": "policy", "verifier/q": "q"}.get(name, "")))
  return path


def save(path: pathlib.Path, params, meta: dict):
  """Writes a checkpoint of these parameters."""
  with checkpoint.Checkpoints(path) as checkpoints:
    checkpoints.save(state.TrainState(np.int32(1), params, {}), meta)
