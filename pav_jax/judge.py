"""Judges a verifier by files of solutions whose wrong steps are marked: ProcessBench, PRMBench, MR-MATH, MR-GSM8K.

  python -m pav_jax.judge --verifier=CHECKPOINT FILE... [--output=OUT.json] [--tau_q=.5] [--tau_a=-.05]

  1. Read the files (problems/benchmarks.py). What is malformed is named, counted and
     left out; so is what is longer than --max_tokens.
  2. One pass over each case gives the verifier's value at the question and at each
     step's end (verifiers/given.py). With --output they are kept on the way, in
     OUT.readings.jsonl: the same command again goes on from there, and reads
     anew what has another text by now.
  3. Read the values in three ways, and measure (evaluation/judgement.py).
  4. With --output write everything as one JSON object, and each case with its values
     and what was made of them; print a table.

--readings=FILE.jsonl in place of --verifier judges values that are there already,
whoever made them: rows of `file` (as here, or the one of that name), `row` (from 1)
and `q`, the value at the question and at each step's end. Rows with `verdicts` true are
of a verifier that says of each step whether it is good (verifiers/targets.py): there is
one reading of them, and the first number means nothing.

Exit status: 0; 1 where rows were malformed; 2 where nothing could be judged; 128 + n
after signal n.
"""

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pav_jax import console
from pav_jax.errors import UserError
from pav_jax.evaluation import judgement
from pav_jax.evaluation import judging
from pav_jax.problems import benchmarks
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training.preemption import NOTICE
from pav_jax.training.preemption import Preempted

_BLOCK = 256  # cases whose values are kept together: so many, or of so many tokens
_BLOCK_TOKENS = 2**17
_NAMED = 10  # malformed rows that are named, of a file

Key = tuple[str, int]


class Verifier(NamedTuple):
  """`rows`: cases -> (prompt, response) as ids; `values`: these, and a bar -> q_z of each; longest: tokens it reads at most.

  verdicts: whether these say of a step that it is good, and not what its prefix is worth.
  """

  rows: Callable[[Sequence[benchmarks.Case]], list[tuple]]
  values: Callable[[list[tuple], object], list[np.ndarray]]
  longest: int
  verdicts: bool = False


def load(flags: argparse.Namespace) -> Verifier:
  """The verifier of --verifier, and how its texts become ids. UserError for what is wrong with it."""
  # Here, because jax takes seconds, and mistakes in the files are told before.
  from pav_jax import library
  from pav_jax.verifiers import given as given_values
  from pav_jax.verifiers import targets
  model = library.load(flags.verifier, vocabulary=flags.vocabulary, prompt=flags.prompt, steps=flags.steps)
  library.of_kind(model, *targets.PROCESS)
  rows = lambda cases: [(model.home.prompt_t(case.question), library.given_of(model.home, case.steps, ended=True)) for case in cases]
  def values(pairs, bar):
    prompts, responses = zip(*pairs)
    return given_values.values(model.arch, model.params, list(prompts), list(responses), rows=flags.rows, mesh=model.mesh, bar=bar)
  return Verifier(rows, values, given_values.LONGEST, model.kind in targets.VERDICTS)


def read_files(paths: Sequence[str]) -> tuple[list[benchmarks.Case], dict]:
  """All cases, and what was left out of each file. UserError as of benchmarks.read, and for a file that is given twice."""
  real = [os.path.realpath(path) for path in paths]
  if len(set(real)) < len(real):
    raise UserError(f"{next(p for p, x in zip(paths, real) if real.count(x) > 1)} is given twice")
  cases, left_out = [], {}
  for path in paths:
    found = benchmarks.read(path)
    cases += found.cases
    left_out[path] = {"benchmark": found.cases[0].benchmark, "cases": len(found.cases),
                      "malformed": [{"row": int(bad.row), "field": bad.field, "reason": bad.reason} for bad in found.malformed],
                      "repeated": found.repeated, "error steps beyond the last": found.beyond, "too long": 0}
    for bad in found.malformed[:_NAMED]:
      _say(f"malformed: {bad}")
    if len(found.malformed) > _NAMED:
      _say(f"malformed: {path}: and {len(found.malformed) - _NAMED} rows more; --output names them all")
  return cases, left_out


