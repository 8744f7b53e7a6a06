"""The names of problem sets and the mixtures of them, without the seconds that TensorFlow takes."""

import math

from pav_jax.errors import UserError
from pav_jax.problems import problem
from pav_jax.training import files

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


def is_file(name: str) -> bool:
  """Whether a task is a user's own file."""
  return name.endswith((".jsonl", ".jsonl.gz"))


def file_of(name: str, split: str) -> str:
  """The file of a split. A path with {split} in it stands for three files; UserError for any other but as a test set."""
  if "{split}" not in name and split != "test":
    raise UserError(f"{name}: no {split} split; a path with {{split}} in it names a file for each")
  return name.replace("{split}", split)


def check(mixture: str, split: str):
  """UserError for a mixture that names no set, or a file that is not there."""
  for name in rates(mixture):
    if is_file(name) and not files.exists(files.path(file_of(name, split))):
      raise UserError(f"there is no file {file_of(name, split)}")
    check_name(name)


def check_name(name: str):
  """UserError for a task that is neither a set nor a file."""
  if not is_file(name) and name not in SETS:
    raise UserError(f"task {name!r} is none of {', '.join(SETS)}, nor a path that ends in .jsonl")


def most(mixture: str, split: str, arithmetic_size: int) -> float:
  """How many problems a split has at most, as far as that is known before they are read; else infinity."""
  sizes = [arithmetic_size if name == "arithmetic" else _lines(file_of(name, split)) if is_file(name) else math.inf
           for name in rates(mixture)]
  return sum(sizes)


def _lines(path: str) -> int:
  return sum(1 for line in problem.unpacked(path).split(b"\n") if line.strip())


def check_prompt(prompt: str):
  """Raises UserError unless the template holds the question and ends its line."""
  if "{question}" not in prompt:
    raise UserError(f"prompt {prompt!r} has no {{question}} in it")
  if not prompt.endswith("\n"):
    raise UserError(f"prompt {prompt!r} must end in a newline: the response's first piece could merge with its end")
