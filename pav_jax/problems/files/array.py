"""A JSON array of objects; a .json file that holds JSON lines, as many do, is read as these."""

import os
from collections.abc import Iterator

from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.problems.files import jsonl


def rows(path: str | os.PathLike, names: tuple[str, ...] = ()) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(number, counted from 1, its object or what is wrong with it). UserError for a file that is no array as a whole."""
  del names
  content = jsonl.unpacked(path)
  if not content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
    yield from jsonl.of_lines(content)
    return
  try:
    items = fields.decode(content)
  except fields.Bad as bad:
    raise UserError(f"{path}: {bad.args[1]}") from bad
  for number, item in enumerate(items, 1):
    yield str(number), item if isinstance(item, dict) else fields.Bad("", "not a JSON object")


def columns(path: str | os.PathLike) -> list[str]:
  """The names of all fields, in the order in which they appear."""
  return list(dict.fromkeys(name for _, row in rows(path) if isinstance(row, dict) for name in row))


def count(path: str | os.PathLike) -> int:
  """How many rows there are."""
  return sum(1 for _ in rows(path))
