"""config.figure -> `<workdir>/<figure>/manifest.json` (config, seed, versions, results) -> `<figure>.svg` beside it.

  1. A finished manifest made by the same config is not made again; one made otherwise is refused, with the key
     that differs. Another seed or knob wants another --workdir; --config.again=True makes it anew.
  2. Otherwise the figure's function computes its results; one that trains keeps each arm in rows.jsonl as it ends,
     and goes on after the last.
  3. The drawing is made from the manifest, always.
"""

import os
import platform
import time

from pav_jax.didactic import figures
from pav_jax.didactic import learning
from pav_jax.didactic import searching
from pav_jax.didactic import theory
from pav_jax.didactic import verdicts
from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training.run import Run

FIGURES = {
    "fig3a": (learning.effective_reward, figures.effective_reward),
    "fig3b": (learning.strengths, figures.strengths),
    "fig3c": (learning.pass_at_n, figures.pass_at_n),
    "decline": (learning.decline, figures.decline),
    "search": (searching.compare, figures.search),
    "theorem": (theory.theorem, figures.theorem),
    "best_of_k": (theory.best_of_k, figures.best_of_k),
    "proposition": (theory.proposition, figures.proposition),
    "map": (theory.prover_map, figures.prover_map),
}
# What the results do not depend on.
_OUTSIDE = ("stage", "seed", "mesh", "again")


def run_stage(run: Run):
  """See the top of the file."""
  config = run.config
  if "figure" not in config or config.figure not in FIGURES:
    raise UserError(f"config.figure is none of {', '.join(FIGURES)}: give --config=configs/didactic/....py")
  _check(config)
  folder = run.folder(config.figure)
  if config.again and files.exists(folder.path):
    with files.told(folder.path, "removed"):
      folder.path.rmtree()
  folder, finished = run.start(config.figure, sections=[k for k in config if k not in _OUTSIDE], inputs=[])
  compute, draw = FIGURES[config.figure]
  if not finished:
    start = time.monotonic()
    results = compute(config, learning.Kept(folder.path / "rows.jsonl"))
    folder.finish(0, {"results": results, "seconds": round(time.monotonic() - start, 1),
                      "machine": {"cores": os.cpu_count(), "platform": platform.platform()}})
  facts = folder.manifest()["facts"]
  path = folder.path / f"{config.figure}.svg"
  files.write(path, draw(facts["results"]))
  print(f"{config.figure}: {facts['seconds']} s; {folder.path / 'manifest.json'}, {path}")
  print("\n".join(verdicts.verdicts(config.figure, facts["results"])))


def _check(config):
  """UserError for knobs that make no sense, before anything is computed."""
  if "world" in config:
    tokens, w = range(config.world.vocabulary - 1), config.world
    if not w.planted or len(w.planted) > w.length or any(t not in tokens for t in w.planted):
      raise UserError(f"config.world.planted {w.planted} is not 1 to {w.length} tokens below {len(tokens)}")
  gammas = [config[k] for k in ("gamma", "base_gamma") if k in config]
  gammas += config.gammas if "gammas" in config else ()
  if min(gammas, default=1) <= 0:
    raise UserError(f"config: a prover's strength gamma is positive, not {min(gammas)}")
  if "rl" in config and not 0 < config.rl.target <= 1:
    raise UserError(f"config.rl.target {config.rl.target} is no rate of success")
  for case in config.cases if "cases" in config else ():
    name, _, optimizer = case.partition("/")
    if name not in learning.CASES or optimizer not in config.rl.learning_rate:
      raise UserError(f"config.cases: {case!r} is none of {', '.join(learning.CASES)}, with /adam, /sgd or /unit")
  optimizers = list(config.optimizers) if "optimizers" in config else []
  for optimizer in optimizers + ([config.optimizer] if "optimizer" in config else []):
    if optimizer not in config.rl.learning_rate:
      raise UserError(f"config: optimizer {optimizer!r} is none of {', '.join(config.rl.learning_rate)}")
  for arm in config.arms if "arms" in config else ():
    if arm not in learning.ARMS:
      raise UserError(f"config.arms: {arm!r} is none of {', '.join(learning.ARMS)}")
