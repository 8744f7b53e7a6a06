"""What the TFDS builders share: features, finding the publisher's files, reporting malformed rows."""

import dataclasses
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Mapping

from etils import epath
import tensorflow_datasets as tfds

from pav_jax.errors import UserError
from pav_jax.problems.problem import Malformed, Problem, sift
from pav_jax.training import files

FIELDS = tuple(field.name for field in dataclasses.fields(Problem))


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
  """max_malformed: how many rows may be left out, beyond the oddities known of the publisher's files."""

  max_malformed: int = 0


def info(builder: tfds.core.DatasetBuilder, description: str, homepage: str, citation: str) -> tfds.core.DatasetInfo:
  """Five texts, kept in the order of the files."""
  return tfds.core.DatasetInfo(
      builder=builder, description=description, homepage=homepage, citation=citation,
      features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in FIELDS}),
      supervised_keys=("question", "answer"), disable_shuffling=True, metadata=tfds.core.MetadataDict())


def find(dl_manager: tfds.download.DownloadManager, names: Collection[str], url: str) -> epath.Path:
  """The first of `names` in the manual directory, else what `url` gives; a UserError if neither works."""
  try:
    manual = files.path(dl_manager.manual_dir)
  except AssertionError:
    # TFDS says so of a directory that is absent or empty.
    manual = None
  for name in names if manual else ():
    if files.exists(manual / name):
      return manual / name
  try:
    # TFDS tries ten times over 200 s before it says that there is no network; this says it at once.
    urllib.request.urlopen(url, timeout=20).close()
    return files.path(dl_manager.download(url))
  except Exception as error:  # Whatever the network does, the way out is the same.
    raise UserError(f"none of {', '.join(names)} in the manual directory {manual or '(absent or empty)'}, "
                    f"and {url} cannot be downloaded ({type(error).__name__})") from error


def generators(builder: tfds.core.DatasetBuilder, rows_by_split: Mapping[str, Iterable[Problem | Malformed]],
               known: Collection[str] = ()) -> dict[str, Iterator]:
  """Reads every split before the first is written; what is left out stays in the metadata."""
  found, left_out = {}, {}
  for split, rows in rows_by_split.items():
    problems, malformed = sift(rows, max_malformed=builder.builder_config.max_malformed, known=known)
    found[split] = ((problem.id, dataclasses.asdict(problem)) for problem in problems)
    left_out[split] = [str(bad) for bad in malformed]
  builder.info.metadata["malformed"] = left_out
  return found
