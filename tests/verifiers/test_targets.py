"""What verifiers are trained to say, on two responses written out."""

import math

import numpy as np
import pytest

from configs import default
from pav_jax.errors import UserError
from pav_jax.values import equations
from pav_jax.values import monte_carlo
from pav_jax.verifiers import targets
from pav_jax.verifiers import train

NAN = np.nan
END_BZ = np.array([[-1, 5, 9, 12], [-1, 4, -2, -2]])
# Of 8 continuations each; the end is known.
#                                            z = 0  1  2  3
VALUES = monte_carlo.Values(END_BZ, np.array([[2, 5, 1, 1], [4, 0, 0, 0]]), np.array([[8, 8, 8, 1], [8, 1, 0, 0]]))
Q_BZ = np.array([[0.25, 0.625, 0.125, 1.0], [0.5, 0.0, NAN, NAN]])


def said(kind, values=VALUES, **changes):
  knobs = default.get_config().verifier
  knobs.update(changes)
  return targets.targets(kind, values, knobs)


def test_three_kinds():
  np.testing.assert_array_equal(said("q"), Q_BZ)
  np.testing.assert_array_equal(said("orm"), [[1, 1, 1, 1], [0, 0, NAN, NAN]])
  np.testing.assert_array_equal(said("orm", orm_at_end=True), [[NAN, NAN, NAN, 1], [NAN, 0, NAN, NAN]])
  # k = 1: A = .375 -.5 .875 | -.5, and (1 + A) / 2.
  np.testing.assert_allclose(said("advantage", prover_k=1),
                             [[NAN, 0.6875, 0.25, 0.9375], [NAN, 0.25, NAN, NAN]])
  # k = 2: of 28 pairs 13, 25, 7 hold a right one, and 22: A = 12/28 -18/28 21/28 | -22/28.
  np.testing.assert_allclose(said("advantage", prover_k=2),
                             [[NAN, 40 / 56, 10 / 56, 49 / 56], [NAN, 6 / 56, NAN, NAN]])


@pytest.mark.parametrize("k, n_mc", [(4, 4), (4, 8), (2, 4)])
def test_labels_of_an_advantage_have_its_mean(k, n_mc):
  """Every pair of counts once, weighed by its chance: Q = .2 at the prompt, .55 after the step, and a wrong end."""
  before_x, after_x = (x.ravel() for x in np.meshgrid(np.arange(n_mc + 1), np.arange(n_mc + 1)))
  chance = lambda s_x, q: np.array([math.comb(n_mc, s) * q**s * (1 - q)**(n_mc - s) for s in s_x])
  values = monte_carlo.Values(np.tile([-1, 3, 7], (len(before_x), 1)), np.stack([before_x, after_x, 0 * after_x], axis=1),
                              np.tile([n_mc, n_mc, 1], (len(before_x), 1)))
  mean_z = (chance(before_x, 0.2) * chance(after_x, 0.55)) @ said("advantage", values, prover_k=k)[:, 1:]
  exact_z = equations.best_of_k(np.array([0.2, 0.55, 0.0]), k)
  np.testing.assert_allclose(2 * mean_z - 1, equations.advantages(exact_z[None])[0], atol=1e-12)


def test_a_seed_whose_prefixes_were_not_sampled_teaches_the_orm_alone():
  values = monte_carlo.Values(np.array([[-1, 3, 7]]), np.array([[0, 0, 1]]), np.array([[0, 0, 1]]))
  np.testing.assert_array_equal(said("orm", values), [[1, 1, 1]])
  np.testing.assert_array_equal(said("q", values), [[NAN, NAN, 1]])
  assert np.isnan(said("advantage", values)).all()


def test_prefixes_behind_a_pit_have_no_label():
  """Kept are z = 0 .. 2, the pit among them; the end's outcome is known."""
  values = monte_carlo.Values(np.array([[-1, 3, 7, 9, 12]]), np.array([[10, 5, 0, 0, 0]]), np.array([[20, 20, 20, 0, 1]]))
  np.testing.assert_array_equal(said("q", values), [[0.5, 0.25, 0.0, NAN, 0.0]])
  np.testing.assert_allclose(said("advantage", values, prover_k=1), [[NAN, 0.375, 0.375, NAN, NAN]])
  labels = targets.balance(values.q_bz, values.continuations_bz, "none")
  assert labels.weight_bz[0, 3] == 0 and (labels.weight_bz[0, [0, 1, 2, 4]] > 0).all()


def test_an_unknown_kind():
  with pytest.raises(UserError, match="'prm' is none of orm, q, advantage, hard, drop, relative, effective, implicit"):
    said("prm")


@pytest.mark.parametrize("kind", ("orm", "q", "advantage"))
def test_no_label_is_rounded(kind):
  values = monte_carlo.Values(np.array([[-1, 3, 7]]), np.array([[6, 9, 17]]), np.array([[20, 20, 20]]))
  target_bz = said(kind, values, orm_at_end=True)
  assert target_bz.dtype == np.float64
  labels = target_bz[~np.isnan(target_bz)]
  assert len(labels) and ((labels > 0) & (labels < 1)).all()
  assert len(set(labels)) == len(labels)


