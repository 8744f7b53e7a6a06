"""Ways to spend continuations: what is asked for next, what counts where, and that the labels are what they say."""

import functools
import types

import numpy as np
import pytest

import fakes
import test_monte_carlo as chain
from fakes import A, B, EOS, NL, PAD, RIGHT, WRONG
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.rollouts import collect
from pav_jax.rollouts import sampling
from pav_jax.values import first_pit
from pav_jax.values import monte_carlo
from pav_jax.values import rounds
from pav_jax.values import tree as tree_lib
from configs import default

STRATEGIES = [monte_carlo.Strategy(name, 6, reuse, reuse and name != "first_pit", high_q=0.0)
              for name in monte_carlo.STRATEGIES for reuse in (False, True)]
# A policy without a network: after every line A with .6, B with .4, three lines, then RIGHT with a chance that falls
# with every B and is 0 after two.
DEPTH, UP = 3, 0.6
CHANCE = {0: 0.9, 1: 0.5, 2: 0.0, 3: 0.0}


def exact(lines) -> float:
  """Q of a prefix of lines."""
  if len(lines) == DEPTH:
    return CHANCE[lines.count(B)]
  return UP * exact([*lines, A]) + (1 - UP) * exact([*lines, B])


def finish(lines, rng):
  """(tokens of a whole response from these lines on, whether it is right)."""
  lines = list(lines)
  tokens = []
  while len(lines) < DEPTH:
    lines.append(A if rng.random() < UP else B)
    tokens += [lines[-1], NL]
  right = rng.random() < CHANCE[lines.count(B)]
  return [*tokens, RIGHT if right else WRONG, EOS], right


class Walks:
  """Seeds of that policy, and its continuations: the same for the same seed, row, z and m."""

  def __init__(self, seed, problems=40, n_cov=2):
    self.seed, rng = seed, np.random.default_rng([seed, 0])
    found = [finish([], rng) for _ in range(problems * n_cov)]
    token_bt = np.array([tokens for tokens, _ in found], np.int32)
    log_prob_bt = np.where(token_bt == A, np.log(UP), np.where(token_bt == B, np.log(1 - UP), 0)).astype(np.float32)
    b = len(found)
    self.rollouts = collect.Rollouts(
        np.repeat(np.arange(problems), n_cov).astype(np.int32), np.tile(np.arange(n_cov), problems).astype(np.int32),
        token_bt, np.full(b, token_bt.shape[1], np.int32), log_prob_bt, np.ones(b, bool),
        np.array([right for _, right in found], np.int8))
    self.end_bz = np.tile([-1, 1, 3, 5, 7], (b, 1)).astype(np.int32)
    self.lines = [[t for t in tokens if t in (A, B)] for tokens, _ in found]
    self.exact_bz = np.array([[*(exact(lines[:z]) for z in range(DEPTH + 1)), right]
                              for lines, (_, right) in zip(self.lines, found)])
    self.drawn = []

  def draw(self, row_r, z_r, m_r):
    found = [finish(self.lines[b][:z], np.random.default_rng([self.seed, 1, b, z, m])) for b, z, m in zip(row_r, z_r, m_r)]
    self.drawn += zip(row_r.tolist(), z_r.tolist(), m_r.tolist())
    length_r = np.array([len(tokens) for tokens, _ in found])
    token_rt = np.full((len(found), 8), PAD, np.int32)
    for r, (tokens, _) in enumerate(found):
      token_rt[r, :len(tokens)] = tokens
    return rounds.Drawn(token_rt, length_r, np.array([right for _, right in found]))

  def spend(self, strategy, seeds=-1):
    return monte_carlo.spend(strategy, self.rollouts, self.end_bz, seeds, self.draw)[0]

  def tree(self, reuse):
    return tree_lib.build(self.rollouts, self.end_bz, monte_carlo.sampled_prefixes(self.rollouts, self.end_bz, -1), reuse)


