r"""A problem, and readers of the publishers' files (those of anybody else: `files/`).

A reader yields one `Problem` or one `Malformed` per row, so that nothing is
dropped in silence; `sift` parts the two and decides whether to go on. Ids are
unique over all the sets: `gsm8k/train/1` (1 is the line),
`math/train/algebra/0.json` (the publisher's own name behind `math/`).
"""

import dataclasses
import io
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence

from etils import epath

from pav_jax.errors import UserError
from pav_jax.grading import answers
from pav_jax.grading import boxes
from pav_jax.problems.fields import Bad
from pav_jax.problems.fields import decode_object
from pav_jax.problems.fields import text
from pav_jax.problems.files import jsonl
from pav_jax.training import files

# How an answer is compared; `grading` knows each.
FAMILIES = ("gsm8k", "math", "arithmetic")

# As published, these solutions box nothing; the problem cannot be graded, so it is left out and counted.
EMPTY_BOXES = frozenset({"train/number_theory/7115.json", "train/number_theory/7117.json"})

_NOTE = re.compile(r"<<[^<>\n]*>>")
_MARK = re.compile(r"####|\\(?:boxed|fbox)|\banswer\b", re.IGNORECASE)
_MATH_NAME = re.compile(r"(?:^|/)((train|test)/([^/]+)/(\d+)\.json)$")


@dataclasses.dataclass(frozen=True)
class Problem:
  """A question and its reference answer; `solution` is empty where a set has none."""
  id: str
  dataset: str
  question: str
  solution: str
  answer: str


@dataclasses.dataclass(frozen=True)
class Malformed:
  """A row that is no problem; `row` is the line, counted from 1, or the member's name."""
  file: str
  row: str
  field: str
  reason: str

  def __str__(self):
    return f"{self.file} row {self.row}" + (f", field {self.field}" if self.field else "") + f": {self.reason}"


Rows = Iterator[Problem | Malformed]


def sift(rows: Iterable[Problem | Malformed], *, max_malformed: int = 0,
         known: Collection[str] = ()) -> tuple[list[Problem], list[Malformed]]:
  """Parts rows into problems and malformed ones.

  Raises UserError for no problem at all, and for more than `max_malformed`
  malformed rows; rows in `known` that only lack an answer are returned but not
  counted against it (for MATH: `EMPTY_BOXES`).
  """
  problems, malformed = part(rows)
  unknown = [bad for bad in malformed if not (bad.row in known and bad.field == "answer")]
  if len(unknown) > max_malformed:
    raise UserError(too_many(list(map(str, unknown)), len(problems) + len(malformed), max_malformed))
  if not problems:
    raise UserError(f"no problem among {len(malformed)} rows" + (f": {malformed[0]}" if malformed else ": no rows"))
  return problems, malformed


def part(rows: Iterable[Problem | Malformed]) -> tuple[list[Problem], list[Malformed]]:
  """(problems, malformed rows), however many."""
  problems, malformed = [], []
  for row in rows:
    (problems if isinstance(row, Problem) else malformed).append(row)
  return problems, malformed


def too_many(malformed: Sequence[str], rows: int, max_malformed: int) -> str:
  """The line that says so: how many of `rows`, and the first three."""
  more = f"; and {len(malformed) - 3} more" if len(malformed) > 3 else ""
  return (f"{len(malformed)} of {rows} rows are malformed, more than max_malformed = {max_malformed}: "
          f"{'; '.join(malformed[:3])}{more}")


def read_gsm8k(path: str | os.PathLike, split: str, *, strip_notes: bool = True) -> Rows:
  """GSM8K's `train.jsonl` or `test.jsonl`; without the calculator's `<<a=b>>` unless asked to keep them."""

  def problem(fields, line):
    solution = text(fields, "answer")
    answer = solution.rpartition("####")[2].strip() if "####" in solution else ""
    if not answer:
      raise Bad("answer", "nothing after ####" if "####" in solution else "no ####")
    solution = _NOTE.sub("", solution) if strip_notes else solution
    return Problem(f"gsm8k/{split}/{line}", "gsm8k", text(fields, "question"), solution, answer)

  return _json_lines(path, problem)


def read_math(path: str | os.PathLike, split: str) -> Rows:
  """One split of MATH, in order of subject and number.

  `path` is the archive (`MATH.tar`, `MATH.tar.gz`), the extracted folder, or
  a folder that holds one of these.
  """
  yield from _math_rows(path, (split,))


