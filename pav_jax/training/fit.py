"""From a config section, rows and a loss to a trained network."""

import jax
import numpy as np

from pav_jax.errors import UserError
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib
from pav_jax.training.run import Run
from pav_jax.training.run import epoch_rows
from pav_jax.training.run import host_rows


def mean_loss(loss_fn, rows, batch_size: int, mesh, what: str):
  """evaluate(params) -> {'loss': ...} over all rows, in batches filled up with rows that weigh nothing.

  Raises UserError (at the call) when all rows together weigh nothing.
  """
  summed = jax.jit(lambda params, batch: loss_fn(params, batch, jax.random.key(0))[:2])
  count = len(rows[0])
  def evaluate(params):
    sums = np.zeros(2)
    for start in range(0, count, batch_size):
      index = np.arange(start, start + batch_size)
      batch = type(rows)(*(x[np.minimum(index, count - 1)] for x in rows))
      batch = jax.tree.map(host_rows, batch.masked(index < count))
      sums += np.array(jax.device_get(summed(params, mesh_lib.put_rows(batch, mesh))))
    if not sums[1] > 0:
      raise UserError(f"{what}: none of the {count} validation rows weighs anything")
    return {"loss": float(sums[0] / sums[1])}
  return evaluate


def fit(run: Run, knobs, *, init, patterns, meta: dict, loss_fn, train_rows, valid_rows,
        path, what: str, seed: int, start_params=None) -> dict:
  """Trains one network with one loss: what SFT and every verifier share.

  init(key) -> parameters, used where start_params is None; patterns: path
  patterns of their sharding; meta: what a checkpoint says of itself.
  knobs: a config section with num_steps, batch_size, microbatches, peak_lr,
  warmup_steps, b1, b2, clip_norm, weight_decay, eval_every, save_every,
  log_every. Rows are NamedTuples of host arrays with equal first axis.
  """
  rows_per_host = knobs.batch_size // jax.process_count()
  if knobs.batch_size % (knobs.microbatches * run.mesh.shape["data"] * run.mesh.shape["fsdp"]) or not rows_per_host:
    raise UserError(f"{what}: batch_size {knobs.batch_size} does not divide into {knobs.microbatches} "
                    f"micro-batches over {run.mesh.shape['data'] * run.mesh.shape['fsdp']} devices")
  tx = state_lib.optimizer(
      peak_lr=knobs.peak_lr, warmup_steps=knobs.warmup_steps, num_steps=knobs.num_steps, b1=knobs.b1,
      b2=knobs.b2, clip_norm=knobs.clip_norm, weight_decay=knobs.weight_decay)
  key = jax.random.key(seed)
  state = state_lib.create(init, tx, key, run.mesh, patterns, start_params)
  rows = epoch_rows(len(train_rows[0]), knobs.batch_size, seed)
  step_fn = step_lib.jitted(loss_fn, tx, microbatches=knobs.microbatches,
                            state_shardings=jax.tree.map(lambda x: x.sharding, state))
  return loop.train(
      state, step_fn, lambda n: jax.tree.map(lambda x: x[host_rows(rows(n))], train_rows), key,
      num_steps=knobs.num_steps, evaluate=mean_loss(loss_fn, valid_rows, knobs.batch_size, run.mesh, what),
      eval_every=knobs.eval_every, save_every=knobs.save_every, log_every=knobs.log_every,
      path=path, meta=meta, mesh=run.mesh, what=what)
