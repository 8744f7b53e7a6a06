"""JSON lines: an object a line, blank lines left out; packed by gzip where the name ends in .gz."""

import gzip
import os
import zlib
from collections.abc import Iterator

from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.training import files


def rows(path: str | os.PathLike, names: tuple[str, ...] = ()) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(line, counted from 1, its object or what is wrong with it). names: not needed, every field comes."""
  del names
  yield from of_lines(unpacked(path))


def of_lines(content: bytes) -> Iterator[tuple[str, dict | fields.Bad]]:
  """`rows` of a file's content."""
  for line, one in enumerate(content.split(b"\n"), 1):
    if one.strip():
      try:
        yield str(line), fields.decode_object(one)
      except fields.Bad as bad:
        yield str(line), bad


def columns(path: str | os.PathLike) -> list[str]:
  """The names of all fields, in the order in which they appear."""
  return list(dict.fromkeys(name for _, row in rows(path) if isinstance(row, dict) for name in row))


def count(path: str | os.PathLike) -> int:
  """How many rows there are."""
  return sum(1 for line in unpacked(path).split(b"\n") if line.strip())


def unpacked(path: str | os.PathLike) -> bytes:
  """A file's content, of a .gz what is packed in it. UserError for a damaged one."""
  path = files.path(path)
  content = files.read(path)
  try:
    return gzip.decompress(content) if path.suffix == ".gz" else content
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f"{path} is damaged: {files.reason(error)}") from error
