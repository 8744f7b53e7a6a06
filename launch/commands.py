"""The command line of a work unit, as arguments and as one line of shell."""

import shlex
from collections.abc import Sequence

MAIN = ("-m", "pav_jax.main")


def chain(stages: Sequence[Sequence[str]], hosts: int, python: str = "python") -> str:
  """Shell that runs pav_jax.main once per stage and stops at the first that fails, with its status.

  stages: the arguments of each run. On more than one host every process finds
  the others by itself (--hosts=auto).
  """
  auto = ["--hosts=auto"] if hosts > 1 else []
  return " && ".join(shlex.join([python, *MAIN, *arguments, *auto]) for arguments in stages)
