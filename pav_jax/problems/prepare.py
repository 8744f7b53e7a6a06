"""The first stage: problems as token ids on disk, so that nothing after it needs TensorFlow.

  1. All problems of all splits are read. Rows that are none, and problems whose
     reference answer grading cannot compare with, are left out where a file or
     set has no more of them than `max_malformed`; else that is an error.
  2. What looks like a problem and would poison the run is told: a line on
     stderr a kind, and left out where `leave_out` names the kind (`audit`).
     All that is left out stands in problems/<split>/left_out.txt.
  3. The vocabulary: a SentencePiece file by path, or one trained on the
     training split's own text.
  4. Each split's examples in their fixed order, this host's share, from the
     position where an earlier run stopped; written in shards.
  5. A prompt or solution longer than its limit is left out and counted; where
     their share of a shard is above `max_too_long`, that is an error, which
     says how long they are.
"""

import collections
import contextlib
import itertools
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.problems import audit
from pav_jax.problems import mixture as mixture_lib
from pav_jax.problems import steps
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.problems.arithmetic import Arithmetic
from pav_jax.problems.files.columns import Columns
from pav_jax.problems.problem import FAMILIES
from pav_jax.problems.problem import Problem
from pav_jax.problems.problem import too_many
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training.records import Folder
from pav_jax.training.run import Run


