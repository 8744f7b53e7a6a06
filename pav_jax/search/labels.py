"""What the labels behind a verifier cost: tokens of seed responses and of their continuations.

A verifier has learnt from rollouts/ and values/ of a run: of the run in whose
folder its checkpoint lies. One that learns outcomes alone needs no continuation.
Search FLOPs leave this out, so it is reported beside them.
"""

from collections.abc import Iterable
from collections.abc import Mapping

from etils import epath

from pav_jax.training import files
from pav_jax.training import records

# Kinds of verifiers that are trained on the outcomes of seed responses alone.
OUTCOMES = ("orm", "implicit")


def behind(checkpoint: str, kind: str) -> dict[str, int] | None:
  """Folder of records -> its tokens, of all that taught this verifier; None where its run is not to be found.

  kind: what the verifier says.
  """
  root = run_of(checkpoint)
  return root and _tokens(root, ("rollouts",) if kind in OUTCOMES else ("rollouts", "values"))


def run_of(checkpoint: str) -> epath.Path | None:
  """The nearest folder above a checkpoint that has rollouts in it; None where there is none."""
  return next((root for root in files.path(checkpoint).parents if records.Folder(root / "rollouts").done), None)


def _tokens(root: epath.Path, names: Iterable[str]) -> dict[str, int] | None:
  found = {str(root / name): records.Folder(root / name) for name in names}
  if not all(folder.done for folder in found.values()):
    return None
  return {path: folder.manifest()["counts"]["tokens"] for path, folder in found.items()}


def together(of: Mapping[str, Mapping[str, int] | None], names: Iterable[str]) -> int | None:
  """Tokens behind all these verifiers, what they share counted once; None where one's are not known."""
  each = [of.get(name) for name in names]
  if any(x is None for x in each):
    return None
  return sum({path: tokens for x in each for path, tokens in x.items()}.values())
