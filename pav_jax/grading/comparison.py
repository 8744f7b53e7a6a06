"""The process that reads answers: latex2sympy and SymPy behind a pipe, under a time and a memory limit.

`grading.Grader` runs this file as a program of its own, not through
multiprocessing, whose children import the parent's main module again, and JAX
with it. Model text can make a parser or SymPy run forever in C code, where no
Python signal handler is reached, so the limits are the kernel's:

1. Import the libraries, warm the grammar up, report ready.
2. Fork a server. It answers every text of every chunk with its reading (JSON,
   `reading`) or one word, under an alarm per text that kills it, and under a
   limit on its address space.
3. When a server dies, report 'timeout' or 'worker died' for the text it was
   at, and fork the next one (milliseconds; importing takes seconds).

The parent sends the texts behind the fatal one again.
"""

import json
import logging
from multiprocessing.connection import Connection
import os
import resource
import signal
import sys

from pav_jax.grading import reading

READY = b"ready"
_WARM_UP = (r"\frac{1}{2}+\sqrt{3}x^2-y", r"(2,\pi]\cup[3,4)", r"2\sqrt[3]{5}i", r"x_1=\sin\left(\frac{\pi}{3}\right)")


def read(text: str) -> str:
  """The reading of a cleaned answer as JSON, or 'unparsable'."""
  try:
    return json.dumps(reading.read(text))
  except (MemoryError, RecursionError):
    raise
  except Exception:  # hostile text finds every bug of a parser, and 1/0 is no answer
    return "unparsable"


def _serve(connection: Connection, timeout_s: float, memory_bytes: int) -> None:
  signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action ends the process, C code or not
  signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
  resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
  while True:
    try:
      texts = json.loads(connection.recv_bytes())
    except EOFError:
      return
    for text in texts:
      signal.setitimer(signal.ITIMER_REAL, timeout_s)
      try:
        outcome = read(text)
      except MemoryError:
        outcome = "out of memory"
      except RecursionError:
        outcome = "unparsable"
      signal.setitimer(signal.ITIMER_REAL, 0)
      connection.send_bytes(outcome.encode())


def main() -> None:
  descriptor, timeout_s, memory_bytes = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
  connection = Connection(descriptor)
  logging.disable(logging.CRITICAL)
  for text in _WARM_UP:
    read(text)
  connection.send_bytes(READY)
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # parsers print model text
  while True:
    server = os.fork()
    if not server:
      status = 1
      try:
        _serve(connection, timeout_s, memory_bytes)
        status = 0
      finally:
        os._exit(status)
    _, status = os.waitpid(server, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
      return
    overran = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    connection.send_bytes(b"timeout" if overran else b"worker died")


if __name__ == "__main__":
  main()
