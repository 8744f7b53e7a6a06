"""TPU slices by name: `v5e:4x4` -> what GKE and Cloud TPU call it, how many hosts it has.

The tables are those of Cloud TPU's and GKE's documentation (v4, v5e, v5p). A
topology is counted in chips. v4 and v5p are tori of three dimensions, up to a
cube of 4x4x4 in five steps, and beyond it any A <= B <= C in multiples of 4;
v5e is flat and comes in eight sizes.
"""

import math
import re
from typing import NamedTuple

from errors import LaunchError

_UP_TO_A_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
# What a number of chips stands for where only the number can be asked for.
_BY_COUNT = (*_UP_TO_A_CUBE, "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")


class _Kind(NamedTuple):
  """A generation of TPUs: its names, its shapes, what Cloud TPU counts it in."""

  gke: str  # the node label cloud.google.com/gke-tpu-accelerator
  cloud: str  # the accelerator type's first part
  cores: int  # how much of the accelerator type's second part is one chip
  runtime: str  # the TPU VM's software
  shapes: tuple[str, ...]
  largest: tuple[int, ...]  # the pod's edges where shapes beyond the list exist


_KINDS = {
    "v4": _Kind("tpu-v4-podslice", "v4", 2, "tpu-ubuntu2204-base", _UP_TO_A_CUBE, (16, 16, 16)),
    "v5e": _Kind("tpu-v5-lite-podslice", "v5litepod", 1, "v2-alpha-tpuv5-lite",
                 ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"), ()),
    "v5p": _Kind("tpu-v5p-slice", "v5p", 2, "v2-alpha-tpuv5", _UP_TO_A_CUBE, (16, 16, 24)),
}


class Slice(NamedTuple):
  """One slice: chips that are wired to one another, and the hosts they hang on."""

  accelerator: str  # GKE's name of the TPU
  topology: str  # AxB or AxBxC chips
  hosts: int
  chips_per_host: int
  accelerator_type: str  # Cloud TPU's name of the size; '' where it has none for this shape
  runtime: str  # Cloud TPU's software version


def read(name: str) -> Slice:
  """The slice that `KIND:TOPOLOGY` names. Raises LaunchError for a TPU or a topology that does not exist."""
  kind, _, topology = name.partition(":")
  if kind not in _KINDS:
    raise LaunchError(f"--tpu={name}: {kind!r} is none of {', '.join(_KINDS)}, as in --tpu=v5e:4x4")
  known = _KINDS[kind]
  if topology not in known.shapes and not _beyond(topology, known.largest):
    more = f", or AxBxC up to {'x'.join(map(str, known.largest))} with A <= B <= C, multiples of 4" if known.largest else ""
    raise LaunchError(f"--tpu={name}: {kind} has no topology {topology!r}; it has {', '.join(known.shapes)}{more}")
  chips = math.prod(map(int, topology.split("x")))
  # v5e's slices up to 2x4 are one host; all others hang on hosts of 4 chips.
  hosts = 1 if not known.largest and chips <= 8 else chips // 4
  by_count = not known.largest or topology in _BY_COUNT
  return Slice(known.gke, topology, hosts, chips // hosts,
               f"{known.cloud}-{chips * known.cores}" if by_count else "", known.runtime)


def _beyond(topology: str, largest: tuple[int, ...]) -> bool:
  """Whether a topology is made of whole cubes of 4x4x4, edges in order, none longer than the pod's."""
  if not largest or not re.fullmatch(r"[1-9]\d{0,2}(x[1-9]\d{0,2}){2}", topology, re.ASCII):
    return False
  edges = [int(edge) for edge in topology.split("x")]
  return edges == sorted(edges) and all(edge % 4 == 0 and edge <= most for edge, most in zip(edges, largest))
