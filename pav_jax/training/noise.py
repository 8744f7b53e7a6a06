"""What libraries write to stderr by themselves, from C++, where no level of logging reaches."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hushed() -> Iterator[None]:
  """Nothing of this process reaches stderr in this block. For imports and the like: what goes wrong there is raised."""
  try:
    sys.stderr.flush()
    kept = os.dup(2)
  except (AttributeError, OSError):  # there is no stderr
    yield
    return
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    sys.stderr.flush()
    os.dup2(kept, 2)
    os.close(nowhere)
    os.close(kept)
