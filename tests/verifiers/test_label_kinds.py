"""The neighbours' labels: goldens, a law each, and what their means are."""

import math

import numpy as np
import pytest

from configs import default
from pav_jax.errors import UserError
from pav_jax.values import equations
from pav_jax.values import monte_carlo
from pav_jax.verifiers import taught
from pav_jax.verifiers import targets
from pav_jax.verifiers import train
from tests.verifiers import test_taught

NAN = np.nan
# Of 8 continuations each, but for the ends, of which the outcome is known: 0 and 1.
#                 prompt   step 1   2     3    the end
Q_BZ = np.array([[0.250, 0.500, 0.375, 0.000, 0.000],
                 [0.000, 0.125, 0.000, 0.125, 1.000],
                 [0.000, 0.000, 0.625, 0.500, 1.000],
                 [0.500, NAN, 0.000, NAN, NAN]])


def said(kind, q_bz=Q_BZ, **changes):
  knobs = default.get_config().verifier
  knobs.update(changes)
  return targets.process_labels(kind, q_bz, **targets.thresholds(knobs))


def test_goldens():
  """What is not there says nothing: neither itself, nor of the step behind it where that is a change."""
  np.testing.assert_array_equal(said("hard"), [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 1, 1], [1, NAN, 0, NAN, NAN]])
  np.testing.assert_array_equal(said("drop"), [[1, 1, 1, 0, NAN], [0, 1, 0, NAN, NAN], [0, 0, NAN, NAN, NAN], [1, NAN, 0, NAN, NAN]])
  # .5 / .25, .375 / .5, 0 / .375, 0 / 0 | x / 0, 0 / x | 0 / 0, x / 0, .5 / .625 = .8
  np.testing.assert_array_equal(said("relative"), [[NAN, 1, 0, 0, 0], [NAN, 1, 0, 1, 1], [NAN, 0, 1, 1, 1], [NAN] * 5])
  # Best-of-4 of .125 is .414, of .25 .684, of .375 .847, of .5 .938. At alpha = 5: .5 + 5 (.938 - .684), .375 + 5 (.847 - .938) < 0.
  np.testing.assert_array_equal(said("effective", effective_alpha=5.0), [[NAN, 1, 0, 0, 0], [NAN, 1, 0, 1, 1], [NAN, 0, 1, 1, 1], [NAN] * 5])
  # At .4 the second step stays above 0: .375 - .4 * .09; above .35 it does not.
  np.testing.assert_array_equal(said("effective")[0], [NAN, 1, 1, 0, 0])
  np.testing.assert_array_equal(said("effective", effective_above=0.35)[0], [NAN, 1, 0, 0, 0])
  np.testing.assert_array_equal(said("q"), Q_BZ)


def test_a_hard_label_is_an_unbiased_value_of_best_of_n():
  """And so no Q^pi: over all that can happen to n continuations, its mean is Eq. 30's."""
  for n, q in ((1, 0.3), (4, 0.3), (8, 0.05)):
    count_x = np.arange(n + 1)
    chance_x = np.array([math.comb(n, s) * q**s * (1 - q)**(n - s) for s in count_x])
    assert chance_x @ said("hard", count_x[:, None] / n)[:, 0] == pytest.approx(equations.best_of_k(q, n))


