"""Several processes, one run: all call the same programs on all devices together, and the first one writes.

What the host decides between two programs it decides from arrays that all
processes hold (`mesh.fetch`), so that they take the same way.

None stays behind when one is lost. Who ends with an error tells the others
(`part`), and they end with its status; who dies without a word stops its
heartbeat, and JAX ends the others within _HEARTBEAT_S.
"""

import ctypes
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from pav_jax.errors import LostHost
from pav_jax.errors import UserError
from pav_jax.training.preemption import NOTICE


def join(spec: str):
  """Makes this process one of several, before anything else of JAX is used.

  spec: '' for a process by itself; 'auto' where the machine knows (TPU slices,
  Slurm, Kubernetes); else ADDRESS:PORT,COUNT,INDEX: where process 0 listens,
  how many there are, which one this is. Raises UserError for anything else,
  LostHost where JAX cannot begin. Where not all are there in five minutes JAX ends
  the process, and our line tells it.
  """
  if not spec:
    return
  parts = spec.split(",")
  if spec != "auto" and not (len(parts) == 3 and ":" in parts[0] and parts[1].isdecimal() and parts[2].isdecimal()
                             and int(parts[2]) < int(parts[1])):
    raise UserError(f"--hosts={spec}: neither auto nor ADDRESS:PORT,COUNT,INDEX with INDEX < COUNT")
  _handler(signal.SIGABRT, _aborted)  # Another host may be lost at once: while JAX looks for the devices of all, too.
  try:
    jax.distributed.initialize(*([] if spec == "auto" else [parts[0], int(parts[1]), int(parts[2])]),
                               heartbeat_timeout_seconds=_HEARTBEAT_S)
  except ValueError as error:
    raise UserError(f"--hosts={spec}: {' '.join(str(error).split())}") from error
  except RuntimeError as error:
    raise LostHost(f"--hosts={spec}: {' '.join(str(error).split())}") from error
  # JAX has put its own handler of SIGTERM in the place of ours; it is what tells the other hosts.
  theirs = ctypes.CFUNCTYPE(None, ctypes.c_int)(_handler(signal.SIGTERM, None))
  NOTICE.listen()
  if several():
    NOTICE.listen(pass_on=theirs)
    threading.Thread(target=_hear_of_ends, daemon=True).start()
  else:
    _handler(signal.SIGABRT, None)


def _handler(number: int, handler) -> int:
  """Sets the C handler of a signal (None: the default); the one there was."""
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
  return libc.signal(number, None if handler is None else ctypes.cast(handler, ctypes.c_void_p))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(_):
  """JAX aborts a process, from a thread of its own, when another is lost or has not come; after its own words comes our line."""
  _end(1, "error: another host is gone or has not come, JAX says why above; the same command goes on from here")


def _end(status: int, line: str):
  os.write(2, f"\n{line}\n".encode())
  os._exit(status)


def leave():
  """Ends what `join` began, when all have come so far: a stage that follows may have the same coordinator's port."""
  if several():
    jax.distributed.shutdown()


def part(status: int, line: str):
  """For a process that ends with an error: tells the others, who end likewise, and stays until they have heard."""
  if _client() is None or not several():
    return
  _parting.set()
  try:
    _client().key_value_set(_ENDED, json.dumps([jax.process_index(), status, line]))
  except RuntimeError:
    pass  # another was first
  _see_off()


def _see_off():
  """The service goes with the first process, and JAX then aborts who still talks to it: all take their leave first."""
  try:
    _client().wait_at_barrier(f"{_ENDED}/all", 1000 * (_GRACE_S + 3))
    jax.distributed.shutdown()
  except RuntimeError:
    pass  # who is dead already does not come


def _hear_of_ends():
  """In a thread of its own: when another process ends with an error, so does this one."""
  try:
    index, status, line = json.loads(_client().blocking_key_value_get(_ENDED, _PATIENCE_MS))
  except (RuntimeError, AttributeError):
    return  # all have left together
  # A mistake of all is told by all.
  if index != jax.process_index() and not _parting.wait(_GRACE_S):
    _see_off()
    _end(status, f"error: host {index} ended: {line}")


def several() -> bool:
  """Whether there is more than this process."""
  return jax.process_count() > 1


def first() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def by_the_first(task: Callable[[], None], what: str):
  """The first process does the task, while the others wait; where it fails, all do: a mistake is a mistake everywhere."""
  if not several():
    task()
    return
  name, error = f"pav_jax/{next(_meetings)}/{what}", None
  if first():
    try:
      task()
    except Exception as problem:  # raised again when the others have heard of it
      error = problem
    _client().key_value_set(name, "well" if error is None else "mistake" if isinstance(error, UserError) else "failure")
  ended = _client().blocking_key_value_get(name, _PATIENCE_MS)
  if ended != "well":
    raise error or (UserError if ended == "mistake" else LostHost)(f"{what} failed on the first host")


def agreed(x: np.ndarray) -> np.ndarray:
  """The first process's array, on all: what hangs on the clock (a grade that took too long) must not lead them apart."""
  return np.asarray(multihost_utils.broadcast_one_to_all(x)) if several() else x


def all_of(right: bool) -> bool:
  """Whether it is so on every process."""
  return bool(multihost_utils.process_allgather(np.array(right)).all()) if several() else right


def meet(what: str):
  """Waits until all processes have come to this meeting; what: its name, for a message."""
  if several():
    _client().wait_at_barrier(f"pav_jax/{next(_meetings)}/{what}", _PATIENCE_MS)


# All processes meet in one order, which makes the names unique.
_meetings = itertools.count()
# A stage may keep the others waiting for long; that a process has died the service notices by itself, after so long.
_PATIENCE_MS = 7 * 24 * 3600 * 1000
_HEARTBEAT_S = 30
_ENDED, _GRACE_S = "pav_jax/ended", 2
_parting = threading.Event()


def _client():
  # JAX's own collectives give up after half a minute on CPU; what it builds its barriers on has no public name.
  return distributed.global_state.client
