"""Problems of one's own: a file or folder, by path -> rows. One file here a format.

  NAME.jsonl(.gz), NAME.json(.gz), NAME.parquet   a file; as `train` and as
      `validation` the same one is parted in two (`tasks`)
  a/{split}.jsonl     three files
  a/folder/           see `folder`; a path with a / in it and none of these endings
"""

import os
import sys
from collections.abc import Iterator
from types import ModuleType

from etils import epath

from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.problems.files import array
from pav_jax.problems.files import arrow
from pav_jax.problems.files import columns as columns_lib
from pav_jax.problems.files import folder
from pav_jax.problems.files import jsonl
from pav_jax.problems.files import parquet
from pav_jax.problems.problem import Malformed
from pav_jax.problems.problem import Problem
from pav_jax.training import files

_FORMATS = {".jsonl": jsonl, ".json": array, ".parquet": parquet, ".arrow": arrow}


def is_path(name: str) -> bool:
  """Whether a task is somebody's file or folder."""
  return name.endswith(folder.ENDINGS) or "/" in name


def files_of(name: str, split: str) -> tuple[list[epath.Path], bool]:
  """(the files of a split, whether they hold it and no other); UserError where there are none.

  False for a file or folder that says nothing of splits, and, where a folder has a
  split `train` and no `validation`, for both.
  """
  path = files.path(name.replace("{split}", split))
  if not files.exists(path):
    raise UserError(f"there is no file {name.replace('{split}', split)}")
  with files.told(path, "read"):
    is_folder = path.is_dir()
  if not is_folder:
    if not path.name.endswith(folder.ENDINGS):
      raise UserError(f"{path}: the name of a file of problems ends in {', '.join(folder.ENDINGS)}")
    return [path], "{split}" in name
  found = folder.splits(path)
  if "{split}" in name or "" in found:
    found = {split: found.get(split, found.get("", []))}
    if not found[split]:
      raise UserError(f"{path}: there is no {split} in it")
    return found[split], "{split}" in name
  whole = split == "test" or "validation" in found
  split = split if whole else "train"
  if split not in found:
    raise UserError(f"{path}: there is no {split} split; there are {', '.join(found)}")
  return found[split], whole


def read(name: str, split: str, columns: columns_lib.Columns = columns_lib.Columns(),
         family: str = "math") -> Iterator[Problem | Malformed]:
  """The problems of a split and the rows that are none. Raises UserError where a column is missing from all rows."""
  return (found for _, _, found in located(name, split, columns, family))


def located(name: str, split: str, columns: columns_lib.Columns = columns_lib.Columns(),
            family: str = "math") -> Iterator[tuple[str, str, Problem | Malformed]]:
  """`read`, each behind the file that it is in and its row there, counted from 1."""
  paths, _ = files_of(name, split)
  first = files.path(name.replace("{split}", split))
  stem = first.name.split(".")[0] if first == paths[0] else f"{first.name}/{split}"
  seen, number, there = {}, 0, False
  for path in paths:
    for row, found in _format(path).rows(path, columns.names()):
      number += 1
      try:
        if isinstance(found, fields.Bad):
          raise found
        there = there or not any(columns.missing(list(found)))
        problem = columns_lib.problem(found, columns, f"{stem}/{row if len(paths) == 1 else number}", family)
        if problem.id in seen:
          raise fields.Bad("id", f"{problem.id} is in row {seen[problem.id]} already")
        seen[problem.id] = row
        yield str(path), row, problem
      except fields.Bad as bad:
        yield str(path), row, Malformed(str(path), row, *bad.args)
  if not there and (names := list(dict.fromkeys(name for path in paths for name in _format(path).columns(path)))):
    needed, asked = columns.missing(names)
    if needed:
      raise UserError(f"{paths[0]}: {needed}")
    if asked:
      print(f"{paths[0]}: {asked}", file=sys.stderr)


def rows(path: epath.Path) -> Iterator[tuple[str, dict | fields.Bad]]:
  """(its number, every field of a row) of one file; numbers of a JSON file are `fields.Number`."""
  form = _format(path)
  yield from form.rows(path, tuple(form.columns(path)) if form in (parquet, arrow) else ())


def count(name: str, split: str) -> int:
  """How many rows the files of a split have."""
  return sum(_format(path).count(path) for path in files_of(name, split)[0])


def _format(path: epath.Path) -> ModuleType:
  return _FORMATS[os.path.splitext(path.name.removesuffix(".gz"))[1]]
