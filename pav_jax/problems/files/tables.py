"""What the table formats share: batches of pyarrow as rows, and the errors of pyarrow in a line.

No code of a data set runs here, and nothing is unpickled: a column of an
extension type comes as what it is stored as, or not at all.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterable, Iterator

from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.training import files


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator:
  """The file, for pyarrow to read from: mapped where it is local. UserError for what pyarrow cannot read in this block."""
  if importlib.util.find_spec("pyarrow") is None:
    raise UserError(f"{path}: tables are read by the package pyarrow, which is not installed (pip install pyarrow)")
  import pyarrow
  path = files.path(path)
  try:
    if files.is_remote(path):
      yield pyarrow.BufferReader(files.read(path))
    else:
      with files.told(path, "read"):
        path.open("rb").close()  # its own words for what is not there are long
      with pyarrow.memory_map(str(path)) as source:
        yield source
  except (pyarrow.ArrowException, OSError) as error:
    raise UserError(f"{path} is damaged, or no table: {files.reason(error)}") from error


def rows(batches: Iterable) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(number, counted from 1, the fields) of every row of pyarrow's record batches."""
  number = 0
  for batch in batches:
    try:
      found = batch.to_pylist()
    except UnicodeDecodeError:  # nobody has checked the bytes; one bad row must not hide the others
      found = [_one(batch.slice(i, 1)) for i in range(batch.num_rows)]
    for row in found:
      number += 1
      yield str(number), row


def _one(batch) -> dict | fields.Bad:
  try:
    return batch.to_pylist()[0]
  except UnicodeDecodeError as error:
    return fields.Bad("", f"not UTF-8 at byte {error.start} of a text")
