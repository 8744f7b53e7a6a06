"""Flags -> config -> stage.

  python -m pav_jax.main --config=configs/quickstart.py --config.search.alpha=0.3 --workdir=runs/quick

`config.stage` names what runs: `pipeline` (all of them in order, skipping what
is done), one of problems, sft, rollouts, values, verifier, search, report;
`rl`, which goes on from the verifier; `evaluate`, which needs only problems
and a checkpoint; or `didactic`, a figure of configs/didactic, which needs
nothing and is these configs' only stage.

Whatever ends a run ends it with one line on stderr, and with exit status 2 for
a user's mistake, 130 for Ctrl-C, 143 for SIGTERM (a training loop saves its
state first), 1 for another host that was lost and for a bug of ours. What was
finished stays, and the same command goes on from there.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

from absl import flags
from absl import logging
from etils import epath
from ml_collections import config_dict
from ml_collections import config_flags

from pav_jax.errors import LostHost
from pav_jax.errors import REQUIRED
from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training.preemption import NOTICE
from pav_jax.training.preemption import Preempted

STAGES = {
    "problems": "pav_jax.problems.prepare",
    "sft": "pav_jax.policy.sft",
    "rollouts": "pav_jax.rollouts.collect",
    "values": "pav_jax.values.monte_carlo",
    "verifier": "pav_jax.verifiers.train",
    "search": "pav_jax.search.compare",
    "report": "pav_jax.evaluation.report",
}
ALONE = {"rl": ("pav_jax.policy.arms", "pav_jax.evaluation.learning"), "evaluate": ("pav_jax.evaluation.evaluate",),
         "didactic": ("pav_jax.didactic.stage",)}
# On several hosts the first one does these.
NO_DEVICE = {"pav_jax.problems.prepare": "problems", "pav_jax.evaluation.learning": "rl_report"}

# The TPU compiler's library asks the machine which TPU it has, complains at length of having none, and keeps other processes off it.
COMPILER = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-16", "ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of configs/.", lock_config=True)
_MODE = flags.DEFINE_enum("mode", "run", ["run", "compile"], "compile: asks the TPU compiler whether the stage fits (pods/compile.py).")
_TOPOLOGY = flags.DEFINE_string("topology", "", "With --mode=compile: the slice, as v5e:16x16.")
_HOSTS = flags.DEFINE_string("hosts", "", "One of several processes: auto, or ADDRESS:PORT,COUNT,INDEX (training/hosts.py).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")


def parse(argv: list[str]):
  """(config, workdir or None, which compiling needs not). Raises UserError for anything wrong on the command line."""
  path = next((a.partition("=")[2] for a in argv if a.startswith(("--config=", "-config="))), "")
  if not path:
    raise UserError("command line: --config=configs/....py is missing")
  default = _load(path)
  try:
    rest = flags.FLAGS(argv)
    config = _CONFIG.value
  except KeyError as error:
    raise UserError(f"command line: {path} has no key {error}; a misspelt --config.... flag?") from error
  except (flags.Error, AttributeError, TypeError, ValueError) as error:
    raise UserError(f"command line: {' '.join(str(error).split())}") from error
  if len(rest) > 1:
    raise UserError(f"command line: {rest[1]!r} is not a flag")
  compiles = _MODE.value == "compile"
  if compiles != bool(_TOPOLOGY.value):
    raise UserError("command line: --mode=compile and --topology=v5e:4x4 go together")
  if not _WORKDIR.value and not compiles:
    raise UserError("command line: --workdir=... is missing")
  for key, value in config_flags.get_override_values(flags.FLAGS["config"]).items():
    if isinstance(value, tuple):
      with config.unlocked():
        config.update_from_flattened_dict({key: _tuple(key, value, default)})
  if not compiles:  # which reads no file
    _require(config, "config")
  if config.stage not in ("pipeline", *STAGES, *ALONE):
    raise UserError(f"config.stage {config.stage!r} is none of pipeline, {', '.join([*STAGES, *ALONE])}")
  if (config.stage == "didactic") != ("figure" in config):
    raise UserError(f"config.stage {config.stage!r} is not for {path}: configs/didactic has didactic, and nothing else")
  return config, files.path(_WORKDIR.value) if _WORKDIR.value else None


def _require(section, path: str):
  """UserError for a key that the config leaves to the command line and that is not given there."""
  for key, value in section.items():
    if isinstance(value, config_dict.ConfigDict):
      _require(value, f"{path}.{key}")
    elif value == REQUIRED:
      raise UserError(f"--{path}.{key}=... is missing: this config has no default for it")


def _load(path: str):
  """What the file's get_config gives before any override; a mistake in it is the user's to hear of in one line."""
  # Config files import one another as `configs....`, from wherever the command is run.
  sys.path.append(str(pathlib.Path(__file__).parents[1]))
  name, _, argument = path.partition(":")
  if not pathlib.Path(name).is_file():
    raise UserError(f"--config: there is no file {name}")
  try:
    spec = importlib.util.spec_from_file_location("pav_jax_config", name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([argument] if argument else []))
  except (AttributeError, ImportError, KeyError, NameError, OSError, SyntaxError, TypeError, ValueError) as error:
    raise UserError(f"--config={path}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _tuple(key: str, value: tuple, default) -> tuple:
  """`4`, `1,2` and `(1, 2)` all give a tuple of the default's type; ml_collections leaves `1,2` one string."""
  kind = type(functools.reduce(lambda part, name: part[name], key.split("."), default)[0])
  parts = [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]
  try:
    return tuple(kind(part.strip() if isinstance(part, str) else part) for part in parts if part != "")
  except (TypeError, ValueError) as error:
    raise UserError(f"--config.{key}: {value} is not a tuple of {kind.__name__}") from error


