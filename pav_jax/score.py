"""Scores solutions that somebody else wrote, step by step.

  python -m pav_jax.score --verifier=CHECKPOINT FILE.jsonl [--output=OUT.jsonl] [--alpha=0.5]
                          [--prover_k=4 | --prover=CHECKPOINT [--prover_kind=q|advantage]]

  1. A row is {"question", "steps"}, steps a list of texts that is never split
     again, or {"question", "solution"}, a text that the rule of steps cuts; and
     "ended": false where the solution goes on.
  2. The verifier, and a second one if it is the prover, read each row once
     (verifiers/given.py); the paper's equations give the rest.
  3. Each row is written with all its fields and "q" (of the bare question, then
     behind each step), "advantage" and "effective_reward" (of each step); with
     the steps, too, where the rule has cut them. A verifier of kind relative or
     effective gives "verdict" (of each step) in their place, one of kind implicit
     "q" and "process_reward" (verifiers/targets.py). A row that cannot be scored
     is written with "error" instead, reported with its field, and counted.
  4. OUT.jsonl appears when it is complete. Until then OUT.jsonl.partial has what
     is done, and the same command goes on behind it.
"""

from pav_jax.training import preemption

if __name__ == "__main__":
  preemption.until_begun()

import argparse
import collections
from collections.abc import Iterator, Sequence
import hashlib
import itertools
import json
import os
import sys
from typing import NamedTuple

from absl import logging
import tqdm

from pav_jax import console
from pav_jax import library
from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.problems import given as given_lib
from pav_jax.problems import home as home_lib
from pav_jax.problems import steps as steps_lib
from pav_jax.search import ranking
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training.preemption import NOTICE
from pav_jax.training.preemption import Preempted
from pav_jax.verifiers import given as values_lib

# So much is read, sorted by length, scored and written together: rows, or bytes where rows are long.
_BLOCK_ROWS, _BLOCK_BYTES = 1024, 1 << 18
_SAID = ("q", "advantage", "effective_reward", "verdict", "process_reward")  # fields that scoring adds


class How(NamedTuple):
  """How rows are scored: the models, whose advantages are added with what weight, and the limits."""

  verifier: library.Model
  prover: library.Model | None
  advantages: ranking.Prover
  alpha: float
  max_tokens: int
  rows: int
  prefix: str


class Work(NamedTuple):
  """An output that is being made: how many of its rows are there, and how many of these have an error."""

  partial: str
  done: int
  errors: int


def begin(output: str, plan: dict) -> Work:
  """What is there of the output. UserError where that was begun with another file, checkpoint or flag."""
  partial, plan_path = output + ".partial", files.path(output + ".plan.json")
  lines = []
  if files.exists(plan_path) and files.exists(files.path(partial)):
    with open(partial, "rb") as file:
      lines = file.read().split(b"\n")[:-1]  # the last line may be torn
  # A plan of which nothing has been made gives way.
  begun = files.read_json(plan_path) if lines else plan
  different = next((name for name in plan if begun.get(name) != plan[name]), "")
  if different:
    raise UserError(f"{partial} was begun otherwise: {different} was {begun.get(different)!r}, now {plan[different]!r}; remove it "
                    f"and {plan_path}, or choose another --output")
  files.write_json(plan_path, plan)
  with open(partial, "ab") as file:
    file.truncate(sum(len(line) + 1 for line in lines))
  return Work(partial, len(lines), sum(plan["prefix"] + "error" in json.loads(line) for line in lines))


def score_file(path: str, output: str, work: Work, how: How) -> collections.Counter:
  """Scores the rows behind those that are done; how many rows, steps and errors there are in all."""
  counts = collections.Counter(rows=work.done, errors=work.errors)
  with open(path, "rb") as lines, open(work.partial, "a", encoding="utf-8") as out:
    rows = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    rows = itertools.islice(rows, work.done, None)
    with metrics.progress(what="score", unit="row", total=_count(path), initial=work.done) as bar:
      for block in _blocks(rows):
        for number, row in _score_block(block, how, bar):
          counts["rows"] += 1
          if how.prefix + "error" in row:
            counts["errors"] += 1
            tqdm.tqdm.write(f"{path}: row {number}: {row[how.prefix + 'error']}", file=sys.stderr)
          out.write(json.dumps(row) + "\n")
        out.flush()
  os.replace(work.partial, output)
  os.unlink(output + ".plan.json")
  return counts


