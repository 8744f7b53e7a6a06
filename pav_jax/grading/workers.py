"""A pool of `comparison` processes: texts in, readings out, whatever the texts do to the processes."""

import collections
from collections.abc import Iterable
import json
from multiprocessing.connection import Pipe, wait
import os
import pathlib
import signal
import subprocess
import sys

from pav_jax.grading import comparison

_CHUNK = 32
_PACKAGE_ROOT = pathlib.Path(__file__).parents[2]


class Workers:
  """Reads answers; processes start when the first text comes and are replaced when they die."""

  def __init__(self, num_workers: int, timeout_s: float, memory_bytes: int):
    self._num_workers, self._timeout_s, self._memory_bytes = num_workers, timeout_s, memory_bytes
    self._workers: list[_Worker] = []

  def close(self) -> None:
    while self._workers:
      self._workers.pop().kill()

  def read(self, texts: Iterable[str]) -> dict[str, str]:
    """For each a reading as JSON, or 'unparsable', 'timeout', 'out of memory' or 'worker died'."""
    queue = collections.deque(sorted(set(texts)))
    size = max(1, min(_CHUNK, len(queue) // (4 * self._num_workers)))
    outcomes, deaths = {}, collections.Counter()
    try:
      while queue or any(worker.pending for worker in self._workers):
        while len(self._workers) < min(self._num_workers, len(queue)):
          self._workers.append(_Worker(self._timeout_s, self._memory_bytes))
        for worker in self._workers:
          if queue and not worker.pending:
            worker.send([queue.popleft() for _ in range(min(size, len(queue)))])
        busy = {worker.connection: worker for worker in self._workers if worker.pending}
        for connection in wait(list(busy)):
          worker = busy[connection]
          outcome = worker.receive()
          if not outcome:
            continue
          text = worker.pending.popleft()
          if outcome in ("timeout", "worker died"):
            queue.extendleft(reversed(worker.pending))  # the dead took its chunk along
            worker.pending.clear()
          if not worker.alive:
            self._workers.remove(worker)
            worker.kill()
          # Others can kill a worker too, a kernel short of memory for one: a text gets a second chance.
          deaths[text] += outcome == "worker died"
          if outcome == "worker died" and deaths[text] == 1:
            queue.append(text)
          else:
            outcomes[text] = outcome
    except BaseException:
      self.close()  # Ctrl-C: answers still on their way must not be taken for those of the next call
      raise
    return outcomes


class _Worker:
  """One `comparison` process and the texts it has not answered, in the order sent."""

  def __init__(self, timeout_s: float, memory_bytes: int):
    self.pending: collections.deque[str] = collections.deque()
    self.alive, self._ready = True, False
    self.connection, theirs = Pipe()
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    limits = [str(timeout_s), str(memory_bytes)]
    self._process = subprocess.Popen(
        [sys.executable, "-m", comparison.__name__, str(theirs.fileno()), *limits],
        pass_fds=[theirs.fileno()],
        # Sets of SymPy are ordered by hash: a fixed seed keeps verdicts the same from run to run.
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # so that `kill` reaches the server it forks, and Ctrl-C does not
    )
    theirs.close()

  def send(self, texts: list[str]) -> None:
    self.pending.extend(texts)
    try:
      self.connection.send_bytes(json.dumps(texts).encode())
    except OSError:
      pass  # dead; `receive` says so

  def receive(self) -> str | None:
    """The outcome of the first pending text; None for the sign that the process has started."""
    try:
      message = self.connection.recv_bytes()
    except (EOFError, OSError):
      self.alive = False
      if not self._ready:
        status = self._process.wait()
        raise RuntimeError(f"the process that compares answers did not start (exit {status})") from None
      return "worker died"
    if message == comparison.READY:
      self._ready = True
      return None
    return message.decode()

  def kill(self) -> None:
    try:
      os.killpg(self._process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass  # it and its server have gone
    self._process.wait()
    self.connection.close()
