"""Reading a verifier in one pass, and the loss that trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL, PAD
from pav_jax.errors import UserError
from pav_jax.verifiers import score
from pav_jax.verifiers import taught
from pav_jax.verifiers import train

PARAMS = fakes.gemma_params(1)
PROMPT_PT = np.array([[BOS, A, B, C], [BOS, C, PAD, PAD]], np.int32)
PROMPT_LENGTH_P = np.array([4, 2], np.int32)
PROBLEM_B = np.array([0, 0, 1], np.int32)
RESPONSE_BT = np.array([[A, NL, B, NL, C, EOS], [B, NL, EOS, PAD, PAD, PAD], [C, C, NL, A, NL, B]], np.int32)
LENGTH_B = np.array([6, 3, 6], np.int32)
END_BZ = np.array([[-1, 1, 3, 5], [-1, 1, 2, -2], [-1, 2, 4, 5]], np.int32)


def _rows(target_bz=np.full((3, 4), 0.5), weight_bz=np.ones((3, 4))):
  none_b = np.zeros(3)
  responses = taught.Taught(PROBLEM_B, PROMPT_PT[PROBLEM_B], PROMPT_LENGTH_P[PROBLEM_B], RESPONSE_BT, LENGTH_B, END_BZ,
                            target_bz, none_b, none_b, none_b)
  return train.value_rows(responses, np.nan_to_num(target_bz), weight_bz * ~np.isnan(target_bz))


@pytest.fixture(scope="module")
def logit_bz():
  rows = _rows()
  logits_at = jax.jit(lambda token_bt, position_bz: score.logits_at(fakes.GEMMA, PARAMS, token_bt, position_bz))
  return np.array(logits_at(rows.token_bt, rows.position_bz))


def test_one_causal_pass_scores_each_prefix_as_if_alone(logit_bz):
  rows = _rows()
  prefixes = [(b, z, rows.position_bz[b, z]) for b in range(3) for z in range(4) if END_BZ[b, z] != -2]
  alone_xt = np.stack([np.where(np.arange(rows.token_bt.shape[1]) <= at, rows.token_bt[b], B) for b, _, at in prefixes])
  hidden_xtd = jax.jit(fakes.GEMMA.hidden)(PARAMS, alone_xt)
  for x, (b, z, at) in enumerate(prefixes):
    np.testing.assert_allclose(logit_bz[b, z], fakes.GEMMA.scores(PARAMS, hidden_xtd[x, at]), atol=1e-5)
  assert np.ptp(logit_bz) > 0.1


@pytest.mark.parametrize("rows_per_call", [2, 4])
def test_prompts_read_once_give_the_same(logit_bz, rows_per_call):
  scored_bz = score.score_responses(
      fakes.GEMMA, PARAMS, PROMPT_PT, PROMPT_LENGTH_P, PROBLEM_B, RESPONSE_BT, LENGTH_B, END_BZ, rows_per_call=rows_per_call)
  np.testing.assert_allclose(scored_bz, np.where(END_BZ == -2, np.nan, jax.nn.sigmoid(logit_bz)), atol=1e-5)


def test_rows_of_a_verifier():
  rows = _rows(np.array([[0.1, 0.2, 0.3, 0.4], [0.5, np.nan, 0.7, np.nan], [0.9, 0.8, 0.7, 0.6]]), np.full((3, 4), 2.0))
  np.testing.assert_array_equal(rows.token_bt[:, :12], [
      #                    prefix ends: -1 |     1      3       5
      [BOS, A, B, C, A, NL, B, NL, C, EOS, PAD, PAD],
      [BOS, A, B, C, B, NL, EOS, PAD, PAD, PAD, PAD, PAD],
      [BOS, C, C, C, NL, A, NL, B, PAD, PAD, PAD, PAD]])
  np.testing.assert_array_equal(rows.position_bz, [[3, 5, 7, 9], [3, 5, 6, 0], [1, 4, 6, 7]])
  np.testing.assert_array_equal(rows.weight_bz, [[2, 2, 2, 2], [2, 0, 2, 0], [2, 2, 2, 2]])
  np.testing.assert_array_equal(rows.text_weight_bt[:, :10], [
      [0, 0, 0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]])
  np.testing.assert_allclose(rows.target_bz, np.float32([[0.1, 0.2, 0.3, 0.4], [0.5, 0, 0.7, 0], [0.9, 0.8, 0.7, 0.6]]))
  masked = rows.masked(np.array([True, False, True]))
  assert not masked.weight_bz[1].any() and not masked.text_weight_bt[1].any() and masked.weight_bz[2].all()


def test_gradient_of_the_loss_at_a_known_point():
  """Where every logit is 0 the gradient by a logit is weight * (1/2 - target): soft labels pull halfway."""
  target_bz = np.array([[0.25, 0.5, 1.0, 0.75], [0.3, np.nan, 0.0, np.nan], [np.nan] * 4])
  rows = _rows(target_bz, np.full((3, 4), 2.0))
  params = fakes.chain_params({t: {A: 0.5, B: 0.5} for t in range(fakes.SIZE)})
  loss_fn = train.value_loss(fakes.CHAIN, 0.0)
  def loss(score_d):
    loss_sum, weight_sum, metrics = loss_fn({**params, "score_d": score_d}, rows, None)
    return loss_sum, (weight_sum, metrics)
  (loss_sum, (weight_sum, metrics)), grad_d = jax.jit(jax.value_and_grad(loss, has_aux=True))(params["score_d"])
  assert weight_sum == 12 and loss_sum == pytest.approx(12 * np.log(2), rel=1e-6)
  assert list(metrics) == ["value_loss"]
  # By the last token of the prefix: C ends the prompts, NL steps 1 and 2 of the first row, EOS both responses.
  want_d = np.zeros(fakes.SIZE)
  want_d[C], want_d[NL], want_d[EOS] = 2 * (0.25 + 0.2), 2 * (0.0 - 0.5), 2 * (-0.25 + 0.5)
  np.testing.assert_allclose(grad_d[:fakes.SIZE], want_d, atol=1e-6)


def test_a_known_shift_is_put_back_for_the_loss():
  """Scores that are read 1.5 lower train as the others do."""
  lower = fakes.CHAIN._replace(scores=lambda params, hidden: fakes.CHAIN.scores(params, hidden) - 1.5)
  params, batch = fakes.random_chain(3), jax.tree.map(jnp.asarray, _rows())
  want = train.value_loss(fakes.CHAIN, 0.0)(params, batch, None)[0]
  assert train.value_loss(lower, 0.0, shift=1.5)(params, batch, None)[0] == pytest.approx(float(want), rel=1e-5)
  assert abs(train.value_loss(lower, 0.0)(params, batch, None)[0] - want) > 0.1


def test_text_loss_keeps_its_share():
  params = fakes.chain_params({t: {A: 0.5, B: 0.25, C: 0.25} for t in range(fakes.SIZE)})
  token_bt = np.array([[BOS, A, A, B]], np.int32)
  batch = train.ValueBatch(token_bt, np.array([[0, 0, 1, 1]], np.float32), np.array([[3]]), np.array([[0.5]]), np.array([[3.0]]))
  loss_sum, weight_sum, metrics = train.value_loss(fakes.CHAIN, 0.5)(params, jax.tree.map(jnp.asarray, batch), None)
  text_mean = (np.log(2) + np.log(4)) / 2
  assert weight_sum == 3
  assert loss_sum == pytest.approx(3 * np.log(2) + 0.5 * 3 * text_mean, rel=1e-4)
  assert metrics["text_loss"] / weight_sum == pytest.approx(text_mean, rel=1e-4)


def test_no_problem_is_on_both_sides():
  problem_b = np.random.default_rng(0).integers(0, 20, 100)
  train_b, valid_b = train.split_by_problem(problem_b, 0.25, 0)
  assert not set(problem_b[train_b]) & set(problem_b[valid_b])
  assert len(set(problem_b[valid_b])) == 5
  np.testing.assert_array_equal(np.sort(np.concatenate([train_b, valid_b])), np.arange(100))
  assert set(train.split_by_problem(problem_b, 0.25, 1)[1]) != set(valid_b)
  with pytest.raises(UserError, match="leaves no problem"):
    train.split_by_problem(problem_b, 1.0, 0)
