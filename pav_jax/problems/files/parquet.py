"""Parquet: only the columns that are asked for are read, a batch at a time."""

import io
import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from pav_jax.problems import fields
from pav_jax.problems.files import tables
from pav_jax.training import files


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


def write(path: str | os.PathLike, rows: Sequence[dict], types: Mapping[str, str]):
  """Writes a file whole or not at all. types: of each column pyarrow's name for it; one that ends in [] is a list."""
  import pyarrow.parquet
  kind = lambda name: pyarrow.list_(kind(name[:-2])) if name.endswith("[]") else pyarrow.type_for_alias(name)
  table = pyarrow.Table.from_pylist(list(rows), pyarrow.schema([(name, kind(said)) for name, said in types.items()]))
  content = io.BytesIO()
  pyarrow.parquet.write_table(table, content)
  files.write(files.path(path), content.getvalue())