def test_uniform_labels_are_what_they_were_before_there_were_strategies():
  """Counts written down from the single-round code that this one replaced."""
  rollouts = chain._rollouts()
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, fakes.VOCABULARY, 4)
  arch = types.SimpleNamespace(network=fakes.CHAIN, config=types.SimpleNamespace(vocab_size=fakes.SIZE))
  with grading.Grader(1) as grader:
    values, counts = monte_carlo.label(
        arch, chain._params(), chain._problems(), rollouts, end_bz, fakes.VOCABULARY, grader,
        strategy=monte_carlo.Strategy(n_mc=7), seeds_per_problem=-1, sampling=sampling.Sampling(), seed=3, rows=64, max_new=8)
  np.testing.assert_array_equal(values.successes_bz, [[4, 4, 4, 1, 0], [2, 1, 0, 0, 0], [1, 3, 6, 7, 0], [2, 1, 0, 0, 0]])
  np.testing.assert_array_equal(values.continuations_bz, [[7, 7, 7, 1, 0], [7, 7, 1, 0, 0], [7, 7, 7, 7, 1], [7, 1, 0, 0, 0]])
  assert (counts["rounds"], counts["continuations"], counts["tokens"]) == (1, 70, 199)


def test_a_continuation_counts_at_the_prefixes_it_passes():
  """Two seeds of problem 0, one of problem 1; nodes 0: prompt, 1: A, 2: AA, 3: AB | 4, 5 of problem 1."""
  token_bt = np.array([[A, NL, A, NL, RIGHT, EOS], [A, NL, B, NL, WRONG, EOS], [A, NL, RIGHT, EOS, PAD, PAD]], np.int32)
  rollouts = collect.Rollouts(np.array([0, 0, 1]), np.array([0, 1, 0]), token_bt, np.array([6, 6, 4]),
                              np.log(np.full((3, 6), 0.5, np.float32)), np.ones(3, bool), np.array([1, 0, 1], np.int8))
  end_bz = np.array([[-1, 1, 3, 5], [-1, 1, 3, 5], [-1, 1, 3, -2]])
  tree = tree_lib.build(rollouts, end_bz, monte_carlo.sampled_prefixes(rollouts, end_bz, -1), True)
  np.testing.assert_array_equal(tree.node_bz, [[0, 1, 2, -1], [0, 1, 3, -1], [4, 5, -1, -1]])
  np.testing.assert_array_equal(tree.at_pi, [[0, 1, 2, 3], [4, 5, -1, -1]])
  np.testing.assert_allclose(tree.reach_pij[0], [[1, 1 / 4, 1 / 16, 1 / 16], [0, 1, 1 / 4, 1 / 4], [0, 0, 1, 0], [0, 0, 0, 1]], rtol=1e-6)
  passed = lambda u, *tokens: tree_lib.passed(tree, rollouts, np.array([u]), np.array([tokens], np.int32), np.array([len(tokens)]))[1]
  assert passed(0, A, NL, B, NL, WRONG, EOS).tolist() == [0, 1, 3]
  assert passed(0, B, NL, A, NL, RIGHT, EOS).tolist() == [0]
  assert passed(0, A, B, NL, RIGHT, EOS).tolist() == [0]
  assert passed(1, A, NL, RIGHT, EOS).tolist() == [1, 2]  # never at the prompt: the way to A was not drawn
  assert passed(3, WRONG, EOS).tolist() == [3]
  assert passed(4, A, NL, RIGHT, EOS).tolist() == [4, 5]  # another problem, the same tokens
  b_x, u_x = tree_lib.seeds_passed(tree, rollouts)
  assert list(zip(b_x.tolist(), u_x.tolist())) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 3), (2, 4), (2, 5)]


# Q of the prefixes 0 .. H-1 of an incorrect response of H steps, what is probed in which order, what is kept.
SEARCHES = [
    ([.5, .4, .3, .2, .1, 0, 0, 0], [{0, 4}, {6}, {5}], [0, 1, 2, 3, 4, 5]),
    ([.5, .4, .3, .2, .1, .1, .1, .1], [{0, 4}, {6}, {7}], [0, 1, 2, 3, 4, 5, 6, 7]),
    ([.5, 0, 0, 0, 0, 0, 0, 0], [{0, 4}, {2}, {1}], [0, 1]),
    ([0, 0, 0, 0, 0, 0, 0, 0], [{0, 4}], [0]),  # hopeless from the start: the prompt is the pit
    ([.5, .6, 0, 0, 0], [{0, 2}, {1}], [0, 1, 2]),
    ([.5, .2, .1], [{0, 1}, {2}], [0, 1, 2]),
    ([.5], [{0}], [0])]


