"""SIGTERM, the word that this machine will be taken, and Ctrl-C: a training loop saves and ends, everything else is left at once.

What is made of shards or written at its end loses nothing by being left. A loop
loses the steps since its last checkpoint, so it is let come to the end of its
step. On several hosts the word may reach each at another step, or only one of
them; JAX's service makes them agree on the step at which all save.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable


_SAVES = b"\ninterrupted: the training loop ends its step and saves; Ctrl-C again does not wait for that\n"


def until_begun():
  """For a command before its imports, which take seconds: until `NOTICE` listens, Ctrl-C ends it with one line, not a traceback."""
  if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, _at_once)


def _at_once(*_):
  os.write(2, b"\ninterrupted: nothing had begun\n")
  os._exit(130)


class Preempted(BaseException):
  """This process was told to end, by which signal; says what it leaves. No Exception, as KeyboardInterrupt is none: nothing may hold it up."""

  def __init__(self, left: str, number: int = signal.SIGTERM):
    super().__init__(left)
    self.number = number


class _Notice:
  """What this process has heard. Signals belong to a process, and so does this."""

  def __init__(self):
    self._heard_at, self._number, self._waits, self._pass_on = None, signal.SIGTERM, False, None

  def hear(self, number: int, _):
    """The handler. The first word waits for the loop, if there is one; a later one does not."""
    # Whoever ends a group of processes may say it twice, by itself and through the shell that started us.
    if self._heard_at is not None and time.monotonic() < self._heard_at + 1:
      return
    first, self._heard_at, self._number = self._heard_at is None, time.monotonic(), number
    if self._waits and first:
      if number == signal.SIGINT:
        os.write(2, _SAVES)  # A step may last, and someone is looking.
      if self._pass_on is not None:
        self._pass_on(number)
      return
    self.raise_if_heard()

  def raise_if_heard(self):
    """Ends this process if it was told to. For the time between stages: a library's bare `except:` may have held up what `hear` raised."""
    if self._heard_at is not None:
      raise self.left("what was finished is kept")

  def left(self, what: str) -> Preempted:
    """The exception that ends this process: by the signal it has heard, or that of another host."""
    return Preempted(what, self._number)

  def listen(self, pass_on: Callable[[int], None] | None = None):
    """Hears SIGTERM and Ctrl-C from now on; pass_on: who else is told when a loop is to end."""
    self._pass_on, self._heard_at = pass_on, None
    signal.signal(signal.SIGTERM, self.hear)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in a script's background, which Ctrl-C does not mean
      signal.signal(signal.SIGINT, self.hear)

  @contextlib.contextmanager
  def waits(self):
    """For a loop that asks `due` at every step: here, the first signal ends nothing."""
    self._waits = True
    try:
      yield
    finally:
      self._waits = False
    self.raise_if_heard()

  def due(self, step: int) -> bool:
    """Whether a loop that has done so many steps is to save and end now; the same on all hosts, which all must ask."""
    if self._pass_on is None:
      return self._heard_at is not None
    from jax.experimental import multihost_utils  # late: this module is there before JAX is
    return multihost_utils.reached_preemption_sync_point(step)


NOTICE = _Notice()
