"""Labels that others gave, as values: stage `labels`, from files to shards of a kind of their own.

  1. Each row of the files becomes solutions with labels (`formats.py`). All rows
     are read before anything is made: one that is not of the format is told
     with file, row and field, and more than `max_malformed` end the stage.
  2. A question gets the run's prompt. A step is encoded by itself, with the ids
     of the separator behind it (`problems/given.py`), and never split again.
  3. A prompt or solution longer than its limit is left out, and counted.
  4. A shard holds whole responses: their ids, where each step ends, and of each
     prefix the label and how many outcomes it is the mean of.

What such a label means, its maker knows: that a person calls the step right
(PRM800K; TRL's rows say it of whatever they came from), that another policy came
from there to the answer at least once (Math-Shepherd), or how often (MATH-APS). It
is not Q^pi of this run's policy. A verifier of kind `q` learns it as it is; what
needs outcomes (`orm`) or our policy's counts (`advantage`) does not take it.
"""

import collections
import functools
import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.problems import fields
from pav_jax.problems import given
from pav_jax.problems import home as home_lib
from pav_jax.problems import prepared
from pav_jax.problems.files import door
from pav_jax.problems.problem import Malformed
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training import records
from pav_jax.training.run import Run
from pav_jax.values import formats

_TOLD = 5  # malformed rows that are named


class Imported(NamedTuple):
  """Responses of others, each with its prompt.

  problem_b: the same for the same question. prompt_bt (with bos), token_bt:
  padded ids. end_bz as in `monte_carlo.Values`; q_bz: float64, the label in
  [0, 1], NaN where nothing is said; count_bz: the outcomes it is the mean of, 0 where q_bz is NaN.
  """

  problem_b: np.ndarray
  prompt_bt: np.ndarray
  prompt_length_b: np.ndarray
  token_bt: np.ndarray
  length_b: np.ndarray
  end_bz: np.ndarray
  q_bz: np.ndarray
  count_bz: np.ndarray