@pytest.mark.parametrize("q_z, wanted, keep", SEARCHES)
def test_binary_search_for_the_pit(q_z, wanted, keep):
  last, width, probes = len(q_z), len(q_z) + 1, 10
  successes_bz, continuations_bz = np.zeros((2, 1, width), np.int64)
  sampled_bz = np.arange(width)[None] < last
  arguments = np.array([last]), np.array([False]), sampled_bz
  seen = []
  while (lacking_bz := first_pit.next_probes(successes_bz, continuations_bz, *arguments, probes=probes, pit_max_q=0.0)).any():
    assert set(lacking_bz[lacking_bz > 0]) == {probes}
    seen.append(set(np.flatnonzero(lacking_bz[0]).tolist()))
    continuations_bz += lacking_bz
    successes_bz += np.round(lacking_bz * np.array([[*q_z, 0]])).astype(int)
  assert seen == wanted
  assert sum(map(len, seen)) <= 1 + np.ceil(np.log2(last))
  kept = functools.partial(first_pit.kept, successes_bz, continuations_bz, *arguments, probes=probes, pit_max_q=0.0)
  assert np.flatnonzero(kept(high_q=0.0)[0]).tolist() == keep
  assert np.flatnonzero(kept(high_q=0.5)[0]).tolist() == (keep if q_z[0] else [])
  assert not kept(high_q=0.7).any()


def test_a_correct_seed_is_not_probed_and_keeps_all():
  zero_bz, sampled_bz = np.zeros((1, 4), np.int64), np.array([[True, True, True, False]])
  arguments = zero_bz, zero_bz, np.array([3]), np.array([True]), sampled_bz
  assert not first_pit.next_probes(*arguments, probes=8, pit_max_q=0.0).any()
  np.testing.assert_array_equal(first_pit.kept(*arguments, probes=8, pit_max_q=0.0, high_q=0.5), sampled_bz)


def test_first_pit_labels_are_fresh_and_end_at_the_pit():
  walks = Walks(0)
  strategy = monte_carlo.Strategy("first_pit", 20, probes=8, high_q=0.0)
  values = walks.spend(strategy)
  assert len(set(walks.drawn)) == len(walks.drawn)
  labelled_bz = values.continuations_bz[:, :-1] > 0
  assert set(values.continuations_bz[:, :-1][labelled_bz]) == {20} and (values.continuations_bz[:, -1] == 1).all()
  right_b = walks.rollouts.verdict_b == 1
  assert labelled_bz[right_b].all() and not labelled_bz[~right_b].all()
  assert np.isnan(values.q_bz[:, :-1][~labelled_bz]).all()
  assert (labelled_bz[:, :-1] >= labelled_bz[:, 1:]).all()  # no gap before the pit
  # Continuations of a label are not those that chose it: they are the last 20 of their prefix.
  first = {}
  for b, z, m in walks.drawn:
    first.setdefault((b, z), []).append(m)
  assert all(ms == list(range(len(ms))) and len(ms) in (8, 20, 28) for ms in first.values())
  for b in np.flatnonzero(~right_b):  # the prompt of an incorrect seed is always probed
    assert values.successes_bz[b, 0] == walks.draw(np.full(20, b), np.zeros(20, int), np.arange(8, 28)).correct_r.sum()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_labels_against_exact_values(strategy):
  """E[successes] = Q E[continuations] in every strategy; the plain mean is unbiased where no outcome decides."""
  off, error = [], []
  for seed in range(25):
    walks = Walks(seed, problems=20)
    values = walks.spend(strategy)
    if strategy.name != "first_pit" and strategy.siblings:
      values = monte_carlo.with_own_outcome(values, walks.rollouts.verdict_b == 1)
    n_bz = values.continuations_bz[:, :-1]
    off.append((values.successes_bz[:, :-1] - n_bz * walks.exact_bz[:, :-1]).sum())
    error.append(np.nanmean(values.q_bz[:, :-1] - walks.exact_bz[:, :-1]))
  assert abs(np.mean(off)) <= 3 * np.std(off, ddof=1) / 5
  if strategy.name != "adaptive":
    assert abs(np.mean(error)) <= 3 * np.std(error, ddof=1) / 5


def test_the_plain_mean_of_adaptive_counts_is_biased_and_we_say_so():
  error = []
  for seed in range(25):
    walks = Walks(seed, problems=20)
    values = walks.spend(monte_carlo.Strategy("adaptive", 6))
    error.append((values.q_bz[:, :-1] - walks.exact_bz[:, :-1]).mean())
  assert np.mean(error) < -3 * np.std(error, ddof=1) / 5


