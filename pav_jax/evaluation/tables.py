"""From the records of the search stage to rows: accuracy, interval and cost of every method at every N.

  1. Samples and beams become cells: a method at an N, its accuracy per problem
     and seed, its mean cost per problem.
  2. `search_rows`: a row per cell, with the 95 % interval.
  3. `comparisons`: each PAV beam against the others at equal N, and against the
     independent samples at equal FLOPs or tokens: the smallest N whose mean
     cost is at least the beam's, so that a baseline never has less. Where more
     samples are needed than were drawn the row says so and has no accuracy.

Costs of N independent samples: each prompt once plus N mean samples; what uses
no verifier does not pay one. Pure functions on arrays; here s counts seeds.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pav_jax.evaluation import intervals
from pav_jax.search import best_of_n

UNVERIFIED = ("pass_at_n", "majority")
INDEPENDENT = (*UNVERIFIED, "weighted_vote", "orm_best_of_n", "q_best_of_n", "pav_best_of_n")
# What needs the reference answer to choose; no method one could use.
ORACLES = ("pass_at_n", "q_beam_pass", "pav_beam_pass")
_COSTS = {"prompt_tokens": "prompt_p", "generated_tokens": "generated_p", "verifier_tokens": "scored_p",
          "policy_flops": "policy_flops_p", "verifier_flops": "verifier_flops_p"}


class Samples(NamedTuple):
  """max_n independent samples per seed and problem; the costs of prompts do not depend on the seed."""

  right_spn: np.ndarray
  answer_spn: np.ndarray
  length_spn: np.ndarray
  orm_spn: np.ndarray
  q_spn: np.ndarray
  pav_spn: np.ndarray
  policy_flops_spn: np.ndarray
  verifier_flops_spn: np.ndarray
  prompt_length_sp: np.ndarray
  policy_prompt_flops_sp: np.ndarray
  verifier_prompt_flops_sp: np.ndarray


class Cell(NamedTuple):
  """A method at an N (a beam: its width): accuracy_ps in [0, 1], and mean costs per problem."""

  method: str
  n: int
  accuracy_ps: np.ndarray
  prompt_tokens: float
  generated_tokens: float
  verifier_tokens: float
  policy_flops: float
  verifier_flops: float

  @property
  def tokens(self) -> float:
    """Of the policy: prompt and generated."""
    return self.prompt_tokens + self.generated_tokens

  @property
  def flops(self) -> float:
    """Policy and verifier."""
    return self.policy_flops + self.verifier_flops


def samples_of(arrays: Mapping[str, np.ndarray]) -> Samples:
  """The records of search/samples, sorted by seed and problem."""
  order = np.lexsort((arrays["problem_p"], arrays["seed_p"]))
  seeds = len(np.unique(arrays["seed_p"]))
  # A record's name ends in its own letters: right_pn, prompt_length_p.
  cut = lambda name: arrays[name[:-3] + "pn" if name.endswith("_spn") else name[:-2] + "p"][order]
  return Samples(*(cut(name).reshape(seeds, -1, *cut(name).shape[1:]) for name in Samples._fields))


def beam_cells(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
  """A cell per beam method and width, and one for the oracle over what it finished (METHOD_pass)."""
  found, method_p, width_p = [], arrays["method_p"].astype(str), arrays["width_p"]
  for method in dict.fromkeys(method_p.tolist()):
    for width in np.unique(width_p[method_p == method]).tolist():
      index = np.flatnonzero((method_p == method) & (width_p == width))
      index = index[np.argsort(arrays["seed_p"][index], kind="stable")]
      seeds = len(np.unique(arrays["seed_p"][index]))
      costs = {name: float(arrays[key][index].mean()) for name, key in _COSTS.items()}
      for suffix, key in (("", "right_p"), ("_pass", "passed_p")):
        accuracy_ps = arrays[key][index].reshape(seeds, -1).T.astype(float)
        found.append(Cell(method + suffix, width, accuracy_ps, **costs))
  return found


def independent_cell(samples: Samples, method: str, n: int) -> Cell:
  """One of INDEPENDENT with n samples per problem."""
  accuracy_ps = np.stack([_accuracy(samples, method, n, s) for s in range(len(samples.right_spn))], axis=1)
  prompt, length = samples.prompt_length_sp.mean(), samples.length_spn.mean()
  verified = method not in UNVERIFIED
  return Cell(
      method, n, accuracy_ps, prompt_tokens=float(prompt), generated_tokens=float(n * length),
      verifier_tokens=float(prompt + n * length) if verified else 0.0,
      policy_flops=float(samples.policy_prompt_flops_sp.mean() + n * samples.policy_flops_spn.mean()),
      verifier_flops=float(samples.verifier_prompt_flops_sp.mean() + n * samples.verifier_flops_spn.mean())
      if verified else 0.0)


def _accuracy(samples: Samples, method: str, n: int, s: int) -> np.ndarray:
  right_pn, answer_pn, orm_pn = samples.right_spn[s], samples.answer_spn[s], samples.orm_spn[s]
  if method == "pass_at_n":
    return best_of_n.pass_at_n(right_pn, n)
  if method == "majority":
    return best_of_n.vote(right_pn, answer_pn, np.ones(right_pn.shape), n)
  if method == "weighted_vote":
    return best_of_n.vote(right_pn, answer_pn, orm_pn, n)
  score_spn = {"orm_best_of_n": samples.orm_spn, "q_best_of_n": samples.q_spn, "pav_best_of_n": samples.pav_spn}
  return best_of_n.best_of(right_pn, score_spn[method][s], n)


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
  """The records of the search stage, asked for cells and rows; both are kept once computed."""

  samples: Samples
  beams: tuple[Cell, ...]
  draws: int

  @property
  def max_n(self) -> int:
    """Samples drawn per problem and seed."""
    return self.samples.right_spn.shape[2]

  @functools.cache
  def cell(self, method: str, n: int) -> Cell:
    """The method at this N; KeyError for a beam of a width that was not run."""
    if method in INDEPENDENT:
      return independent_cell(self.samples, method, n)
    return {(c.method, c.n): c for c in self.beams}[method, n]

  @functools.cache
  def row(self, method: str, n: int) -> dict:
    """Accuracy, interval and costs of a cell, as JSON values."""
    cell = self.cell(method, n)
    accuracy, low, high = intervals.bootstrap(cell.accuracy_ps, draws=self.draws)
    problems, seeds = cell.accuracy_ps.shape
    return {"method": method, "n": n, "accuracy": accuracy, "low": low, "high": high, "tokens": cell.tokens,
            "flops": cell.flops, **{name: getattr(cell, name) for name in _COSTS},
            "problems": problems, "seeds": seeds}

  def difference(self, first: tuple[str, int], second: tuple[str, int]) -> dict:
    """Accuracy of the first less that of the second on the same problems, with its interval."""
    mean, low, high = intervals.paired(
        self.cell(*first).accuracy_ps, self.cell(*second).accuracy_ps, draws=self.draws)
    return {"difference": mean, "difference_low": low, "difference_high": high}

  def pav_beams(self) -> list[tuple[str, int]]:
    """(method, width) of every PAV beam."""
    return [(c.method, c.n) for c in self.beams if c.method.startswith("pav_beam") and not c.method.endswith("_pass")]


def search_of(samples: Mapping[str, np.ndarray], beams: Mapping[str, np.ndarray], draws: int) -> Search:
  """From the joined records of search/samples and search/beams."""
  return Search(samples_of(samples), tuple(beam_cells(beams)), draws)


def powers_of_two(largest: int) -> list[int]:
  """1, 2, 4, ..., and `largest` itself where it is none of them."""
  return sorted({2 ** i for i in range(largest.bit_length())} | {largest})


def search_rows(search: Search) -> list[dict]:
  """A row per method and N."""
  rows = [search.row(method, n) for method in INDEPENDENT for n in powers_of_two(search.max_n)]
  return rows + [search.row(c.method, c.n) for c in search.beams]


def smallest_n(samples: Samples, method: str, by: str, limit: float) -> int:
  """The smallest N >= 1 whose mean cost is at least `limit`; it may be more than were drawn.

  by: 'flops' or 'tokens'. A cost is prompt + N * sample.
  """
  one, two = (getattr(independent_cell(samples, method, 1)._replace(**_scaled(samples, method, n)), by) for n in (1, 2))
  each = two - one
  n = max(1, math.ceil((limit - one) / each) + 1)
  # The division is rounded; the comparison below is what counts.
  while n > 1 and one + (n - 2) * each >= limit:
    n -= 1
  while one + (n - 1) * each < limit:
    n += 1
  return n