def test_drop_keeps_the_hard_labels_up_to_the_first_lost_step_and_their_mean():
  """Every pair of counts of two steps, weighed by its chance: of those that are left of the second the mean is that of all."""
  n, q1, q2 = 3, 0.2, 0.4
  one_x, two_x = (x.ravel() for x in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
  chance = lambda s, q: np.array([math.comb(n, x) * q**x * (1 - q)**(n - x) for x in s])
  weight_x = chance(one_x, q1) * chance(two_x, q2)
  q_xz = np.stack([np.ones(len(one_x)), one_x / n, two_x / n], axis=1)
  drop_xz, hard_xz = said("drop", q_xz), said("hard", q_xz)
  kept_xz = ~np.isnan(drop_xz)
  np.testing.assert_array_equal(drop_xz[kept_xz], hard_xz[kept_xz])
  assert kept_xz[:, :2].all() and (kept_xz[:, 2] == (one_x > 0)).all()
  assert (weight_x * np.nan_to_num(drop_xz[:, 2])).sum() / weight_x[kept_xz[:, 2]].sum() == pytest.approx(equations.best_of_k(q2, n))


def test_a_verdict_of_relative_progress_does_not_mind_the_problem_s_difficulty():
  """The same share lost is the same verdict at any value; absolute labels see another thing."""
  scale_b1 = np.array([[1.0], [0.5], [0.01]])
  same = said("relative", scale_b1 * np.array([[0.5, 0.4, 0.3]]))
  np.testing.assert_array_equal(same, [[NAN, 1, 0]] * 3)
  np.testing.assert_array_equal(said("relative", Q_BZ, relative_ratio=1e-6)[:, 1:], np.where(np.isnan(said("relative")[:, 1:]), NAN, said("hard")[:, 1:]))


def test_effective_without_its_advantage_is_hard():
  """alpha = 0 and the threshold 0: Abs-Q, of steps. Where nothing is won or lost alpha says nothing."""
  known_bs = ~np.isnan(Q_BZ[:, 1:]) & ~np.isnan(Q_BZ[:, :-1])
  np.testing.assert_array_equal(said("effective", effective_alpha=0.0)[:, 1:][known_bs], said("hard")[:, 1:][known_bs])
  flat = np.full((1, 3), 0.25)
  np.testing.assert_array_equal(said("effective", flat, effective_alpha=9.0), [[NAN, 1, 1]])


def test_marks_are_of_the_drawn_continuations_and_weigh_once():
  """A seed's own right ending makes no prefix of it good: a hard label is of n continuations wherever it stands."""
  knobs = test_taught.knobs(own_outcomes=True)
  for kind in targets.MARKS:
    found = taught.own(kind, knobs, test_taught.PROBLEMS, test_taught.ROLLOUTS, test_taught.VALUES)
    np.testing.assert_array_equal(found.target_bz, targets.targets(kind, test_taught.VALUES, knobs))
    np.testing.assert_array_equal(found.count_bz, 1)
    np.testing.assert_array_equal(found.useful_b, [True, False])
  none = test_taught.VALUES._replace(successes_bz=np.array([[0, 0, 1], [0, 0, 0]]))
  found = taught.own("hard", knobs, test_taught.PROBLEMS, test_taught.ROLLOUTS, none)
  np.testing.assert_array_equal(found.target_bz[0], [0, 0, 1])


def test_of_labels_of_others():
  """As they are; or whether they are above 0, each weighing once."""
  found = {kind: taught.others(kind, test_taught.knobs(), test_taught.IMPORTED) for kind in targets.VALUES}
  np.testing.assert_array_equal(found["q"].target_bz, test_taught.IMPORTED.q_bz)
  np.testing.assert_array_equal(found["hard"].target_bz, [[NAN, 1, 1, NAN], [NAN, 0, NAN, NAN], [NAN] * 4])
  np.testing.assert_array_equal(found["hard"].count_bz, [[0, 1, 1, 0], [0, 1, 0, 0], [0] * 4])
  lost = test_taught.IMPORTED._replace(q_bz=np.array([[1, 0, 0.3, 1.0]] * 3), count_bz=np.full((3, 4), 5))
  found = taught.others("drop", test_taught.knobs(), lost)
  np.testing.assert_array_equal(found.target_bz, [[1, 0, NAN, NAN]] * 3)
  np.testing.assert_array_equal(found.labels_b, 2)


Q8 = {"monte_carlo.n_mc": 8}


@pytest.mark.parametrize("changes, said_", [
    *(({"verifier.kinds": (kind,), "monte_carlo.strategy": "adaptive"}, f"a label of '{kind}' is of n continuations") for kind in targets.MARKS),
    ({"verifier.kinds": ("q", "hard"), "monte_carlo.reuse": True}, "monte_carlo.reuse spends more on some"),
    *(({"verifier.kinds": (kind,), "verifier.labels": "imported"}, "the labels of others are of steps") for kind in (*targets.VERDICTS, "implicit")),
    ({"verifier.kinds": ("hard", "hard")}, "comes once"),
    ({"verifier.kinds": ("relative",), "verifier.relative_ratio": 0.0}, "verifier.relative_ratio 0.0 is not above 0"),
    ({"verifier.kinds": ("effective",), "verifier.effective_alpha": -1.0}, "verifier.effective_alpha -1.0 is less than 0"),
    ({"verifier.kinds": ("implicit",), "verifier.implicit_beta": 0.0}, "verifier.implicit_beta 0.0 is not above 0"),
    ({"verifier.kinds": ("implicit",), "verifier.implicit.num_steps": 0}, "config.verifier.implicit.num_steps"),
    ({"verifier.kinds": ("drop",), "verifier.q.num_steps": 0}, "config.verifier.q.num_steps"),
    ({"verifier.kinds": ("implicit",), "verifier.init_from": ""}, "kind 'implicit' measures how far it has gone")])
def test_what_would_teach_something_else(changes, said_):
  config = default.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=said_):
    train.check(config)


@pytest.mark.parametrize("changes", [
    {"verifier.kinds": ("orm", "q", *targets.MARKS, "implicit")},
    {"verifier.kinds": ("q", *targets.MARKS), "monte_carlo.strategy": "first_pit", "verifier.balance": "buckets", "verifier.own_outcomes": False},
    {"verifier.kinds": ("hard", "q"), "verifier.every_token": True}, {"verifier.kinds": ("relative",), "verifier.every_token": True, "verifier.balance": "buckets"},
    {"verifier.kinds": ("q", "hard", "relative"), "verifier.labels": "both"}, {"verifier.kinds": ("hard", "drop"), "verifier.labels": "imported"}])
def test_what_teaches_what_it_says(changes):
  config = default.get_config()
  config.update_from_flattened_dict(changes)
  train.check(config)


def test_balanced_marks_are_read_as_their_own_share():
  """With `classes` the shift is taken off: what is learnt of labels of 0 and 1 is their mean, .2, though right and wrong weighed the same."""
  found = targets.balance(np.array([[1.0, 0, 0, 0, 0]]), np.ones((1, 5)), "classes")
  share = (found.target_bz * found.weight_bz).sum() / found.weight_bz.sum()
  assert share == pytest.approx(0.5)
  assert 1 / (1 + np.exp(found.shift) * (1 - share) / share) == pytest.approx(0.2)
