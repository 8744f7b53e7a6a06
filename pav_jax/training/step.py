"""The one update; every stage that trains brings only its loss.

A loss is `loss_fn(params, batch, key) -> (loss_sum, weight_sum, metric_sums)`:
sums, not means, so that accumulation over micro-batches and ragged masks stay
exact. The update divides once, at the end.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from pav_jax.training import mesh as mesh_lib
from pav_jax.training.state import TrainState


def train_step(state: TrainState, batch, key, *, loss_fn, tx: optax.GradientTransformation,
               microbatches: int):
  """(new state, metrics): gradient of loss_sum / weight_sum over the whole batch, then tx.

  batch: a tree of (b, ...) arrays; b must be divisible by microbatches. Every
  entry of metric_sums is divided by weight_sum, unless it is a (sum, weight) pair.
  """
  key = jax.random.fold_in(key, state.step)

  def sums(params, piece, piece_key):
    loss_sum, weight_sum, metric_sums = loss_fn(params, piece, piece_key)
    return loss_sum, (loss_sum, weight_sum, metric_sums)

  grad_fn = jax.grad(sums, has_aux=True)
  if microbatches == 1:
    grad_sum, (loss_sum, weight_sum, metric_sums) = grad_fn(state.params, batch, key)
  else:
    # Piece i takes rows i, i + n, ...: rows stay on the devices that hold them.
    pieces = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch)
    def add(total, x):
      return jax.tree.map(jnp.add, total, grad_fn(state.params, *x)), None
    keys = jax.random.split(key, microbatches)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(
        grad_fn, state.params, jax.tree.map(lambda x: x[0], pieces), keys[0]))
    (grad_sum, (loss_sum, weight_sum, metric_sums)), _ = jax.lax.scan(add, zero, (pieces, keys))
  grads = jax.tree.map(lambda g: g / jnp.maximum(weight_sum, 1e-9).astype(g.dtype), grad_sum)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  mean = lambda x: x[0] / jnp.maximum(x[1], 1e-9) if isinstance(x, tuple) else x / jnp.maximum(weight_sum, 1e-9)
  metrics = {name: mean(x) for name, x in metric_sums.items()}
  metrics |= {"loss": loss_sum / jnp.maximum(weight_sum, 1e-9), "grad_norm": optax.tree.norm(grads)}
  return TrainState(state.step + 1, params, opt_state), metrics


def jitted(loss_fn, tx, *, microbatches: int, state_shardings):
  """`train_step(state, batch, key)`, jitted, the state donated and kept where it lies."""
  step = functools.partial(train_step, loss_fn=loss_fn, tx=tx, microbatches=microbatches)
  step = mesh_lib.on(jax.tree.leaves(state_shardings)[0].mesh, step)
  return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, None))
