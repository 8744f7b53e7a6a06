"""Curves on disk and progress on the terminal."""

import json
import math
import sys
from collections.abc import Iterable

from etils import epath
import tqdm

from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import hosts


class Curves:
  """Appends one JSON line per report to a file, the training curves of a stage; of several processes the first one does.

  A restarted run goes on where its checkpoint stands: lines beyond `from_step`
  were written by the part of the run that is lost, and are dropped.
  """

  def __init__(self, path: epath.Path, from_step: int):
    self._path = path = files.path(path)
    if hosts.first():
      # Rows of the lost part, and a torn last line.
      kept = "".join(json.dumps(row) + "\n" for row in read_curves(path) if row["step"] <= from_step).encode()
      if kept != (files.read(path) if files.exists(path) else b""):
        files.write(path, kept)
    hosts.meet(f"curves of {path}")

  def write(self, step: int, **values: float):
    """One row; values that are not finite are written as strings, which JSON has. UserError if that cannot be."""
    if not hosts.first():
      return
    finite = {k: float(v) if math.isfinite(v) else repr(float(v)) for k, v in values.items()}
    files.append(self._path, json.dumps({"step": step, **finite}) + "\n")


def read_curves(path: epath.Path, key: str | None = "step", whole: bool = False) -> list[dict]:
  """The rows a stage has written, each with the key; none if the file is not there. A torn last line is left out.

  whole: no line is torn, the last one may only lack its end. UserError for any
  other line that is no JSON object, or lacks the key.
  """
  path = files.path(path)
  if not files.exists(path):
    return []
  rows, lines = [], files.read(path).split(b"\n")
  for number, line in enumerate(lines if whole and lines[-1] else lines[:-1], 1):
    try:
      row = json.loads(line)
    except ValueError as error:
      row = error
    if not isinstance(row, dict) or key is not None and key not in row:
      raise UserError(f"{path} is damaged: line {number} is no row" + f" with {key!r}" * (key is not None) + "; mend it, or take it out")
    rows.append(row)
  return rows


def progress(steps: Iterable | None = None, *, what: str, unit: str, total: int | None = None, initial: int = 0,
             delay: float = 0):
  """A bar with the remaining time on the first host's stderr; on a log file a line every half minute instead.

  delay: seconds before which there is none, for what is mostly done by then.
  """
  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
      steps, desc=f"{what:<22}", unit=unit, total=total, initial=initial, delay=delay, file=sys.stderr, disable=not hosts.first(),
      mininterval=0.5 if interactive else 30.0, maxinterval=1.0 if interactive else 60.0,
      dynamic_ncols=interactive, ascii=not interactive)
