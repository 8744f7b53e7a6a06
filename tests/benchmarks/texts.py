"""What real solutions look like to us: their steps under every rule, and what grading makes of them when they are cut off.

  python tests/benchmarks/texts.py --data=FOLDER [--record=docs/results/records]

FOLDER holds MATH.tar.gz and gsm8k/, as published. Ten minutes on two CPU cores.
Characters stand for tokens: a rule's automaton runs over characters anyway.
Writes steps.json and cut.json into the folder `record`.
"""

import argparse
import json
import pathlib

import numpy as np

from pav_jax.grading import grading
from pav_jax.problems import problem
from pav_jax.problems import steps

CUTS = 5  # each solution is cut so many times, at places drawn with seeds 0, 1, ...


def solutions(data: pathlib.Path) -> dict[str, list[problem.Problem]]:
  """Both sets, training and test together; the two solutions of MATH that box nothing are left out."""
  rows = {"math": [row for split in ("train", "test") for row in problem.read_math(data / "MATH.tar.gz", split)],
          "gsm8k": [row for split in ("train", "test") for row in problem.read_gsm8k(data / f"gsm8k/{split}.jsonl", split)]}
  return {name: [row for row in found if isinstance(row, problem.Problem)] for name, found in rows.items()}


def steps_of(texts: list[str]) -> dict[str, dict]:
  """Rule -> how many steps solutions have; and of the lines' ends which share is within an environment."""
  characters = ["", *sorted(set("".join(texts)))]
  index = {c: i for i, c in enumerate(characters)}
  found = {}
  for name in steps.RULES:
    rule = steps.rule_of(name, characters, 0)
    count_p = np.array([len(steps.step_ends([index[c] for c in text.strip()], rule)) for text in texts])
    found[name] = {"steps": int(count_p.sum()), "mean": float(count_p.mean()), "median": float(np.median(count_p)),
                   "one step": float((count_p == 1).mean()), "more than 40 steps": float((count_p > 40).mean())}
  lines = found["newline"]["steps"]
  return found | {"solutions": len(texts), "lines that end within an environment": 1 - found["outside"]["steps"] / lines,
                  "lines of spaces": sum(bool(line) and line.isspace() for text in texts for line in text.strip().split("\n"))}


def cut_off(problems: list[problem.Problem], dataset: str, grader: grading.Grader) -> dict:
  """Of solutions cut at a random character: how many state an answer and are right, graded as ended and as cut off."""
  found = []
  for seed in range(CUTS):
    rng = np.random.default_rng(seed)
    texts = [p.solution[:rng.integers(1, len(p.solution))] for p in problems]
    row = {"seed": seed}
    for name, ended in (("graded as ended", True), ("graded as cut off", False)):
      grades = grader.grade([p.answer for p in problems], texts, dataset, ended)
      row[name] = {"stated": sum(g.answer is not None for g in grades),
                   "right": sum(g.verdict == grading.Verdict.CORRECT for g in grades)}
    found.append(row)
  return {"solutions": len(problems), "cuts": found}


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--record", type=pathlib.Path, default=pathlib.Path("docs/results/records"))
  flags = parser.parse_args()
  sets = solutions(flags.data)
  write = lambda name, found: (flags.record / name).write_text(
      json.dumps({"command": "python tests/benchmarks/texts.py --data=FOLDER", **found}, indent=1) + "\n")
  write("steps.json", {name: steps_of([p.solution for p in found]) for name, found in sets.items()})
  with grading.Grader() as grader:
    write("cut.json", {name: cut_off(found, name, grader) for name, found in sets.items()})


if __name__ == "__main__":
  main()
