"""TPU chips by name, and the devices of a slice that is not there."""

import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from pav_jax.errors import UserError


class Chip(NamedTuple):
  """memory: bytes of HBM that a program may have; flops: bfloat16 a second; bandwidth: bytes a second of HBM; links: bytes
  a second that a chip sends to others, over all its links together."""

  memory: float
  flops: float
  bandwidth: float
  links: float


# Google's documentation of each chip (cloud.google.com/tpu/docs/v4, v5e, v5p), which says 32, 16 and 95 GiB of memory; what
# is here is what the compiler lets a program have of it. Links are documented in both directions together for v5e and v5p
# (400 and 1,200 GB/s); v4's are six of 50 GB/s each way (arXiv 2304.01433).
CHIPS = {
    "v4": Chip(30.75 * 2**30, 275e12, 1200e9, 300e9),
    "v5e": Chip(15.75 * 2**30, 197e12, 819e9, 200e9),
    "v5p": Chip(95.74 * 2**30, 459e12, 2765e9, 600e9),
}
# What the compiler must be told of v4: two cores work as one device, four chips a host.
_EXTRA = {"v4": {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}}


def chip(topology: str) -> Chip:
  """The chip of a slice named like v5e:4x4. Raises UserError for another form or an unknown chip."""
  name, _, shape = topology.partition(":")
  if name not in CHIPS or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
    raise UserError(f"--topology={topology!r}: a chip of {', '.join(CHIPS)} and the slice's shape, as v5e:4x4 or v5p:4x4x4")
  return CHIPS[name]


def devices(topology: str) -> list[jax.Device]:
  """The slice's devices, to compile for; no TPU is needed. Raises UserError where the compiler is not installed or knows no such slice."""
  chip(topology)
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **_EXTRA.get(topology.partition(":")[0], {}))
  except (RuntimeError, ValueError, NotImplementedError) as error:
    # JAX's own word for a machine without libtpu.
    hint = "; pip install 'jax[tpu]' brings the compiler, no TPU is needed" if "not installed" in str(error) else ""
    raise UserError(f"--topology={topology}: {' '.join(str(error).split())[:300]}{hint}") from error
  return found.devices