def test_both_buckets_weigh_half():
  target_bz = np.array([[0.1, 0.2, 0.49], [0.5, NAN, 0.0], [0.7, 0.3, NAN]])
  found = targets.balance(target_bz, np.ones((3, 3)), "buckets")
  low, high = 7 / 2 / 5, 7 / 2 / 2
  np.testing.assert_allclose(found.weight_bz, np.float32([[low, low, low], [high, 0, low], [high, low, 0]]))
  np.testing.assert_array_equal(found.target_bz, np.float32([[0.1, 0.2, 0.49], [0.5, 0, 0.0], [0.7, 0.3, 0]]))
  assert found.weight_bz.dtype == found.target_bz.dtype == np.float32 and found.shift == 0


def test_classes_are_the_outcomes_behind_the_labels():
  """4 outcomes of which 1 right, 2 of which 1, 1 of which 0: as one row an outcome, 2 right and 5 wrong, each side 3.5."""
  found = targets.balance(np.array([[0.25, 0.5, 0.0, NAN]]), np.array([[4, 2, 1, 9]]), "classes")
  up, down = 3.5 / 2, 3.5 / 5
  weight = np.array([up + 3 * down, up + down, down, 0])
  np.testing.assert_allclose(found.weight_bz, [weight * 3 / weight.sum()], rtol=1e-6)
  np.testing.assert_allclose(found.target_bz, [[up / weight[0], up / weight[1], 0, 0]], rtol=1e-6)
  # What minimises the loss of a prefix, less the shift, is its share of right outcomes.
  logit = np.log(found.target_bz[0, :2] / (1 - found.target_bz[0, :2])) - found.shift
  np.testing.assert_allclose(1 / (1 + np.exp(-logit)), [0.25, 0.5], rtol=1e-5)


def test_a_label_of_more_outcomes_weighs_more_but_in_buckets():
  """There the end of a response, known from one outcome, weighs as any other prefix of its side."""
  of_20 = np.array([[0.2, 0.3, 0.6, 0.0]]), np.array([[20, 60, 20, 1]])
  np.testing.assert_allclose(targets.balance(*of_20, "none").weight_bz, np.array([[20, 60, 20, 1]]) * 4 / 101, rtol=1e-6)
  np.testing.assert_allclose(targets.balance(*of_20, "buckets").weight_bz, [[2 / 3, 2 / 3, 2, 2 / 3]], rtol=1e-6)


@pytest.mark.parametrize("how", targets.BALANCES)
def test_one_side_alone(how):
  found = targets.balance(np.array([[1.0, NAN, 1.0]]), np.ones((1, 3)), how)
  np.testing.assert_array_equal(found.weight_bz, [[1, 0, 1]])
  np.testing.assert_array_equal(found.target_bz, [[1, 0, 1]])
  assert found.shift == 0


def test_an_unknown_balance():
  with pytest.raises(UserError, match="'maybe' is none of buckets, classes, none"):
    targets.balance(Q_BZ, np.ones(Q_BZ.shape), "maybe")


def test_every_token_has_the_label_of_its_step():
  """  token   0   1   2   3   4          token   0   1   2   3   4
       step    1   1   2   2   2                  1   -   -   -   -
       label  .2  .2  .7  .7  .7                 .4   -   -   -   -
       count   6   6   6   6   6                  3                   """
  end_bz, target_bz = np.array([[-1, 1, 4], [-1, 0, -2]]), np.array([[0.5, 0.2, 0.7], [0.1, 0.4, NAN]])
  target_bt, count_bt, end_bt = targets.every_token(target_bz, np.array([[6, 9, 1], [3, 1, 0]]), end_bz, 5)
  np.testing.assert_allclose(target_bt, [[0.5, 0.2, 0.2, 0.7, 0.7, 0.7], [0.1, 0.4, NAN, NAN, NAN, NAN]])
  np.testing.assert_array_equal(count_bt, [[6, 6, 6, 6, 6, 6], [3, 3, 0, 0, 0, 0]])
  np.testing.assert_array_equal(end_bt, [[-1, 0, 1, 2, 3, 4], [-1, 0, -2, -2, -2, -2]])


def every_case():
  """(end_bz, right_b, values): each of 128 equally likely cases of one process, with n_mc = 2, under which Q at token 0 is 3/8.

  After token 0 the response ends at token 1, right in 1 of 2, or its step goes
  on to token 3, where Q is 1/4, and the response to token 4. The two are
  equally likely. The prompt's labels are of no account here.
  """
  short, long = [-1, 1, -2], [-1, 3, 4]
  cases = [(short, [1, right, 0], right) for right in (0, 1) for _ in range(32)]
  for s, copies in ((0, 9), (1, 6), (2, 1)):  # of a binomial of 2 tries at 1/4, in sixteenths
    cases += [(long, [1, s, right], right) for right in (0, 1, 0, 0) for _ in range(copies)]
  end_bz = np.array([end_z for end_z, _, _ in cases])
  successes_bz = np.array([s for _, s, _ in cases])
  last_bz = np.arange(3) == (end_bz > -2).sum(axis=1, keepdims=True) - 1
  continuations_bz = np.where(last_bz, 1, np.where(end_bz > -2, 2, 0))
  right_b = np.array([right for _, _, right in cases], bool)
  return right_b, monte_carlo.Values(end_bz, successes_bz, continuations_bz)


