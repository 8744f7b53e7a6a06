"""Flags -> config -> stage.

  python -m pav_jax.main --config=configs/quickstart.py --config.search.alpha=0.3 --workdir=runs/quick

`config.stage` names what runs: `pipeline` (all of them in order, skipping what
is done), one of problems, sft, rollouts, values, labels, verifier, search, report;
`rl`, which goes on from the verifier; `tune`, the settings of the arms of
search, which the pipeline has before search if `search.tuned`; `evaluate`,
which needs only problems and a checkpoint; or `didactic`, a figure of configs/didactic, which needs
nothing and is these configs' only stage.

Before the first stage begins, the `check` of each has looked at all that can
be known by then; --check does only that. How many problems there are is known
once they are prepared, and looked at again.

Whatever ends a run ends it with one line on stderr, and with exit status 2 for
a user's mistake, 130 for Ctrl-C, 143 for SIGTERM (a training loop saves its
state first), 1 for another host that was lost and for a bug of ours. What was
finished stays, and the same command goes on from there.
"""

from pav_jax.training import preemption

if __name__ == "__main__":
  preemption.until_begun()

import contextlib
import dataclasses
import functools
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable

from absl import flags
from absl import logging
from etils import epath
from ml_collections import config_flags

from pav_jax import configuration
from pav_jax import console
from pav_jax import errors
from pav_jax import usage
from pav_jax.errors import LostHost
from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training.preemption import NOTICE
from pav_jax.training.preemption import Preempted

STAGES = {
    "problems": "pav_jax.problems.prepare",
    "sft": "pav_jax.policy.sft",
    "rollouts": "pav_jax.rollouts.collect",
    "values": "pav_jax.values.monte_carlo",
    "labels": "pav_jax.values.imported",
    "verifier": "pav_jax.verifiers.train",
    "search": "pav_jax.search.compare",
    "report": "pav_jax.evaluation.report",
}
ALONE = {"rl": ("pav_jax.policy.arms", "pav_jax.evaluation.learning"), "tune": ("pav_jax.search.tune",),
         "evaluate": ("pav_jax.evaluation.evaluate",), "didactic": ("pav_jax.didactic.stage",)}
# On several hosts the first one does these.
NO_DEVICE = {"pav_jax.problems.prepare": "problems", "pav_jax.values.imported": "labels", "pav_jax.evaluation.learning": "rl_report"}

