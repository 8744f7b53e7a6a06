"""Launches a run of pav_jax as an XManager experiment on the machine at hand: a workstation or a TPU VM.

  python launch/xm_launch.py --config=configs/quickstart.py --workdir=runs/quickstart --config.search.alpha=0.3

  1. The flags of this file are read; every other argument goes to
     `python -m pav_jax.main` as it stands.
  2. One XManager experiment with one work unit is recorded (xm_local keeps
     its list under ~/.xmanager) and run with this interpreter, in the
     directory the launcher was started in.
  3. The work unit's output is shown as it comes; its exit status is ours.
     An interruption reaches it, and the same command goes on from there.

A slice of several hosts (a pod) is more than this launcher starts: one
process is one host.
"""

import asyncio
import sys

from absl import flags
from xmanager import xm
from xmanager import xm_local

_TITLE = flags.DEFINE_string("title", "pav_jax", "What the experiment is called in XManager's list.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the command that would be run, and stop.")


def command(arguments: list[str]) -> list[str]:
  """The command line of the work unit."""
  return [sys.executable, "-m", "pav_jax.main", *arguments]


async def launch(title: str, arguments: list[str]) -> int:
  """Exit status of pav_jax.main under XManager."""
  python, *rest = command(arguments)
  unit = None
  try:
    async with xm_local.create_experiment(experiment_title=title) as experiment:
      executor = xm_local.Local()
      [executable] = experiment.package([xm.binary(executor.Spec(), path=python)])
      unit = await experiment.add(xm.Job(executable, executor, args=xm.SequentialArgs.from_collection(rest)))
  except RuntimeError:  # XManager's word for a process that failed; the run itself has said why
    if unit is None:
      raise
  [handle] = unit._local_execution_handles  # pylint: disable=protected-access
  return handle.process.returncode


def main() -> int:
  """Exit status of the command."""
  _, *arguments = flags.FLAGS(sys.argv, known_only=True)
  if not any(a.startswith("--config=") for a in arguments):
    print("error: command line: --config=configs/....py is missing", file=sys.stderr)
    return 2
  if _DRY_RUN.value:
    print(" ".join(command(arguments)))
    return 0
  try:
    return asyncio.run(launch(_TITLE.value, arguments))
  except KeyboardInterrupt:
    return 130


if __name__ == "__main__":
  sys.exit(main())