def _blocks(rows: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
  block, size = [], 0
  for number, line in rows:
    block.append((number, line))
    size += len(line)
    if len(block) >= _BLOCK_ROWS or size >= _BLOCK_BYTES:
      yield block
      block, size = [], 0
  if block:
    yield block


def _count(path: str) -> int:
  with open(path, "rb") as lines:
    return sum(bool(line.strip()) for line in lines)


def _score_block(block: list[tuple[int, bytes]], how: How, bar) -> Iterator[tuple[int, dict]]:
  """(number, row as it is written) of each, in order."""
  home, read = how.verifier.home, []
  for _, line in block:
    row, fault = parse_row(line, how.prefix)
    if not fault:
      prompt_t = home.prompt_t(row["question"])
      given = library.given_of(home, row[_steps_of(row)], _ended(row))
      count = len(prompt_t) + len(given.token_t)
      if count <= how.max_tokens:
        read.append((row, "", prompt_t, given))
        continue
      own = _steps_of(row)
      long, other = ("question", own) if len(prompt_t) > len(given.token_t) else (own, "question")
      fault = f"field {long!r}: {count} tokens with the {other}, more than --max_tokens={how.max_tokens}"
    read.append((row, fault, None, None))
    bar.update()
  good = [(prompt_t, given) for _, fault, prompt_t, given in read if not fault]
  scores = iter(library.score_given(
      how.verifier, *(map(list, zip(*good)) if good else ([], [])), prover=how.prover, how=how.advantages, alpha=how.alpha,
      rows=how.rows, bar=bar))
  for (number, _), (row, fault, _, given) in zip(block, read):
    yield number, {**row, how.prefix + "error": fault} if fault else {**row, **_written(row, given, next(scores), how)}


def _written(row: dict, given: given_lib.Given, scores: library.Scores, how: How) -> dict:
  numbers = lambda x_s: [round(float(x), 7) for x in x_s]
  decode = how.verifier.home.vocabulary.decode
  added = {} if _steps_of(row) == "steps" else {"steps": [decode(x) for x in given_lib.split(given)]}
  return added | {how.prefix + name.rpartition("_")[0]: numbers(x) for name, x in scores._asdict().items()}


def parse_row(line: bytes, prefix: str = "") -> tuple[dict, str]:
  """A row and what is wrong with it, '' for nothing; prefix: of the names of the fields that scoring adds."""
  row, fault = fields.plain_row(line)
  if fault:
    return row, fault
  taken = next((name for name in (*_SAID, "error") if prefix + name in row), None)
  if taken is not None:
    return {name: x for name, x in row.items() if name != prefix + "error"}, (
        f"field {prefix + taken!r}: is there already, and scoring adds one of that name: choose a --prefix")
  return row, _fault(row)


def _fault(row: dict) -> str:
  """What is wrong with the fields of a row, the first of it."""
  texts, bare_end = {"question": row.get("question")}, ""
  if "question" not in row:
    return "field 'question': missing"
  if _steps_of(row) == "steps":
    if not isinstance(row["steps"], list):
      return f"field 'steps': not a list but {type(row['steps']).__name__}"
    if not row["steps"]:
      return "field 'steps': there is none"
    texts |= {f"steps[{i}]": step for i, step in enumerate(row["steps"])}
    if len(row["steps"]) > 1 and row["steps"][-1] == "" and _ended(row) is True:  # a text that ends in a newline has a last step that is its end alone
      bare_end = f"steps[{len(row['steps']) - 1}]"
  elif "solution" in row:
    texts["solution"] = row["solution"]
  else:
    return "field 'steps' or 'solution': missing"
  for name, text in texts.items():
    if not isinstance(text, str):
      return f"field {name!r}: not a string but {type(text).__name__}"
    if name not in ("question", bare_end) and not text.strip():
      return f"field {name!r}: empty"
    if any("\ud800" <= c <= "\udfff" for c in text):
      return f"field {name!r}: holds half a character (a lone surrogate)"
  if not isinstance(_ended(row), bool):
    return f"field 'ended': not true or false but {type(row['ended']).__name__}"
  return ""


def _steps_of(row: dict) -> str:
  """The field that has the steps. One that is null counts as absent beside the other: so a table writes what is not there."""
  return "steps" if row.get("steps") is not None or "steps" in row and row.get("solution") is None else "solution"


def _ended(row: dict):
  return True if row.get("ended") is None else row["ended"]


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="python -m pav_jax.score", description=__doc__.partition("\n")[0])
  parser.add_argument("file", help="JSON lines of question and steps, or question and solution")
  parser.add_argument("--verifier", required=True, help="checkpoint of Q, as WORKDIR/verifier/q/best")
  parser.add_argument("--output", help="default: FILE.scored.jsonl beside FILE")
  parser.add_argument("--alpha", type=float, default=0.5, help="weight of the advantage in the effective reward; default: %(default)s")
  parser.add_argument("--prover_k", type=float, default=4, help="the prover is best-of-K of the policy; default: %(default)s")
  parser.add_argument("--prover", default="", help="checkpoint of a second verifier, the prover's, in the place of best-of-K; default: none")
  parser.add_argument("--prover_kind", default="q", choices=library.PROVER_KINDS, help="what --prover says: Q, or A as (1 + A) / 2; default: %(default)s")
  parser.add_argument("--steps", default="", choices=("", *steps_lib.RULES), help="the rule that cuts a solution; default: the run's")
  parser.add_argument("--prompt", default="", help="template with {question}; default: the run's")
  parser.add_argument("--vocabulary", default="", help="SentencePiece file; default: the run's")
  parser.add_argument("--max_tokens", type=int, default=values_lib.LONGEST, help="longer rows are left out, and reported; default, and most: %(default)s")
  parser.add_argument("--rows", type=int, default=64, help="rows of up to 256 tokens that are read together; default: %(default)s")
  parser.add_argument("--prefix", default="", help="put before the names of the fields that are added; default: nothing")
  return parser.parse_args(arguments)


