"""How fast a file is scored: rows a minute of `python -m pav_jax.score`, start and compilation included.

  python tests/benchmarks/score.py --verifier=runs/quickstart/verifier/q/best --problems=runs/quickstart/problems/train \
      [--rows=20000] [--record=docs/results/records/score.json]

The rows are the problems' own questions and solutions, their lines as lists of
steps, each with another order of its middle lines, so that no two are alike.
Each way is run as a process of its own: without a prover, and with a second
verifier as one (here the same checkpoint).
"""

import argparse
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time

from pav_jax.problems import prepared
from pav_jax.training.records import Folder


def rows_of(folder: str, count: int) -> list[dict]:
  """So many rows of question and steps."""
  problems, vocabulary = prepared.read(Folder(folder)), prepared.vocabulary(Folder(folder))
  rng, rows = random.Random(0), []
  for i in range(count):
    p = i % len(problems.id_p)
    steps = vocabulary.decode(problems.solution_pt[p, :problems.solution_length_p[p]]).split("\n")
    middle = steps[:-1]
    rng.shuffle(middle)
    rows.append({"question": str(problems.question_p[p]), "steps": middle + steps[-1:]})
  return rows


def seconds(path: pathlib.Path, *flags: str) -> float:
  """Wall-clock seconds of the command; an error ends this program."""
  started = time.monotonic()
  subprocess.run([sys.executable, "-m", "pav_jax.score", str(path), *flags], check=True, stdout=subprocess.DEVNULL)
  return time.monotonic() - started


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--verifier", required=True)
  parser.add_argument("--problems", required=True)
  parser.add_argument("--rows", type=int, default=20_000)
  parser.add_argument("--record", type=pathlib.Path)
  flags = parser.parse_args()
  rows = rows_of(flags.problems, flags.rows)
  steps = sum(len(row["steps"]) for row in rows)
  found = {"command": "python tests/benchmarks/score.py --verifier=WORKDIR/verifier/q/best --problems=WORKDIR/problems/train",
           "rows": len(rows), "steps": steps, "CPUs": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
           "python": platform.python_version(), "ways": {}}
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, more in (("best of K", ()), ("a second verifier", (f"--prover={flags.verifier}",))):
      took = seconds(path, f"--verifier={flags.verifier}", *more)
      found["ways"][name] = {"seconds": took, "rows a minute": 60 * len(rows) / took}
  print(json.dumps(found))
  if flags.record:
    flags.record.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