def read(run: Run, vocabulary) -> Imported:
  """What the stage has made, padded no wider than needed. UserError for ids of another vocabulary than the run's."""
  folder = run.folder("labels")
  if folder.manifest()["facts"]["vocabulary"] != vocabulary.fingerprint:
    raise UserError(f"{folder.path} has ids of another vocabulary than problems/train: remove it and run stage labels again")
  found = Imported(**folder.read())
  to = lambda x_bt, length_b: x_bt[:, :max(8, -(-int(length_b.max()) // 8) * 8)]
  prefixes = int((found.end_bz > -2).sum(axis=1).max())
  return found._replace(
      prompt_bt=to(found.prompt_bt, found.prompt_length_b), token_bt=to(found.token_bt, found.length_b),
      **{name: getattr(found, name)[:, :prefixes] for name in ("end_bz", "q_bz", "count_bz")})


def solutions(knobs) -> Iterator[tuple[list[formats.Labelled], collections.Counter] | Malformed]:
  """Of each row of the files of a section labels: its solutions and what was counted in it, or what is wrong with it."""
  parse = formats.FORMATS[knobs.format]
  if knobs.format == "prm800k":
    parse = functools.partial(parse, neutral=formats.NEUTRAL[knobs.neutral])
  for path in paths(knobs.files):
    for number, row in door.rows(path):
      counts = collections.Counter()
      try:
        if isinstance(row, fields.Bad):
          raise row
        yield [x for x in list(parse(row, counts)) if any(x.count_z)], counts
      except fields.Bad as bad:
        yield Malformed(str(path), number, *bad.args)


def arrays(some: list[formats.Labelled], problem_b: list[int], home: home_lib.Home, *, max_prompt: int, max_response: int,
           max_steps: int) -> tuple[Imported, dict[str, int]]:
  """(the solutions that fit, counts); limits in tokens, with bos and eos, and in steps."""
  separator, rows, counts = given.separator_of(home.steps), [], collections.Counter()
  for solution, problem in zip(some, problem_b):
    prompt_t = home.prompt_t(solution.question)
    response = given.tokens(solution.steps, home.vocabulary, separator=separator, ended=solution.ended)
    long = (len(prompt_t) > max_prompt, len(response.token_t) > max_response, len(response.end_s) > max_steps)
    for what, is_long in zip(("max_prompt", "max_response", "max_steps"), long):
      counts[f"longer than {what}"] += is_long
    if not any(long):
      rows.append((problem, prompt_t, response, solution))
  padded = lambda xs, width, fill, dtype: np.array(
      [np.pad(np.asarray(x, dtype), (0, width - len(x)), constant_values=fill) for x in xs], dtype).reshape(len(xs), width)
  lengths = lambda xs: np.array([len(x) for x in xs], np.int32)
  prompts, responses = [prompt_t for _, prompt_t, _, _ in rows], [response for _, _, response, _ in rows]
  pad, z = home.vocabulary.pad_id, max_steps + 1
  found = Imported(
      np.array([problem for problem, *_ in rows], np.int32), padded(prompts, max_prompt, pad, np.int32), lengths(prompts),
      padded([r.token_t for r in responses], max_response, pad, np.int32), lengths([r.token_t for r in responses]),
      padded([np.concatenate([[-1], r.end_s]) for r in responses], z, -2, np.int32),
      padded([s.label_z for *_, s in rows], z, np.nan, np.float64), padded([s.count_z for *_, s in rows], z, 0, np.int32))
  return found, counts | {
      "solutions": len(rows), "left out": len(some) - len(rows), "labels": int((found.count_bz > 0).sum()),
      "labels of 0": int((found.q_bz == 0).sum()), "labels of 1": int((found.q_bz == 1).sum()),
      "tokens": int(found.prompt_length_b.sum() + found.length_b.sum())}


def paths(spec: str) -> list[epath.Path]:
  """The files that a config names, separated by commas; of a folder those of its split train. UserError for one that is not there."""
  return [path for name in spec.split(",") if name.strip() for path in door.files_of(name.strip(), "train")[0]]


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section labels, names what is not there, or what the stage would lack."""
  knobs, where = config.labels, "config.labels"
  errors.one_of(formats.FORMATS, knobs, where, "format")
  errors.one_of(formats.NEUTRAL, knobs, where, "neutral")
  errors.at_least(1, knobs, where, "max_prompt", "max_response", "max_steps", "rows_per_shard")
  errors.at_least(0, knobs, where, "max_malformed")
  with errors.at(f"{where}.files"):
    found = paths(knobs.files)
  if _wanted(config) and not found and not (root is not None and files.exists(root / "labels" / "manifest.json")):
    raise UserError(f"{where}.files names no file: give --config.labels.files=FILE.jsonl and --config.labels.format="
                    + "|".join(formats.FORMATS))


def _wanted(config) -> bool:
  return config.stage == "labels" or config.verifier.labels in ("imported", "both")


def run_stage(run: Run):
  """labels: problems, files of others -> labels/; nothing where the verifiers learn from Monte Carlo alone."""
  knobs = run.config.labels
  if not _wanted(run.config) or not knobs.files and run.folder("labels").done:
    return
  folder, done = run.start("labels", sections=["labels"], inputs=["problems/train", "problems/test"])
  if done:
    _doubt(run, folder)
    return
  train = run.folder("problems/train")
  home = home_lib.Home(prepared.vocabulary(train), run.made_with("problems/train", "problems").prompt,
                       train.manifest()["facts"].get("steps", "newline"))
  held_out = {_plain(question) for question in prepared.read(run.folder("problems/test")).question_p}
  counts, malformed, are = collections.Counter(), [], _are(knobs)
  with metrics.progress(what="labels: reading", unit="row") as bar:
    for row in solutions(knobs):
      bar.update()
      if isinstance(row, Malformed):
        malformed.append(row)
        continue
      found, told = row
      counts += told + collections.Counter({
          "rows": 1, f"{are} read": len(found), "rows without a label": not found,
          f"{are} to questions of problems/test": sum(_plain(x.question) in held_out for x in found)})
  total = counts[f"{are} read"]
  _tell(counts, total, malformed, knobs.max_malformed)
  shards = _write(folder, knobs, home, total)
  made = sum((collections.Counter(files.read_json(folder.path / f"{i:05d}.json")["counts"]) for i in range(shards)), collections.Counter())
  if made["left out"]:
    long = ", ".join(f"{n} for labels.{what}={knobs[what]}" for what in ("max_prompt", "max_response", "max_steps")
                     if (n := made[f"longer than {what}"]))
    said = f"{made['left out']} of {total} {are} are too long ({long})"
    if not made["solutions"]:
      raise UserError(f"labels: {said}: nothing is left; remove {folder.path} and give larger ones")
    print(f"labels: {said}, and left out", file=sys.stderr)
  folder.finish(shards, {"vocabulary": home.vocabulary.fingerprint, "malformed": len(malformed), "read": {k: n for k, n in counts.items() if n}})
  _doubt(run, folder)


def _doubt(run: Run, folder: records.Folder):
  counts = folder.manifest()["counts"]
  run.doubt("labels", [f"all {counts['labels']} labels are {value}: a verifier can learn nothing from them" for value in (0, 1)
                       if counts[f"labels of {value}"] == counts["labels"]],
            f"{folder.path} is finished and stays; for another one change labels.files, and remove it")


def _write(folder: records.Folder, knobs, home, total: int) -> int:
  """Writes the shards that are missing; how many there are."""
  number, shard = {}, 0
  every = (x for row in solutions(knobs) if not isinstance(row, Malformed) for x in row[0])
  with metrics.progress(what="labels", unit=_are(knobs), total=total) as bar:
    while some := list(itertools.islice(every, knobs.rows_per_shard)):
      problem_b = [number.setdefault(_plain(x.question), len(number)) for x in some]
      if not folder.has_shard(shard):
        found, counts = arrays(some, problem_b, home, max_prompt=knobs.max_prompt, max_response=knobs.max_response,
                               max_steps=knobs.max_steps)
        folder.write_shard(shard, found._asdict(), counts)
      bar.update(len(some))
      shard += 1
  return shard


def _are(knobs) -> str:
  """What the rows of a format become, in words."""
  return "prefixes" if knobs.format == "math_aps" else "solutions"


def _plain(question: str) -> str:
  """What two spellings of the same question have in common."""
  return " ".join(question.split())


def _tell(counts: collections.Counter, total: int, malformed: list[Malformed], max_malformed: int):
  """Says what was read, `total` of it with labels, on stderr; UserError for too many malformed rows, or none that is well."""
  more = f"; and {len(malformed) - _TOLD} more" if len(malformed) > _TOLD else ""
  named = "; ".join(map(str, malformed[:_TOLD])) + more
  if len(malformed) > max_malformed:
    raise UserError(f"{len(malformed)} of {counts['rows'] + len(malformed)} rows are malformed, more than labels.max_malformed = "
                    f"{max_malformed}: {named}")
  if not total:
    raise UserError(f"no label in {counts['rows'] + len(malformed)} rows" + (f": {named}" if named else ""))
  if malformed:
    print(f"labels: {len(malformed)} malformed rows left out: {named}", file=sys.stderr)
  said = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
  print(f"labels: {said}", file=sys.stderr)
