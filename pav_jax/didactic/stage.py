"""config.figure -> `<workdir>/<figure>/manifest.json` (config, seed, versions, results) -> `<figure>.svg` beside it.

  1. A finished manifest made by the same config is not made again; one made otherwise is refused, with the key
     that differs. Another seed or knob wants another --workdir; --config.again=True makes it anew.
  2. Otherwise the figure's function computes its results.
  3. The drawing is made from the manifest, always.
"""

import os
import platform
import shutil
import time

from pav_jax.didactic import figures
from pav_jax.didactic import learning
from pav_jax.didactic import searching
from pav_jax.didactic import theory
from pav_jax.errors import UserError
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
  folder = run.folder(config.figure)
  if config.again and folder.path.exists():
    shutil.rmtree(folder.path)
  folder, finished = run.start(config.figure, sections=[k for k in config if k not in _OUTSIDE], inputs=[])
  compute, draw = FIGURES[config.figure]
  if not finished:
    start = time.monotonic()
    results = compute(config)
    folder.finish(0, {"results": results, "seconds": round(time.monotonic() - start, 1),
                      "machine": {"cores": os.cpu_count(), "platform": platform.platform()}})
  facts = folder.manifest()["facts"]
  path = folder.path / f"{config.figure}.svg"
  path.write_text(draw(facts["results"]))
  print(f"{config.figure}: {facts['seconds']} s; {folder.path / 'manifest.json'}, {path}")
  print("\n".join(figures.verdicts(config.figure, facts["results"])))