class Split(NamedTuple):
  """A split before it is written: the problems of each task, and the rows of each that are none, in words.

  left_out: the problems that stay out, by `_name`; odd: those of them that are problems, in words; odd_counts: by kind.
  """

  problems: dict[str, list[Problem]]
  malformed: dict[str, list[str]]
  left_out: set[tuple[str, str, str]]
  odd: list[str]
  odd_counts: dict[str, int]


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the sections problems, arithmetic, vocabulary and grading, or names what is not there."""
  knobs, where = config.problems, "config.problems"
  with errors.at(f"{where}.prompt"):
    mixture_lib.check_prompt(knobs.prompt)
  steps.check(knobs.steps)
  for split in mixture_lib.SPLITS:
    with errors.at(f"{where}.{split}"):
      mixture_lib.check(knobs, split)
    if "arithmetic" in mixture_lib.rates(knobs[split]):
      _dials(config)
  errors.at_least(1, config.arithmetic, "config.arithmetic", "train_size", "validation_size", "test_size")
  if len({config.arithmetic[f"{split}_seed"] for split in mixture_lib.SPLITS}) < 3:
    raise UserError("config.arithmetic: train_seed, validation_seed and test_seed must differ")
  errors.at_least(1, knobs, where, "max_prompt", "max_solution", "problems_per_shard")
  errors.at_least(0, knobs, where, "validation_size", "max_malformed")
  errors.all_or_some(knobs, where, "limit")
  errors.one_of(FAMILIES, knobs, where, "family")
  audit.check(knobs.leave_out)
  if not knobs.columns.question or not (knobs.columns.answer or knobs.columns.solution):
    raise UserError(f"{where}.columns: there must be a name for question, and for answer or solution")
  if not 0 <= knobs.max_too_long <= 1:
    raise UserError(f"{where}.max_too_long {knobs.max_too_long} is no share, from 0 to 1")
  if knobs.manual_dir and not files.exists(files.path(knobs.manual_dir)):
    raise UserError(f"{where}.manual_dir: there is no folder {knobs.manual_dir}")
  if files.is_remote(files.path(knobs.data_dir)):
    raise UserError(f"{where}.data_dir {knobs.data_dir}: TFDS prepares its sets in a local folder")
  errors.at_least(1, config.vocabulary, "config.vocabulary", "size", "train_on")
  if path := vocabulary_lib.given(config):
    with errors.at("config.vocabulary.path" if config.vocabulary.path else "config.policy.init_from"):
      vocabulary_lib.load(path)
  grading.check(config.grading)


def check_count(config, root: epath.Path | None, where: str, name: str, split: str):
  """UserError where more problems are asked for than the split has, as far as that is known.

  where, name: the key that asks, as `config.search` and `num_problems`; root:
  the workdir, if there is one. Once the split is prepared it has been counted.
  """
  section = config[where.removeprefix("config.")]
  errors.all_or_some(section, where, name)
  if section[name] == -1:
    return
  folder = None if root is None else Folder(root / "problems" / split)
  if folder is not None and folder.done:
    have = folder.manifest()["counts"]["problems"]
  else:
    have = mixture_lib.most(config.problems[split], split, config.arithmetic[f"{split}_size"])
    have = have if config.problems.limit == -1 else min(have, config.problems.limit)
  if section[name] > have:
    raise UserError(f"{where}.{name} {section[name]}: there are {have} {split} problems; ask for fewer, or for -1, which is all")


def _dials(config) -> Arithmetic:
  return Arithmetic(**dict(config.arithmetic.dials) | {"operations": tuple(config.arithmetic.dials.operations)})


def run_stage(run: Run):
  """problems: publishers' files, somebody's own, or the generator -> problems/vocabulary.model, problems/<split>."""
  started = {split: run.start(f"problems/{split}", sections=["problems", "arithmetic", "vocabulary", "grading"],
                              inputs=[]) for split in mixture_lib.SPLITS}
  if all(done for _, done in started.values()):
    return
  # Only here: the door to TensorFlow takes seconds to open.
  from pav_jax.problems import tasks
  from pav_jax.problems.datasets.arithmetic import ArithmeticConfig
  knobs = run.config.problems
  sizes = {k: v for k, v in run.config.arithmetic.items() if k != "dials"}
  vocabulary_path = run.root / "problems" / "vocabulary.model"
  with _scratch() as scratch, grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
    source = tasks.Source(
        data_dir=knobs.data_dir or (scratch if files.is_remote(run.root) else run.root) / "tfds", manual_dir=knobs.manual_dir,
        validation_size=knobs.validation_size, max_malformed=knobs.max_malformed, columns=Columns(**knobs.columns),
        family=knobs.family, shared=mixture_lib.shared(knobs),
        arithmetic=ArithmeticConfig(dials=_dials(run.config), **sizes))
    sets = {split: {name: tasks.read(name, split, source) for name in tasks.names(knobs[split])} for split in mixture_lib.SPLITS}
    splits = _audited(sets, {split: folder for split, (folder, done) in started.items() if not done}, knobs, grader)
    # One that stands there with nothing made by it may be of a plan that has given way.
    if not files.exists(vocabulary_path) or not any(folder.begun for folder, _ in started.values()):
      _make_vocabulary(run.config, sets["train"], vocabulary_path)
    vocabulary, local = vocabulary_lib.load(vocabulary_path), scratch / "vocabulary.model"
    files.write(local, files.read(vocabulary_path))
    for split, found in splits.items():
      folder, mixture = started[split][0], knobs[split]
      files.write(folder.path / "vocabulary.model", files.read(local))
      start = _whole_shards(folder)
      examples = tasks.stream(found.problems, mixture, vocabulary_path=local, prompt=knobs.prompt, start=start * knobs.problems_per_shard)
      shards = _write_split(folder, split, start, examples, found, knobs, vocabulary)
      folder.finish(shards, {"mixture": mixture, "vocabulary": vocabulary.fingerprint, "steps": knobs.steps})
      _tell(folder, split)


def _tell(folder: Folder, split: str):
  counts, found = folder.manifest()["counts"], folder.read()
  left_out = sum(n for what, n in counts.items() if what not in ("problems", "tokens"))
  longest = [found[f"{name}_length_p"].max(initial=0) for name in ("prompt", "solution")]
  print(f"problems {split}: {counts['problems']} kept, {left_out} left out; longest prompt {longest[0]}, solution {longest[1]} tokens",
        file=sys.stderr)


def _audited(sets, folders: dict[str, Folder], knobs, grader) -> dict[str, Split]:
  """Looks at the problems of the splits that have a folder to be written to. sets: `tasks.Read` by split and task."""
  held_out, splits, refused = {}, {}, []
  for split in reversed(mixture_lib.SPLITS):  # test first: what is in it must be in no other
    if split in folders:
      splits[split] = _audit(split, sets[split], held_out, knobs, grader)
      said = [*itertools.chain(*splits[split].malformed.values()), *splits[split].odd]
      files.write(folders[split].path / "left_out.txt", "".join(line + "\n" for line in said))
      refused += _too_many(split, sets[split], splits[split], knobs.max_malformed, folders[split].path / "left_out.txt")
    for name, found in sets[split].items():
      if not _generated(name):
        held_out |= {audit.key(problem.question): split for problem in found.problems}
  if refused:
    raise UserError("; ".join(refused))
  return {split: splits[split] for split in mixture_lib.SPLITS if split in splits}


def _audit(split: str, sets, held_out: dict[str, str], knobs, grader) -> Split:
  """What the audit makes of a split; says on stderr what it finds."""
  # No more of a set comes into the first `limit` problems of a mixture.
  problems = {name: found.problems if knobs.limit == -1 else found.problems[:knobs.limit] for name, found in sets.items()}
  malformed, left_out, looked_at, place = {}, set(), [], {}
  for name, some in problems.items():
    # A set that was prepared knows its problems by their ids alone.
    places = [sets[name].places.get(problem.id, (name, problem.id)) for problem in some]
    place |= {id(problem): "{} row {}".format(*at) for problem, at in zip(some, places)}
    unsound = audit.unsound(some, places, grader)
    malformed[name] = [*sets[name].malformed, *(str(bad) for _, bad in unsound)]
    left_out |= {_name(problem) for problem, _ in unsound}
    looked_at += [problem for problem in some if not _generated(name) and _name(problem) not in left_out]
  findings = audit.look(looked_at, held_out, grader, imitated=split != "test")
  for line in audit.lines(findings, f"problems {split}", len(looked_at), knobs.leave_out):
    print(line, file=sys.stderr)
  odd = {_name(finding.problem): finding for finding in findings if finding.kind in knobs.leave_out}
  rows = {id(finding.problem) for finding in odd.values()}
  if twice := next((p for p in looked_at if id(p) not in rows and _name(p) in odd), None):
    raise UserError(f"{split}: {twice.id} is in two files, all alike: one cannot be left out without the other; give them other ids "
                    "(problems.columns.id), or the files other names")
  counts = collections.Counter(f"left out: {finding.kind}" for finding in odd.values())
  return Split(problems, malformed, left_out | odd.keys(),
               [f"{place[id(finding.problem)]}: {finding.kind}: {finding.said}" for finding in odd.values()], dict(counts))


def _too_many(split: str, sets, found: Split, max_malformed: int, listed: epath.Path) -> list[str]:
  """What keeps a split from being written: more than max_malformed rows of a file or set that are none, or nothing left.

  What is within the limit is told on stderr.
  """
  said = []
  for name, one in sets.items():
    bad = found.malformed[name]
    if one.counted + len(bad) - len(one.malformed) > max_malformed:
      said.append(f"{split}: {too_many(bad, len(one.problems) + len(one.malformed), max_malformed)}; all of them: {listed}")
    elif bad:
      more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
      print(f"{name} {split}: {len(bad)} rows left out: {'; '.join(bad[:3])}{more}", file=sys.stderr)
  if not said and all(_name(problem) in found.left_out for problems in found.problems.values() for problem in problems):
    said.append(f"{split}: no problem is left; what is left out, and why: {listed}")
  return said


def _generated(name: str) -> bool:
  return name in mixture_lib.SETS and name.startswith("arithmetic")


def _name(problem: Problem) -> tuple[str, str, str]:
  """What tells problems apart; two files may give the same id."""
  return problem.id, problem.question, problem.answer


@contextlib.contextmanager
def _scratch() -> Iterator[epath.Path]:
  """A local folder while the block lasts: for TensorFlow, which reads files and not bytes."""
  try:
    folder = tempfile.TemporaryDirectory(prefix="pav_jax_")
  except OSError as error:
    raise UserError(f"no temporary folder can be made (TMPDIR): {files.reason(error)}") from error
  with folder:
    yield files.path(folder.name)


def _make_vocabulary(config, sets, path):
  section = config.vocabulary
  if found := vocabulary_lib.given(config):
    vocabulary_lib.load(found)
    files.write(path, vocabulary_lib.model_of(found))
    return
  texts = []
  for found in sets.values():
    for problem in found.problems[:section.train_on]:
      texts.append(config.problems.prompt.replace("{question}", problem.question) + problem.solution)
  vocabulary_lib.train(texts, section.size, path)


def _whole_shards(folder: Folder) -> int:
  """How many shards are there already."""
  shard = 0
  while folder.has_shard(shard):
    shard += 1
  return shard


def _write_split(folder: Folder, split: str, shard: int, examples: Iterator[dict], found: Split, knobs, vocabulary) -> int:
  """Writes the shards from `shard` on, of the examples from there on, and returns how many there are."""
  if knobs.limit != -1:
    examples = itertools.islice(examples, max(0, knobs.limit - shard * knobs.problems_per_shard))
  lengths = []
  with metrics.progress(what=f"problems {split}", unit="problem", initial=shard * knobs.problems_per_shard) as bar:
    while some := list(itertools.islice(examples, knobs.problems_per_shard)):
      kept = [e for e in some if (e["id"], e["question"], e["answer"]) not in found.left_out]
      lengths += map(_lengths, kept)
      arrays, counts = _arrays(kept, knobs, vocabulary)
      counts["malformed"] = 0 if shard else sum(map(len, found.malformed.values()))  # of the files behind the split
      counts |= {} if shard else found.odd_counts
      if counts["too long"] > knobs.max_too_long * len(some):
        # Of those still to come, too: one who makes room wants to do so once.
        lengths += [_lengths(e) for e in examples if (e["id"], e["question"], e["answer"]) not in found.left_out]
        raise UserError(
            f"{split}: {counts['too long']} of {len(some)} problems are longer than problems.max_prompt = "
            f"{knobs.max_prompt} or problems.max_solution = {knobs.max_solution} tokens ({_longest(lengths)}); "
            f"a share of problems.max_too_long = {knobs.max_too_long} may be left out")
      folder.write_shard(shard, arrays, counts)
      bar.update(len(some))
      shard += 1
  return shard


def _lengths(example: dict) -> tuple[int, int]:
  return len(example["prompt_t"]), len(example["response_t"])


def _longest(lengths: list[tuple[int, int]]) -> str:
  """Of prompts' and solutions' lengths the greatest, and those that 99 % of them do not exceed."""
  (prompt, solution), (most_prompt, most_solution) = np.percentile(lengths, (100, 99), axis=0, method="inverted_cdf")
  return f"longest prompt {prompt}, solution {solution}; 99 % are up to {most_prompt} and {most_solution}"


def _arrays(examples: list[dict], knobs, vocabulary) -> tuple[dict[str, np.ndarray], dict[str, int]]:
  fits = [e for e in examples if len(e["prompt_t"]) <= knobs.max_prompt and len(e["response_t"]) <= knobs.max_solution]
  arrays = {f"{name}_p": np.array([e[name] for e in fits], dtype=str) for name in ("id", "dataset", "question", "answer")}
  for name, field, width in (("prompt", "prompt_t", knobs.max_prompt), ("solution", "response_t", knobs.max_solution)):
    arrays[f"{name}_pt"] = np.full((len(fits), width), vocabulary.pad_id, np.int32)
    for row, example in enumerate(fits):
      arrays[f"{name}_pt"][row, :len(example[field])] = example[field]
    arrays[f"{name}_length_p"] = np.array([len(e[field]) for e in fits], np.int32)
  counts = {"problems": len(fits), "too long": len(examples) - len(fits),
            "tokens": int(arrays["prompt_length_p"].sum() + arrays["solution_length_p"].sum())}
  return arrays, counts

