"""The command line of a work unit, as arguments and as one line of shell."""

import shlex
from collections.abc import Sequence

def chain(stages: Sequence[Sequence[str]], python: str = "python") -> str:
  """Shell that runs pav_jax.main once per stage and stops at the first that fails, with its status.

  stages: the arguments of each run.
  """
  return " && ".join(shlex.join([python, "-m", "pav_jax.main", *arguments]) for arguments in stages)


def on(hosts: int, stages: Sequence[Sequence[str]], workdir: str) -> str:
  """The chain for each of the hosts of a slice, which find one another by themselves.

  Compiled programs are kept in workdir: a restart, and the other units of a sweep, need not wait minutes for them.
  """
  kept = shlex.join(["export", f"JAX_COMPILATION_CACHE_DIR={workdir.rstrip('/')}/compiled"])
  return f"{kept} && " + chain([[*arguments, "--hosts=auto"] if hosts > 1 else arguments for arguments in stages])
