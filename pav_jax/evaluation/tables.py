"""From the records of the search stage to rows: accuracy, interval and cost of every method at every N.

  1. Samples and beams become cells: a method at an N, its accuracy per problem
     and seed, its mean cost per problem.
  2. `search_rows`: a row per cell, with the 95 % interval.
  3. `comparisons`: each PAV beam against the others at equal N, and against the
     independent samples at equal FLOPs or tokens: the smallest N whose mean
     cost is at least the beam's, so that a baseline never has less. Where more
     samples are needed than were drawn the row says so and has no accuracy.
  4. `against_arms`: each PAV beam against every other arm of search at equal
     FLOPs: the cheapest width that was run whose mean FLOPs are at least the
     beam's; where none is, the row says so.
  5. `readings`: PAV as ORM, each way to rerank whole responses by process
     scores against ORM best-of-N, on the same samples.

Costs of N independent samples: each prompt once plus N mean samples; what uses
no verifier does not pay one. Beside them stands what the labels behind its
verifiers cost (search/labels.py). Pure functions on arrays; here s counts seeds.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.evaluation import intervals
from pav_jax.search import arms
from pav_jax.search import best_of_n
from pav_jax.search import labels

UNVERIFIED = ("pass_at_n", "majority")
INDEPENDENT = (*UNVERIFIED, "weighted_vote", "orm_best_of_n", "q_best_of_n", "pav_best_of_n")
# The process verifiers' ways to rerank; pav_best_of_n is the one that search.pav_rerank names.
READINGS = ("q_best_of_n", *(f"pav_{how}_best_of_n" for how in best_of_n.RERANKS))
_NAMES = {
    "pass_at_n": "Pass@N", "majority": "majority of N", "weighted_vote": "ORM-weighted vote of N",
    "orm_best_of_n": "ORM best-of-N", "q_best_of_n": "Q best-of-N", "pav_best_of_n": "PAV best-of-N",
    "q_beam": "Q beam", "q_subtrees": "Q subtrees", "q_lookahead": "Q lookahead", "pav_beam": "PAV beam",
    "pav_subtrees": "PAV subtrees", "pav_lookahead": "PAV lookahead", "prover_q_beam": "prover's Q beam",
    "prover_q_subtrees": "prover's Q subtrees", "prover_a_beam": "prover's A beam", "prover_a_subtrees": "prover's A subtrees",
    "particles": "particles", "prover_particles": "particles by the prover's Q", "particles_progress": "particles by progress",
    "random_beam": "beam with dealt advantages", "constant_beam": "beam of equal scores",
    **{f"pav_{how}_best_of_n": f"PAV best-of-N by the {how} reward" for how in best_of_n.RERANKS}}


# Of a beam: what is taken of all that it has finished, if not the one with the highest Q^pi.
_SUFFIXES = {"_pass": "any finished", "_by_q": "chosen by Q", "_by_effective": "chosen by the effective reward",
             "_by_prover": "chosen by the prover's Q", "_by_draw": "drawn at random"}


_DIFFERENCE = ("difference", "difference_low", "difference_high")


class Samples(NamedTuple):
  """max_n independent samples per seed and problem; answers equal where they say the same, -1 for none."""

  right_spn: np.ndarray
  answer_spn: np.ndarray
  length_spn: np.ndarray
  orm_spn: np.ndarray
  q_spn: np.ndarray
  pav_spn: np.ndarray
  pav_last_spn: np.ndarray
  pav_mean_spn: np.ndarray
  pav_min_spn: np.ndarray
  policy_flops_spn: np.ndarray
  verifier_flops_spn: np.ndarray
  prompt_length_sp: np.ndarray
  policy_prompt_flops_sp: np.ndarray
  verifier_prompt_flops_sp: np.ndarray


class Costs(NamedTuple):
  """Means per problem."""

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


class Cell(NamedTuple):
  """A method at an N (a beam: its width): accuracy_ps in [0, 1] per problem and seed, and what it cost."""

  method: str
  n: int
  accuracy_ps: np.ndarray
  costs: Costs


def name_of(method: str, n: int | None = None) -> str:
  """What people call it: 'ORM best-of-12', 'PAV beam of 4'; without n as the legend of a figure."""
  suffix = next((suffix for suffix in _SUFFIXES if method.endswith(suffix)), "")
  base, at, prover = method.removesuffix(suffix).partition("@")
  if base.startswith("pav_beam_"):  # as PAV beams were called before provers had names
    base, at, prover = "pav_beam", "@", base.removeprefix("pav_beam_")
  name = _NAMES.get(base, base) + (f" ({prover})" if at else "")
  if n is not None:
    name = name.replace("N", str(n)) if base in (*INDEPENDENT, *READINGS) else f"{name} of {n}"
  return f"{name}, {_SUFFIXES[suffix]}" if suffix else name


def is_oracle(method: str) -> bool:
  """Whether it needs the reference answer to choose, or exact values: a bound, no method one could use."""
  return method == "pass_at_n" or method.endswith("_pass") or "@exact" in method


def searched_by(method: str) -> str:
  """The arm whose search it is, whatever the final choice."""
  return method.removesuffix(next((suffix for suffix in _SUFFIXES if method.endswith(suffix)), ""))


def is_choice(method: str) -> bool:
  """Whether it is the search of another method with another final choice."""
  return method.endswith(tuple(_SUFFIXES)) and not is_oracle(method)


def verifiers_of(method: str) -> list[str] | None:
  """Names of the verifiers that a method reads; None of an arm that is no more."""
  base = searched_by(method)
  suffix = method.removeprefix(base)
  if base.partition("@")[0] in arms.ARMS:
    return list(dict.fromkeys([*["q"] * (suffix == "_by_q"), *arms.readers(base)]))
  known = dict.fromkeys(UNVERIFIED, []) | {"weighted_vote": ["orm"], "orm_best_of_n": ["orm"]} | dict.fromkeys(
      (*READINGS, "pav_best_of_n"), ["q"])
  return known.get(base)


def samples_of(arrays: Mapping[str, np.ndarray]) -> Samples:
  """The records of search/samples, sorted by seed and problem. UserError if they are of a version that kept less."""
  order = np.lexsort((arrays["problem_p"], arrays["seed_p"]))
  seeds = len(np.unique(arrays["seed_p"]))
  found = []
  for field in Samples._fields:
    # A record has a row per seed and problem: right_spn is its right_pn.
    stem, letters = field.rsplit("_", 1)
    name = f"{stem}_{letters.removeprefix('s')}"
    if name not in arrays:
      raise UserError(f"search/samples holds no {name}: it is an earlier version's; remove it, and run the search stage again")
    rows = arrays[name][order]
    found.append(rows.reshape(seeds, -1, *rows.shape[1:]))
  return Samples(*found)


def beam_cells(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
  """The records of search/beams: a cell per method and width, and for each METHOD_pass, the oracle over what it finished, and
  METHOD_by_CHOICE, other final choices of the same search. Runs from before these do without; a search by a verifier that guides
  no beam has no records."""
  if not arrays:
    return []
  found, method_p, width_p = [], arrays["method_p"].astype(str), arrays["width_p"]
  for method in dict.fromkeys(method_p.tolist()):
    for width in np.unique(width_p[method_p == method]).tolist():
      index = np.flatnonzero((method_p == method) & (width_p == width))
      index = index[np.argsort(arrays["seed_p"][index], kind="stable")]
      seeds = len(np.unique(arrays["seed_p"][index]))
      costs = Costs(*(float(arrays[key][index].mean()) for key in (
          "prompt_p", "generated_p", "scored_p", "policy_flops_p", "verifier_flops_p")))
      prover = str(arrays["prover_p"][index[0]]) if "prover_p" in arrays else ""
      there = {"_by_effective": bool(prover), "_by_prover": prover == "q"}  # of the first records, which are of bools
      choices = [(suffix, f"right{suffix}_p") for suffix in _SUFFIXES if f"right{suffix}_p" in arrays]
      meant = lambda suffix, key: there.get(suffix) if arrays[key].dtype == bool else np.isfinite(arrays[key][index]).all()
      for suffix, key in (("", "right_p"), ("_pass", "passed_p"), *(x for x in choices if meant(*x))):
        paid = costs
        if suffix == "_by_q" and "second_flops_p" in arrays:  # where Q^pi has read nothing but what finished (search/players.py)
          paid = costs._replace(verifier_tokens=costs.verifier_tokens + float(arrays["second_scored_p"][index].mean()),
                                verifier_flops=costs.verifier_flops + float(arrays["second_flops_p"][index].mean()))
        found.append(Cell(method + suffix, width, arrays[key][index].reshape(seeds, -1).T.astype(float), paid))
  return found


def independent_costs(samples: Samples, method: str, n: int) -> Costs:
  """What n samples per problem cost, for any n: each prompt once and n mean samples; no verifier if none is used."""
  prompt, generated = samples.prompt_length_sp.mean(), n * samples.length_spn.mean()
  policy = samples.policy_prompt_flops_sp.mean() + n * samples.policy_flops_spn.mean()
  verifier = samples.verifier_prompt_flops_sp.mean() + n * samples.verifier_flops_spn.mean()
  read = 0 if method in UNVERIFIED else 1
  return Costs(*map(float, (prompt, generated, read * (prompt + generated), policy, read * verifier)))


def independent_cell(samples: Samples, method: str, n: int) -> Cell:
  """One of INDEPENDENT or READINGS with n of the samples."""
  accuracy_ps = np.stack([_accuracy(samples, method, n, s) for s in range(len(samples.right_spn))], axis=1)
  return Cell(method, n, accuracy_ps, independent_costs(samples, method, n))


def _accuracy(samples: Samples, method: str, n: int, s: int) -> np.ndarray:
  right_pn, answer_pn, orm_pn = samples.right_spn[s], samples.answer_spn[s], samples.orm_spn[s]
  if method == "pass_at_n":
    return best_of_n.pass_at_n(right_pn, n)
  if method == "majority":
    return best_of_n.vote(right_pn, answer_pn, np.ones(right_pn.shape), n)
  if method == "weighted_vote":
    return best_of_n.vote(right_pn, answer_pn, orm_pn, n)
  return best_of_n.best_of(right_pn, getattr(samples, f"{method.removesuffix('_best_of_n')}_spn")[s], n)


def smallest_n(samples: Samples, method: str, by: str, limit: float) -> int:
  """The smallest N whose mean cost is at least `limit`; it may be more than were drawn. by: 'flops' or 'tokens'."""
  cost = lambda n: getattr(independent_costs(samples, method, n), by)
  each = cost(2) - cost(1)
  if not each > 0:
    raise ValueError(f"a sample of {method} costs {each} {by}")
  n = max(1, math.ceil((limit - cost(1)) / each))
  # The division is rounded; the comparison is what counts.
  while n > 1 and cost(n - 1) >= limit:
    n -= 1
  while cost(n) < limit:
    n += 1
  return n


class Search:
  """The records of the search stage, asked for cells, rows and comparisons; each is computed once."""

  def __init__(self, samples: Mapping[str, np.ndarray], beams: Mapping[str, np.ndarray], draws: int,
               label_tokens: Mapping[str, Mapping[str, int] | None] | None = None):
    """label_tokens: of each verifier by its name, as the manifest of search/beams has them (`labels.behind`)."""
    self.samples = samples_of(samples)
    self.draws = draws
    self._label_tokens = label_tokens or {}
    self.max_n = self.samples.right_spn.shape[2]
    self._cells = {(c.method, c.n): c for c in beam_cells(beams)}
    self.beams = list(self._cells)
    self._rows = {}

  def cell(self, method: str, n: int) -> Cell:
    """The method at this N; KeyError for a beam of a width that was not run."""
    if (method, n) not in self._cells and method in (*INDEPENDENT, *READINGS):
      self._cells[method, n] = independent_cell(self.samples, method, n)
    return self._cells[method, n]

  def row(self, method: str, n: int) -> dict:
    """Accuracy, 95 % interval and costs of a cell, as JSON values."""
    if (method, n) not in self._rows:
      cell = self.cell(method, n)
      accuracy, low, high = intervals.over_problems(cell.accuracy_ps, draws=self.draws)
      problems, seeds = cell.accuracy_ps.shape
      self._rows[method, n] = {
          "method": method, "n": n, "accuracy": accuracy, "low": low, "high": high, "tokens": cell.costs.tokens,
          "flops": cell.costs.flops, **cell.costs._asdict(), "label_tokens": self.label_tokens(method), "problems": problems,
          "seeds": seeds}
    return self._rows[method, n]

  def label_tokens(self, method: str) -> int | None:
    """Tokens of seed responses and continuations behind the verifiers that the method reads; None if they are not known."""
    names = verifiers_of(method)
    return None if names is None else labels.together(self._label_tokens, names)

  def rows(self) -> list[dict]:
    """A row per method and N = 1, 2, 4, ..., max_n; per beam and width."""
    return ([self.row(method, n) for method in INDEPENDENT for n in self._powers()] +
            [self.row(method, n) for method, n in self.beams])

  def _powers(self) -> list[int]:
    return sorted({2 ** i for i in range(self.max_n.bit_length())} | {self.max_n})

  def readings(self) -> list[dict]:
    """A row per READINGS and N = 2, 4, ..., max_n, with its accuracy less that of ORM best-of-N on the same samples."""
    return [self.row(method, n) | self.difference((method, n), ("orm_best_of_n", n))
            for method in READINGS for n in self._powers() if n > 1]

  def pav_beams(self) -> list[tuple[str, int]]:
    """(method, width) of every PAV beam that one could use."""
    return [(m, n) for m, n in self.beams if m.startswith("pav_beam") and not is_oracle(m) and not m.endswith(tuple(_SUFFIXES))]

  def against_arms(self) -> list[dict]:
    """Every PAV beam beside every other arm at equal FLOPs, and the same beam's other final choices.

    A row is the other's, as in `comparisons`, at the cheapest of its widths that
    costs at least as much as the beam; `reached` is False where none does.
    """
    found = []
    for beam, width in self.pav_beams():
      limit = self.cell(beam, width).costs.flops
      for method in dict.fromkeys(m for m, _ in self.beams if m != beam and not m.endswith("_pass")):
        enough = [(self.cell(m, n).costs.flops, n) for m, n in self.beams if m == method and self.cell(m, n).costs.flops >= limit]
        head = {"beam": beam, "width": width, "by": "flops", "method": method, "reached": bool(enough)}
        row = self.row(method, min(enough)[1]) if enough else {}
        keys = ("n", "accuracy", "low", "high", "flops", "tokens")
        against = self.difference((beam, width), (method, row["n"])) if enough else dict.fromkeys(_DIFFERENCE)
        found.append(head | {k: row.get(k) for k in keys} | {
            "ratio": row["flops"] / limit if enough else None, "label_tokens": self.label_tokens(method)} | against)
    return found

  def difference(self, first: tuple[str, int], second: tuple[str, int]) -> dict:
    """Accuracy of the first less that of the second on the same problems, with its interval."""
    mean, low, high = intervals.paired(
        self.cell(*first).accuracy_ps, self.cell(*second).accuracy_ps, draws=self.draws)
    return {"difference": mean, "difference_low": low, "difference_high": high}

  def comparisons(self, by: str) -> list[dict]:
    """Every PAV beam beside itself and every other method at equal 'n', 'flops' or 'tokens'.

    A row is the other method's, with `ratio`, its cost over the beam's (FLOPs,
    or tokens if by those), and the beam's accuracy less its own. `reached` is
    False, and every figure but the costs None, where more samples are needed
    (`n`) than were drawn. The Q beam has the same width, whatever it cost.
    """
    return [self._against((beam, width), method, by) for beam, width in self.pav_beams()
            for method in (*INDEPENDENT, "q_beam", beam) if method in INDEPENDENT or (method, width) in self._cells]

  def _against(self, beam: tuple[str, int], method: str, by: str) -> dict:
    unit = "tokens" if by == "tokens" else "flops"
    limit = getattr(self.cell(*beam).costs, unit)
    n = beam[1]
    if by != "n" and method in INDEPENDENT:
      n = smallest_n(self.samples, method, by, limit)
    found = {"beam": beam[0], "width": beam[1], "by": by, "method": method, "n": n}
    if method in INDEPENDENT and n > self.max_n:
      costs = independent_costs(self.samples, method, n)
      nothing = dict.fromkeys(("accuracy", "low", "high", *_DIFFERENCE))
      return {**found, "reached": False, **nothing, "flops": costs.flops, "tokens": costs.tokens,
              "ratio": getattr(costs, unit) / limit}
    row = self.row(method, n)
    return {**found, "reached": True, **{k: row[k] for k in ("accuracy", "low", "high", "flops", "tokens")},
            "ratio": row[unit] / limit, **self.difference(beam, (method, n))}
