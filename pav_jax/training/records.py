"""What stages hand each other: shards of arrays, checksummed, and a manifest that says whence.

A folder of records is

  plan.json       what is being made: stage, the config it depends on, its inputs
  00000.npz       a shard: arrays of equal first axis; no pickle in it
  00000.json      the shard's checksum, rows and counts, written after it
  manifest.json   written last: the plan, the shards, sums of counts, versions

A stage killed half-way leaves whole shards; started again with the same plan
it makes only the missing ones. With another plan it refuses, and names the key.
On several hosts the first one writes.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import zipfile
from collections.abc import Mapping

import numpy as np

from pav_jax.errors import UserError
from pav_jax.training import hosts

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Folder:
  """One folder of records (or of checkpoints) being made, or made; by this process alone, or by all together."""

  def __init__(self, path: str | os.PathLike, alone: bool = False):
    self.path, self._alone = pathlib.Path(path), alone

  def _meet(self, what: str):
    if not self._alone:
      hosts.meet(f"{what} of {self.path}")

  @property
  def _writes(self) -> bool:
    return self._alone or hosts.first()

  def start(self, stage: str, config: Mapping, inputs: Mapping[str, str]) -> bool:
    """True if the folder is finished with this very plan; False to (go on and) make it.

    config: JSON values, what this stage's output depends on; inputs: name ->
    digest of the folders it reads. Raises UserError if the folder holds
    another plan's work.
    """
    plan = {"stage": stage, "config": json.loads(json.dumps(config)), "inputs": dict(inputs)}
    plan_path = self.path / "plan.json"
    if plan_path.exists():
      difference = _difference(_read_json(plan_path), plan)
      if difference:
        raise UserError(f"{self.path} holds work made otherwise: {difference}; "
                        "remove that folder and those made from it, or choose another --workdir")
    elif self._writes:
      _write_json(plan_path, plan)
    self._meet("plan")
    return self.done

  @property
  def done(self) -> bool:
    """Whether the manifest, which is written last, is there."""
    return (self.path / "manifest.json").exists()

  def has_shard(self, index: int) -> bool:
    """Whether shard `index` is whole."""
    return (self.path / f"{index:05d}.json").exists()

  def write_shard(self, index: int, arrays: Mapping[str, np.ndarray], counts: Mapping[str, int]):
    """Writes one shard, on the first host; counts are summed over shards in the manifest."""
    rows = {name: len(x) for name, x in arrays.items()}
    if len(set(rows.values())) != 1:
      raise ValueError(f"arrays of a shard differ in rows: {rows}")
    for name, x in arrays.items():
      if np.asarray(x).dtype.hasobject:  # numpy would pickle it without a word
        raise ValueError(f"array {name} of a shard holds objects")
    if not self._writes:
      return
    path = self.path / f"{index:05d}.npz"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as f:
      np.savez_compressed(f, **arrays)
    os.replace(partial, path)
    _write_json(path.with_suffix(".json"), {
        "file": path.name, "sha256": file_digest(path), "rows": max(rows.values(), default=0),
        "arrays": {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()},
        "counts": {name: int(n) for name, n in counts.items()}})

  def finish(self, num_shards: int, facts: Mapping | None = None) -> dict:
    """Writes and returns the manifest when all shards are there; facts are further JSON values (figures, choices made)."""
    self._meet("shards")
    shards = [_read_json(self.path / f"{i:05d}.json") for i in range(num_shards)]
    counts = {}
    for shard in shards:
      for name, n in shard["counts"].items():
        counts[name] = counts.get(name, 0) + n
    manifest = {**_read_json(self.path / "plan.json"), "counts": counts, "facts": dict(facts or {}),
                "versions": versions(), "shards": shards}
    if self._writes:
      _write_json(self.path / "manifest.json", manifest)
    self._meet("manifest")
    return manifest

  def manifest(self) -> dict:
    """The manifest; UserError if the folder is missing or unfinished."""
    if not self.done:
      state = "unfinished" if self.path.exists() else "not there"
      raise UserError(f"{self.path} is {state}: run the stage that makes it first")
    return _read_json(self.path / "manifest.json")

  def digest(self) -> str:
    """What names this folder's content to the stages made from it."""
    self.manifest()
    return file_digest(self.path / "manifest.json")

  def read(self) -> dict[str, np.ndarray]:
    """All shards joined, checksums verified. UserError for a damaged or foreign file."""
    pieces = {}
    for shard in self.manifest()["shards"]:
      path = self.path / shard["file"]
      if not path.exists():
        raise UserError(f"{path} is missing")
      if file_digest(path) != shard["sha256"]:
        raise UserError(f"{path} is damaged: its checksum is not the manifest's")
      try:
        with np.load(path, allow_pickle=False) as arrays:
          for name in arrays.files:
            pieces.setdefault(name, []).append(arrays[name])
      except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return {name: np.concatenate(x) for name, x in pieces.items()}


def versions() -> dict[str, str]:
  """Python and the packages that numbers depend on."""
  return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in _PACKAGES}


def file_digest(path: pathlib.Path) -> str:
  """sha256 of a file, in hex."""
  with path.open("rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _write_json(path: pathlib.Path, value):
  """All or nothing: a reader never sees half a file."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    os.replace(partial, path)
  except OSError as error:
    raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _read_json(path: pathlib.Path):
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f"{path} cannot be read: {error}") from error


def _difference(old, new, name: str = "") -> str:
  """The first place where two JSON values differ, in words; '' if nowhere."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      found = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
      if found:
        return found
    return ""
  return "" if old == new else f"{name} was {json.dumps(old)}, now {json.dumps(new)}"
