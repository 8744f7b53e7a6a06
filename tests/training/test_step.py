"""The one update, on a linear model whose gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib

ROWS, WIDTH = 8, 3
TX = optax.sgd(1.0)
KEY = jax.random.key(0)


def _batch(seed=0):
  rng = np.random.default_rng(seed)
  weight_bt = rng.random((ROWS, 4)) * (rng.random((ROWS, 4)) < 0.5)
  weight_bt[:3] = 0  # ragged: whole rows without a weight
  return {"x_btd": rng.standard_normal((ROWS, 4, WIDTH)).astype(np.float32),
          "y_bt": rng.random((ROWS, 4)).astype(np.float32), "weight_bt": weight_bt.astype(np.float32)}


def _loss(params, batch, key):
  del key
  error_bt = batch["x_btd"] @ params["w_d"] - batch["y_bt"]
  far_bt = jnp.abs(error_bt) > 1
  return ((error_bt**2 * batch["weight_bt"]).sum(), batch["weight_bt"].sum(), {
      "absolute": (jnp.abs(error_bt) * batch["weight_bt"]).sum(), "far": (far_bt.sum(), far_bt.size * 1.0)})


def _update(batch, microbatches, loss_fn=_loss, step=0):
  state = state_lib.from_params({"w_d": jnp.arange(WIDTH, dtype=jnp.float32)}, TX)._replace(step=jnp.int32(step))
  run = jax.jit(lambda state, batch: step_lib.train_step(
      state, batch, KEY, loss_fn=loss_fn, tx=TX, microbatches=microbatches))
  return run(state, batch)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_the_update_is_the_gradient_of_the_weighted_mean(microbatches):
  """Sums are divided once: micro-batches of unequal weight, one of none, change nothing."""
  batch = _batch()
  error_bt = batch["x_btd"] @ np.arange(WIDTH) - batch["y_bt"]
  total = batch["weight_bt"].sum()
  grad_d = np.einsum("btd,bt->d", batch["x_btd"], 2 * error_bt * batch["weight_bt"]) / total
  state, metrics = _update(batch, microbatches)
  np.testing.assert_allclose(state.params["w_d"], np.arange(WIDTH) - grad_d, atol=1e-6)
  assert metrics["loss"] == pytest.approx((error_bt**2 * batch["weight_bt"]).sum() / total, rel=1e-6)
  assert metrics["absolute"] == pytest.approx((abs(error_bt) * batch["weight_bt"]).sum() / total, rel=1e-6)
  assert metrics["far"] == pytest.approx((abs(error_bt) > 1).mean())  # a pair brings its own weight
  assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(grad_d), rel=1e-6)
  assert state.step == 1


def test_a_batch_without_weight_moves_nothing():
  batch = _batch() | {"weight_bt": np.zeros((ROWS, 4), np.float32)}
  state, metrics = _update(batch, 2)
  np.testing.assert_array_equal(state.params["w_d"], np.arange(WIDTH))
  assert metrics["loss"] == 0


def test_soft_labels_stay_soft():
  """Regression: labels of 0.3 and 0.7 that become int are 0."""
  def loss_fn(params, batch, key):
    del key
    return ((params["w_d"][0] - batch["y_b"])**2).sum(), jnp.float32(len(batch["y_b"])), {"y": batch["y_b"].sum()}
  state, metrics = _update({"y_b": np.array([0.3, 0.7, 0.25, 0.75], np.float32)}, 2, loss_fn)
  assert metrics["y"] == pytest.approx(0.5)
  assert metrics["loss"] == pytest.approx((0.3**2 + 0.7**2 + 0.25**2 + 0.75**2) / 4)
  assert state.params["w_d"][0] == pytest.approx(1.0)


@pytest.mark.parametrize("step", [0, 7])
def test_randomness_of_a_step_is_a_function_of_its_number(step):
  def loss_fn(params, batch, key):
    del batch
    return params["w_d"].sum() * 0, jnp.float32(1), {"drawn": jax.random.uniform(key)}
  want = jax.random.fold_in(KEY, step)
  assert _update(_batch(), 1, loss_fn, step)[1]["drawn"] == jax.random.uniform(want)
  # Each of two micro-batches has its own.
  pieces = [float(jax.random.uniform(k)) for k in jax.random.split(want, 2)]
  assert pieces[0] != pieces[1]
  assert _update(_batch(), 2, loss_fn, step)[1]["drawn"] == pytest.approx(sum(pieces) / 2)
