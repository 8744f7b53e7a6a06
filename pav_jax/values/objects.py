"""The rows of a file as JSON values: JSON lines, a JSON array, or parquet; what it is the content says, not the name."""

import io
import json
from collections.abc import Iterator

from etils import epath

from pav_jax.errors import UserError
from pav_jax.problems import problem
from pav_jax.problems.problem import Malformed
from pav_jax.training import files


def read(path: epath.Path) -> Iterator[tuple[str, dict | Malformed]]:
  """(the line, or the place in an array, from 1; the row). UserError for a file that cannot be read or is one broken JSON text."""
  content = problem.unpacked(path)
  if content[:4] == b"PAR1":
    yield from _parquet(path, content)
    return
  begin = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
  if begin == b"[":
    try:
      found = json.loads(content.decode("utf-8-sig"), parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
      raise UserError(f"{path} is a broken JSON array: {files.reason(error)}") from error
    rows = ((str(n), row) for n, row in enumerate(found, 1))
  else:
    rows = ((str(n), _line(path, n, line)) for n, line in enumerate(io.BytesIO(content), 1) if line.strip())
  for number, row in rows:
    yield number, row if isinstance(row, (dict, Malformed)) else Malformed(str(path), number, "", "not a JSON object")


def _line(path: epath.Path, number: int, line: bytes):
  try:
    return json.loads(line.decode("utf-8-sig"), parse_constant=_not_json)
  except UnicodeDecodeError as error:
    reason = f"not UTF-8 at byte {error.start}"
  except (ValueError, RecursionError) as error:
    reason = f"broken JSON: {' '.join(str(error).split())}"
  return Malformed(str(path), str(number), "", reason)


def _not_json(name: str):
  raise ValueError(f"{name} is not JSON")


def _parquet(path: epath.Path, content: bytes) -> Iterator[tuple[str, dict]]:
  import pyarrow
  import pyarrow.parquet
  try:
    number = 0
    for batch in pyarrow.parquet.ParquetFile(io.BytesIO(content)).iter_batches():
      for row in batch.to_pylist():
        number += 1
        yield str(number), row
  except (pyarrow.ArrowException, OSError) as error:
    raise UserError(f"{path} is no parquet file that can be read: {files.reason(error)}") from error
