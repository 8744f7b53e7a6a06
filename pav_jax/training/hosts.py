"""Several processes, one run: all call the same programs on all devices together, and the first one writes.

What the host decides between two programs it decides from arrays that all
processes hold (`mesh.fetch`), so that they take the same way.
"""

import itertools
from collections.abc import Callable

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from pav_jax.errors import UserError


def join(spec: str):
  """Makes this process one of several, before anything else of JAX is used.

  spec: '' for a process by itself; 'auto' where the machine knows (TPU slices,
  Slurm, Kubernetes); else ADDRESS:PORT,COUNT,INDEX: where process 0 listens,
  how many there are, which one this is. Raises UserError for anything else,
  and where no coordinator answers.
  """
  if not spec:
    return
  parts = spec.split(",")
  if spec != "auto" and not (len(parts) == 3 and ":" in parts[0] and parts[1].isdecimal() and parts[2].isdecimal()
                             and int(parts[2]) < int(parts[1])):
    raise UserError(f"--hosts={spec}: neither auto nor ADDRESS:PORT,COUNT,INDEX with INDEX < COUNT")
  try:
    jax.distributed.initialize(*([] if spec == "auto" else [parts[0], int(parts[1]), int(parts[2])]))
  except (RuntimeError, ValueError) as error:
    raise UserError(f"--hosts={spec}: {' '.join(str(error).split())}") from error


def leave():
  """Ends what `join` began, when all have come so far: a stage that follows may have the same coordinator's port."""
  if several():
    jax.distributed.shutdown()


def several() -> bool:
  """Whether there is more than this process."""
  return jax.process_count() > 1


def first() -> bool:
  """Whether this process writes what is written once."""
  return jax.process_index() == 0


def by_the_first(task: Callable[[], None], what: str):
  """The first process does the task, while the others wait; where it fails, all do."""
  if not several():
    task()
    return
  name, error = f"pav_jax/{next(_meetings)}/{what}", None
  if first():
    try:
      task()
    except Exception as problem:  # raised again when the others have heard of it
      error = problem
    _client().key_value_set(name, str(error is not None))
  if _client().blocking_key_value_get(name, _PATIENCE_MS) == "True":
    raise error or UserError(f"{what} failed on the first host")


def agreed(x: np.ndarray) -> np.ndarray:
  """The first process's array, on all: what hangs on the clock (a grade that took too long) must not lead them apart."""
  return np.asarray(multihost_utils.broadcast_one_to_all(x)) if several() else x


def meet(what: str):
  """Waits until all processes have come to this meeting; what: its name, for a message."""
  if several():
    _client().wait_at_barrier(f"pav_jax/{next(_meetings)}/{what}", _PATIENCE_MS)


# All processes meet in one order, which makes the names unique.
_meetings = itertools.count()
# A stage may keep the others waiting for long; that a process has died the service notices by itself.
_PATIENCE_MS = 7 * 24 * 3600 * 1000


def _client():
  # JAX's own collectives give up after half a minute on CPU; what it builds its barriers on has no public name.
  return distributed.global_state.client
