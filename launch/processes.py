"""This machine: a work unit as one or several processes, stage after stage, through XManager's local executor.

  1. A work unit's stages run one after another, the units of a sweep too: they
     would have the same devices.
  2. Every process of a stage is one host: --hosts=127.0.0.1:PORT,COUNT,INDEX. By
     itself a process is given no --hosts.
  3. The first process that fails ends the others, the stage and all that would
     come after it; its exit status is ours. So does an interruption, which the
     processes hear of as such.
"""

import asyncio
import os
import shlex
import signal
import socket
import sys

from commands import MAIN
from units import Unit
from xmanager import xm
from xmanager import xm_local
from xmanager.xm_local import executables

_GRACE = 10  # seconds between asking a process to end and ending it


def commands(arguments: tuple[str, ...], processes: int) -> list[list[str]]:
  """The command lines of one stage, one for each process."""
  command = [sys.executable, *MAIN, *arguments]
  if processes == 1:
    return [command]
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  return [[*command, f"--hosts={address},{processes},{index}"] for index in range(processes)]


def environment(devices: int) -> dict[str, str]:
  """What is set for every process: so many simulated devices each, or nothing for 0, the machine's own."""
  if not devices:
    return {}
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
  return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def show(unit: Unit, processes: int, devices: int) -> str:
  """The lines of shell that a work unit is."""
  variables = "".join(f"{name}={shlex.quote(value)} " for name, value in environment(devices).items())
  return "\n".join(variables + shlex.join(command) for stage in unit.stages for command in commands(stage, processes))


async def run(title: str, units: list[Unit], processes: int, devices: int) -> int:
  """Runs the work units in one experiment; 0, or the exit status of the first process that failed."""
  ended = []  # the status of every work unit that has ended

  def generator(unit: Unit):
    async def generate(work_unit):
      ended.append(await _run_unit(work_unit, unit, processes, devices))
    return generate

  try:
    async with xm_local.create_experiment(experiment_title=title) as experiment:
      for unit in units:
        await experiment.add(generator(unit))
        if ended[-1]:
          break
  except RuntimeError:  # XManager's word for a process that failed; the run itself has said why
    if not ended or not ended[-1]:
      raise
  if ended[-1] and len(units) > 1:
    left = [unit.point for unit in units[len(ended):]]
    print(f"work unit {units[len(ended) - 1].point} ended with status {ended[-1]}; not started: {' '.join(left) or 'none'}",
          file=sys.stderr)
  return ended[-1]


async def _run_unit(work_unit, unit: Unit, processes: int, devices: int) -> int:
  """Exit status of a work unit's stages, up to the first that fails."""
  for stage in unit.stages:
    jobs = {}
    for index, (python, *arguments) in enumerate(commands(stage, processes)):
      # `exec`: signals are for the process, not for the shell that XManager starts it with.
      binary = executables.LocalBinary(name="main", command=f"exec {shlex.quote(python)}")
      jobs[f"host{index}"] = xm.Job(binary, xm_local.Local(), args=xm.SequentialArgs.from_collection(arguments),
                                    env_vars=environment(devices))
    await work_unit.add(xm.JobGroup(**jobs))
    running = [handle.process for handle in work_unit._local_execution_handles[-processes:]]  # pylint: disable=protected-access
    status = await _first_failure(running)
    if status:
      return status
  return 0


async def _first_failure(running: list[asyncio.subprocess.Process]) -> int:
  """The exit status of the first process to fail, after which none is left; 0 when all have ended well."""
  waits = {asyncio.ensure_future(process.wait()) for process in running}
  try:
    while waits:
      done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
      failed = [wait.result() for wait in done if wait.result()]
      if failed:
        # A process that a signal ended has the status a shell would give.
        return failed[0] if failed[0] > 0 else 128 - failed[0]
    return 0
  finally:
    await _end([process for process in running if process.returncode is None])


async def _end(running: list[asyncio.subprocess.Process]):
  """Interrupts processes, and kills those that do not end by themselves, with all they have started."""
  for process in running:
    os.kill(process.pid, signal.SIGINT)
  waits = [asyncio.ensure_future(process.wait()) for process in running]
  if waits:
    await asyncio.wait(waits, timeout=_GRACE)
  for process in running:
    if process.returncode is None:
      os.killpg(process.pid, signal.SIGKILL)  # XManager starts each in a session of its own
  await asyncio.gather(*waits)
