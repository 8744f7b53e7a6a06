"""What verifiers are trained to say, on two responses written out."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.verifiers import targets

NAN = np.nan
#               z = 0    1      2      3
Q_BZ = np.array([[0.25, 0.625, 0.125, 1.0],
                 [0.5, 0.0, NAN, NAN]])
END_BZ = np.array([[-1, 5, 9, 12], [-1, 4, -2, -2]])


def said(kind, q_bz=Q_BZ, end_bz=END_BZ, *, prover_k=4, orm_at_end=False):
  return targets.targets(kind, q_bz, end_bz, prover_k=prover_k, orm_at_end=orm_at_end)


def test_three_kinds():
  np.testing.assert_array_equal(said("q"), Q_BZ)
  np.testing.assert_array_equal(said("orm"), [[1, 1, 1, 1], [0, 0, NAN, NAN]])
  np.testing.assert_array_equal(said("orm", orm_at_end=True), [[NAN, NAN, NAN, 1], [NAN, 0, NAN, NAN]])
  # k = 1: A = .375 -.5 .875 | -.5, and (1 + A) / 2.
  np.testing.assert_allclose(said("advantage", prover_k=1),
                             [[NAN, 0.6875, 0.25, 0.9375], [NAN, 0.25, NAN, NAN]])
  # k = 2: Q = .4375 .859375 .234375 1 | .75 0.
  np.testing.assert_allclose(said("advantage", prover_k=2),
                             [[NAN, 0.7109375, 0.1875, 0.8828125], [NAN, 0.125, NAN, NAN]])


def test_a_seed_whose_prefixes_were_not_sampled_teaches_the_orm_alone():
  q_bz, end_bz = np.array([[NAN, NAN, 1.0]]), np.array([[-1, 3, 7]])
  np.testing.assert_array_equal(said("orm", q_bz, end_bz), [[1, 1, 1]])
  np.testing.assert_array_equal(said("q", q_bz, end_bz), q_bz)
  assert np.isnan(said("advantage", q_bz, end_bz)).all()


def test_prefixes_behind_a_pit_have_no_label():
  """Kept are z = 0 .. 2, the pit among them; the end's outcome is known."""
  q_bz, end_bz = np.array([[0.5, 0.25, 0.0, NAN, 0.0]]), np.array([[-1, 3, 7, 9, 12]])
  np.testing.assert_array_equal(said("q", q_bz, end_bz), q_bz)
  np.testing.assert_allclose(said("advantage", q_bz, end_bz, prover_k=1), [[NAN, 0.375, 0.375, NAN, NAN]])
  labels = targets.balance(q_bz, np.array([[20, 20, 20, 0, 1]]), "none")
  assert labels.weight_bz[0, 3] == 0 and (labels.weight_bz[0, [0, 1, 2, 4]] > 0).all()


def test_an_unknown_kind():
  with pytest.raises(UserError, match="'prm' is none of orm, q, advantage"):
    said("prm")


@pytest.mark.parametrize("kind", targets.KINDS)
def test_no_label_is_rounded(kind):
  q_bz = np.array([[0.3, 0.45, 0.85]])
  target_bz = said(kind, q_bz, np.array([[-1, 3, 7]]), orm_at_end=True)
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


def test_a_label_of_more_outcomes_weighs_more():
  for how in ("none", "buckets"):
    found = targets.balance(np.array([[0.2, 0.3, 0.6]]), np.array([[1, 3, 2]]), how)
    assert found.weight_bz[0, 1] == pytest.approx(3 * found.weight_bz[0, 0]) and found.weight_bz.mean() == pytest.approx(1)


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
       label  .2  .2  .7  .7  .7                 .4   -   -   -   -   """
  end_bz, x_bz = np.array([[-1, 1, 4], [-1, 0, -2]]), np.array([[0.5, 0.2, 0.7], [0.1, 0.4, 0.0]])
  np.testing.assert_allclose(targets.every_token(x_bz, end_bz, 5), [[0.5, 0.2, 0.2, 0.7, 0.7, 0.7], [0.1, 0.4, 0, 0, 0, 0]])
