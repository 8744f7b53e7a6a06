"""Flags -> work units: one for every point of the sweep, each a chain of stages in a workdir of its own."""

import itertools
import re
from typing import NamedTuple

from errors import LaunchError


class Unit(NamedTuple):
  """One work unit."""

  name: str  # what it is called on the platform
  point: str  # the point of the sweep, `seed=0,search.alpha=0.3`; '' without a sweep
  workdir: str
  stages: tuple[tuple[str, ...], ...]  # the arguments of pav_jax.main, one tuple for every stage, in order


def make(title: str, arguments: list[str], workdir: str, sweep: list[str], stages: list[str]) -> list[Unit]:
  """The work units of a command line.

  title: the experiment's; names are made from it. arguments: what goes to
  pav_jax.main as it stands. workdir: where the run lives, any path or bucket;
  a sweep's units live below it, `WORKDIR/seed=0`. sweep: `config.KEY=A,B,...`
  each (`;` between values that hold commas); the units are their cross product,
  the last one fastest. stages: values of config.stage, one run of main each;
  without any, one run as the arguments say.

  Raises LaunchError for anything that cannot be run as it is given.
  """
  name = title.lower().replace("_", "-")
  if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name):
    raise LaunchError(f"--title={title}: names on a cluster have letters, digits and -, begin with a letter, "
                      "do not end in -, and end after 40")
  if not any(argument.startswith("--config=") for argument in arguments):
    raise LaunchError("command line: --config=configs/....py is missing")
  if not workdir:
    raise LaunchError("command line: --workdir=... is missing")
  for given in arguments:
    if given.partition("=")[0] in ("--hosts", "-hosts"):
      raise LaunchError(f"command line: {given} is the launcher's to say")
    if given.startswith("-") and not given.startswith("--config"):
      raise LaunchError(f"command line: {given} is neither the launcher's nor a --config....")
    if stages and given.startswith("--config.stage="):
      raise LaunchError(f"command line: --stages={','.join(stages)} and {given} say two things")
  if not all(stages):
    raise LaunchError(f"--stages={','.join(stages)}: a stage without a name")
  axes = [_axis(one) for one in sweep]
  keys = [key for key, _ in axes]
  if stages and "config.stage" in keys:
    raise LaunchError(f"--sweep: config.stage is what --stages={','.join(stages)} says")
  if len(set(keys)) < len(keys):
    raise LaunchError(f"--sweep: {max(keys, key=keys.count)} is swept twice")
  units = []
  for number, values in enumerate(itertools.product(*(values for _, values in axes)), 1):
    point = ",".join(f"{key.removeprefix('config.')}={value}" for key, value in zip(keys, values))
    place = f"{workdir.rstrip('/')}/{re.sub(r'[^-A-Za-z0-9_.,=+]', '_', point)}" if axes else workdir
    rest = (*arguments, *(f"--{key}={value}" for key, value in zip(keys, values)), f"--workdir={place}")
    chain = tuple((*rest, f"--config.stage={stage}") for stage in stages) or (rest,)
    units.append(Unit(f"{name}-{number}" if axes else name, point, place, chain))
  if len({unit.workdir for unit in units}) < len(units):
    raise LaunchError("--sweep: two work units would share a workdir, " + max(
        (unit.workdir for unit in units), key=[unit.workdir for unit in units].count))
  return units


def _axis(text: str) -> tuple[str, list[str]]:
  """(key, values) of one --sweep."""
  key, _, values = text.partition("=")
  parts = values.split(";" if ";" in values else ",")
  if not key.startswith("config.") or not all(parts):
    raise LaunchError(f"--sweep={text}: not config.KEY=VALUE,VALUE,...")
  return key, parts
