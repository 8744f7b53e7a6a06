"""What a label costs: ways to spend continuations, against exact values, at equal error.

  python tests/benchmarks/labels.py --problems-seed=202 --results=tests/benchmarks/labels.jsonl

Problems of `arithmetic`; the policy is the demonstrator itself, whose responses
can be listed with their chances, so every prefix has its exact value and
continuations cost nothing to draw. Tokens are those of a vocabulary trained as
a run trains its own. Everything else is the stage's own code
(`monte_carlo.spend`); only `draw` is the demonstrator instead of a network.

  beds      short: 3 or 4 days, the default dials; long: 8 days
  seeds     1of2: the first of two seeds is labelled (the quickstart);
            4of4: all of four (the paper's configs)
  error     root mean square of Q-hat - Q over the prefixes that are sampled, the
            seed's own ending counted (`with_own_outcome`);
            `a`: of the advantages' estimates; `shrunk`: Q-hat is the mean of a Beta posterior
            whose prior is fitted to the counts, for uniform and the others alike
  ratio     tokens spent / tokens that uniform needs for the same error (read
            off uniform's curve, measured at n_mc 1 to 48: 1 / error^2 is
            linear in n). 95 % bootstrap intervals over problems

First pit is compared on the prefixes it keeps, and, with every incorrect seed
kept and 0 taken for all that lies behind a pit, on all; without the seeds' own
endings on either side.
"""

import argparse
import json
import pathlib
import platform
import sys
import tempfile
import time

import numpy as np
from scipy import special

from pav_jax.grading import grading
from pav_jax.problems import arithmetic
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.rollouts import collect
from pav_jax.values import equations
from pav_jax.values import monte_carlo
from pav_jax.values import rounds

BEDS = {"short": arithmetic.Arithmetic(), "long": arithmetic.Arithmetic(min_length=8, max_length=8, noise=0.05, lure=0.35)}
SEEDS = {"1of2": (2, 1), "4of4": (4, -1)}
UNIFORM = (1, 2, 4, 8, 16, 32, 48)
MAX_M = 512


class Bed:
  """Problems whose responses are listed: token_plt, length_pl, chance_pl, right_pl; lines ends end_plz."""

  def __init__(self, dials: arithmetic.Arithmetic, seed: int, count: int):
    problems = arithmetic.generate(dials, seed, count)
    with tempfile.TemporaryDirectory() as folder:
      texts = [text for p in problems for text in (p.question, p.solution)]
      self.vocabulary = vocabulary_lib.train(texts, 340, pathlib.Path(folder) / "v.model")
    self.walks = [arithmetic.parse(p.question, dials) for p in problems]
    listed = [self._responses(walk) for walk in self.walks]
    leaves, width = max(map(len, listed)), max(len(tokens) for found in listed for _, _, tokens, _ in found)
    self.token_plt = np.full((count, leaves, width), self.vocabulary.pad_id, np.int32)
    self.length_pl, self.chance_pl = np.zeros((count, leaves), np.int32), np.zeros((count, leaves))
    self.right_pl = np.zeros((count, leaves), bool)
    self.lines = [[lines for _, _, _, lines in found] for found in listed]
    for p, found in enumerate(listed):
      for i, (chance, right, tokens, _) in enumerate(found):
        self.token_plt[p, i, :len(tokens)], self.length_pl[p, i] = tokens, len(tokens)
        self.chance_pl[p, i], self.right_pl[p, i] = chance, right

  def _responses(self, walk):
    found = []
    def grow(state, chance, lines):
      if state.answered:
        tokens = self.vocabulary.encode("\n".join(lines)) + [self.vocabulary.eos_id]
        found.append((chance, state.number == walk.answer, tokens, lines))
        return
      for p, line, after in arithmetic.outcomes(walk, state):
        grow(after, chance * p, [*lines, line])
    grow(arithmetic.start_state(walk), 1.0, [])
    return found