def run(config, workdir: str | os.PathLike, hosts_spec: str = ""):
  """Runs config.stage in workdir, as one of several processes if hosts_spec says so (training/hosts.py)."""
  workdir = files.folder(files.path(workdir))
  # The libraries' own chatter (tfds, orbax) would bury what we say; ours goes to stderr by itself. What they cannot do they
  # raise, too: orbax with a traceback beforehand, from each of its threads.
  logging.set_verbosity(logging.FATAL)
  # Imported late: a mistake on the command line is answered at once.
  from pav_jax.training import hosts
  hosts.join(hosts_spec)
  if hosts.several() and config.stage == "didactic":
    raise UserError("--hosts: stage didactic runs on one host")
  with contextlib.ExitStack() as stack:
    hosts.by_the_first(lambda: stack.enter_context(files.lock(workdir)), "the lock of the workdir")
    _run_stages(config, workdir)


def _run_stages(config, workdir: epath.Path):
  from pav_jax.training import hosts
  from pav_jax.training import mesh
  from pav_jax.training.run import Run
  stages = ALONE | {name: (module,) for name, module in STAGES.items()} | {"pipeline": tuple(STAGES.values())}
  for module in stages[config.stage]:
    run_stage = importlib.import_module(module).run_stage
    this = Run(config, workdir, mesh.make_mesh(**config.mesh))
    if module in NO_DEVICE:
      hosts.by_the_first(functools.partial(run_stage, dataclasses.replace(this, alone=True)), NO_DEVICE[module])
    else:
      run_stage(this)


def compile_for(config, topology: str, workdir: epath.Path | None):
  """The stage's programs through the TPU compiler; needs no TPU, and none is looked for. Figures go to workdir/compile.jsonl, too."""
  os.environ |= COMPILER
  logging.set_verbosity(logging.ERROR)
  importlib.import_module("pav_jax.pods.compile").run(config, topology, workdir)


def main() -> int:
  """Exit status of the command."""
  try:
    config, workdir = parse(sys.argv)
    if _MODE.value == "compile":
      compile_for(config, _TOPOLOGY.value, workdir)
      return 0
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)
  return to_the_end(functools.partial(run, config, workdir, _HOSTS.value), several=bool(_HOSTS.value))


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
  except KeyboardInterrupt:
    status, line = 130, "interrupted: the same command goes on from here"
  except Preempted as notice:
    status, line = 143, f"preempted: {notice}; the same command goes on from here"
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
  status = main()
  # Grading's processes and TensorFlow's threads have nothing left to say.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
