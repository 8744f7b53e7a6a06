"""Flags -> config -> stage.

  python -m pav_jax.main --config=configs/quickstart.py --config.search.alpha=0.3 --workdir=runs/quick

`config.stage` names what runs: `pipeline` (all of them in order, skipping what
is done), one of problems, sft, rollouts, values, verifier, search, report; or
`evaluate`, which needs only problems and a checkpoint. A user's mistake ends
with one line on stderr and exit status 2, an interruption with 130; in both
cases what was finished stays, and the same command goes on from there.
"""

import importlib
import os
import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from pav_jax.errors import UserError

STAGES = {
    "problems": "pav_jax.problems.prepare",
    "sft": "pav_jax.policy.sft",
    "rollouts": "pav_jax.rollouts.collect",
    "values": "pav_jax.values.monte_carlo",
    "verifier": "pav_jax.verifiers.train",
    "search": "pav_jax.search.compare",
    "report": "pav_jax.evaluation.report",
}
ALONE = {"evaluate": "pav_jax.evaluation.evaluate"}

_CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of configs/.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.")


def parse(argv: list[str]):
  """(config, workdir). Raises UserError for anything wrong on the command line."""
  try:
    rest = flags.FLAGS(argv)
    config = _CONFIG.value
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, ImportError, OSError, SyntaxError) as error:
    raise UserError(f"command line: {' '.join(str(error).split()) or type(error).__name__}") from error
  if len(rest) > 1:
    raise UserError(f"command line: {rest[1]!r} is not a flag")
  if config is None:
    raise UserError("command line: --config=configs/....py is missing")
  if not _WORKDIR.value:
    raise UserError("command line: --workdir=... is missing")
  if config.stage not in ("pipeline", *STAGES, *ALONE):
    raise UserError(f"config.stage {config.stage!r} is none of pipeline, {', '.join([*STAGES, *ALONE])}")
  return config, pathlib.Path(_WORKDIR.value).absolute()


def run(config, workdir: pathlib.Path):
  """Runs config.stage in workdir."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f"--workdir {workdir}: {error.strerror}") from error
  # Imported late: a mistake on the command line is answered at once.
  from pav_jax.training import mesh
  from pav_jax.training.run import Run
  this = Run(config, workdir, mesh.make_mesh(**config.mesh))
  wanted = STAGES if config.stage == "pipeline" else {config.stage: (STAGES | ALONE)[config.stage]}
  for module in wanted.values():
    importlib.import_module(module).run_stage(this)


def main() -> int:
  """Exit status of the command."""
  try:
    run(*parse(sys.argv))
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("interrupted: the same command goes on from here", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  status = main()
  # Grading's processes and TensorFlow's threads have nothing left to say.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
