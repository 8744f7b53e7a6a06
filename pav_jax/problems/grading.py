r"""Verdicts: is the answer of a response equal to the reference?

`Grader` takes one road for all data sets:

1. Extract the answer; a response without one is ungradable, 'no answer'.
2. Where spelling decides, it does: the same normalised text is correct, and
   two different plain numbers are not. Most grading ends here, in this process.
3. Else math-verify compares, in processes that `comparison` limits in time
   and memory: ungradable, 'timeout', 'out of memory' or 'worker died'.
4. Every distinct triple (data set, reference, answer) is judged once per `Grader`.

An answer equal in value is correct in whatever form: `2^{10}` for `1024`, a
list in any order. The published graders of MATH want the form too in some
cases; a policy trained on these verdicts may learn to leave an answer unevaluated.

  python -m pav_jax.problems.grading FILE.jsonl [--output=OUT.jsonl] [--timeout=5] [--workers=2]

grades rows of {"reference", "response", "dataset"}; see `grade_file`.
"""

import argparse
import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import enum
import json
from multiprocessing.connection import Connection, Pipe, wait
import os
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple

import tqdm

from pav_jax import errors
from pav_jax.problems import answers, comparison

# Longer than any answer of MATH (159 characters); what is longer costs the parser more than it tells.
_MAX_CHARACTERS = 1000
_CHUNK = 32
_PACKAGE_ROOT = pathlib.Path(__file__).parents[2]


class Verdict(enum.IntEnum):
  CORRECT = 1
  INCORRECT = 0
  UNGRADABLE = -1


class Grade(NamedTuple):
  verdict: Verdict
  answer: str | None  # as extracted from the response
  reason: str  # '' or why ungradable: no answer, unparsable, timeout, out of memory, worker died


class _Task(NamedTuple):
  reference: str  # both cleaned
  answer: str | None  # None asks whether the reference parses


