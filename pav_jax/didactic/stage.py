"""config.figure -> `<workdir>/<figure>/manifest.json` (config, seed, versions, results) -> drawing and claims beside it.

  1. A finished manifest made by the same config is not made again; one made otherwise is refused, with the key
     that differs. Another seed or knob wants another --workdir; --config.again=True makes it anew.
  2. Otherwise the figure's function computes its results; one that trains keeps each arm in rows.jsonl as it ends,
     and goes on after the last.
  3. The drawing (`<figure>.svg`), and which claims hold (`claims.json`), are made from the manifest, always.
"""

import json
import os
import platform
import time

from etils import epath

from pav_jax.didactic import figures
from pav_jax.didactic import learning
from pav_jax.didactic import numbers
from pav_jax.didactic import searching
from pav_jax.didactic import theory
from pav_jax.didactic import verdicts
from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training.run import Run

# What computes it, what draws it, and the key that only its config has.
FIGURES = {
    "fig3a": (learning.effective_reward, figures.effective_reward, "arms"),
    "fig3b": (learning.strengths, figures.strengths, "optimizers"),
    "fig3c": (learning.pass_at_n, figures.pass_at_n, "ns"),
    "decline": (learning.decline, figures.decline, "cases"),
    "search": (searching.compare, figures.search, "widths"),
    "theorem": (theory.theorem, figures.theorem, "etas"),
    "best_of_k": (theory.best_of_k, figures.best_of_k, "ks"),
    "proposition": (theory.proposition, figures.proposition, "distances"),
    "map": (theory.prover_map, figures.prover_map, "strong"),
}
# What the results do not depend on.
_OUTSIDE = ("stage", "seed", "mesh", "again")


def run_stage(run: Run):
  """See the top of the file."""
  config = run.config
  compute, draw, _ = FIGURES[config.figure]
  folder = run.folder(config.figure)
  if config.again and files.exists(folder.path):
    with files.told(folder.path, "removed"):
      folder.path.rmtree()
  folder, finished = run.start(config.figure, sections=[k for k in config if k not in _OUTSIDE], inputs=[])
  if not finished:
    start, cpu = time.monotonic(), time.process_time()
    results = compute(config, learning.Kept(folder.path / "rows.jsonl"))
    folder.finish(0, {"results": results, "seconds": round(time.monotonic() - start, 1),
                      "cpu_seconds": round(time.process_time() - cpu, 1), "machine": {
                          "cores": os.cpu_count(), "platform": platform.platform()}})
  facts = folder.manifest()["facts"]
  path = folder.path / f"{config.figure}.svg"
  files.write(path, draw(facts["results"]))
  claims = verdicts.claims(config.figure, facts["results"])
  files.write(folder.path / "claims.json", json.dumps(claims, indent=1) + "\n")
  print(f"{config.figure}: {facts['seconds']} s, {facts['cpu_seconds']} s of CPU; {folder.path / 'manifest.json'}, {path}")
  print("\n".join(numbers.lines(config.figure, facts["results"])))
  print("\n".join(f"{'holds' if holds else 'does not hold'}: {claim}" for claim, holds in claims.items()))


def check(config, root: epath.Path | None = None):
  """UserError for knobs that make no sense, before anything is computed."""
  if config.figure not in FIGURES:
    raise UserError(f"config.figure {config.figure!r} is none of {', '.join(FIGURES)}")
  if FIGURES[config.figure][2] not in config:
    raise UserError(f"config.figure {config.figure!r} is not this config's: give --config=configs/didactic/{config.figure}.py")
  for key in [k for k in config if k not in ("stage", "figure", "again", "mesh")]:
    _check_numbers(config[key], f"config.{key}")
  if "world" in config:
    tokens, w = range(config.world.vocabulary - 1), config.world
    if not w.planted or len(w.planted) > w.length or any(t not in tokens for t in w.planted):
      raise UserError(f"config.world.planted {w.planted} is not 1 to {w.length} tokens below {len(tokens)}")
  if "tree" in config and config.tree.branching < 2:
    raise UserError(f"config.tree.branching {config.tree.branching}: a decision has two actions or more")
  if "ns" in config and (config.samples % 8 or max(config.ns) > config.samples):
    raise UserError(f"config.samples {config.samples} is not a multiple of 8 from the largest of config.ns {config.ns} on")
  for case in config.cases if "cases" in config else ():
    try:
      learning.changes(case)
    except (KeyError, ValueError) as error:
      raise UserError(f"config.cases: {case!r} is none of exact, exponent, share, lost, EOS goes on, rollouts N, learned N, "
                      "erring X") from error
  named = [("optimizer", config.optimizer)] if "optimizer" in config else []
  named += [("optimizers", name) for name in (config.optimizers if "optimizers" in config else ())]
  for run in config.arms if "arms" in config else ():
    arm, _, optimizer = run.partition("/")
    named.append(("arms", optimizer))
    if arm not in learning.ARMS:
      raise UserError(f"config.arms: {run!r} is none of {', '.join(learning.ARMS)} and /optimizer")
  for key, name in named:
    if name not in config.rl.learning_rate:
      raise UserError(f"config.{key}: optimizer {name!r} is none of {', '.join(config.rl.learning_rate)}")


def _check_numbers(value, path: str):
  """UserError for an empty list, and for a number that is not positive, or not below 1 where it is a share of something."""
  if isinstance(value, tuple) and not value:
    raise UserError(f"{path} is empty")
  if hasattr(value, "items"):
    for name, part in value.items():
      _check_numbers(part, f"{path}.{name}")
  name = path.rpartition(".")[2]
  for x in value if isinstance(value, tuple) else (value,):
    if isinstance(x, (int, float)) and not isinstance(x, bool):
      if not (x > 0 or x == 0 and name in ("seed", "alphas", "rollouts", "slack", "sparsity", "planted", "strong")):
        raise UserError(f"{path}: {x} is not positive")
      if name in ("target", "sparsity", "strong") and not x < 1:
        raise UserError(f"{path}: {x} is not below 1")
