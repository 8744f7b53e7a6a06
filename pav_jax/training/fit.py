"""From a config section, rows and a loss to a trained network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib
from pav_jax.training.run import Run
from pav_jax.training.run import epoch_rows
from pav_jax.training.state import TrainState


def check(knobs, where: str):
  """UserError for what means nothing in a training section; where: its name, as `config.sft`."""
  errors.at_least(1, knobs, where, "num_steps", "batch_size", "microbatches", "eval_every", "save_every", "keep", "log_every")
  errors.at_least(0, knobs, where, "warmup_steps", "weight_decay")
  if knobs.warmup_steps >= knobs.num_steps:
    raise UserError(f"{where}.warmup_steps {knobs.warmup_steps} is not less than num_steps {knobs.num_steps}: "
                    "the rate would never come to peak_lr")
  for name in ("peak_lr", "clip_norm"):
    if not knobs[name] > 0:
      raise UserError(f"{where}.{name} {knobs[name]} is not above 0")
  for name in ("b1", "b2"):
    if not 0 <= knobs[name] < 1:
      raise UserError(f"{where}.{name} {knobs[name]} is not in [0, 1)")


def check_batch(knobs, where: str, parts: int):
  """UserError where the batch does not divide into its micro-batches over the parts of the mesh."""
  if knobs.batch_size % (knobs.microbatches * parts):
    raise UserError(f"{where}.batch_size {knobs.batch_size} does not divide into {knobs.microbatches} micro-batches "
                    f"over {parts} devices")


def mean_loss(loss_fn, rows, batch_size: int, mesh, what: str):
  """evaluate(params) -> {'loss': ...} over all rows, in batches filled up with rows that weigh nothing.

  Raises UserError (at the call) when all rows together weigh nothing.
  """
  summed = jax.jit(mesh_lib.on(mesh, lambda params, batch: loss_fn(params, batch, jax.random.key(0))[:2]))
  count = len(rows[0])
  def evaluate(params):
    sums = np.zeros(2)
    for start in range(0, count, batch_size):
      index = np.arange(start, start + batch_size)
      batch = type(rows)(*(x[np.minimum(index, count - 1)] for x in rows))
      sums += np.array(jax.device_get(summed(params, mesh_lib.put_rows(batch.masked(index < count), mesh))))
    if not sums[1] > 0:
      raise UserError(f"{what}: none of the {count} validation rows weighs anything")
    return {"loss": float(sums[0] / sums[1])}
  return evaluate


class Learner(NamedTuple):
  """An optimiser, a state's shapes and shardings under it, and the jitted step that updates one."""

  tx: optax.GradientTransformation
  like: TrainState
  step: Callable


def learner(knobs, mesh, *, init, patterns, loss_fn) -> Learner:
  """What trains a network as the section says: knobs as in `fit`."""
  tx = state_lib.optimizer(
      peak_lr=knobs.peak_lr, warmup_steps=knobs.warmup_steps, num_steps=knobs.num_steps, b1=knobs.b1, b2=knobs.b2,
      clip_norm=knobs.clip_norm, weight_decay=knobs.weight_decay)
  like = state_lib.abstract(init, tx, mesh, patterns)
  for x in jax.tree.leaves(like.params):
    state_lib.check_dtype(x.dtype.name)
  return Learner(tx, like, step_lib.jitted(loss_fn, tx, microbatches=knobs.microbatches,
                                           state_shardings=jax.tree.map(lambda x: x.sharding, like)))


def fit(run: Run, knobs, *, init, patterns, meta: dict, loss_fn, train_rows, valid_rows,
        path, what: str, seed: int, start_params=None) -> dict:
  """Trains one network with one loss: what SFT and every verifier share.

  init(key) -> parameters, used where start_params is None; patterns: path
  patterns of their sharding; meta: what a checkpoint says of itself.
  knobs: a config section with num_steps, batch_size, microbatches, peak_lr,
  warmup_steps, b1, b2, clip_norm, weight_decay, eval_every, save_every, keep,
  log_every. Rows are NamedTuples of host arrays with equal first axis.
  """
  tx, _, step_fn = learner(knobs, run.mesh, init=init, patterns=patterns, loss_fn=loss_fn)
  key = jax.random.key(seed)
  state = state_lib.create(init, tx, key, run.mesh, patterns, start_params)
  rows = epoch_rows(len(train_rows[0]), knobs.batch_size, seed)
  return loop.train(
      state, step_fn, lambda n: jax.tree.map(lambda x: x[rows(n)], train_rows), key,
      num_steps=knobs.num_steps, evaluate=mean_loss(loss_fn, valid_rows, knobs.batch_size, run.mesh, what),
      eval_every=knobs.eval_every, save_every=knobs.save_every, keep=knobs.keep, log_every=knobs.log_every,
      path=path, meta=meta, mesh=run.mesh, what=what)
