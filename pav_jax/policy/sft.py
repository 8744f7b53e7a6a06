"""Supervised fine-tuning: the base policy pi, and pretraining for anything that starts from text.

  1. Rows are prompt + solution + EOS; the loss is on the solution alone.
  2. Batches are permutations of the training problems, a new one every epoch.
  3. The loss is the summed -log p(token) over the summed weights, in chunks of
     the vocabulary's logits.
  4. The parameters with the lowest validation loss are kept in `best/` (the
     paper: best checkpoint on validation, App. D).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models.network import Network
from pav_jax.problems import prepared
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib
from pav_jax.training.run import Run
from pav_jax.training.run import epoch_rows
from pav_jax.training.run import host_rows


class TextBatch(NamedTuple):
  """token_bt: int32 rows; weight_bt: float32, 1 where the token is a target (never position 0)."""

  token_bt: np.ndarray
  weight_bt: np.ndarray

  def masked(self, live_b: np.ndarray) -> "TextBatch":
    """The same rows, those that are not live weighing nothing."""
    return self._replace(weight_bt=self.weight_bt * live_b[:, None])


def text_loss(network: Network, params, token_bt, weight_bt):
  """(sum of -log p over weighted tokens, sum of weights); position t predicts token t + 1."""
  hidden_btd = network.hidden(params, token_bt)
  log_prob_bt = network.log_probs(params, hidden_btd[:, :-1], token_bt[:, 1:])
  return -(log_prob_bt * weight_bt[:, 1:]).sum(), weight_bt[:, 1:].sum()


def sft_loss(network: Network):
  """The loss of supervised fine-tuning, as `training.step` wants it."""
  def loss_fn(params, batch: TextBatch, key):
    del key  # nothing is random in it
    loss_sum, weight_sum = text_loss(network, params, batch.token_bt, batch.weight_bt)
    return loss_sum, weight_sum, {}
  return loss_fn


def text_rows(problems: prepared.Problems) -> TextBatch:
  """All rows of a split. UserError if a problem has no solution to imitate."""
  missing = np.flatnonzero(problems.solution_length_p <= 1)
  if len(missing):
    raise UserError(f"{len(missing)} of {len(problems.id_p)} problems have no solution to imitate, "
                    f"first {problems.id_p[missing[0]]}")
  start, length = problems.prompt_length_p, problems.solution_length_p
  token_bt = prepared.join_rows(problems.prompt_pt, start, problems.solution_pt, length)
  at_bt = np.arange(token_bt.shape[1])[None]
  weight_bt = (at_bt >= start[:, None]) & (at_bt < (start + length)[:, None])
  return TextBatch(token_bt, weight_bt.astype(np.float32))


def mean_loss(loss_fn, rows, batch_size: int, mesh):
  """evaluate(params) -> {'loss': ...} over all rows, in batches filled up with rows that weigh nothing."""
  summed = jax.jit(lambda params, batch: loss_fn(params, batch, jax.random.key(0))[:2])
  count = len(rows[0])
  def evaluate(params):
    sums = np.zeros(2)
    for start in range(0, count, batch_size):
      index = np.arange(start, start + batch_size)
      batch = type(rows)(*(x[np.minimum(index, count - 1)] for x in rows))
      batch = jax.tree.map(host_rows, batch.masked(index < count))
      sums += np.array(jax.device_get(summed(params, mesh_lib.put_rows(batch, mesh))))
    return {"loss": float(sums[0] / max(sums[1], 1e-9))}
  return evaluate


def fit(run: Run, arch: architecture.Architecture, knobs, *, loss_fn, train_rows, valid_rows,
        path, what: str, seed: int, start_params=None) -> dict:
  """Trains one network with one loss: the part that SFT and every verifier share.

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
  state = state_lib.create(arch.network.init, tx, key, run.mesh, architecture.SHARDING, start_params)
  rows = epoch_rows(len(train_rows[0]), knobs.batch_size, seed)
  step_fn = step_lib.jitted(loss_fn, tx, microbatches=knobs.microbatches,
                            state_shardings=jax.tree.map(lambda x: x.sharding, state))
  return loop.train(
      state, step_fn, lambda n: jax.tree.map(lambda x: x[host_rows(rows(n))], train_rows), key,
      num_steps=knobs.num_steps, evaluate=mean_loss(loss_fn, valid_rows, knobs.batch_size, run.mesh),
      eval_every=knobs.eval_every, save_every=knobs.save_every, log_every=knobs.log_every,
      path=path, meta=arch.meta(), mesh=run.mesh, what=what)


def run_stage(run: Run):
  """sft: problems -> policy/."""
  folder, done = run.start("sft", sections=["policy", "sft"], inputs=["problems/train", "problems/validation"])
  if done:
    return
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  arch = architecture.build(run.config.policy, vocabulary)
  train_rows = text_rows(prepared.read(run.folder("problems/train")))
  valid_rows = text_rows(prepared.read(run.folder("problems/validation")))
  start = architecture.load(run.config.policy.init_from, arch, run.mesh)
  found = fit(run, arch, run.config.sft, loss_fn=sft_loss(arch.network), train_rows=train_rows,
              valid_rows=valid_rows, path=folder.path, what="sft", seed=run.config.seed, start_params=start)
  folder.finish(0, {**found, "parameters": arch.num_params, "tokens_per_row": int(train_rows.token_bt.shape[1]),
                    "train_rows": len(train_rows.token_bt), "valid_rows": len(valid_rows.token_bt)})
