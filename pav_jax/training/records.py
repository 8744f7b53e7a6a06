"""What stages hand each other: shards of arrays, checksummed, and a manifest that says whence.

A folder of records is

  plan.json       what is being made: stage, the config it depends on, its inputs
  00000.npz       a shard: arrays of equal first axis; no pickle in it
  00000.json      the shard's checksum, rows and counts, written after it
  manifest.json   written last: the plan, the shards, sums of counts, versions

Each JSON file holds a checksum of itself (files.py).

A stage killed half-way leaves whole shards; started again with the same plan
it makes only the missing ones. With another plan it refuses, and names the key;
a plan of which nothing has been made gives way. On several hosts the first one writes.
"""

import importlib.metadata
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import hosts

# Of manifests; one of a later version is refused.
FORMAT = 1
# What stands in a folder before anything has been made: an attempt that failed at once leaves no more.
_NOT_WORK = ("plan.json", "vocabulary.model", "left_out.txt", "curves.jsonl", "alarms.jsonl")
# Keys that came after folders had been made, each with the value that does what was done before: a plan without one means it.
LATER = {
    "problems.columns": {
        "question": ["question", "problem", "query"], "answer": ["answer", "final_answer", "expected_answer"],
        "solution": ["solution", "generated_solution", "response"], "id": ["id", "unique_id"], "dataset": ["dataset"]},
    "problems.family": "math", "problems.leave_out": [], "problems.steps": "newline", "verifier.labels": "monte_carlo",
    "verifier.relative_ratio": 0.8, "verifier.effective_alpha": 0.4, "verifier.effective_above": 0.0, "verifier.implicit_beta": 0.05,
    "verifier.implicit": {
        "num_steps": 600, "batch_size": 32, "microbatches": 1, "peak_lr": 1e-3, "warmup_steps": 50, "b1": 0.9, "b2": 0.95, "clip_norm": 1.0,
        "weight_decay": 0.0, "eval_every": 200, "save_every": 500, "keep": 2, "log_every": 20},
    "search.verifier": ""}
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Folder:
  """One folder of records (or of checkpoints) being made, or made; by this process alone, or by all together."""

  def __init__(self, path: str | os.PathLike, alone: bool = False):
    self.path, self._alone = files.path(path), alone

  def _meet(self, what: str):
    if not self._alone:
      hosts.meet(f"{what} of {self.path}")

  @property
  def _writes(self) -> bool:
    return self._alone or hosts.first()

  def start(self, stage: str, config: Mapping, inputs: Mapping[str, str], way_on: str = "") -> bool:
    """True if the folder is finished with this very plan; False to (go on and) make it.

    config: JSON values, what this stage's output depends on; inputs: name ->
    digest of the folders it reads. Raises UserError if the folder holds
    another plan's work; way_on: how to go on from that work, for the message.
    """
    plan = {"stage": stage, "config": json.loads(json.dumps(config)), "inputs": dict(inputs)}
    plan_path = self.path / "plan.json"
    there = files.exists(plan_path)
    difference = _difference(_told(files.read_json(plan_path)), _told(plan)) if there else ""
    if difference and self.begun:
      raise UserError(f"{self.path} holds work made otherwise: {difference}; remove that folder and those made from it, "
                      "or choose another --workdir" + (f"; {way_on}" if way_on else ""))
    if self._writes and (difference or not there):
      files.write_json(plan_path, plan)
    self._meet("plan")
    return self.done

  @property
  def begun(self) -> bool:
    """Whether anything has been made here: a shard, a checkpoint, whatever is more than a plan."""
    return any(name not in _NOT_WORK and not name.endswith(".partial") for name in files.names_below(self.path))

  @property
  def done(self) -> bool:
    """Whether the manifest, which is written last, is there."""
    return files.exists(self.path / "manifest.json")

  def has_shard(self, index: int) -> bool:
    """Whether shard `index` is whole."""
    return files.exists(self.path / f"{index:05d}.json")

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
    path, content = self.path / f"{index:05d}.npz", io.BytesIO()
    np.savez_compressed(content, **arrays)
    files.write(path, content.getvalue())
    files.write_json(path.with_suffix(".json"), {
        "file": path.name, "sha256": files.digest(content.getvalue()), "rows": max(rows.values(), default=0),
        "arrays": {name: f"{x.dtype}{list(x.shape)}" for name, x in arrays.items()},
        "counts": {name: int(n) for name, n in counts.items()}})

  def finish(self, num_shards: int, facts: Mapping | None = None) -> dict:
    """Writes and returns the manifest when all shards are there; facts are further JSON values (figures, choices made)."""
    self._meet("shards")
    shards = [self._description(f"{i:05d}.json", ("file", "sha256", "rows", "counts")) for i in range(num_shards)]
    counts = {}
    for shard in shards:
      for name, n in shard["counts"].items():
        counts[name] = counts.get(name, 0) + n
    manifest = {**self._description("plan.json", ("stage", "config", "inputs")), "format": FORMAT, "counts": counts,
                "facts": dict(facts or {}), "versions": versions(), "shards": shards}
    if self._writes:
      files.write_json(self.path / "manifest.json", manifest)
    self._meet("manifest")
    return manifest

  @property
  def seconds(self) -> float | None:
    """From plan to manifest, waits and interruptions too; None where times tell nothing: a copied folder's may come in any order."""
    seconds = files.modified(self.path / "manifest.json") - files.modified(self.path / "plan.json")
    return round(seconds, 1) if seconds >= 0 else None

  def manifest(self) -> dict:
    """The manifest; UserError if the folder is missing or unfinished, or the manifest damaged or of a later version."""
    if not self.done:
      state = "unfinished" if files.exists(self.path) else "not there"
      raise UserError(f"{self.path} is {state}: run the stage that makes it first")
    manifest = self._description("manifest.json", ("stage", "config", "inputs", "counts", "facts", "versions", "shards"))
    if manifest.get("format", 1) != FORMAT:
      raise UserError(f"{self.path / 'manifest.json'} has format {manifest['format']}: a later version of pav_jax "
                      f"wrote it, this one reads format {FORMAT}")
    return manifest

  def _description(self, name: str, keys: Sequence[str]) -> dict:
    """The JSON file of that name, with these keys in it."""
    found = files.read_json(self.path / name)
    missing = [key for key in keys if key not in found]
    if missing:
      raise UserError(f"{self.path / name} is damaged: it lacks {', '.join(missing)}")
    return found

  def digest(self) -> str:
    """What names this folder's content to the stages made from it."""
    self.manifest()
    return files.digest(files.read(self.path / "manifest.json"))

  def read(self) -> dict[str, np.ndarray]:
    """All shards joined, checksums verified. UserError for a damaged or foreign file, with the way out."""
    pieces = {}
    for shard in self.manifest()["shards"]:
      path = self.path / shard["file"]
      again = f"; to make it again remove manifest.json and {path.stem}.* there, and run its stage"
      if not files.exists(path):
        raise UserError(f"{path} is missing{again}")
      content = files.read(path)
      if files.digest(content) != shard["sha256"]:
        raise UserError(f"{path} is damaged: its checksum is not the manifest's{again}")
      try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
          for name in arrays.files:
            pieces.setdefault(name, []).append(arrays[name])
      except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return {name: np.concatenate(x) for name, x in pieces.items()}


