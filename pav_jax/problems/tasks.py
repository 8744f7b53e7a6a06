"""Problems as token ids, through seqio: with `datasets/`, the only door to TensorFlow.

1. A mixture names its tasks and rates: "math_prm800k", or "gsm8k:1,math_prm800k:3".
2. Each task's problems are read once: a prepared TFDS set (prepared here when
   absent), or a user's file (`files/`). Where a set has no validation split, or
   one file stands for train and validation, it is carved out of train by the
   hashes of the ids, the same for ever.
3. Item i of an endless task is row `permutation_e[i mod N]` of epoch e = i // N;
   the permutation depends on (seed, e) alone, so item i costs the same for
   every i, and a run resumes at any item.
4. Of w hosts, host j takes the items j, j + w, j + 2w, ...
5. Rows become `prompt_t` (bos + prompt) and `response_t` (solution + eos), by
   `Vocabulary.encode`, as everywhere: TensorFlow's own SentencePiece would read
   a scoring token where a text only spells one.

Tasks and mixtures are seqio's, but not in its registry: they hold the run's
paths, and two runs in a process must not find each other's.
"""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from pav_jax.training import noise

# On a machine without a GPU TensorFlow reports that as an error; what matters it raises.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

with noise.hushed():  # it greets on stderr, whatever the level
  import seqio
  import tensorflow as tf
  import tensorflow_datasets as tfds

from pav_jax.errors import UserError
from pav_jax.problems import mixture as mixture_lib
from pav_jax.problems import vocabulary
from pav_jax.problems.datasets import arithmetic as arithmetic_builder
from pav_jax.problems.datasets import builder as builder_lib
from pav_jax.problems.datasets import gsm8k as gsm8k_builder
from pav_jax.problems.datasets import math as math_builder
from pav_jax.problems.files import columns as columns_lib
from pav_jax.problems.files import door
from pav_jax.problems.problem import EMPTY_BOXES
from pav_jax.problems.problem import Problem
from pav_jax.problems.problem import part
from pav_jax.problems.problem import too_many
from pav_jax.training import files
from pav_jax.training import metrics

# The accelerator is JAX's.
tf.config.set_visible_devices([], "GPU")
tfds.disable_progress_bar()

PROMPT = "Question: {question}\nAnswer:\n"

Path = str | os.PathLike


class Source(NamedTuple):
  """Where problems come from.

  data_dir: where prepared sets are kept.  manual_dir: the publishers' files.
  validation_size: how many of train are for validation, where a set has no such split; generated ones have.
  max_malformed: how many rows may be left out.
  columns, family: the columns of files, and how their answers are compared (`files/columns.py`).
  shared: the files that are parted into train and validation (`mixture.shared`).
  arithmetic: dials of the task `arithmetic`.
  """

  data_dir: Path
  manual_dir: Path
  validation_size: int = 500
  max_malformed: int = 0
  columns: columns_lib.Columns = columns_lib.Columns()
  family: str = "math"
  shared: Collection[str] = ()
  arithmetic: arithmetic_builder.ArithmeticConfig | None = None


class Read(NamedTuple):
  """A split of a task: its problems, the rows that are none (in words), and how many of these count against `max_malformed`.

  places: by a problem's id the file and the row that it is from; of a prepared set nothing.
  """

  problems: list[Problem]
  malformed: list[str]
  counted: int
  places: Mapping[str, tuple[str, str]]


def load(name: str, split: str, source: Source) -> list[Problem]:
  """The problems of one task's split, in the publisher's order.

  name: gsm8k, gsm8k_notes, math, math_prm800k, arithmetic_default,
    arithmetic_small, arithmetic (with its dials), or the path of a file or
    folder (`files/door.py`). UserError for more than max_malformed malformed rows.
  """
  found = read(name, split, source)
  if found.counted > source.max_malformed:
    raise UserError(too_many(found.malformed, len(found.problems) + len(found.malformed), source.max_malformed))
  return found.problems


def read(name: str, split: str, source: Source) -> Read:
  """`load` of a path whatever the number of malformed rows, for one who will find more of them (`audit`)."""
  if split not in mixture_lib.SPLITS:
    raise UserError(f"split {split!r} is none of {', '.join(mixture_lib.SPLITS)}")
  mixture_lib.check_name(name)
  places = {}
  if door.is_path(name):
    with metrics.progress(door.located(name, split, source.columns, source.family), what=f"reading {split}", unit="row", delay=3) as rows:
      found = list(rows)
    problems, malformed = part(row for _, _, row in found)
    places = {row.id: (path, number) for path, number, row in found if isinstance(row, Problem)}
    if not problems and len(malformed) <= source.max_malformed:
      raise UserError(f"{name} {split}: no problem among {len(malformed)} rows" + (f": {malformed[0]}" if malformed else ""))
    left_out, counted, carved = list(map(str, malformed)), len(malformed), name in source.shared and not door.files_of(name, split)[1]
  else:
    problems, left_out, carved = _prepared(name, split, source)
    counted = sum(not any(known in bad for known in EMPTY_BOXES) for bad in left_out)
  if carved and split != "test":
    train, validation = _carve(problems, source.validation_size, name)
    problems = train if split == "train" else validation
  return Read(problems, left_out, counted, places)


