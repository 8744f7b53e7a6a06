"""What a stage is given: the config, the mesh, and the folders of the run."""

import dataclasses
import types
from collections.abc import Sequence

from etils import epath
import numpy as np
from jax.sharding import Mesh

from pav_jax.training.records import Folder


@dataclasses.dataclass(frozen=True)
class Run:
  """One working directory under one config.

  config: a locked ml_collections.ConfigDict. Every folder below `root` is made
  by one stage; `start` binds it to what it depends on. alone: the other
  processes, if there are any, do not run this stage.
  """

  config: object
  root: epath.Path
  mesh: Mesh
  alone: bool = False

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
