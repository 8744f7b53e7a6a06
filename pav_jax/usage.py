"""What `python -m pav_jax.main` says of itself: without arguments the first screen, with --help every key, too."""

import textwrap

from ml_collections import config_dict

from pav_jax import configuration

SCREEN = """usage: python -m pav_jax.main --config=FILE --workdir=FOLDER [--config.SECTION.KEY=VALUE ...]
  --config=quickstart               a run of configs/ by its name, or a file of yours on top of configs.default.get_config()
  --config.search.alpha=0.3         another value for a key
  --workdir=runs/mine               where the run lives; the same command again goes on where it was
  --check                           only says what would keep the run from starting
  --strict                          a stage whose work is useless to those after it ends the run
  --hosts=auto                      one of several processes (elsewhere ADDRESS:PORT,COUNT,INDEX)
  --mode=compile --topology=v5e:4x4 asks the TPU compiler whether it fits
  --help                            this, and all keys with their values in FILE (configs/default.py without one)

stages, --config.stage=NAME:
"""
STAGES = {
    "pipeline": "the next eight in order, skipping what is done (what runs unless another is named)",
    "problems": "publishers' files, your own or the generator -> token ids; the vocabulary",
    "sft": "problems -> the policy, by supervised fine-tuning",
    "rollouts": "problems, policy -> graded responses",
    "values": "responses -> Q of every prefix, by Monte Carlo",
    "labels": "files of others -> labels of steps, for verifier.labels=imported or both",
    "verifier": "responses, values -> verifiers of outcome (orm), value (q) and progress (advantage)",
    "search": "policy, verifiers, test problems -> best-of-N and beams, and what they cost",
    "report": "all of it -> a page with every figure",
    "rl": "after the verifier: online RL with progress as reward, and its report",
    "tune": "before search, where search.tuned: every arm's settings on validation problems",
    "evaluate": "a checkpoint by path -> its accuracy, or a verifier's judgement",
    "didactic": "a figure of configs/didactic, by itself",
}
_WIDTH = 120


def screen() -> str:
  """What there is, in one screen."""
  return SCREEN + "\n".join(f"  {name:<10}{text}" for name, text in STAGES.items())


def keys(config: config_dict.ConfigDict, path: str) -> str:
  """Every key with its value, a paragraph a section."""
  sections = {}
  for key, value in configuration.leaves(config):
    section, _, name = key.rpartition(".")
    said = ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)
    sections.setdefault(section, []).append(f"{name}={said}")
  lines = [textwrap.fill(" ".join(items), _WIDTH, initial_indent=f"  {section or 'config':<{max(19, len(section))}} ",
                         subsequent_indent=" " * 22, break_long_words=False, break_on_hyphens=False)
           for section, items in sections.items()]
  return f"keys of {path}, --config.SECTION.KEY=VALUE:\n" + "\n".join(lines)
