"""What `main` prints as one line: what a user can get wrong (exit status 2), and what another host did (1).

And what several stages ask of their knobs; `where` is the section's name, as `config.search`.
"""

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator


class UserError(Exception):
  """Something outside the program is wrong: a flag, a path, a file's content, a device count.

  The message is one line that says what is wrong and where. Never raised for
  a bug of ours: those fail loudly, with a traceback.
  """


class LostHost(Exception):
  """Another process of the run is not there or has failed; one line, and the same command may go better next time."""


# What a config says of a key whose value must come from the command line. (ml_collections has a placeholder for it,
# which its own flags cannot override.)
REQUIRED = "<required>"


@contextlib.contextmanager
def at(key: str) -> Iterator[None]:
  """A UserError of this block says which key it is about."""
  try:
    yield
  except UserError as error:
    raise UserError(f"{key}: {error}") from error


def at_least(least: float, section, where: str, *names: str):
  """UserError for the first of these knobs that is less."""
  for name in names:
    if not section[name] >= least:
      raise UserError(f"{where}.{name} {section[name]} is less than {least}")


def all_or_some(section, where: str, *names: str):
  """UserError for the first of these numbers of problems that is neither -1, which is all of them, nor at least 1."""
  for name in names:
    if section[name] != -1 and not section[name] >= 1:
      raise UserError(f"{where}.{name} {section[name]} is neither -1, which is all, nor at least 1")


def one_of(allowed: Iterable[str], section, where: str, *names: str):
  """UserError for the first of these words that is another."""
  for name in names:
    if section[name] not in allowed:
      raise UserError(f"{where}.{name} {section[name]!r} is none of {', '.join(allowed)}")
