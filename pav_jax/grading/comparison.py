"""The process that compares answers: math-verify behind a pipe, under a time and a memory limit.

`grading.Grader` runs this file as a program of its own, not through
multiprocessing, whose children import the parent's main module again, and JAX
with it. Model text can make a parser or SymPy run forever in C code, where no
Python signal handler is reached, so the limits are the kernel's:

1. Import math-verify, warm its grammar up, report ready.
2. Fork a server. It answers every task of every chunk with one word, under an
   alarm per task that kills it, and under a limit on its address space.
3. When a server dies, report 'timeout' or 'worker died' for the task it was
   at, and fork the next one (milliseconds; importing takes seconds).

The parent sends the tasks behind the fatal one again.
"""

import functools
import json
import logging
from multiprocessing.connection import Connection
import os
import resource
import signal
import sys

READY = b"ready"


def compare(reference: str, answer: str | None) -> str:
  """'correct', 'incorrect' or 'unparsable'; with no answer, whether the reference parses."""
  from math_verify import verify

  gold = _parse(reference)
  if answer is None:
    return "correct" if gold else "unparsable"
  stated = _parse(answer)
  if not stated:
    return "unparsable"
  try:
    # Its own limits are Python signal handlers: off.
    equal = verify(gold, stated, timeout_seconds=None, raise_on_error=True)
  except (MemoryError, RecursionError):
    raise
  except Exception:  # 1/0, 'x < (1, 2)': what cannot be compared is not equal
    equal = False
  return "correct" if equal else "incorrect"


@functools.lru_cache(maxsize=1024)
def _parse(answer: str) -> list:
  from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
  from math_verify import LatexExtractionConfig, parse

  # Only the box we put around the answer, never a number found inside it; no
  # units, because it takes the last letter of 'a + b + c' for one.
  config = LatexExtractionConfig(
      boxed_match_priority=0,
      try_extract_without_anchor=False,
      normalization_config=NormalizationConfig(
          basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last", equations=False
      ),
  )
  return parse("\\boxed{" + answer + "}", [config], fallback_mode="no_fallback", parsing_timeout=None)


def _serve(connection: Connection, timeout_s: float, memory_bytes: int) -> None:
  signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default action ends the process, C code or not
  signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
  resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
  while True:
    try:
      tasks = json.loads(connection.recv_bytes())
    except EOFError:
      return
    for reference, answer in tasks:
      signal.setitimer(signal.ITIMER_REAL, timeout_s)
      try:
        outcome = compare(reference, answer)
      except MemoryError:
        outcome = "out of memory"
      except Exception:  # hostile text finds every bug of a parser; RecursionError is the usual one
        outcome = "unparsable"
      signal.setitimer(signal.ITIMER_REAL, 0)
      connection.send_bytes(outcome.encode())


def main() -> None:
  descriptor, timeout_s, memory_bytes = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
  connection = Connection(descriptor)
  logging.disable(logging.CRITICAL)
  for expression in (r"\frac{1}{2}+\sqrt{3}x", r"(-\infty,2)\cup[3,4]", r"\begin{pmatrix}1\\2\end{pmatrix}"):
    compare(expression, "x=" + expression)
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
