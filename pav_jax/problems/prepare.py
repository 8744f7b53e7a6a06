"""The first stage: problems as token ids on disk, so that nothing after it needs TensorFlow.

  1. The vocabulary: a SentencePiece file by path, or one trained on the
     training split's own text.
  2. Each split's examples in their fixed order, this host's share, from the
     position where an earlier run stopped; written in shards.
  3. A prompt or solution longer than its limit is left out and counted; where
     their share of a shard is above `max_too_long`, that is an error.
  4. Malformed rows, left out where `max_malformed` lets them, are counted too.
  5. Every reference answer is checked to be one that grading understands.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Iterator

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.problems import mixture as mixture_lib
from pav_jax.problems import steps
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.problems.arithmetic import Arithmetic
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training.records import Folder
from pav_jax.training.run import Run


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the sections problems, arithmetic, vocabulary and grading, or names what is not there."""
  knobs, where = config.problems, "config.problems"
  with errors.at(f"{where}.prompt"):
    mixture_lib.check_prompt(knobs.prompt)
  steps.check(knobs.steps)
  for split in mixture_lib.SPLITS:
    with errors.at(f"{where}.{split}"):
      mixture_lib.check(knobs[split], split)
    if "arithmetic" in mixture_lib.rates(knobs[split]):
      _dials(config)
  errors.at_least(1, config.arithmetic, "config.arithmetic", "train_size", "validation_size", "test_size")
  if len({config.arithmetic[f"{split}_seed"] for split in mixture_lib.SPLITS}) < 3:
    raise UserError("config.arithmetic: train_seed, validation_seed and test_seed must differ")
  errors.at_least(1, knobs, where, "max_prompt", "max_solution", "problems_per_shard")
  errors.at_least(0, knobs, where, "validation_size", "max_malformed")
  errors.all_or_some(knobs, where, "limit")
  if not 0 <= knobs.max_too_long <= 1:
    raise UserError(f"{where}.max_too_long {knobs.max_too_long} is no share, from 0 to 1")
  if knobs.manual_dir and not files.exists(files.path(knobs.manual_dir)):
    raise UserError(f"{where}.manual_dir: there is no folder {knobs.manual_dir}")
  if files.is_remote(files.path(knobs.data_dir)):
    raise UserError(f"{where}.data_dir {knobs.data_dir}: TFDS prepares its sets in a local folder")
  errors.at_least(1, config.vocabulary, "config.vocabulary", "size", "train_on")
  if config.vocabulary.path:
    with errors.at("config.vocabulary.path"):
      vocabulary_lib.load(config.vocabulary.path)
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
  """problems: publishers' files, or the generator -> problems/vocabulary.model, problems/<split>."""
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
  with _scratch() as scratch:
    source = dict(
        data_dir=knobs.data_dir or (scratch if files.is_remote(run.root) else run.root) / "tfds", manual_dir=knobs.manual_dir,
        validation_size=knobs.validation_size, max_malformed=knobs.max_malformed,
        arithmetic=ArithmeticConfig(dials=_dials(run.config), **sizes))
    # One that stands there with nothing made by it may be of a plan that has given way.
    if not files.exists(vocabulary_path) or not any(folder.begun for folder, _ in started.values()):
      _make_vocabulary(run.config.vocabulary, knobs, source, tasks, vocabulary_path)
    vocabulary, local = vocabulary_lib.load(vocabulary_path), scratch / "vocabulary.model"
    files.write(local, files.read(vocabulary_path))
    for split, (folder, done) in started.items():
      if done:
        continue
      files.write(folder.path / "vocabulary.model", files.read(local))
      mixture = knobs[split]
      with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
        shards = _write_split(folder, split, mixture, knobs, source, tasks, vocabulary, local, grader)
      folder.finish(shards, {"mixture": mixture, "vocabulary": vocabulary.fingerprint, "steps": knobs.steps})


@contextlib.contextmanager
def _scratch() -> Iterator[epath.Path]:
  """A local folder while the block lasts: for TensorFlow, which reads files and not bytes."""
  try:
    folder = tempfile.TemporaryDirectory(prefix="pav_jax_")
  except OSError as error:
    raise UserError(f"no temporary folder can be made (TMPDIR): {files.reason(error)}") from error
  with folder:
    yield files.path(folder.name)


def _make_vocabulary(section, knobs, source, tasks, path):
  if section.path:
    vocabulary_lib.load(section.path)
    files.write(path, files.read(files.path(section.path)))
    return
  texts = []
  for name in tasks.names(knobs.train):
    for problem in itertools.islice(tasks.load(name, "train", **source), section.train_on):
      texts.append(knobs.prompt.format(question=problem.question) + problem.solution)
  vocabulary_lib.train(texts, section.size, path)


def _write_split(folder: Folder, split, mixture, knobs, source, tasks, vocabulary, vocabulary_path, grader) -> int:
  """Writes the shards that are missing and returns how many there are."""
  shard, malformed = 0, tasks.count_malformed(mixture, split, **source)
  while folder.has_shard(shard):
    shard += 1
  examples = tasks.examples(mixture, split, vocabulary_path=vocabulary_path, prompt=knobs.prompt,
                            start=shard * knobs.problems_per_shard, **source)
  if knobs.limit != -1:
    examples = itertools.islice(examples, max(0, knobs.limit - shard * knobs.problems_per_shard))
  with metrics.progress(what=f"problems {split}", unit="problem", initial=shard * knobs.problems_per_shard) as bar:
    while some := list(itertools.islice(examples, knobs.problems_per_shard)):
      arrays, counts = _arrays(some, knobs, vocabulary)
      counts["malformed"] = 0 if shard else malformed  # of the files behind the split
      if counts["too long"] > knobs.max_too_long * len(some):
        raise UserError(
            f"{split}: {counts['too long']} of {len(some)} problems are longer than problems.max_prompt = "
            f"{knobs.max_prompt} or problems.max_solution = {knobs.max_solution} tokens; "
            f"a share of problems.max_too_long = {knobs.max_too_long} may be left out")
      grader.require_sound([str(a) for a in arrays["answer_p"]], [str(d) for d in arrays["dataset_p"]],
                           [str(i) for i in arrays["id_p"]])
      folder.write_shard(shard, arrays, counts)
      bar.update(len(some))
      shard += 1
  return shard


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