class Grader:
  """Grades responses; a context manager, whose processes start at the first answer that needs one.

  Args:
    num_workers: processes that compare answers.
    timeout_s: limit per answer, from when a process takes it up.
    memory_bytes: limit on the address space of each process.
  """

  def __init__(self, num_workers: int = 2, timeout_s: float = 5.0, memory_bytes: int = 4 << 30):
    if num_workers < 1 or not timeout_s > 0:
      raise errors.UserError(f"grading needs workers >= 1 and timeout > 0, not {num_workers} and {timeout_s}")
    self._num_workers, self._timeout_s, self._memory_bytes = num_workers, timeout_s, memory_bytes
    self._workers: list[_Worker] = []
    self._outcomes: dict[_Task, str] = {}  # what the workers said
    self._grades: dict[tuple[str, str, str], tuple[Verdict, str]] = {}
    self._faults: dict[tuple[str, str], str] = {}

  def __enter__(self) -> "Grader":
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def close(self) -> None:
    while self._workers:
      self._workers.pop().kill()

  def grade(self, references: Sequence[str], responses: Sequence[str], datasets: str | Sequence[str]) -> list[Grade]:
    """One grade per response; raises UserError where a reference has no answer to compare with."""
    datasets = [datasets] * len(references) if isinstance(datasets, str) else datasets
    keys = [
        (dataset, reference, answers.extract_answer(response, dataset))
        for reference, response, dataset in zip(references, responses, datasets, strict=True)
    ]
    new = {key for key in keys if key[2] is not None and key not in self._grades}
    self._require_sound(references, datasets)
    asked = {}
    for dataset, reference, answer in new:
      task = _Task(answers.clean(answers.reference_answer(reference, dataset)), answers.clean(answer))
      decided = _decide(task, dataset)
      if decided is None:
        asked[dataset, reference, answer] = task
      else:
        self._grades[dataset, reference, answer] = decided
    self._ask(asked.values())
    for key, task in asked.items():
      self._grades[key] = _verdict(self._outcomes[task])
    no_answer = (Verdict.UNGRADABLE, "no answer")
    return [
        Grade(verdict, key[2], reason)
        for key in keys
        for verdict, reason in [no_answer if key[2] is None else self._grades[key]]
    ]

  def reference_faults(self, references: Sequence[str], datasets: Sequence[str]) -> list[str]:
    """For each reference what keeps it from being compared with, '' for a sound one."""
    asked = {}
    for key in set(zip(references, datasets, strict=True)) - self._faults.keys():
      answer = answers.reference_answer(*key)
      cleaned = answers.clean(answer or "")
      if not cleaned:
        self._faults[key] = "states no answer"
      elif answers.numeral(cleaned) is not None or key[1] == "math" and answers.is_words(cleaned):
        self._faults[key] = ""
      elif key[1] == "arithmetic":
        self._faults[key] = f"is not a whole number: {answer[:80]!r}"
      else:
        asked[key] = _Task(cleaned, None)
    self._ask(asked.values())
    for key, task in asked.items():
      outcome = self._outcomes[task]
      self._faults[key] = "" if outcome == "correct" else f"cannot be read ({outcome}): {task.reference[:80]!r}"
    return [self._faults[key] for key in zip(references, datasets)]

  def _require_sound(self, references: Sequence[str], datasets: Sequence[str], names: Sequence[str] | None = None):
    for row, fault in enumerate(self.reference_faults(references, datasets)):
      if fault:
        raise errors.UserError(f"reference of {names[row] if names else f'row {row}'} ({datasets[row]}) {fault}")

  def _ask(self, tasks: Iterable[_Task]) -> None:
    """Has the workers judge all tasks that are new."""
    # By reference, so that a worker parses each once.
    queue = collections.deque(sorted({*tasks} - self._outcomes.keys(), key=lambda task: task.reference))
    deaths = collections.Counter()
    size = max(1, min(_CHUNK, len(queue) // (4 * self._num_workers)))
    while queue or any(worker.pending for worker in self._workers):
      while queue and len(self._workers) < min(self._num_workers, len(queue)):
        self._workers.append(_Worker(self._timeout_s, self._memory_bytes))
      for worker in self._workers:
        if queue and not worker.pending:
          worker.send([queue.popleft() for _ in range(min(size, len(queue)))])
      busy = {worker.connection: worker for worker in self._workers if worker.pending}
      for connection in wait(list(busy)):
        worker = busy[connection]
        outcome = worker.receive()
        if outcome is None:
          continue
        task = worker.pending.popleft()
        if outcome in ("timeout", "worker died"):
          queue.extendleft(reversed(worker.pending))  # the dead took its chunk along
          worker.pending.clear()
          deaths[task] += 1
          # Others can kill a worker too, the kernel short of memory for one: a task gets a second chance.
          if outcome == "worker died" and deaths[task] < 2:
            queue.append(task)
            outcome = None
        if not worker.alive:
          self._workers.remove(worker)
          worker.kill()
        if outcome:
          self._outcomes[task] = outcome


class _Worker:
  """One `comparison` process and the tasks it has not answered, in the order sent."""

  def __init__(self, timeout_s: float, memory_bytes: int):
    self.pending: collections.deque[_Task] = collections.deque()
    self.alive, self._ready = True, False
    self.connection, theirs = Pipe()
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    self._process = subprocess.Popen(
        [sys.executable, "-m", comparison.__name__, str(theirs.fileno()), str(timeout_s), str(memory_bytes)],
        pass_fds=[theirs.fileno()],
        # Sets of SymPy are ordered by hash: a fixed seed keeps verdicts the same from run to run.
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # so that `kill` reaches the server it forks, and Ctrl-C does not
    )
    theirs.close()

  def send(self, tasks: list[_Task]) -> None:
    self.pending.extend(tasks)
    try:
      self.connection.send_bytes(json.dumps(tasks).encode())
    except OSError:
      pass  # dead; `receive` says so

  def receive(self) -> str | None:
    """The outcome of the first pending task; None for the sign that the process has started."""
    try:
      message = self.connection.recv_bytes()
    except (EOFError, OSError):
      self.alive = False
      if not self._ready:
        raise RuntimeError(f"the process that compares answers did not start (exit {self._process.wait()})") from None
      return "worker died"
    if message == comparison.READY:
      self._ready = True
      return None
    return message.decode()

  def kill(self) -> None:
    try:
      os.killpg(self._process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    self._process.wait()
    self.connection.close()


def check_references(
    references: Sequence[str],
    datasets: str | Sequence[str],
    names: Sequence[str] | None = None,
    grader: Grader | None = None,
) -> None:
  """Raises UserError naming the first row (`names`, else its number) whose reference cannot be compared with."""
  datasets = [datasets] * len(references) if isinstance(datasets, str) else datasets
  if grader is not None:
    grader._require_sound(references, datasets, names)
    return
  with Grader() as own:
    own._require_sound(references, datasets, names)
