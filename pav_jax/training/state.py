"""What training carries from step to step: arrays only, born sharded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pav_jax.errors import UserError
from pav_jax.training import mesh as mesh_lib


class TrainState(NamedTuple):
  """step: int32 scalar, updates done; the randomness of step n is fold_in(key, n), never carried."""

  step: jax.Array
  params: Any
  opt_state: Any


def create(init, tx: optax.GradientTransformation, key, mesh, patterns, params=None):
  """A TrainState laid out on the mesh, from `init(key)` or from given parameters.

  No leaf is ever whole on one device: shapes are evaluated, patterns give the
  shardings, and the jitted initialiser writes its output there.
  """
  layout = jax.tree.map(lambda x: x.sharding, abstract(init, tx, mesh, patterns))
  if params is None:
    return jax.jit(lambda key: from_params(init(key), tx), out_shardings=layout)(key)
  return jax.jit(lambda p: from_params(p, tx), out_shardings=layout)(params)


def abstract(init, tx: optax.GradientTransformation, mesh, patterns) -> TrainState:
  """The state as shapes, types and shardings alone."""
  return mesh_lib.abstract(jax.eval_shape(lambda key: from_params(init(key), tx), jax.random.key(0)), mesh, patterns)


def from_params(params, tx: optax.GradientTransformation) -> TrainState:
  """Step 0 with these parameters."""
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def check_dtype(param_dtype: str):
  """UserError for parameters that Adam cannot train.

  bfloat16 has 8 bits: a weight of 1 stays where it is under every step below
  .002, and a second moment with b2 = .999 never falls. Products may be in
  bfloat16 (`dtype`), and what is only read may lie in it.
  """
  if param_dtype != "float32":
    raise UserError(f"param_dtype={param_dtype}: small steps are lost in it, so nothing is trained in it: param_dtype=float32 "
                    "(and dtype=bfloat16 for fast products)")


def optimizer(*, peak_lr: float, warmup_steps: int, num_steps: int, b1: float, b2: float,
              clip_norm: float, weight_decay: float) -> optax.GradientTransformation:
  """Adam with linear warm-up and cosine decay to 0 at num_steps, after clipping by global norm."""
  schedule = optax.warmup_cosine_decay_schedule(
      0.0, peak_lr, min(warmup_steps, max(num_steps - 1, 0)), max(num_steps, 1))
  return optax.chain(
      optax.clip_by_global_norm(clip_norm),
      optax.adamw(schedule, b1=b1, b2=b2, weight_decay=weight_decay))
