"""What a verifier learns from, as rows: labels of our own policy by Monte Carlo, those of others, or both side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pav_jax.grading import grading
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.values import imported as imported_lib
from pav_jax.values import monte_carlo
from pav_jax.verifiers import targets as targets_lib

SOURCES = ("monte_carlo", "imported", "both")
FROM_OTHERS = targets_lib.VALUES  # kinds that learn from labels of others, too


class Taught(NamedTuple):
  """Responses after their prompts, with targets at their prefixes.

  end_bz as in `monte_carlo.Values`; target_bz in [0, 1], NaN where nothing is
  said; count_bz: outcomes a target is the mean of. labels_b: how many labels a row
  has; useful_b: bool, whether it is trained on.
  """

  problem_b: np.ndarray
  prompt_bt: np.ndarray
  prompt_length_b: np.ndarray
  token_bt: np.ndarray
  length_b: np.ndarray
  end_bz: np.ndarray
  target_bz: np.ndarray
  count_bz: np.ndarray
  labels_b: np.ndarray
  useful_b: np.ndarray


def own(kind: str, knobs, problems: prepared.Problems, rollouts: collect.Rollouts, values: monte_carlo.Values) -> Taught:
  """Our labels as a verifier of this kind takes them; knobs: the section verifier."""
  labels = values
  if kind == "q" and knobs.own_outcomes:
    labels = monte_carlo.with_own_outcome(values, rollouts.verdict_b == grading.Verdict.CORRECT)
  target_bz = targets_lib.targets(kind, labels, knobs)
  count_bz = labels.continuations_bz if kind == "q" else np.ones(target_bz.shape)
  labels_b, end_bz = (~np.isnan(target_bz)).sum(axis=1), values.end_bz
  if kind == "q" and knobs.every_token:
    target_bz, count_bz, end_bz = targets_lib.every_token(target_bz, count_bz, end_bz, rollouts.token_bt.shape[1])
  # A seed of which only the outcome is known is the ORM's alone.
  useful_b = labels_b >= (2 if kind in targets_lib.VALUES else 1)
  return Taught(rollouts.problem_b, problems.prompt_pt[rollouts.problem_b], problems.prompt_length_p[rollouts.problem_b],
                rollouts.token_bt, rollouts.length_b, end_bz, target_bz, count_bz, labels_b, useful_b)


def others(kind: str, knobs, imported: imported_lib.Imported) -> Taught:
  """Labels of others, of kind q as they are; of hard and drop, 1 where theirs is above 0, which weighs once. knobs: as above."""
  target_bz, count_bz = imported.q_bz, imported.count_bz
  if kind != "q":
    target_bz = targets_lib.process_labels(kind, target_bz, **targets_lib.thresholds(knobs))
    count_bz = (~np.isnan(target_bz)).astype(count_bz.dtype)
  labels_b = (count_bz > 0).sum(axis=1)
  return Taught(imported.problem_b, imported.prompt_bt, imported.prompt_length_b, imported.token_bt, imported.length_b,
                imported.end_bz, target_bz, count_bz, labels_b, labels_b >= 1)


def joined(parts: Sequence[Taught]) -> Taught:
  """All rows, one part after the other. Where there are several, problems whose prompts are the same are one problem."""
  if len(parts) == 1:
    return parts[0]
  number, fills, columns = {}, {"end_bz": -2, "target_bz": np.nan}, {}
  for name in Taught._fields[1:]:
    xs = [getattr(part, name) for part in parts]
    if xs[0].ndim == 2:
      width = max(x.shape[1] for x in xs)
      xs = [np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=fills.get(name, 0)) for x in xs]
    columns[name] = np.concatenate(xs)
  return Taught(np.concatenate([_numbered(part, number) for part in parts]), **columns)


def _numbered(part: Taught, number: dict[bytes, int]) -> np.ndarray:
  """A number for each problem, by its first row's prompt; number grows."""
  _, first, of_b = np.unique(part.problem_b, return_index=True, return_inverse=True)
  prompts = [part.prompt_bt[b, :part.prompt_length_b[b]].astype(np.int32).tobytes() for b in first]
  return np.array([number.setdefault(prompt, len(number)) for prompt in prompts])[of_b]
