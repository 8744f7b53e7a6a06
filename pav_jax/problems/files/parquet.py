"""Parquet: only the columns that are asked for are read, a batch at a time."""

import os
from collections.abc import Iterator

from pav_jax.problems import fields
from pav_jax.problems.files import tables


def rows(path: str | os.PathLike, names: tuple[str, ...]) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(number, counted from 1, those of the fields `names` that there are)."""
  with tables.opened(path) as source:
    import pyarrow.parquet
    table = pyarrow.parquet.ParquetFile(source)
    there = [name for name in names if name in table.schema_arrow.names]
    yield from tables.rows(table.iter_batches(batch_size=4096, columns=there))


def columns(path: str | os.PathLike) -> list[str]:
  """The names of all columns."""
  with tables.opened(path) as source:
    import pyarrow.parquet
    return pyarrow.parquet.ParquetFile(source).schema_arrow.names


def count(path: str | os.PathLike) -> int:
  """How many rows there are."""
  with tables.opened(path) as source:
    import pyarrow.parquet
    return pyarrow.parquet.ParquetFile(source).metadata.num_rows
