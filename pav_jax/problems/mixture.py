"""The names of problem sets and the mixtures of them, without the seconds that TensorFlow takes."""

import math

from pav_jax.errors import UserError
from pav_jax.problems.files import door
from pav_jax.problems.files import folder

SPLITS = ("train", "validation", "test")
SETS = ("arithmetic", "gsm8k", "gsm8k_notes", "math", "math_prm800k", "arithmetic_default", "arithmetic_small")


def rates(mixture: str) -> dict[str, float]:
  """The tasks of a mixture, in its order, and how often each is drawn: "gsm8k:1,math_prm800k:3"."""
  found = {}
  for part in mixture.split(","):
    name, colon, rate = part.strip().rpartition(":")
    try:
      name, value = (name, float(rate)) if colon else (rate, 1.0)
    except ValueError:
      # A colon of the path's own.
      name, value = part.strip(), 1.0
    if not 0 < value < float("inf"):
      raise UserError(f"mixture {mixture!r}: the rate of {name} must be positive")
    if name in found:
      raise UserError(f"mixture {mixture!r}: {name} occurs twice")
    found[name] = value
  return found


def shared(config) -> frozenset[str]:
  """The files or folders that are both `train` and `validation` of a problems section: they are parted in two (`tasks`)."""
  return frozenset(name for name in rates(config.train).keys() & rates(config.validation).keys() if door.is_path(name))


def check(config, split: str):
  """UserError where the mixture of a split in a problems section names no set, or a file that is not there or is the test set."""
  for name in rates(config[split]):
    check_name(name)
    if name in SETS:
      continue
    _, whole = door.files_of(name, split)
    if split != "test" and not whole and name in rates(config.test) and door.files_of(name, "test")[0] == door.files_of(name, split)[0]:
      raise UserError(f"{name} is problems.test, too: nothing would be held out; a path with {{split}} in it names a file for each")


def check_name(name: str):
  """UserError for a task that is neither a set nor a path."""
  if name not in SETS and not door.is_path(name):
    raise UserError(f"task {name!r} is none of {', '.join(SETS)}, nor a path: a file that ends in {', '.join(folder.ENDINGS)}, "
                    "or a folder with a / in its name, as ./mine")


def most(mixture: str, split: str, arithmetic_size: int) -> float:
  """How many problems a split has at most, as far as that is known before they are read; else infinity."""
  sizes = [arithmetic_size if name == "arithmetic" else door.count(name, split) if name not in SETS else math.inf
           for name in rates(mixture)]
  return sum(sizes)


def check_prompt(prompt: str):
  """Raises UserError unless the template holds the question and ends its line."""
  if "{question}" not in prompt:
    raise UserError(f"prompt {prompt!r} has no {{question}} in it")
  if not prompt.endswith("\n"):
    raise UserError(f"prompt {prompt!r} must end in a newline: the response's first piece could merge with its end")
