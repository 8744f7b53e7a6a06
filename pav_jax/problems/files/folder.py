"""Which files of a folder hold which split.

A folder is what `save_to_disk` of Hugging Face's `datasets` wrote (a set, or
one folder a split), a snapshot of a data set from its hub, or files of one's
own. The split of a file is said by a word in its path below the folder:
`train-00000-of-00002.parquet`, `data/test.jsonl`, `dev/0000.parquet`. Where no
path says one, all files are one set. Nothing but data files is looked at.
"""

import os
import re
from collections.abc import Iterator

from etils import epath

from pav_jax.errors import UserError
from pav_jax.training import files

WORDS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "testing")}
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".arrow")
# Descriptions that lie beside data, and the one that lists a set's arrow files.
_NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "config.json", "state.json")


def splits(path: epath.Path) -> dict[str, list[epath.Path]]:
  """The files of each split, in the order of their names; of split '' where no path says one.

  Raises UserError for a folder without data, and where the files of a split
  lie in several folders (which are several sets) or formats.
  """
  found = {}
  for name in sorted(_names(path, "")):
    found.setdefault(_split(name), []).append(name)
  if not found:
    raise UserError(f"{path}: no data in this folder, which is a file that ends in {', '.join(ENDINGS)}")
  if len(found) > 1:
    found.pop("", None)
  for split, names in found.items():
    above = sorted({name.rpartition("/")[0] for name in names})
    if len(above) > 1:
      raise UserError(f"{path}: {split or 'data'} lies in several folders, {', '.join(x or '.' for x in above[:4])}; name one of them")
    kinds = sorted({os.path.splitext(name.removesuffix(".gz"))[1] for name in names})
    if len(kinds) > 1:
      raise UserError(f"{path}: {split or 'data'} is there in several formats, {', '.join(kinds)}; name one of the files")
  return {split: [path / name for name in names] for split, names in found.items()}


def _names(path: epath.Path, prefix: str) -> Iterator[str]:
  """The data files in a folder and those inside it, by their paths below the first one."""
  with files.told(path, "read"):
    inside = [inner for inner in path.iterdir() if not inner.name.startswith((".", "_"))]
  listed = _listed(path) if any(inner.name == "state.json" for inner in inside) else None
  for inner in inside:
    if inner.is_dir():
      yield from _names(inner, f"{prefix}{inner.name}/")
    elif inner.name.endswith(ENDINGS) and inner.name not in _NOT_DATA and (listed is None or inner.name in listed):
      yield prefix + inner.name


def _listed(path: epath.Path) -> set[str]:
  """The arrow files that belong to a saved set; others beside them are caches."""
  state = files.read_json(path / "state.json")
  listed = state.get("_data_files")
  if not isinstance(listed, list) or not all(isinstance(x, dict) and isinstance(x.get("filename"), str) for x in listed):
    raise UserError(f"{path / 'state.json'} is damaged: it lists no files")
  missing = [x["filename"] for x in listed if "/" in x["filename"] or not files.exists(path / x["filename"])]
  if missing:
    raise UserError(f"{path / 'state.json'} names {missing[0]}, which is not there")
  return {x["filename"] for x in listed}


def _split(name: str) -> str:
  """The split that the file's own name says, else one of the folders above it; ''."""
  for part in reversed(name.split("/")):
    for word in re.split(r"[^a-z]+", part.lower()):
      for split, words in WORDS.items():
        if word in words:
          return split
  return ""
