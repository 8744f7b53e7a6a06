"""The command line of a work unit, as arguments and as one line of shell."""

import shlex
from collections.abc import Sequence

def chain(stages: Sequence[Sequence[str]], python: str = "python") -> str:
  """Shell that runs pav_jax.main once per stage and stops at the first that fails, with its status.

  stages: the arguments of each run.
  """
  return " && ".join(shlex.join([python, "-m", "pav_jax.main", *arguments]) for arguments in stages)


def on(hosts: int, stages: Sequence[Sequence[str]]) -> str:
  """The chain for each of the hosts of a slice, which find one another by themselves."""
  return chain([[*arguments, "--hosts=auto"] if hosts > 1 else arguments for arguments in stages])
