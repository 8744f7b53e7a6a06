"""Grades a file of answers.

  python -m pav_jax.grade FILE.jsonl [--output=OUT.jsonl] [--timeout=5] [--workers=2]

Rows are {"reference", "response", "dataset"}, and "ended": false where a
response was cut off; see `grade_file`.
"""

from pav_jax.training import preemption

if __name__ == "__main__":
  preemption.until_begun()

import argparse
import collections
from collections.abc import Iterator, Sequence
import itertools
import json
import os
import sys

import tqdm

from pav_jax import console
from pav_jax import errors
from pav_jax.grading import answers
from pav_jax.grading.grading import REASONS
from pav_jax.grading.grading import Grader
from pav_jax.problems import fields
from pav_jax.training import files
from pav_jax.training.preemption import NOTICE
from pav_jax.training.preemption import Preempted

_BLOCK_ROWS = 256


def grade_file(path: str, output: str, grader: Grader) -> collections.Counter:
  """Grades a JSON-lines file and writes each row with "verdict", "answer" and "reason".

  A row that cannot be graded for a fault of its own (JSON, encoding, a missing
  field, a type, an unknown data set, an unparsable reference) is reported on
  stderr with file, row and field and written with the verdict "error". The
  output appears under its name when it is complete.

  Returns:
    How many rows got each verdict, and each reason of the ungradable.
  """
  counts = collections.Counter()
  with open(path, "rb") as lines:
    total = sum(bool(line.strip()) for line in lines)
  with open(path, "rb") as lines, open(output + ".partial", "w", encoding="utf-8") as out:
    rows = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    with tqdm.tqdm(total=total, unit="row", desc="grading", mininterval=1) as progress:
      for block in iter(lambda: list(itertools.islice(rows, _BLOCK_ROWS)), []):
        for number, row in _grade_block(block, grader):
          counts[row["verdict"]] += 1
          if row["verdict"] == "error":
            tqdm.tqdm.write(f"{path}: row {number}: {row['reason']}", file=sys.stderr)
          elif row["reason"]:
            counts[row["reason"]] += 1
          out.write(json.dumps(row) + "\n")
          progress.update()
  os.replace(output + ".partial", output)
  return counts


def _grade_block(block: list[tuple[int, bytes]], grader: Grader) -> Iterator[tuple[int, dict]]:
  parsed = [_parse_row(line) for _, line in block]
  good = [row for row, error in parsed if not error]
  faults = iter(grader.reference_faults([row["reference"] for row in good], [row["dataset"] for row in good]))
  parsed = [(row, error or (f"field 'reference': {fault}" if (fault := next(faults)) else "")) for row, error in parsed]
  good = [row for row, error in parsed if not error]
  columns = ([row[field] for row in good] for field in ("reference", "response", "dataset"))
  grades = iter(grader.grade(*columns, [row.get("ended", True) for row in good]))
  for (number, _), (row, error) in zip(block, parsed):
    if error:
      yield number, {**row, "verdict": "error", "answer": None, "reason": error}
    else:
      grade = next(grades)
      yield number, {**row, "verdict": grade.verdict.name.lower(), "answer": grade.answer, "reason": grade.reason}


def _parse_row(line: bytes) -> tuple[dict, str]:
  """A row and what is wrong with it."""
  row, fault = fields.plain_row(line)
  if fault:
    return row, fault
  for field in ("reference", "response", "dataset"):
    if field not in row:
      return row, f"field {field!r}: missing"
    if not isinstance(row[field], str):
      return row, f"field {field!r}: not a string but {type(row[field]).__name__}"
  if not isinstance(row.get("ended", True), bool):
    return row, f"field 'ended': not true or false but {type(row['ended']).__name__}"
  if row["dataset"] not in answers.DATASETS:
    return row, f"field 'dataset': {row['dataset'][:80]!r} is not one of {', '.join(answers.DATASETS)}"
  return row, ""


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns 0 when every row was graded, 1 when some had errors, 2 when nothing could be done, 128 + n after signal n."""
  parser = argparse.ArgumentParser(prog="python -m pav_jax.grade", description="Grades a JSON-lines file.")
  parser.add_argument("file", help="JSON lines of reference, response and dataset")
  parser.add_argument("--output", help="default: FILE.graded.jsonl beside FILE")
  parser.add_argument("--timeout", type=float, default=5.0, help="seconds per answer; default: %(default)s")
  parser.add_argument("--workers", type=int, default=2, help="processes that read answers; default: %(default)s")
  flags = parser.parse_args(arguments)
  NOTICE.listen()
  output = flags.output or os.path.splitext(flags.file)[0] + ".graded.jsonl"
  try:
    files.require_file(flags.file)
    if os.path.realpath(output) == os.path.realpath(flags.file):
      raise errors.UserError(f"--output is the input: {output}")
    with Grader(flags.workers, flags.timeout) as grader, files.lock_output(files.path(output)):
      counts = grade_file(flags.file, output, grader)
  except BrokenPipeError:
    raise
  except (errors.UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except Preempted as notice:
    print(f"interrupted: {output} was not written; grading begins anew", file=sys.stderr)
    return 128 + notice.number
  verdicts = ", ".join(f"{counts[what]} {what}" for what in ("correct", "incorrect", "ungradable", "error"))
  reasons = ", ".join(f"{counts[reason]} {reason}" for reason in REASONS if counts[reason])
  print(f"{output}: {verdicts}" + (f" (ungradable: {reasons})" if reasons else ""))
  return 1 if counts["error"] else 0


if __name__ == "__main__":
  sys.exit(console.quietly(main))