@pytest.mark.parametrize("name", ["uniform", "adaptive"])
@pytest.mark.parametrize("reuse", [False, True])
def test_an_interrupted_run_gives_the_same_counts(name, reuse):
  walks = Walks(7)
  tree, none_u = walks.tree(reuse), 0
  ask = {"uniform": lambda counts: rounds.top_up(counts, tree, 8),
         "adaptive": lambda counts: rounds.adaptive(counts, tree, n_mc=8, pilot=2, prior=(0.3, 0.7),
                                                    seed_successes_u=none_u, seeds_u=none_u)}[name]
  whole, total = rounds.run(tree, walks.rollouts, ask, walks.draw, rounds.nothing(tree.size))
  drawn = sorted(walks.drawn)
  assert len(set(drawn)) == len(drawn) and (whole.continuations_u >= (8 if name == "uniform" else 1)).all()
  walks.drawn.clear()
  counts, before = rounds.nothing(tree.size), 0
  for _ in range(total):  # each round by a run of its own, which knows the stored counts alone
    stored = rounds.Counts(*(x.copy() for x in counts))
    once = iter([ask(stored)])
    counts, done = rounds.run(tree, walks.rollouts, lambda _: next(once, np.zeros(tree.size, int)), walks.draw, stored)
    assert done == 1
    for old, new in zip(stored, counts):
      assert (new >= old).all()
  for a, b in zip(whole, counts):
    np.testing.assert_array_equal(a, b)
  assert sorted(walks.drawn) == drawn and not ask(counts).any()


def test_reuse_draws_less_and_counts_no_less():
  tokens = {}
  for reuse in (False, True):
    walks = Walks(3)
    values = walks.spend(monte_carlo.Strategy("uniform", 8, reuse))
    assert (values.continuations_bz[:, :-1] >= 8).all()
    tokens[reuse] = len(walks.drawn)
  assert tokens[True] < 0.7 * tokens[False]


def test_a_siblings_ending_counts_and_the_seeds_own_does_not():
  alone = Walks(4, n_cov=1)
  found = [alone.spend(monte_carlo.Strategy("uniform", 6, True, siblings)) for siblings in (False, True)]
  np.testing.assert_array_equal(found[0].continuations_bz, found[1].continuations_bz)
  walks = Walks(4, n_cov=3)
  without, having = (walks.spend(monte_carlo.Strategy("uniform", 6, True, siblings)) for siblings in (False, True))
  np.testing.assert_array_equal(having.continuations_bz[:, 0] - without.continuations_bz[:, 0], 2)
  right_pn = (walks.rollouts.verdict_b == 1).reshape(-1, 3)
  np.testing.assert_array_equal((having.successes_bz - without.successes_bz)[:, 0].reshape(-1, 3), right_pn.sum(1, keepdims=True) - right_pn)


def test_adaptive_goes_where_it_is_uncertain():
  """Of two prefixes with 8 outcomes, the even one gets more; the shorter continuation is preferred; nobody more than it has."""
  walks = Walks(0, problems=2, n_cov=1)
  tree = walks.tree(False)
  counts = rounds.nothing(8)._replace(continuations_u=np.full(8, 8), successes_u=np.array([4, 0, 4, 8, 4, 4, 2, 4]))
  more_u = rounds.adaptive(counts, tree, n_mc=16, pilot=2, prior=(0.3, 0.7), seed_successes_u=0, seeds_u=0)
  assert more_u[1] == 0 and more_u[0] > 0 and more_u[3] <= more_u[7]
  assert more_u[4] <= more_u[5] <= more_u[7] <= 8
  np.testing.assert_allclose(rounds.variance(1, 2, (1, 1)), 0.25 * 4 / 5)


@pytest.mark.parametrize("change, message", [
    ({"strategy": "second_pit"}, "'second_pit' is none of uniform, adaptive, first_pit"), ({"n_mc": 0}, "n_mc must be"),
    ({"seeds_per_problem": 0}, "seeds_per_problem"), ({"adaptive.pilot": 0}, "pilot"), ({"adaptive.prior": (0.0, 1.0)}, "prior"),
    ({"first_pit.probes": 0}, "probes"), ({"first_pit.pit_max_q": 1.0}, "pit_max_q"), ({"first_pit.high_q": 1.5}, "high_q")])
def test_settings_that_mean_nothing(change, message):
  knobs = default.get_config().monte_carlo
  knobs.update_from_flattened_dict(change)
  with pytest.raises(UserError, match=message):
    monte_carlo.strategy_of(knobs, True)
