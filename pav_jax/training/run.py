"""What a stage is given: the config, the mesh, and the folders of the run."""

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence

from etils import epath
import numpy as np
from jax.sharding import Mesh

from pav_jax.errors import UserError
from pav_jax.training import hosts
from pav_jax.training.records import Folder


@dataclasses.dataclass(frozen=True)
class Run:
  """One working directory under one config.

  config: a locked ml_collections.ConfigDict. Every folder below `root` is made
  by one stage; `start` binds it to what it depends on. alone: the other
  processes, if there are any, do not run this stage. strict: a doubt is an error.
  """

  config: object
  root: epath.Path
  mesh: Mesh
  alone: bool = False
  strict: bool = False

  def folder(self, name: str) -> Folder:
    """The folder of that name, made or not."""
    return Folder(self.root / name, self.alone)

  def made_with(self, name: str, section: str) -> types.SimpleNamespace:
    """The config section that folder `name` was made with, whatever the config says there by now; nested ones are dicts."""
    return types.SimpleNamespace(**self.folder(name).manifest()["config"][section])

  def start(self, name: str, *, sections: Sequence[str], inputs: Sequence[str], way_on: str = "") -> tuple[Folder, bool]:
    """(folder, whether it is finished): its plan is these config sections, the seed and these folders.

    way_on: the flag by which another workdir goes on from what was trained here, as `policy.init_from={}/best`.
    """
    config = {"seed": self.config.seed}
    for section in sections:
      part = self.config
      for key in section.split("."):
        part = part[key]
      config[section] = part.to_dict() if hasattr(part, "to_dict") else part
    folder = self.folder(name)
    if way_on:
      way_on = f"to train on from it, choose another --workdir with --config.{way_on.format(folder.path)}"
    return folder, folder.start(name, config, {i: self.folder(i).digest() for i in inputs}, way_on)

  def doubt(self, stage: str, doubts: Sequence[str], state: str):
    """Says on stderr, a line each, what makes a stage's work useless to those after it; if `strict`, that is a UserError.

    state: what is there by now, and what to do for a better one. A finished folder is doubted whenever its stage comes by.
    """
    if doubts and self.strict:
      raise UserError(f"{stage}: {', and '.join(doubts)} (--strict); {state}")
    for line in doubts if hosts.first() else ():
      print(f"{stage}: {line}", file=sys.stderr)


def useless_responses(counts: Mapping[str, int], max_new: int, of: str = "responses") -> list[str]:
  """What these counts of responses say against them: all cut off, or none correct; [] if there are some of each.

  of: the name of the responses among the counts; beside it are `truncated` and `correct`.
  """
  count = counts.get(of, 0)
  cut = f"all {count} {of} were cut at rollouts.max_new = {max_new} tokens: none came to its end"
  none = f"none of {count} {of} is correct"
  return [cut] * bool(count and counts.get("truncated") == count) + [none] * bool(count and counts.get("correct") == 0)


def epoch_rows(num_rows: int, batch_size: int, seed: int):
  """rows(n) -> int64 (batch_size,): the rows of batch n; every epoch is a new permutation.

  A pure function of n, so that a restart needs no iterator's state. Batches
  may straddle two epochs; no row is left out.
  """
  def permutation(epoch):
    return np.random.default_rng([seed, epoch]).permutation(num_rows)

  cached = {}
  def rows(n):
    found = []
    position, wanted = n * batch_size, batch_size
    while wanted:
      epoch, offset = divmod(position, num_rows)
      if epoch not in cached:
        for old in [e for e in cached if e < epoch - 1]:
          del cached[old]
        cached[epoch] = permutation(epoch)
      found.append(cached[epoch][offset:offset + wanted])
      position += len(found[-1])
      wanted -= len(found[-1])
    return np.concatenate(found)
  return rows
