"""Our values in the form that others train on: TRL's stepwise rows, as JSON lines or parquet.

  python -m pav_jax.export WORKDIR --output=FILE.jsonl|FILE.parquet

A row is one response of stage `rollouts` with the values of stage `values`:

  prompt        the question
  completions   its steps; the line breaks between two of them are taken off
  labels        Q-hat at each step's end, a float: of the last step the outcome
  counts        of how many continuations each is the mean
  prompt_label, prompt_count   the same of the bare question; null where it has none
  ended         whether the response came to its end, or was cut off
  id, sample    the problem, and which of its responses

TRL reads the first three. Stage `labels` reads all but the last (`values/formats.py`).

A row ends where its labels end: behind a step without one (first_pit) nothing
is written. A response of which only the outcome is known has no row. Both are counted.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from pav_jax import console
from pav_jax.errors import UserError
from pav_jax.problems import prepared
from pav_jax.problems.files import parquet
from pav_jax.rollouts import collect
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training.records import Folder
from pav_jax.values import monte_carlo

# Of a row, and what they are in parquet.
FIELDS = {"prompt": "string", "completions": "string[]", "labels": "double[]", "counts": "int32[]", "prompt_label": "double",
          "prompt_count": "int32", "ended": "bool", "id": "string", "sample": "int32"}


def stepwise(problems: prepared.Problems, rollouts: collect.Rollouts, values: monte_carlo.Values, vocabulary) -> Iterator[dict | None]:
  """A row for each response, with FIELDS; None where no step has a label but the last."""
  q_bz = values.q_bz
  for b, p in enumerate(rollouts.problem_b):
    end_z = values.end_bz[b][values.end_bz[b] > -2]
    known = ~np.isnan(q_bz[b, 1:len(end_z)])
    labels = len(known) if known.all() else int(known.argmin())
    if not labels:
      yield None
      continue
    steps = np.split(rollouts.token_bt[b], end_z[1:labels + 1] + 1)[:-1]
    whole = labels == len(known)
    yield {
        "prompt": str(problems.question_p[p]),
        "completions": [vocabulary.decode(step).rstrip("\r\n") for step in steps],
        "labels": q_bz[b, 1:labels + 1].tolist(), "counts": values.continuations_bz[b, 1:labels + 1].tolist(),
        "prompt_label": None if np.isnan(q_bz[b, 0]) else float(q_bz[b, 0]), "prompt_count": int(values.continuations_bz[b, 0]),
        "ended": bool(rollouts.ended_b[b]) and whole, "id": str(problems.id_p[p]), "sample": int(rollouts.sample_b[b])}


def export(workdir, output) -> dict[str, int]:
  """Writes the file; what was counted. UserError for stages that have not run, and where there is nothing to write."""
  folders = {name: Folder(workdir / name, alone=True) for name in ("problems/train", "rollouts", "values")}
  problems, vocabulary = prepared.read(folders["problems/train"]), prepared.vocabulary(folders["problems/train"])
  rollouts = collect.Rollouts(**folders["rollouts"].read())
  values = monte_carlo.Values(**folders["values"].read())
  rows = list(metrics.progress(stepwise(problems, rollouts, values, vocabulary), what="export", unit="response", total=len(values.end_bz)))
  steps_b = (values.end_bz > -1).sum(axis=1)
  found = [row for row in rows if row]
  if not found:
    raise UserError(f"{folders['values'].path}: no step but the last ones has a label")
  if output.suffix == ".parquet":
    parquet.write(output, found, FIELDS)
  else:
    files.write(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
  return {"rows": len(found), "labels": sum(len(row["labels"]) for row in found), "left out": len(rows) - len(found),
          "steps left out": sum(int(n) - len(row["labels"]) for n, row in zip(steps_b, rows) if row)}


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns 0, or 2 and one line on stderr for what the user can mend."""
  parser = argparse.ArgumentParser(prog="python -m pav_jax.export", description="Writes a run's values as TRL's stepwise rows.")
  parser.add_argument("workdir")
  parser.add_argument("--output", required=True, help="FILE.jsonl or FILE.parquet")
  flags = parser.parse_args(arguments)
  try:
    output = files.path(flags.output)
    if output.suffix not in (".jsonl", ".parquet"):
      raise UserError(f"--output={flags.output}: the name ends in neither .jsonl nor .parquet")
    counts = export(files.path(flags.workdir), output)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  more = [f"{counts['left out']} responses of which only the outcome is known"] * bool(counts["left out"])
  more += [f"{counts['steps left out']} steps at and behind one without a label"] * bool(counts["steps left out"])
  print(f"{flags.output}: {counts['rows']} rows, {counts['labels']} labels" + (f"; left out: {', '.join(more)}" if more else ""))
  return 0


if __name__ == "__main__":
  sys.exit(console.quietly(main))
