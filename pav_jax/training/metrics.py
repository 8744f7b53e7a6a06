"""Curves on disk and progress on the terminal."""

import json
import math
import os
import pathlib
import sys
from collections.abc import Iterable

import tqdm

from pav_jax.training import hosts


class Curves:
  """Appends one JSON line per report to a file, the training curves of a stage; of several processes the first one does.

  A restarted run goes on where its checkpoint stands: lines at or beyond
  `from_step` were written by the part of the run that is lost, and are dropped.
  """

  def __init__(self, path: pathlib.Path, from_step: int):
    self._path = path
    if hosts.first():
      path.parent.mkdir(parents=True, exist_ok=True)
      kept = [row for row in read_curves(path) if row["step"] <= from_step]
      partial = path.with_suffix(".partial")
      partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
      os.replace(partial, path)
    hosts.meet(f"curves of {path}")

  def write(self, step: int, **values: float):
    """One row; values that are not finite are written as strings, which JSON has."""
    if not hosts.first():
      return
    finite = {k: float(v) if math.isfinite(v) else repr(float(v)) for k, v in values.items()}
    with self._path.open("a") as f:
      f.write(json.dumps({"step": step, **finite}) + "\n")


def read_curves(path: pathlib.Path) -> list[dict]:
  """The rows a stage has written; none if the file is not there. A torn last line is left out."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except ValueError:
      break
  return rows


def progress(steps: Iterable | None = None, *, what: str, unit: str, total: int | None = None, initial: int = 0):
  """A bar with the remaining time on the first host's stderr; on a log file a line every half minute instead."""
  interactive = sys.stderr.isatty()
  return tqdm.tqdm(
      steps, desc=f"{what:<22}", unit=unit, total=total, initial=initial, file=sys.stderr, disable=not hosts.first(),
      mininterval=0.5 if interactive else 30.0, maxinterval=1.0 if interactive else 60.0,
      dynamic_ncols=interactive, ascii=not interactive)