class Trial:
  """Seeds of a bed's problems and a `draw` for them, all from one number: the same for the same seed."""

  def __init__(self, bed: Bed, n_cov: int, seed: int):
    self.rng = np.random.default_rng([seed, 1])
    count = len(bed.walks)
    problem_b, sample_b = np.repeat(np.arange(count), n_cov).astype(np.int32), np.tile(np.arange(n_cov), count).astype(np.int32)
    leaf_b = self._pick(bed.chance_pl[problem_b], self.rng.random(len(problem_b)))
    token_bt, length_b = bed.token_plt[problem_b, leaf_b], bed.length_pl[problem_b, leaf_b]
    right_b = bed.right_pl[problem_b, leaf_b]
    self.end_bz, joined = monte_carlo.prefix_ends(token_bt, length_b, bed.vocabulary, 12)
    assert not joined
    # match_bzl: response l of the problem begins with seed b's prefix z.
    b, z = self.end_bz.shape
    match_bzl = np.zeros((b, z, bed.chance_pl.shape[1]), bool)
    for i in range(z):
      outside_bt = np.arange(token_bt.shape[1])[None] > self.end_bz[:, i, None]
      same_blt = (bed.token_plt[problem_b] == token_bt[:, None]) | outside_bt[:, None]
      match_bzl[:, i] = same_blt.all(axis=2) & (self.end_bz[:, i] > -2)[:, None]
    self.reach_bzl = match_bzl * bed.chance_pl[problem_b][:, None]
    total_bz = self.reach_bzl.sum(axis=2)
    safe_bz = np.where(total_bz > 0, total_bz, 1)
    self.exact_bz = np.where(total_bz > 0, (self.reach_bzl * bed.right_pl[problem_b][:, None]).sum(axis=2) / safe_bz, np.nan)
    left_bz = (self.reach_bzl * bed.length_pl[problem_b][:, None]).sum(axis=2) / safe_bz - self.end_bz - 1
    self.left_bz = np.where(total_bz > 0, left_bz, 0)
    # The chance of a step stands at its first token; only sums over steps are ever read.
    log_prob_bt = np.zeros(token_bt.shape, np.float32)
    for i in range(1, z):
      row = np.flatnonzero(self.end_bz[:, i] > -2)
      log_prob_bt[row, self.end_bz[row, i - 1] + 1] = np.log(total_bz[row, i] / total_bz[row, i - 1])
    verdict_b = np.where(right_b, grading.Verdict.CORRECT, grading.Verdict.INCORRECT).astype(np.int8)
    self.rollouts = collect.Rollouts(problem_b, sample_b, token_bt, length_b, log_prob_bt, np.ones(b, bool), verdict_b)
    self.bed, self.right_b, self.seed = bed, right_b, seed
    self.tokens_p = np.zeros(count)
    # Independent for every seed, prefix and m, the same whoever asks and when.
    self.chance_bzm = np.random.default_rng([seed, 2]).random((b, z, MAX_M), np.float32)

  @staticmethod
  def _pick(chance_xl, u_x):
    sum_xl = np.cumsum(chance_xl, axis=1)
    found_x = (u_x[:, None] * sum_xl[:, -1:] >= sum_xl).sum(axis=1)
    last_x = chance_xl.shape[1] - 1 - (chance_xl[:, ::-1] > 0).argmax(axis=1)
    return np.minimum(found_x, last_x)

  def draw(self, row_r, z_r, m_r) -> rounds.Drawn:
    """Continuations by the demonstrator; their tokens are counted."""
    leaf_r = self._pick(self.reach_bzl[row_r, z_r], self.chance_bzm[row_r, z_r, m_r])
    p_r, kept_r = self.rollouts.problem_b[row_r], self.end_bz[row_r, z_r] + 1
    length_r = self.bed.length_pl[p_r, leaf_r] - kept_r
    at_rt = np.minimum(kept_r[:, None] + np.arange(self.bed.token_plt.shape[2]), self.bed.token_plt.shape[2] - 1)
    token_rt = np.take_along_axis(self.bed.token_plt[p_r, leaf_r], at_rt, axis=1)
    np.add.at(self.tokens_p, p_r, length_r)
    return rounds.Drawn(token_rt, length_r, self.bed.right_pl[p_r, leaf_r])

  def spend(self, strategy: monte_carlo.Strategy, seeds_per_problem: int):
    """(Values, counts, tokens_p)."""
    self.tokens_p[:] = 0
    values, counts = monte_carlo.spend(strategy, self.rollouts, self.end_bz, seeds_per_problem, self.draw)
    return values, counts, self.tokens_p.copy()


def shrunk(values: monte_carlo.Values, sampled_bz: np.ndarray) -> np.ndarray:
  """Posterior means under the Beta prior of highest marginal likelihood for these counts (a grid of 20 x 20)."""
  s, n = values.successes_bz[sampled_bz], values.continuations_bz[sampled_bz]
  grid = np.geomspace(0.02, 5, 20)
  (s_x, n_x), weight_x = np.unique(np.stack([s, n]), axis=1, return_counts=True)
  a, b = grid[:, None, None], grid[None, :, None]
  fit = ((special.betaln(s_x + a, n_x - s_x + b) - special.betaln(a, b)) * weight_x).sum(axis=2)
  i, j = np.unravel_index(fit.argmax(), fit.shape)
  q_bz = (values.successes_bz + grid[i]) / (values.continuations_bz + grid[i] + grid[j])
  return np.where(sampled_bz, q_bz, values.q_bz)