# The TPU compiler's library asks the machine which TPU it has, complains at length of having none, and keeps other processes off it.
COMPILER = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of configs/.", lock_config=True)
_MODE = flags.DEFINE_enum("mode", "run", ["run", "compile"], "compile: asks the TPU compiler whether the stage fits (pods/compile.py).")
_CHECK = flags.DEFINE_bool("check", False, "Only says what would keep the run from starting.")
_STRICT = flags.DEFINE_bool("strict", False, "A stage whose work is useless to those after it ends the run, with exit status 2.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "With --mode=compile: the slice, as v5e:16x16.")
_HOSTS = flags.DEFINE_string("hosts", "", "One of several processes: auto, or ADDRESS:PORT,COUNT,INDEX (training/hosts.py).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")


def parse(argv: list[str]):
  """(config, workdir or None, which compiling and checking need not). Raises UserError for anything wrong on the command line."""
  path = configuration.path_in(argv)
  if not path:
    raise UserError("command line: --config=configs/....py is missing")
  default = configuration.load(path)
  configuration.check_flags(argv[1:], default, path)
  try:
    with configuration.importing(path):
      rest = flags.FLAGS(configuration.with_file(argv))
      config = _CONFIG.value
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(f"command line: {' '.join(str(error).split())}") from error
  if len(rest) > 1:
    raise UserError(f"command line: {rest[1]!r} is not a flag")
  compiles = _MODE.value == "compile"
  if compiles != bool(_TOPOLOGY.value):
    raise UserError("command line: --mode=compile and --topology=v5e:4x4 go together")
  if compiles and _CHECK.value:
    raise UserError("command line: --check is for runs, not for --mode=compile")
  if not _WORKDIR.value and not compiles and not _CHECK.value:
    raise UserError("command line: --workdir=... is missing")
  configuration.read_tuples(config, config_flags.get_override_values(flags.FLAGS["config"]), default)
  if not compiles:  # which reads no file
    configuration.require_given(config)
  if config.stage not in ("pipeline", *STAGES, *ALONE):
    raise UserError(f"config.stage {config.stage!r} is none of pipeline, {', '.join([*STAGES, *ALONE])}")
  if (config.stage == "didactic") != ("figure" in config):
    raise UserError(f"config.stage {config.stage!r} is not for {path}: configs/didactic has didactic, and nothing else")
  return config, files.path(_WORKDIR.value) if _WORKDIR.value else None


def run(config, workdir: str | os.PathLike, hosts_spec: str = "", strict: bool = False):
  """Runs config.stage in workdir, as one of several processes if hosts_spec says so (training/hosts.py).

  strict: a stage whose work is useless to those after it (no response correct, all labels the same) raises UserError.
  """
  workdir = files.folder(files.path(workdir))
  _begin(hosts_spec)
  from pav_jax.training import hosts
  if hosts.several() and config.stage == "didactic":
    raise UserError("--hosts: stage didactic runs on one host")
  with contextlib.ExitStack() as stack:
    hosts.by_the_first(lambda: stack.enter_context(files.lock(workdir)), "the lock of the workdir")
    _run_stages(config, workdir, strict)


def check(config, workdir: epath.Path | None, hosts_spec: str = ""):
  """Says that the run can start, or raises UserError. workdir: what lies there is counted on, if it is given."""
  _begin(hosts_spec)
  from pav_jax.training import hosts
  modules = _modules(config)
  _check_stages(modules, config, workdir)
  if hosts.first():
    print(f"all is well: nothing keeps stage {config.stage} from starting")


def _begin(hosts_spec: str):
  # The libraries' own chatter (tfds, orbax) would bury what we say; ours goes to stderr by itself. What they cannot do they
  # raise, too: orbax with a traceback beforehand, from each of its threads.
  logging.set_verbosity(logging.FATAL)
  # Imported late: a mistake on the command line is answered at once.
  from pav_jax.training import hosts
  hosts.join(hosts_spec)


def _modules(config) -> list:
  """The modules of config.stage, in order, each with a check and a run_stage."""
  whole = [module for name, module in STAGES.items() for module in
           (ALONE["tune"] if name == "search" and config.stage == "pipeline" and config.search.tuned else ()) + (module,)]
  names = ALONE | {name: (module,) for name, module in STAGES.items()} | {"pipeline": whole}
  return [importlib.import_module(name) for name in names[config.stage]]


def _check_stages(modules: list, config, workdir: epath.Path | None):
  """All that can be known of the stages before the first one runs, or UserError."""
  from pav_jax.training import hosts
  from pav_jax.training import mesh
  errors.at_least(0, config, "config", "seed")
  mesh.make_mesh(**config.mesh)
  for module in modules:
    checked = functools.partial(module.check, config, workdir)
    # The others may not have the publishers' files.
    hosts.by_the_first(checked, "check") if module.__name__ in NO_DEVICE else checked()


def _run_stages(config, workdir: epath.Path, strict: bool):
  from pav_jax.training import hosts
  from pav_jax.training import mesh
  from pav_jax.training.run import Run
  modules = _modules(config)
  _check_stages(modules, config, workdir)
  this = Run(config, workdir, mesh.make_mesh(**config.mesh), strict=strict)
  for i, module in enumerate(modules):
    if module.__name__ in NO_DEVICE:
      hosts.by_the_first(functools.partial(module.run_stage, dataclasses.replace(this, alone=True)), NO_DEVICE[module.__name__])
    else:
      module.run_stage(this)
    NOTICE.raise_if_heard()
    if module.__name__ == STAGES["problems"]:  # how many there are is known now
      _check_stages(modules[i + 1:], config, workdir)


def compile_for(config, topology: str, workdir: epath.Path | None):
  """The stage's programs through the TPU compiler; needs no TPU, and none is looked for. Figures go to workdir/compile.jsonl, too."""
  os.environ |= COMPILER
  logging.set_verbosity(logging.ERROR)
  importlib.import_module("pav_jax.pods.compile").run(config, topology, workdir)


def main() -> int:
  """Exit status of the command."""
  if len(sys.argv) == 1:
    print(usage.screen(), file=sys.stderr)
    return 2
  try:
    if {"--help", "-help", "-h"} & set(sys.argv):
      path = configuration.path_in(sys.argv) or configuration.DEFAULT
      print(usage.screen(), usage.keys(configuration.load(path), path), sep="\n\n")
      return 0
    config, workdir = parse(sys.argv)
    if _MODE.value == "compile":
      return to_the_end(functools.partial(compile_for, config, _TOPOLOGY.value, workdir), several=False)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
  task = check if _CHECK.value else functools.partial(run, strict=_STRICT.value)
  return to_the_end(functools.partial(task, config, workdir, _HOSTS.value), several=bool(_HOSTS.value))


def _unraisable(usual: Callable, told):
  """Where a save has failed, and said so, what orbax and tensorstore have still under way fails after it: no news."""
  if not inspect.iscoroutine(told.object) and str(told.exc_value) != "Event loop is closed":
    usual(told)


def to_the_end(task: Callable[[], None], several: bool) -> int:
  """Does the task; the exit status it comes to. Unless that is 0, a line on stderr, and the other processes hear of it."""
  NOTICE.listen()
  try:
    task()
    if several:
      importlib.import_module("pav_jax.training.hosts").leave()
    return 0
  except UserError as error:
    status, line = 2, f"error: {error}"
  except Preempted as notice:
    status = 128 + notice.number
    line = f"{'interrupted' if notice.number == signal.SIGINT else 'preempted'}: {notice}; the same command goes on from here"
  except LostHost as error:
    status, line = 1, f"error: {error}"
  except Exception as error:
    if not several:
      raise
    # Python's own way out waits for the others, who may be waiting for this process.
    traceback.print_exc()
    said = " ".join(str(error).split())[:300]
    status, line = 1, f"error: {type(error).__name__}: {said} (or another host is gone, which ends what all compute together)"
  print(line, file=sys.stderr, flush=True)
  if several:
    importlib.import_module("pav_jax.training.hosts").part(status, line)
  return status


if __name__ == "__main__":
  status = console.quietly(main)
  # Grading's processes and TensorFlow's threads have nothing left to say.
  sys.stderr.flush()
  os._exit(status)
