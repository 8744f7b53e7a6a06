"""This machine: a work unit as one or several processes, stage after stage, through XManager's local executor.

  1. Every process is a host that runs the stages one after another, up to the
     first that fails: --hosts=127.0.0.1:PORT,COUNT,INDEX, a port for each stage.
     A process by itself is given no --hosts. The units of a sweep run one after
     another: they would have the same devices.
  2. The first process that fails ends the others and what would come after them;
     its exit status is ours. So does an interruption. They are told by SIGTERM, and
     have the time that a machine which is taken away would leave them.
"""

import asyncio
import os
import shlex
import signal
import socket
import sys

import commands
from units import Unit
from xmanager import xm
from xmanager import xm_local
from xmanager.xm_local import executables

_GRACE = 30  # seconds between asking a process to end and ending it


def hosts(unit: Unit, processes: int) -> list[str]:
  """The line of shell that each process of a work unit runs."""
  ports = [f"127.0.0.1:{port}" for port in _free_ports(len(unit.stages))]
  # `trap`: bash, which is told as well, waits for what it has started.
  return ["trap : TERM; " + commands.chain([[*stage, f"--hosts={port},{processes},{index}"] if processes > 1 else stage
                                            for stage, port in zip(unit.stages, ports)], python=sys.executable)
          for index in range(processes)]


def _free_ports(count: int) -> list[int]:
  """So many ports that nobody listens at."""
  sockets = [socket.socket() for _ in range(count)]
  try:
    for each in sockets:
      each.bind(("127.0.0.1", 0))
    return [each.getsockname()[1] for each in sockets]
  finally:
    for each in sockets:
      each.close()


def environment(devices: int) -> dict[str, str]:
  """What is set for every process: so many simulated devices each, or nothing for 0, the machine's own."""
  if not devices:
    return {}
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
  return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def show(unit: Unit, processes: int, devices: int) -> str:
  """The lines of shell that a work unit is."""
  variables = "".join(f"export {name}={shlex.quote(value)}; " for name, value in environment(devices).items())
  return "\n".join(variables + line for line in hosts(unit, processes))


async def run(title: str, units: list[Unit], processes: int, devices: int) -> int:
  """Runs the work units in one experiment; 0, or the exit status of the first process that failed.

  Raises CancelledError when the launcher is told to end (SIGTERM).
  """
  status, left = 0, list(units)
  # A machine that is taken away says so by SIGTERM; the processes would outlive us.
  asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
  try:
    async with xm_local.create_experiment(experiment_title=title) as experiment:
      while left and not status:
        unit = left.pop(0)
        status = await _first_failure(await _start(experiment, _jobs(unit, processes, devices)))
  except RuntimeError:  # XManager's word for a process that failed; the run itself has said why
    if not status:
      raise
  if status and len(units) > 1:
    print(f"work unit {unit.point} ended with status {status}; "
          f"not started: {', '.join(other.point for other in left) or 'none'}", file=sys.stderr)
  return status


def _jobs(unit: Unit, processes: int, devices: int) -> xm.JobGroup:
  """One job for each process of a work unit."""
  # `exec`: signals are for bash and what it runs, not for the shell that XManager starts it with.
  bash = executables.LocalBinary(name="main", command="exec bash")
  return xm.JobGroup(**{
      f"host{index}": xm.Job(bash, xm_local.Local(), args=xm.SequentialArgs.from_collection(["-c", line]),
                             env_vars=environment(devices)) for index, line in enumerate(hosts(unit, processes))})


async def _start(experiment: xm.Experiment, jobs: xm.JobGroup) -> list[asyncio.subprocess.Process]:
  """The processes of a new work unit: all of them, or none after an interruption."""
  adding = asyncio.ensure_future(experiment.add(jobs))
  interrupted = False
  try:
    await asyncio.shield(adding)
  except asyncio.CancelledError:
    interrupted = True
  running = [handle.process for handle in (await adding)._local_execution_handles]  # pylint: disable=protected-access
  if interrupted:
    await _end(running)
    raise asyncio.CancelledError
  return running


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
  """Tells processes and all they have started to end, and kills those that do not end by themselves."""
  waits = [asyncio.ensure_future(process.wait()) for process in running]
  for process in running:
    os.killpg(process.pid, signal.SIGTERM)  # XManager starts each in a session of its own
  if waits:
    await asyncio.wait(waits, timeout=_GRACE)
  for process in running:
    if process.returncode is None:
      os.killpg(process.pid, signal.SIGKILL)
  await asyncio.gather(*waits)