def by_problem(x_bz, mask_bz, problem_b, count) -> np.ndarray:
  """(count, 2): sums and numbers of x where mask, by problem."""
  row_x, _ = np.nonzero(mask_bz)
  return np.stack([np.bincount(problem_b[row_x], weight_x, count) for weight_x in (x_bz[mask_bz], np.ones(len(row_x)))], axis=1)


def measured(trial: Trial, strategy: monte_carlo.Strategy, seeds_per_problem: int, *, behind: bool = False) -> dict:
  """Per problem: tokens; (sum, number) of squared errors of q, shrunk q, a; of errors; of successes - Q continuations.

  behind: prefixes that were not kept count, as 0.
  """
  fresh, counts, tokens_p = trial.spend(strategy, seeds_per_problem)
  # First pit chooses by the ending: it would be no unbiased sample of what is kept.
  values = fresh if strategy.name == "first_pit" else monte_carlo.with_own_outcome(fresh, trial.right_b)
  rollouts, count = trial.rollouts, len(trial.bed.walks)
  sampled_bz = monte_carlo.sampled_prefixes(rollouts, trial.end_bz, seeds_per_problem)
  q_bz = values.q_bz
  if behind:
    q_bz = np.where(sampled_bz & np.isnan(q_bz), 0.0, q_bz)
  there_bz = sampled_bz & ~np.isnan(q_bz)
  sums = lambda x_bz, mask_bz: by_problem(x_bz, mask_bz, rollouts.problem_b, count)
  a_bs, exact_bs = equations.advantages(q_bz), equations.advantages(trial.exact_bz)
  found = {"tokens": tokens_p, "q": sums((q_bz - trial.exact_bz) ** 2, there_bz),
           "shrunk": sums((shrunk(values, there_bz) - trial.exact_bz) ** 2, there_bz),
           "a": sums((a_bs - exact_bs) ** 2, there_bz[:, :-1] & ~np.isnan(a_bs)),
           "error": sums(q_bz - trial.exact_bz, there_bz),
           "wald": sums(values.successes_bz - trial.exact_bz * values.continuations_bz, there_bz)}
  return found | {"there_bz": there_bz, "squared_bz": (fresh.q_bz - trial.exact_bz) ** 2, "counts": counts}


def added(pieces: list[dict]) -> dict:
  """Sums over repetitions."""
  return {name: sum(piece[name] for piece in pieces) for name in ("tokens", "q", "shrunk", "a", "error", "wald")}


def mse(cell: dict, metric: str, weight_p) -> float:
  """Mean squared error over the problems, each weighing weight_p."""
  total, number = weight_p @ cell[metric]
  return total / number


def ratio(cell: dict, curve: list[dict], metric: str, weight_p) -> float:
  """Tokens of the cell / tokens of uniform at the same error: linear interpolation of tokens in 1 / error^2."""
  inverse = np.array([1 / mse(c, metric, weight_p) for c in curve])
  tokens = np.array([weight_p @ c["tokens"] for c in curve])
  wanted = 1 / mse(cell, metric, weight_p)
  if not inverse[0] <= wanted <= inverse[-1]:
    return float("nan")
  return float(weight_p @ cell["tokens"] / np.interp(wanted, inverse, tokens))


def interval(of, count: int, draws: int = 400) -> list[float]:
  """[value, low, high] of of(weight_p): 95 % bootstrap over problems; None beyond uniform's curve."""
  rng = np.random.default_rng(0)
  found = [of(rng.multinomial(count, np.full(count, 1 / count)).astype(float)) for _ in range(draws)]
  numbers = of(np.ones(count)), *np.percentile(found, [2.5, 97.5])
  return [None if np.isnan(x) else round(float(x), 4) for x in numbers]


def strategies(n: int, options) -> dict[str, monte_carlo.Strategy]:
  """What is compared with uniform at the same error."""
  base = monte_carlo.Strategy(n_mc=n, pilot=options.pilot, prior=tuple(options.prior))
  return {"uniform, reuse": base._replace(reuse=True, siblings=True), "adaptive": base._replace(name="adaptive"),
          "adaptive, reuse": base._replace(name="adaptive", reuse=True, siblings=True)}