def read_prm800k(math_path: str | os.PathLike, test_path: str | os.PathLike, split: str) -> Rows:
  """PRM800K's split of MATH: `test` is MATH-500, `train` all the other 12,000.

  `test_path` is its `math_splits/test.jsonl`, whose `unique_id` names problems
  of MATH; text and answer are MATH's own.
  """
  by_name = {}
  for row in _math_rows(math_path, ("train", "test")):
    name = row.id.removeprefix("math/") if isinstance(row, Problem) else row.row
    if name in by_name:
      yield row  # Malformed: a name that occurs twice.
    by_name.setdefault(name, row)
  held_out = set()

  def joined(fields, line):
    del line
    name = text(fields, "unique_id")
    if name not in by_name:
      raise Bad("unique_id", f"{name} is not in MATH")
    if text(fields, "problem") != getattr(by_name[name], "question", fields["problem"]):
      raise Bad("problem", f"differs from {name} in MATH")
    held_out.add(name)
    return by_name[name]

  test = list(_json_lines(test_path, joined))
  if split == "test":
    yield from test
    return
  # A row that names no problem might have held out any of these.
  yield from (row for row in test if isinstance(row, Malformed) and row.file == str(test_path))
  yield from (row for name, row in by_name.items() if name not in held_out)


def stated_answer(solution: str, family: str) -> str | None:
  r"""The answer that a solution marks: in a box, behind `####` or 'The answer is'; None where it only ends in a number or formula."""
  marked = family == "arithmetic" or _MARK.search(solution)
  return answers.extract_answer(solution, family) or None if marked else None


def _json_lines(path, parse) -> Rows:
  """`parse(fields, line)` of every line that is not blank; ids must differ."""
  seen = {}
  for line, found in jsonl.rows(path):
    try:
      if isinstance(found, Bad):
        raise found
      row = parse(found, int(line))
      key = row.id if isinstance(row, Problem) else row.row
      if key in seen:
        raise Bad("id", f"{key} is in row {seen[key]} already")
      seen[key] = line
      yield row
    except Bad as bad:
      yield Malformed(str(path), line, *bad.args)


def _math_rows(path, splits: tuple[str, ...]) -> Rows:
  file, members = _math_members(files.path(path), splits)
  for split in splits:
    if not any(name.startswith(f"{split}/") for name, _ in members):
      raise UserError(f"{file}: no {split}/<subject>/<number>.json in it")
  seen = set()
  for name, content in sorted(members, key=lambda member: _math_order(member[0])):
    try:
      if name in seen:
        raise Bad("id", "occurs twice")
      seen.add(name)
      fields = decode_object(content)
      question, solution = text(fields, "problem"), text(fields, "solution")
      stated = boxes.boxed(solution)
      answer = None if stated.cut_off else stated.content
      if not answer:
        raise Bad("answer", r"no \boxed{} in the solution" if answer is None else r"the last \boxed{} is empty")
      yield Problem(f"math/{name}", "math", question, solution, answer)
    except Bad as bad:
      yield Malformed(str(file), name, *bad.args)


def _math_order(name: str):
  split, subject, number = name.split("/")
  return split == "test", subject, int(number.removesuffix(".json"))


def _math_members(path: epath.Path, splits: tuple[str, ...]) -> tuple[epath.Path, list[tuple[str, bytes]]]:
  """The file or folder that holds MATH, and (name, content) of the splits' problems."""
  if path.is_dir():
    inside = [path / "MATH", path / "MATH.tar.gz", path / "MATH.tar"]
    path = path if (path / splits[0]).is_dir() else next((p for p in inside if p.exists()), path)
  if path.is_dir():
    if files.is_remote(path):
      raise UserError(f"{path}: 12,500 files are not read from a bucket one by one; put MATH.tar.gz there")
    found = ((str(p.relative_to(path)), p) for p in sorted(pathlib.Path(path).rglob("*.json")))
    return path, [(m[1], files.read(files.path(p))) for name, p in found if (m := _MATH_NAME.search(name)) and m[2] in splits]
  content = files.read(path)
  try:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
      return path, [(m[1], archive.extractfile(member).read()) for member in archive
                    if member.isfile() and (m := _MATH_NAME.search(member.name)) and m[2] in splits]
  except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
    raise UserError(f"{path} is damaged: {files.reason(error)}") from error