def account(folders: Mapping[str, Folder]) -> dict:
  """What a record says of the folders behind it, those that are finished: `config`, every section that one of them was made with
  (its paths and seeds among it; a single knob, as 'rollouts.max_new', only where its section is not there), and `minutes`, of each
  folder by its name here."""
  done = {name: folder for name, folder in folders.items() if folder.done}
  config = {}
  for folder in done.values():
    config |= folder.manifest()["config"]
  section = lambda key: key.partition(".")[0]
  config = {key: x for key, x in config.items() if section(key) == key or section(key) not in config}
  return {"config": config, "minutes": {name: None if folder.seconds is None else round(folder.seconds / 60, 1) for name, folder in done.items()}}


def versions() -> dict[str, str]:
  """Python and the packages that numbers depend on."""
  return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in _PACKAGES}


def _told(plan: dict) -> dict:
  """The plan with all that its sections mean, what came later, too."""
  config = dict(plan.get("config", {}))
  for key, before in LATER.items():
    section, _, last = key.partition(".")
    if isinstance(config.get(section), dict):
      config[section] = {last: before, **config[section]}
  return {**plan, "config": config}


def _difference(old, new, name: str = "") -> str:
  """The first place where two JSON values differ, in words; '' if nowhere."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      found = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
      if found:
        return found
    return ""
  return "" if old == new else f"{name} was {json.dumps(old)}, now {json.dumps(new)}"
