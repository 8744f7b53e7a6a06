r"""A problem, and readers of the files that hold problems.

A reader yields one `Problem` or one `Malformed` per row, so that nothing is
dropped in silence; `sift` parts the two and decides whether to go on. Ids are
unique over all the sets: `gsm8k/train/1` (1 is the line),
`math/train/algebra/0.json` (the publisher's own name behind `math/`).
"""

import dataclasses
import gzip
import io
import json
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator

from etils import epath

from pav_jax.errors import UserError
from pav_jax.training import files

# How an answer is compared; `grading` knows each.
FAMILIES = ("gsm8k", "math", "arithmetic")

# As published, these solutions box nothing; the problem cannot be graded, so it is left out and counted.
EMPTY_BOXES = frozenset({"train/number_theory/7115.json", "train/number_theory/7117.json"})

_NOTE = re.compile(r"<<[^<>\n]*>>")
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
  problems, malformed = [], []
  for row in rows:
    (problems if isinstance(row, Problem) else malformed).append(row)
  unknown = [bad for bad in malformed if not (bad.row in known and bad.field == "answer")]
  if len(unknown) > max_malformed:
    more = f"; and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    raise UserError(f"{len(unknown)} of {len(problems) + len(malformed)} rows are malformed, more than "
                    f"max_malformed = {max_malformed}: {'; '.join(map(str, unknown[:3]))}{more}")
  if not problems:
    raise UserError(f"no problem among {len(malformed)} rows" + (f": {malformed[0]}" if malformed else ": no rows"))
  return problems, malformed


def read_gsm8k(path: str | os.PathLike, split: str, *, strip_notes: bool = True) -> Rows:
  """GSM8K's `train.jsonl` or `test.jsonl`; without the calculator's `<<a=b>>` unless asked to keep them."""

  def problem(fields, line):
    solution = _text(fields, "answer")
    answer = solution.rpartition("####")[2].strip() if "####" in solution else ""
    if not answer:
      raise _Bad("answer", "nothing after ####" if "####" in solution else "no ####")
    solution = _NOTE.sub("", solution) if strip_notes else solution
    return Problem(f"gsm8k/{split}/{line}", "gsm8k", _text(fields, "question"), solution, answer)

  return _json_lines(path, problem)


def read_jsonl(path: str | os.PathLike) -> Rows:
  """A user's own problems: `question`, `answer`; optional `solution`, `id`, `dataset` (the grading family, `math`).

  A solution is a text or a list of steps. These are joined by blank lines, which
  end a step under every rule of `steps`; what a rule ends within them ends there, too.
  """
  stem = pathlib.Path(path).name.split(".")[0]

  def problem(fields, line):
    family = _text(fields, "dataset", default="math")
    if family not in FAMILIES:
      raise _Bad("dataset", f"{family!r} is none of {', '.join(FAMILIES)}")
    return Problem(_text(fields, "id", default=f"{stem}/{line}"), family, _text(fields, "question"),
                   _solution(fields), _text(fields, "answer").strip())

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
    name = _text(fields, "unique_id")
    if name not in by_name:
      raise _Bad("unique_id", f"{name} is not in MATH")
    if _text(fields, "problem") != getattr(by_name[name], "question", fields["problem"]):
      raise _Bad("problem", f"differs from {name} in MATH")
    held_out.add(name)
    return by_name[name]

  test = list(_json_lines(test_path, joined))
  if split == "test":
    yield from test
    return
  # A row that names no problem might have held out any of these.
  yield from (row for row in test if isinstance(row, Malformed) and row.file == str(test_path))
  yield from (row for name, row in by_name.items() if name not in held_out)