def read_values(path: str, cases: Sequence[benchmarks.Case], given: bool = False) -> dict[Key, np.ndarray]:
  """q_z of those of the cases that a readings file holds, with the text they have now.

  given: somebody's own, not one that we keep: its files are found by name, too, and its last line may end without a newline.
  UserError for a row that cannot be, and in a given file for one of another text.
  """
  found, case_of = {}, {(case.file, case.row): case for case in cases}
  if not files.exists(files.path(path)):
    raise UserError(f"{path} is not there")
  name = _names({case.file for case in cases}) if given else {}
  rows = metrics.read_curves(files.path(path), key="q", whole=given)
  for row in rows:
    said = row.get("file")
    key = (name.get(os.path.basename(said), said) if given and isinstance(said, str) else said, row.get("row"))
    if key not in case_of:
      continue
    if row.get("text", text := _text(case_of[key])) != text:
      if given:
        raise UserError(f"{path}: {key[0]} row {key[1]} has another text than that which was read")
      continue
    q_z = row["q"]
    if not isinstance(q_z, list) or not all(isinstance(x, (int, float)) and abs(x) < 1e30 for x in q_z):
      raise UserError(f"{path}: {key[0]} row {key[1]}: q is no list of numbers")
    steps = len(case_of[key].steps)
    if len(q_z) != steps + 1:
      raise UserError(f"{path}: {key[0]} row {key[1]}: {len(q_z)} values in q; one of the question and one of each of {steps} steps are needed")
    found[key] = np.array(q_z, float)
  missing = [case for case in cases if (case.file, case.row) not in found]
  if given and missing:
    named = ", ".join(sorted({repr(row.get("file")) for row in rows})[:5])
    raise UserError(f"{path}: {len(missing)} of {len(cases)} cases have no row there, the first {missing[0].file} row {missing[0].row}; "
                    f"its rows name the files {named}")
  return found


def _names(paths: set[str]) -> dict[str, str]:
  """File by its name without folders, where that is one file's alone."""
  names = [os.path.basename(path) for path in paths]
  return {name: path for name, path in zip(names, paths) if names.count(name) == 1}


def _text(case: benchmarks.Case) -> str:
  """What names the text of a case."""
  return files.digest(json.dumps([case.question, case.steps]).encode())[:12]


def score(cases: Sequence[benchmarks.Case], verifier: Verifier, keep: str, limit: int) -> tuple[dict[Key, np.ndarray], list[Key]]:
  """(q_z of each case, the cases that are too long). keep: a readings file to go on with, '' for none."""
  if limit > verifier.longest:
    raise UserError(f"--max_tokens {limit} is more than {verifier.longest}")
  pairs, too_long, done, text = {}, [], {}, {(case.file, case.row): _text(case) for case in cases}
  for case, pair in zip(cases, verifier.rows(cases)):
    if _tokens(pair) > limit:
      too_long.append((case.file, case.row))
    else:
      pairs[case.file, case.row] = pair
  if not pairs:
    raise UserError(f"none of {len(cases)} cases fits into --max_tokens {limit}")
  if keep and files.exists(files.path(keep)):
    done = {key: q_z for key, q_z in read_values(keep, cases).items() if key in pairs}
    _check_same(done, pairs, verifier, keep)
  if keep:
    # Also takes away a line that a kill has torn.
    files.write(files.path(keep), "".join(_line(key, q_z, text=text[key]) for key, q_z in done.items()))
  # Neighbours in length go through together.
  rest = sorted((key for key in pairs if key not in done), key=lambda key: _tokens(pairs[key]))
  with metrics.progress(what="judge", unit="case", total=len(pairs), initial=len(done)) as bar:
    while rest:
      total_x = itertools.accumulate(_tokens(pairs[key]) for key in rest[:_BLOCK])
      count = max(1, sum(total <= _BLOCK_TOKENS for total in total_x))
      block, rest = rest[:count], rest[count:]
      for key, q_z in zip(block, verifier.values([pairs[key] for key in block], bar)):
        done[key] = np.asarray(q_z, float)
      if keep:
        files.append(files.path(keep), "".join(_line(key, done[key], text=text[key]) for key in block))
  return done, too_long


def _tokens(pair: tuple) -> int:
  prompt_t, response = pair
  return len(prompt_t) + len(response.token_t)


def _check_same(done: Mapping[Key, np.ndarray], pairs: Mapping[Key, tuple], verifier: Verifier, path: str):
  """UserError where what was kept is of another verifier: it would give this one's case other values."""
  for key in list(done)[:1]:
    q_z, = verifier.values([pairs[key]], None)
    if not np.allclose(q_z, done[key], atol=1e-3):
      raise UserError(f"{path} holds another verifier's values (of {key[0]} row {key[1]}): remove it, or choose another --output")


def _line(key: Key, q_z: np.ndarray, **more) -> str:
  return json.dumps({"file": key[0], "row": key[1], **more, "q": [float(x) for x in q_z]}) + "\n"


