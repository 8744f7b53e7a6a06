"""What the texts of a checkpoint were made with: vocabulary, prompt, rule of steps.

A run keeps them with its problems, WORKDIR/problems/<split>. A checkpoint lies
below the same WORKDIR, so they are looked for in the folders above it.
"""

from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.problems import fields
from pav_jax.problems import mixture
from pav_jax.problems import prepared
from pav_jax.problems import steps as steps_lib
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import checkpoint as checkpoint_lib
from pav_jax.training import files
from pav_jax.training.records import Folder


class Home(NamedTuple):
  """vocabulary: with the rule in it (vocabulary.py); prompt: a template with {question}; steps: the rule's name."""

  vocabulary: vocabulary_lib.Vocabulary
  prompt: str
  steps: str

  def prompt_t(self, question: str) -> np.ndarray:
    """int32: bos and the prompt of a question, as stage `problems` makes it."""
    text = fields.with_newlines(question).join(self.prompt.split("{question}"))
    return np.array([self.vocabulary.bos_id, *self.vocabulary.encode(text)], np.int32)


def of(checkpoint: str, *, vocabulary: str = "", prompt: str = "", steps: str = "") -> Home:
  """The home of a checkpoint, a step's folder or one of steps, or of weights of others.

  vocabulary: a SentencePiece file (weights of others have their own, if it lies with them); prompt: a template; steps: a rule's name.
  Each wins over what the run says, and must be given where no run is found.

  Raises UserError for no checkpoint, no run and nothing given in its place, or
  a vocabulary that is not the checkpoint's.
  """
  foreign = architecture.is_foreign(checkpoint)
  fingerprint = "" if foreign else checkpoint_lib.read_meta(checkpoint)["vocabulary"]
  folder = _problems(files.path(checkpoint))
  vocabulary = vocabulary or (checkpoint if foreign and folder is None else "")
  given = {"vocabulary": vocabulary, "prompt": prompt, "steps": steps}
  missing = [name for name, value in given.items() if not value]
  if folder is None and missing:
    raise UserError(f"checkpoint {checkpoint}: no folder above it has a run's problems/, so its texts are unknown: give "
                    + " and ".join({"vocabulary": "vocabulary=FILE.model", "prompt": "prompt='{question}\\n'",
                                    "steps": f"steps={'|'.join(steps_lib.RULES)}"}[name] for name in missing))
  if missing:
    manifest = folder.manifest()
    prompt = prompt or manifest["config"]["problems"]["prompt"]
    # Problems prepared before there was a choice have lines.
    steps = steps or manifest["facts"].get("steps", "newline")
  steps_lib.check(steps)
  mixture.check_prompt(prompt)
  found = vocabulary_lib.load(vocabulary or prepared.vocabulary(folder).path, steps)
  if fingerprint and found.fingerprint != fingerprint:
    raise UserError(f"checkpoint {checkpoint} was trained with another vocabulary than {found.path}: give vocabulary=FILE.model")
  return Home(found, prompt, steps)


def _problems(path: epath.Path) -> Folder | None:
  """The first finished split of the nearest run above the path; None if there is none."""
  for above in path.parents:
    for split in mixture.SPLITS:
      folder = Folder(above / "problems" / split)
      if folder.done:
        return folder
  return None