def compare(bed: Bed, bed_name: str, seeds_name: str, options) -> list[dict]:
  """One row a strategy and n_mc."""
  n_cov, labelled = SEEDS[seeds_name]
  count, trials = len(bed.walks), [Trial(bed, n_cov, options.seed + i) for i in range(options.repetitions)]
  cell = lambda strategy, **how: [measured(trial, strategy, labelled, **how) for trial in trials]
  plain = {n: cell(monte_carlo.Strategy(n_mc=n)) for n in UNIFORM}
  curve = [added(plain[n]) for n in UNIFORM]
  matches = np.concatenate([(t.reach_bzl[:, 1:].sum(2) / np.where(t.reach_bzl[:, :-1].sum(2) > 0, t.reach_bzl[:, :-1].sum(2), 1))[
      t.end_bz[:, 1:] > -2] for t in trials])
  head = {"bed": bed_name, "seeds": seeds_name}
  facts = {"prefixes": int(curve[0]["q"][:, 1].sum()), "chance of a seed's next step": round(float(matches.mean()), 3),
           "exact zeros": round(float(np.mean(np.concatenate([t.exact_bz[p["there_bz"]] == 0 for t, p in zip(trials, plain[1])]))), 3)}
  for n, c in zip(UNIFORM, curve):
    facts[f"uniform n_mc={n}: rmse q"] = interval(lambda w, c=c: np.sqrt(mse(c, "q", w)), count)
  found = [head | {"strategy": "uniform"} | facts]

  def row(name, n, pieces, against, metrics):
    total = added(pieces)
    line = head | {"strategy": name, "n_mc": n, "tokens": int(total["tokens"].sum()),
                   "rmse q": interval(lambda w: np.sqrt(mse(total, "q", w)), count),
                   "mean error": interval(lambda w: mse(total, "error", w), count),
                   "wald": interval(lambda w: mse(total, "wald", w), count),
                   "rounds": int(max(p["counts"]["rounds"] for p in pieces))}
    for metric in metrics:
      line[f"ratio {metric}"] = interval(lambda w: ratio(total, against, metric, w), count)
    found.append(line)
    print(line, flush=True)
    return line

  for n in options.n_mc:
    for name, strategy in strategies(n, options).items():
      row(name, n, cell(strategy), curve, ("q", "shrunk", "a"))
  for n in options.n_mc if options.first_pit else ():
    for reuse in (False, True):
      pit = monte_carlo.Strategy("first_pit", n, reuse)
      pieces = cell(pit)
      on_kept = [added([_only(p, piece["there_bz"], t) for p, piece, t in zip(plain[m], pieces, trials)]) for m in UNIFORM]
      line = row("first pit" + ", reuse" * reuse + ", kept prefixes", n, pieces, on_kept, ("q",))
      line["kept"] = round(float(sum(p["there_bz"].sum() for p in pieces) / facts["prefixes"]), 3)
      on_all = [added([_only(p, p["there_bz"], t) for p, t in zip(plain[m], trials)]) for m in UNIFORM]
      row("first pit" + ", reuse" * reuse + ", every incorrect seed, 0 behind", n, cell(pit._replace(high_q=0.0), behind=True),
          on_all, ("q",))
  return found


def _only(piece: dict, mask_bz, trial: Trial) -> dict:
  """A uniform measurement, its squared errors those of the prefixes in mask alone."""
  return piece | {"q": by_problem(piece["squared_bz"], mask_bz, trial.rollouts.problem_b, len(trial.bed.walks))}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--problems-seed", type=int, default=101, help="of the problems; 101 is what choices were made on")
  parser.add_argument("--problems", type=int, default=400)
  parser.add_argument("--seed", type=int, default=0, help="of the seeds and continuations")
  parser.add_argument("--repetitions", type=int, default=3)
  parser.add_argument("--beds", default="short,long")
  parser.add_argument("--seeds", default="1of2,4of4")
  parser.add_argument("--n-mc", type=lambda x: [int(n) for n in x.split(",")], default=[8, 20])
  parser.add_argument("--pilot", type=int, default=monte_carlo.Strategy().pilot)
  parser.add_argument("--prior", type=lambda x: [float(n) for n in x.split(",")], default=monte_carlo.Strategy().prior)
  parser.add_argument("--first-pit", action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument("--results", help="append the rows to this file")
  options = parser.parse_args()
  begun = time.perf_counter()
  shared = {"command": " ".join(sys.argv), "problems_seed": options.problems_seed, "problems": options.problems,
            "repetitions": options.repetitions, "pilot": options.pilot, "prior": list(options.prior),
            "hardware": f"{platform.processor() or platform.machine()}, simulated policy"}
  for bed_name in options.beds.split(","):
    bed = Bed(BEDS[bed_name], options.problems_seed, options.problems)
    for seeds_name in options.seeds.split(","):
      rows = compare(bed, bed_name, seeds_name, options)
      print(f"{bed_name} {seeds_name}: {time.perf_counter() - begun:.0f} s", flush=True)
      if options.results:
        with open(options.results, "a") as f:
          f.writelines(json.dumps(row | shared) + "\n" for row in rows)


if __name__ == "__main__":
  main()