def learnt_at_token_0(values, count_bz, how):
  """Q at token 0 of what minimises the loss there."""
  target_bt, count_bt, _ = targets.every_token(values.q_bz, count_bz, values.end_bz, 5)
  found = targets.balance(target_bt, count_bt, how)
  mean = (found.weight_bz * found.target_bz)[:, 1].sum() / found.weight_bz[:, 1].sum()
  return 1 / (1 + np.exp(found.shift) * (1 - mean) / mean)


@pytest.mark.parametrize("own_outcomes", [False, True])
@pytest.mark.parametrize("how", ["classes", "none"])
def test_every_token_learns_q_inside_of_a_step(how, own_outcomes):
  """Exactly, over all that can happen; of some seeds only the outcome is known, as it is of seeds beyond seeds_per_problem."""
  right_b, values = every_case()
  if own_outcomes:
    few = values._replace(successes_bz=np.where(values.continuations_bz == 1, values.successes_bz, 0),
                          continuations_bz=values.continuations_bz * (values.continuations_bz == 1))
    both = monte_carlo.Values(*(np.concatenate(x) for x in zip(values, few)))
    values = monte_carlo.with_own_outcome(both, np.tile(right_b, 2))
  assert learnt_at_token_0(values, values.continuations_bz, how) == pytest.approx(3 / 8, abs=1e-6)


def test_every_token_in_buckets_would_learn_something_else():
  """Why `train.check` refuses it: a label that came out high weighs more."""
  _, values = every_case()
  assert abs(learnt_at_token_0(values, values.continuations_bz, "buckets") - 3 / 8) > 0.02


Q = {"verifier.kinds": ("q",)}
ADVANTAGE = {"verifier.kinds": ("q", "advantage"), "monte_carlo.n_mc": 4}


def configured(change):
  config = default.get_config()
  config.update_from_flattened_dict(change)
  return config


@pytest.mark.parametrize("change, message", [
    (Q | {"verifier.every_token": True, "monte_carlo.strategy": "adaptive"}, "every_token: under monte_carlo.strategy=adaptive"),
    (Q | {"verifier.every_token": True, "monte_carlo.strategy": "first_pit"}, "every_token: under monte_carlo.strategy=first_pit"),
    (Q | {"verifier.every_token": True, "verifier.balance": "buckets"}, "every_token: in buckets"),
    (Q | {"verifier.balance": "buckets", "monte_carlo.strategy": "adaptive"}, "buckets weighs labels once each"),
    (Q | {"verifier.balance": "buckets", "monte_carlo.strategy": "first_pit"}, "own_outcomes: first_pit labels few"),
    (Q | {"monte_carlo.checkpoint": "mu"}, "own_outcomes: a seed's ending"), (Q | {"rollouts.temperature": 0.7}, "own_outcomes: a seed's ending"),
    (Q | {"monte_carlo.top_p": 0.9}, "own_outcomes: a seed's ending"), (Q | {"rollouts.top_k": 5}, "own_outcomes: a seed's ending"),
    (ADVANTAGE | {"monte_carlo.n_mc": 3}, "best-of-4, from monte_carlo.n_mc=3 continuations: n_mc=4 at least"),
    (ADVANTAGE | {"monte_carlo.strategy": "adaptive"}, "'advantage' without bias from monte_carlo.strategy=adaptive"),
    (ADVANTAGE | {"verifier.kinds": ("advantage", "q")}, "'q' must stand before 'advantage'"),
    ({"verifier.model.param_dtype": "bfloat16"}, "param_dtype=bfloat16: small steps are lost"),
    ({"verifier.balance": "maybe"}, "'maybe' is none of buckets, classes, none"),
    ({"verifier.kinds": ("prm",)}, "each is one of orm, q, advantage")])
def test_labels_that_would_teach_something_else(change, message):
  with pytest.raises(UserError, match=message):
    train.check(configured(change))


@pytest.mark.parametrize("change", [
    {}, Q | {"verifier.every_token": True}, Q | {"verifier.every_token": True, "verifier.balance": "none"},
    Q | {"verifier.balance": "buckets"}, Q | {"monte_carlo.strategy": "adaptive"}, Q | {"monte_carlo.strategy": "first_pit"},
    Q | {"verifier.balance": "buckets", "monte_carlo.strategy": "first_pit", "verifier.own_outcomes": False},
    Q | {"rollouts.temperature": 0.7, "verifier.own_outcomes": False}, Q | {"rollouts.temperature": 0.7, "monte_carlo.temperature": 0.7},
    {"verifier.kinds": ("orm",), "verifier.every_token": True, "monte_carlo.strategy": "adaptive"},
    ADVANTAGE, ADVANTAGE | {"monte_carlo.strategy": "first_pit"}])
def test_labels_that_teach_what_they_say(change):
  train.check(configured(change))
