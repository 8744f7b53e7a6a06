"""Does theory predict what a prover adds? Points of several runs, a setting each, in one figure and one JSON.

  python tests/benchmarks/prediction.py rare=runs/rare/policy quickstart=runs/quickstart --out=docs/results/records/prediction

Each run's report was made with `report.tree_problems` above 0. Writes OUT.json (points, and over all of them the correlation of each
predictor with the gain), OUT_gain.svg and OUT_any.svg.
"""

import json
import pathlib
import sys

import numpy as np

from pav_jax.evaluation import figures
from pav_jax.evaluation import provers


def main(settings: list[str], out: str):
  """settings: NAME=WORKDIR."""
  points = []
  for setting in settings:
    name, _, path = setting.partition("=")
    points += provers.points(json.loads((pathlib.Path(path) / "report/report.json").read_text()), name)
  measured = {"gain": [p["gain"]["value"] for p in points], "any": [p["any"] for p in points]}
  correlation = {y: {key: float(np.corrcoef([p[key]["value"] for p in points], values)[0, 1]) for key in provers.PREDICTORS}
                 for y, values in measured.items()}
  pathlib.Path(f"{out}.json").write_text(json.dumps({"settings": settings, "correlation": correlation, "sentences": [f"{p['setting']}: {provers.sentence(p)}" for p in points], "points": points}, indent=1) + "\n")
  for y in ("gain", "any"):
    pathlib.Path(f"{out}_{y}.svg").write_text(figures.prediction_figure(points, y) + "\n")
  print(json.dumps(correlation, indent=1))


if __name__ == "__main__":
  arguments = [a for a in sys.argv[1:] if not a.startswith("--out=")]
  main(arguments, next(a for a in sys.argv[1:] if a.startswith("--out=")).removeprefix("--out="))
