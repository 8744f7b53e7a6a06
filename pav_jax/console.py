"""The command `pav_jax`, and `python -m pav_jax`: a word, then what that word's module takes."""

import importlib
import os
import runpy
import signal
import sys
from collections.abc import Callable
from collections.abc import Sequence

from pav_jax.training import preemption

# Word -> module with main(arguments) -> exit status, and what it does.
COMMANDS = {
    "score": ("pav_jax.score", "Q, A and the effective reward of the steps of solutions in a file"),
    "judge": ("pav_jax.judge", "how good a verifier finds the first wrong step: ProcessBench, PRMBench, MR-MATH"),
    "grade": ("pav_jax.grade", "whether the answers in a file are right"),
    "trainings": ("pav_jax.trainings", "several trainings of the same settings in one table, with intervals over trainings"),
    "publish": ("pav_jax.publish", "a checkpoint as a folder that transformers and vLLM load, or as Gemma's own"),
    "export": ("pav_jax.export", "a run's values as rows that others train on"),
}
# Word -> flags of `python -m pav_jax.main` that it stands for, and what it does.
RUNS = {
    "run": ((), "a run, or a stage of one: --config=configs/quickstart.py --workdir=runs/mine"),
    "check": (("--check",), "what would keep a run from starting"),
    "compile": (("--mode=compile",), "whether a run fits a slice of TPUs: --topology=v5e:4x4"),
}


def usage() -> str:
  """What there is, in one screen."""
  lines = [f"  {word:<11}{said}" for word, (_, said) in (RUNS | COMMANDS).items()]
  return "usage: pav_jax COMMAND ...\n\n" + "\n".join(lines) + "\n\npav_jax COMMAND --help says more."


def quietly(command: Callable[[], int]) -> int:
  """The exit status of a command; where its reader has gone, as behind `| head`, that of SIGPIPE, and no word."""
  try:
    try:
      return command()
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    # Python flushes once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
  """Exit status of the command; 2 for a word that is none, and as `quietly` says."""
  return quietly(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
  arguments = sys.argv[1:] if arguments is None else arguments
  word, rest = "".join(arguments[:1]), list(arguments[1:])
  if word in ("--help", "-h"):
    print(usage())
    return 0
  if word in RUNS:
    # As if it were started by its own name: it hears Ctrl-C before it imports anything, and ends its process itself.
    sys.argv = ["pav_jax", *RUNS[word][0], *rest]
    runpy.run_module("pav_jax.main", run_name="__main__", alter_sys=True)
    return 0
  if word not in COMMANDS:
    print(f"error: {word!r} is no command\n\n{usage()}" if word else usage(), file=sys.stderr)
    return 2
  before = signal.getsignal(signal.SIGINT)
  preemption.until_begun()
  module = importlib.import_module(COMMANDS[word][0])
  signal.signal(signal.SIGINT, before)
  return module.main(rest)