def _plan(flags: argparse.Namespace, home: home_lib.Home) -> dict:
  """What the output hangs on."""
  with open(flags.file, "rb") as file:
    content = hashlib.file_digest(file, "sha256").hexdigest()
  return {"file": content, "verifier": checkpoint.digest(flags.verifier), "prover": flags.prover and checkpoint.digest(flags.prover),
          "vocabulary": home.vocabulary.fingerprint, "prompt": home.prompt, "steps": home.steps,
          **{name: getattr(flags, name) for name in ("alpha", "prover_k", "prover_kind", "max_tokens", "prefix")}}


def run(flags: argparse.Namespace) -> int:
  """Scores flags.file; exit status. UserError for what is wrong with the flags, before a model is read."""
  files.require_file(flags.file)
  output = flags.output or os.path.splitext(flags.file)[0] + ".scored.jsonl"
  if os.path.realpath(output) == os.path.realpath(flags.file):
    raise UserError(f"--output is the input: {output}")
  if flags.max_tokens < 1 or flags.rows < 1:
    raise UserError(f"--max_tokens {flags.max_tokens} and --rows {flags.rows} must be at least 1")
  if flags.max_tokens > values_lib.LONGEST:
    raise UserError(f"--max_tokens {flags.max_tokens} is more than {values_lib.LONGEST}, the longest row that a verifier reads")
  if not 0 <= flags.alpha < float("inf"):
    raise UserError(f"--alpha {flags.alpha} is negative, or no number")
  library.how_of(None, flags.prover_kind, flags.prover_k)
  home = home_lib.of(flags.verifier, vocabulary=flags.vocabulary, prompt=flags.prompt, steps=flags.steps)
  plan = _plan(flags, home)
  files.folder(files.path(output).parent)
  with files.lock_output(files.path(output)):
    work = begin(output, plan)
    texts = {"vocabulary": home.vocabulary.path, "prompt": home.prompt, "steps": home.steps}
    verifier = library.load(flags.verifier, **texts)
    # The prover reads the verifier's ids.
    prover = library.load(flags.prover, **texts) if flags.prover else None
    advantages = library.how_of(prover, flags.prover_kind, flags.prover_k)
    counts = score_file(flags.file, output, work, How(
        verifier, prover, advantages, flags.alpha, flags.max_tokens, flags.rows, flags.prefix))
  print(f"{output}: {counts['rows'] - counts['errors']} scored, {counts['errors']} error")
  return 1 if counts["errors"] else 0


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns 0 when every row was scored, 1 when some had errors, 2 when nothing could be done, 128 + n after signal n."""
  flags = _flags(arguments)
  logging.set_verbosity(logging.FATAL)  # orbax's own chatter
  NOTICE.listen()
  try:
    return run(flags)
  except BrokenPipeError:
    raise
  except (UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except Preempted as notice:
    print(f"interrupted: {notice}; the same command goes on from here", file=sys.stderr)
    return 128 + notice.number


if __name__ == "__main__":
  sys.exit(console.quietly(main))
