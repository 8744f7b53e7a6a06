"""Launches runs of pav_jax as one XManager experiment: on this machine, on GKE, on Cloud TPU's queued resources.

  python launch/xm_launch.py --config=configs/quickstart.py --workdir=runs/quickstart --config.search.alpha=0.3

  python launch/xm_launch.py --platform=gke --tpu=v5e:4x4 --image=REGISTRY/pav_jax:1 --spot --max_restarts=10 \\
    --config=configs/paper/gemma2_2b_math.py --workdir=gs://BUCKET/run --stages=rollouts,values \\
    --sweep=config.seed=0,1,2

  1. The flags of this file are read; --config and its overrides go to
     `python -m pav_jax.main` as they stand.
  2. Sweep and stages make work units (units.py). --dry_run prints what would be
     sent or run, and stops.
  3. An experiment with these work units is recorded (xm_local keeps its list
     under ~/.xmanager).
  4. local (processes.py): they run here, with this interpreter, in the directory
     the launcher was started in; their output is shown as it comes, the exit
     status is ours, an interruption reaches them, and the same command goes on
     from there. gke (jobset.py) and queued_resources: they are submitted one
     after another; the launcher does not wait for them to run.

A mistake ends with one line on stderr and exit status 2; of a sweep that is cut
short by a refusal the line says which work units had been submitted.
"""

import asyncio
import contextlib
import functools
import io
import os
import sys

from absl import flags
from errors import LaunchError
from xmanager import xm
from xmanager import xm_local
from xmanager.xm_local import executables
import yaml

import commands
import executor
import jobset
import processes
import queued_resources
import slices
import units

_PLATFORM = flags.DEFINE_string("platform", "local", "Where: local, gke or queued_resources.")
_TPU = flags.DEFINE_string("tpu", "", "The slice: v4:AxBxC, v5e:AxB or v5p:AxBxC chips. Not for local.")
_TITLE = flags.DEFINE_string("title", "pav_jax", "What the experiment is called, and what was submitted for it.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where the run lives; all hosts must reach it.")
_SWEEP = flags.DEFINE_multi_string("sweep", [], "config.KEY=A,B,... (or A;B;...): a work unit for each; repeat for the product.")
_STAGES = flags.DEFINE_list("stages", [], "Stages to run one after another, each by itself.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be sent or run, and stop.")
_PROCESSES = flags.DEFINE_integer("processes", 1, "local: how many processes, each a host.", lower_bound=1)
_DEVICES = flags.DEFINE_integer("devices", 0, "local: simulated CPU devices of each process; 0: the machine's own.", lower_bound=0)
_IMAGE = flags.DEFINE_string("image", "", "gke: the container image, with pav_jax and jax[tpu].")
_NAMESPACE = flags.DEFINE_string("namespace", "default", "gke: the namespace.")
_PACKAGE = flags.DEFINE_multi_string("package", [], "queued_resources: what pip installs, or a gs:// wheel or archive.")
_PROJECT = flags.DEFINE_string("project", "", "queued_resources: the Google Cloud project.")
_ZONE = flags.DEFINE_string("zone", "", "queued_resources: the zone.")
_ACCOUNT = flags.DEFINE_string("service_account", "", "gke, queued_resources: whom the run acts as, instead of the default.")
_SPOT = flags.DEFINE_bool("spot", False, "gke, queued_resources: machines that may be taken at any time.")
_RESTARTS = flags.DEFINE_integer("max_restarts", 3, "gke, queued_resources: how often a failed run starts anew.", lower_bound=0)

# What each platform cannot do without, and what says nothing there.
_NEEDS = {"local": (), "gke": (_TPU, _IMAGE), "queued_resources": (_TPU, _PACKAGE, _PROJECT, _ZONE)}
_IDLE = {"local": (_TPU, _IMAGE, _NAMESPACE, _PACKAGE, _PROJECT, _ZONE, _ACCOUNT, _SPOT, _RESTARTS),
         "gke": (_PROCESSES, _DEVICES, _PACKAGE, _PROJECT, _ZONE),
         "queued_resources": (_PROCESSES, _DEVICES, _IMAGE, _NAMESPACE)}