def last_boxed(text: str) -> str | None:
  r"""What the last `\boxed{...}` (`\fbox{...}`, `\boxed 5`) holds; None without one, or if it never closes."""
  begin = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
  if begin < 0:
    return None
  rest = text[begin:].removeprefix(r"\boxed").removeprefix(r"\fbox").lstrip()
  if not rest.startswith("{"):
    return re.split(r"[$\n]", rest, maxsplit=1)[0].strip()
  depth = 0
  # An escaped brace is a character of the answer, not a bracket.
  for match in re.finditer(r"\\.|[{}]", rest, re.DOTALL):
    depth += {"{": 1, "}": -1}.get(match[0], 0)
    if depth == 0 and match[0] == "}":
      return rest[1:match.start()].strip()
  return None


class _Bad(Exception):
  """(field, reason): becomes a `Malformed`."""


class _Number(str):
  """A JSON number, spelt as in the file."""


def _not_a_number(name):
  raise ValueError(f"{name} is not JSON")


def _fields(content: bytes) -> dict:
  try:
    fields = json.loads(content.decode("utf-8-sig"), parse_int=_Number, parse_float=_Number,
                        parse_constant=_not_a_number)
  except UnicodeDecodeError as error:
    raise _Bad("", f"not UTF-8 at byte {error.start}") from error
  except (ValueError, RecursionError) as error:
    raise _Bad("", f"broken JSON: {' '.join(str(error).split())}") from error
  if not isinstance(fields, dict):
    raise _Bad("", "not a JSON object")
  return fields


def _text(fields: dict, name: str, default: str | None = None) -> str:
  value = fields.get(name)
  if value is None:
    if default is None:
      raise _Bad(name, "missing")
    return default
  if not isinstance(value, str) or (isinstance(value, _Number) and name not in ("answer", "id")):
    raise _Bad(name, "not a string")
  if not value.strip() and default is None:
    raise _Bad(name, "empty")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise _Bad(name, f"half a surrogate pair at character {error.start}") from error
  return str(value)


def _solution(fields: dict) -> str:
  if not isinstance(fields.get("solution"), list):
    return _text(fields, "solution", default="")
  steps = []
  for number, step in enumerate(fields["solution"], 1):
    try:
      steps.append(_text({"solution": step}, "solution").strip("\n"))
    except _Bad as bad:
      raise _Bad("solution", f"step {number} is {bad.args[1]}") from bad
  return "\n\n".join(steps)


def _json_lines(path, parse) -> Rows:
  """`parse(fields, line)` of every line that is not blank; ids must differ."""
  seen = {}
  for line, content in enumerate(unpacked(path).split(b"\n"), 1):
    if not content.strip():
      continue
    try:
      row = parse(_fields(content), line)
      key = row.id if isinstance(row, Problem) else row.row
      if key in seen:
        raise _Bad("id", f"{key} is in row {seen[key]} already")
      seen[key] = line
      yield row
    except _Bad as bad:
      yield Malformed(str(path), str(line), *bad.args)


def unpacked(path: str | os.PathLike) -> bytes:
  """A file's content, of a .gz what is packed in it. UserError for a damaged one."""
  path = files.path(path)
  content = files.read(path)
  try:
    return gzip.decompress(content) if path.suffix == ".gz" else content
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f"{path} is damaged: {files.reason(error)}") from error


def _math_rows(path, splits: tuple[str, ...]) -> Rows:
  file, members = _math_members(files.path(path), splits)
  for split in splits:
    if not any(name.startswith(f"{split}/") for name, _ in members):
      raise UserError(f"{file}: no {split}/<subject>/<number>.json in it")
  seen = set()
  for name, content in sorted(members, key=lambda member: _math_order(member[0])):
    try:
      if name in seen:
        raise _Bad("id", "occurs twice")
      seen.add(name)
      fields = _fields(content)
      question, solution = _text(fields, "problem"), _text(fields, "solution")
      answer = last_boxed(solution)
      if not answer:
        raise _Bad("answer", r"no \boxed{} in the solution" if answer is None else r"the last \boxed{} is empty")
      yield Problem(f"math/{name}", "math", question, solution, answer)
    except _Bad as bad:
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