def run(flags: argparse.Namespace) -> int:
  """Everything at the top of the file; the exit status."""
  cases, left_out = read_files(flags.files)
  keep = os.path.splitext(flags.output)[0] + ".readings.jsonl" if flags.output else ""
  if flags.readings:
    q_of, too_long = read_values(flags.readings, cases, given=True), []
    verdicts = any(row.get("verdicts") for row in metrics.read_curves(files.path(flags.readings), key="q", whole=True))
  else:
    verifier = load(flags)
    verdicts = verifier.verdicts
    q_of, too_long = score(cases, verifier, keep, flags.max_tokens)
  for path, _ in too_long:
    left_out[path]["too long"] += 1
  cases = [case for case in cases if (case.file, case.row) in q_of]
  q_cz = [q_of[case.file, case.row] for case in cases]
  given = {"q": flags.tau_q, "verdict": flags.tau_q, "advantage": flags.tau_a}
  found = judgement.judge(cases, q_cz, {name: tau for name, tau in given.items() if tau is not None}, verdicts=verdicts)
  found = {"verifier": flags.verifier or None, "readings": flags.readings or None, "files": left_out, **found}
  if flags.output:
    more = {"verdicts": True} if verdicts else {}
    lines = [_line((case.file, case.row), q_z, **more, text=_text(case), benchmark=case.benchmark, subset=case.subset, id=case.id, first_wrong=case.first_wrong,
                   wrong=case.wrong, found=judgement.predictions(judging.scores(q_z, verdicts), found["tau"])) for case, q_z in zip(cases, q_cz)]
    files.write(files.path(keep), "".join(lines))
    files.write(files.path(flags.output), json.dumps(found, indent=1, allow_nan=False) + "\n")
  print(judgement.table(found) + (f"\n\n{flags.output}, {keep}" if flags.output else ""))
  for line in _left_out(left_out, flags.max_tokens):
    _say(line)
  return int(any(x["malformed"] for x in left_out.values()))


def _left_out(left_out: Mapping[str, Mapping], limit: int) -> list[str]:
  """A line for each kind of thing that is not in the table."""
  lines = []
  for path, x in left_out.items():
    of = f"of {x['cases'] + len(x['malformed']) + x['repeated']} rows"
    lines += [f"{path}: {len(x['malformed'])} {of} are malformed and left out"] * bool(x["malformed"])
    lines += [f"{path}: {x['too long']} {of} are longer than {limit} tokens and left out (--max_tokens)"] * bool(x["too long"])
    lines += [f"{path}: {x['repeated']} {of} repeat the item of an earlier row and are left out"] * bool(x["repeated"])
    beyond = x["error steps beyond the last"]
    lines += [f"{path}: {beyond} entries of error_steps name no step and are ignored, as the public script does"] * bool(beyond)
  return lines


def _say(line: str):
  print(line, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
  """The exit status; argv: the arguments without the program's name, the process's own without it."""
  parser = argparse.ArgumentParser(prog="python -m pav_jax.judge", description="Judges a verifier by files of solutions whose wrong steps are marked.")
  parser.add_argument("files", nargs="+", metavar="FILE", help="ProcessBench, PRMBench, MR-MATH or MR-GSM8K: JSON lines, a JSON array, parquet, gzip")
  who = parser.add_mutually_exclusive_group(required=True)
  who.add_argument("--verifier", default="", help="a checkpoint, as runs/quickstart/verifier/q/best")
  who.add_argument("--readings", default="", help="values that are there already: JSON lines of file, row, q")
  parser.add_argument("--output", default="", help="OUT.json; each case goes to OUT.readings.jsonl")
  parser.add_argument("--tau_q", type=float, help="a step is wrong below this value, or verdict; default: the best on ProcessBench's GSM8K part, else .5")
  parser.add_argument("--tau_a", type=float, help="a step is wrong below this advantage; default: likewise, else -.05")
  parser.add_argument("--max_tokens", type=int, default=8192, help="of question and solution; what is longer is left out and counted")
  parser.add_argument("--rows", type=int, default=256, help="cases of a call, of up to 256 tokens; of longer ones fewer")
  parser.add_argument("--vocabulary", default="", help="SentencePiece file; default: the run's that the checkpoint lies in")
  parser.add_argument("--prompt", default="", help="template with {question}; default: the run's")
  parser.add_argument("--steps", default="", help="rule of steps (newline, blank, outside), for what stands between two; default: the run's")
  flags = parser.parse_args(argv)
  NOTICE.listen()
  try:
    for name in ("max_tokens", "rows"):
      if getattr(flags, name) < 1:
        raise UserError(f"--{name} {getattr(flags, name)} is less than 1")
    for name in ("tau_q", "tau_a"):
      if getattr(flags, name) is not None and not math.isfinite(getattr(flags, name)):
        raise UserError(f"--{name} {getattr(flags, name)} is no threshold")
    inputs = {os.path.realpath(path) for path in (*flags.files, flags.readings) if path}
    if flags.output and inputs & {os.path.realpath(x) for x in (flags.output, os.path.splitext(flags.output)[0] + ".readings.jsonl")}:
      raise UserError(f"--output {flags.output} would overwrite an input")
    return run(flags)
  except UserError as error:
    _say(f"error: {error}")
    return 2
  except Preempted as notice:
    _say("interrupted; " + ("the same command goes on from here" if flags.output else "with --output the same command could go on"))
    return 128 + notice.number


if __name__ == "__main__":
  sys.exit(console.quietly(main))