def check(platform: str, workdir: str):
  """Raises LaunchError if flags are missing or say nothing on this platform."""
  if platform not in _NEEDS:
    raise LaunchError(f"--platform={platform}: none of {', '.join(_NEEDS)}")
  for flag in _NEEDS[platform]:
    if not flag.value:
      raise LaunchError(f"--platform={platform}: --{flag.name}=... is missing")
  for flag in _IDLE[platform]:
    if flag.present:
      raise LaunchError(f"--platform={platform}: --{flag.name} says nothing there")
  if platform != "local" and workdir and "://" not in workdir and not os.path.isabs(workdir):
    raise LaunchError(f"--workdir={workdir}: on {platform} a bucket (gs://...) or an absolute path that all hosts share")


async def submit(title: str, chosen: list[units.Unit], sends: list):
  """Submits work units, one after another; sends: what does it, for each.

  Raises LaunchError at the first that is refused, and says which were submitted.
  """
  executable = executables.GoogleContainerRegistryImage(name="main", image_path=_IMAGE.value)
  done = []
  out = sys.stdout
  # At its end XManager says that it waits for local jobs; there are none.
  with contextlib.redirect_stdout(io.StringIO()):
    async with xm_local.create_experiment(experiment_title=title) as experiment:
      for unit, send in zip(chosen, sends):
        where = executor.Submitted(send)
        await experiment.add(xm.Job(executable, where, name=unit.name))
        if where.refused:
          of_a_sweep = f"; submitted before it: {', '.join(done) or 'none'}" if len(chosen) > 1 else ""
          raise LaunchError(where.refused + of_a_sweep)
        done.append(unit.name)
        print(f"submitted {where.said}", file=out, flush=True)


def launch(platform: str, chosen: list[units.Unit]) -> int:
  """Exit status of a launch, or of the printing of one. Raises LaunchError."""
  title, dry_run = _TITLE.value, _DRY_RUN.value
  if platform == "local":
    if dry_run:
      print("\n".join(processes.show(unit, _PROCESSES.value, _DEVICES.value) for unit in chosen))
      return 0
    return asyncio.run(processes.run(title, chosen, _PROCESSES.value, _DEVICES.value))
  tpu = slices.read(_TPU.value)
  lines = [commands.on(tpu.hosts, unit.stages, _WORKDIR.value) for unit in chosen]
  if platform == "gke":
    sets = [jobset.make(unit.name, line, tpu, image=_IMAGE.value, namespace=_NAMESPACE.value,
                        service_account=_ACCOUNT.value, spot=_SPOT.value, max_restarts=_RESTARTS.value)
            for unit, line in zip(chosen, lines)]
    if dry_run:
      print(yaml.safe_dump_all(sets, sort_keys=False, width=10**6), end="")
      return 0
    api = jobset.connect()
    sends = [functools.partial(jobset.submit, api, one) for one in sets]
  else:
    pairs = [(queued_resources.arguments(unit.name, tpu, project=_PROJECT.value, zone=_ZONE.value,
                                         service_account=_ACCOUNT.value, spot=_SPOT.value),
              queued_resources.script(line, _PACKAGE.value, _RESTARTS.value)) for unit, line in zip(chosen, lines)]
    if dry_run:
      print("\n".join(queued_resources.show(*pair) for pair in pairs))
      return 0
    sends = [functools.partial(queued_resources.submit, *pair) for pair in pairs]
  asyncio.run(submit(title, chosen, sends))
  return 0


def main() -> int:
  """Exit status of the command."""
  try:
    _, *arguments = flags.FLAGS(sys.argv, known_only=True)
    check(_PLATFORM.value, _WORKDIR.value)
    return launch(_PLATFORM.value, units.make(_TITLE.value, arguments, _WORKDIR.value, _SWEEP.value, _STAGES.value))
  except (LaunchError, flags.Error) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    return 130
  except asyncio.CancelledError:
    return 143


if __name__ == "__main__":
  sys.exit(main())