def _prepared(name: str, split: str, source: Source) -> tuple[list[Problem], list[str], bool]:
  """(problems, what was left out, whether they are those of train, of which validation is a part)."""
  with _opening(name, source.data_dir):
    builder = _builder(name, source.data_dir, source.max_malformed, source.arithmetic)
    prepared = builder.is_prepared()
  if not prepared:
    try:
      with contextlib.redirect_stdout(io.StringIO()):  # where it says what it does
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=os.fspath(source.manual_dir)))
    except (OSError, tf.errors.OpError) as error:
      raise UserError(f"{name}: cannot prepare in data_dir {source.data_dir}: {files.reason(error)}") from error
  with _opening(name, source.data_dir):
    whole = split == "test" or "validation" in builder.info.splits
    split = split if whole else "train"
    return _read(builder, split), builder.info.metadata["malformed"][split], not whole


@contextlib.contextmanager
def _opening(name: str, data_dir) -> Iterator[None]:
  """What TFDS, TensorFlow and protobuf raise for a damaged set has no common base."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    reason = files.reason(error).rpartition("}} ")[2]
    raise UserError(f"{name}: the set prepared in {data_dir} is damaged ({reason}); remove it, and it is prepared anew") from error


def examples(mixture: str, split: str, source: Source, **settings) -> Iterator[dict[str, np.ndarray | str]]:
  """This host's examples of a mixture's split; settings: those of `stream`."""
  return stream({name: load(name, split, source) for name in names(mixture)}, mixture, **settings)


def stream(problems: Mapping[str, Sequence[Problem]], mixture: str, *, vocabulary_path: Path, prompt: str = PROMPT,
           shard: int = 0, num_shards: int = 1, seed: int | None = None, start: int = 0,
           repeat: bool = False) -> Iterator[dict[str, np.ndarray | str]]:
  """This host's examples, from its `start`-th on.

  Each holds int32 `prompt_t` and `response_t` (empty without a solution) and
  the texts id, dataset, question, solution, answer.

  problems: those of each task.
  mixture: a task, or tasks with rates, "gsm8k:1,math_prm800k:3"; see `load` for names.
  seed: shuffles every epoch anew; None keeps the publisher's order.
  repeat: endless; else every problem comes once, from a mixture too.
  """
  if not 0 <= shard < num_shards:
    raise UserError(f"shard {shard} is not in 0..{num_shards - 1}")
  if start < 0 or (seed is not None and seed < 0):
    raise UserError(f"start {start} and seed {seed} must not be negative")
  rates = mixture_lib.rates(mixture)
  mixture_lib.check_prompt(prompt)
  pieces = vocabulary.load(vocabulary_path)
  feature = seqio.Feature(seqio.PassThroughVocabulary(pieces.size, eos_id=pieces.eos_id), add_eos=False)
  features = {"prompt_t": feature, "response_t": feature}
  sets = [problems[name] for name in rates]
  sizes = [np.inf if repeat else len(range(shard, len(some), num_shards)) for some in sets]
  starts, choices = _choices(list(rates.values()), sizes, 0 if seed is None else seed, start)
  tasks = []
  for i, (name, some) in enumerate(zip(rates, sets)):
    items = _items(some, shard, num_shards, seed, starts[i], repeat)
    # seqio sorts a mixture's tasks by their names; the number in front keeps ours in place.
    tasks.append(seqio.Task(
        f"{i:03}_{re.sub(r'[^A-Za-z0-9]', '_', name)}",
        seqio.FunctionDataSource(lambda split, shuffle_files, seed=None, items=items: items, ["all"]),
        features, preprocessors=[_tokens(prompt, pieces)], shuffle_buffer_size=None))
  dataset = seqio.Mixture(
      "mixture", list(zip(tasks, rates.values())),
      sample_fn=lambda datasets, *_: tf.data.Dataset.choose_from_datasets(datasets, choices)).get_dataset(
          split="all", shuffle=False, num_epochs=1, passthrough_features=builder_lib.FIELDS)
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = 2
  return map(_plain, dataset.with_options(options).as_numpy_iterator())


def names(mixture: str) -> list[str]:
  """The tasks of a mixture, in its order."""
  return list(mixture_lib.rates(mixture))


def _builder(name, data_dir, max_malformed, arithmetic) -> tfds.core.DatasetBuilder:
  if name == "arithmetic":
    config = arithmetic or arithmetic_builder.ArithmeticConfig()
    return arithmetic_builder.PavArithmetic(data_dir=os.fspath(data_dir), config=config)
  found = {
      "gsm8k": (gsm8k_builder.PavGsm8k, "plain"),
      "gsm8k_notes": (gsm8k_builder.PavGsm8k, "notes"),
      "math": (math_builder.PavMath, "hendrycks"),
      "math_prm800k": (math_builder.PavMath, "prm800k"),
      "arithmetic_default": (arithmetic_builder.PavArithmetic, "default"),
      "arithmetic_small": (arithmetic_builder.PavArithmetic, "small"),
  }
  builder_cls, config = found[name]
  if max_malformed:
    # A set of its own, so that a run that allows none never reads what another has prepared with gaps.
    config = dataclasses.replace(builder_cls.builder_configs[config], name=f"{config}_max{max_malformed}",
                                 max_malformed=max_malformed)
  return builder_cls(data_dir=os.fspath(data_dir), config=config)


def _read(builder: tfds.core.DatasetBuilder, split: str) -> list[Problem]:
  # All rows as one batch: a row at a time costs a millisecond each.
  columns = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
  texts = ([text.decode() for text in columns[name]] for name in builder_lib.FIELDS)
  return [Problem(*row) for row in zip(*texts)]


def _carve(problems: Sequence[Problem], size: int, name: str) -> tuple[list[Problem], list[Problem]]:
  """(train, validation): validation is the `size` problems whose ids have the smallest hashes."""
  if not 0 <= size < len(problems):
    raise UserError(f"validation_size {size}: {name} has {len(problems)} problems to train on")
  by_hash = sorted(problems, key=lambda problem: hashlib.sha256(problem.id.encode()).digest())
  chosen = {problem.id for problem in by_hash[:size]}
  return [p for p in problems if p.id not in chosen], [p for p in problems if p.id in chosen]


def _choices(rates: Sequence[float], sizes: Sequence[float], seed: int,
             start: int) -> tuple[list[int], tf.data.Dataset]:
  """How many items each task has given before item `start`, and which task gives each from there on.

  Drawn by rates; a task that is used up (never, for a size of infinity) is
  passed over, so that no problem is lost.
  """
  share_k = np.array(rates) / sum(rates)

  def blocks():
    used_k, left_k = np.zeros(len(rates), np.int64), np.array(sizes)
    for block in itertools.count():
      if not left_k.any():
        return
      draw_i = np.random.default_rng([seed, block]).choice(len(rates), 1024, p=share_k)
      keep_i = np.zeros(len(draw_i), bool)
      for k in range(len(rates)):
        mine_i = draw_i == k
        keep_i |= mine_i & (np.cumsum(mine_i) <= left_k[k])
      given_k = np.bincount(draw_i[keep_i], minlength=len(rates))
      left_k = left_k - given_k
      yield used_k, draw_i[keep_i]
      used_k = used_k + given_k

  def resumed():
    """(how many each task had given, the choices that follow), the first block cut at `start`."""
    for used_k, draw_i in blocks():
      skip = max(start - int(used_k.sum()), 0)
      if skip < len(draw_i):
        yield used_k + np.bincount(draw_i[:skip], minlength=len(rates)), draw_i[skip:]

  starts = next((used_k.tolist() for used_k, _ in resumed()), None)
  if starts is None:
    # A finite mixture that ended before `start`.
    return [int(size) for size in sizes], tf.data.Dataset.range(0)
  stream = tf.data.Dataset.from_generator(
      lambda: (draw_i for _, draw_i in resumed()), output_signature=tf.TensorSpec([None], tf.int64))
  return starts, stream.unbatch()


def _items(problems, shard, num_shards, seed, start, repeat) -> tf.data.Dataset:
  """Rows number shard + i * num_shards of the order, for i = start, start + 1, ..."""
  count = len(problems)
  columns = {name: tf.constant([getattr(problem, name) for problem in problems]) for name in builder_lib.FIELDS}

  def row(item):
    epoch, position = item // count, item % count
    if seed is not None:
      key = tf.stack([tf.constant(seed, tf.int64), epoch])
      position = tf.random.experimental.index_shuffle(position, key, count - 1)
    return {name: tf.gather(column, position) for name, column in columns.items()}

  stop = np.iinfo(np.int64).max if repeat else count
  return tf.data.Dataset.range(shard + start * num_shards, stop, num_shards).map(row)


def _tokens(prompt: str, pieces: vocabulary.Vocabulary):
  """A preprocessor: adds `prompt_t` and `response_t` to a row's texts."""
  def prompt_ids(question: bytes) -> np.ndarray:
    return np.array([pieces.bos_id, *pieces.encode(prompt.replace("{question}", question.decode()))], np.int32)

  def response_ids(solution: bytes) -> np.ndarray:
    # A problem without a solution demonstrates nothing, least of all to stop at once.
    return np.array([*pieces.encode(solution.decode()), pieces.eos_id] if solution else [], np.int32)

  def tokens(row):
    ids = {name: tf.numpy_function(encode, [row[field]], tf.int32, stateful=False)
           for name, encode, field in (("prompt_t", prompt_ids, "question"), ("response_t", response_ids, "solution"))}
    return {**row, **{name: tf.ensure_shape(ids_t, [None]) for name, ids_t in ids.items()}}

  return lambda dataset, output_features: dataset.map(tokens, num_parallel_calls=2)


def _plain(row: dict) -> dict[str, np.ndarray | str]:
  return {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
