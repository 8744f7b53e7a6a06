"""Arrow, as `save_to_disk` of Hugging Face's `datasets` writes it: a stream of record batches."""

import contextlib
import os
from collections.abc import Iterator

from pav_jax.problems import fields
from pav_jax.problems.files import tables


def rows(path: str | os.PathLike, names: tuple[str, ...]) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(number, counted from 1, those of the fields `names` that there are)."""
  with _stream(path) as (schema, batches):
    there = [name for name in names if name in schema.names]
    yield from tables.rows(batch.select(there) for batch in batches)


def columns(path: str | os.PathLike) -> list[str]:
  """The names of all columns."""
  with _stream(path) as (schema, _):
    return schema.names


def count(path: str | os.PathLike) -> int:
  """How many rows there are."""
  with _stream(path) as (_, batches):
    return sum(batch.num_rows for batch in batches)


@contextlib.contextmanager
def _stream(path):
  """(schema, record batches): a stream, or pyarrow's file format, which begins with its name."""
  with tables.opened(path) as source:
    import pyarrow.ipc
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    if is_file:
      reader = pyarrow.ipc.open_file(source)
      yield reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
      reader = pyarrow.ipc.open_stream(source)
      yield reader.schema, reader
