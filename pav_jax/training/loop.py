"""The one loop. Its order is fixed, because exact resume depends on it:

  1. restore the newest state, if there is one;
  2. for each step n: batch n (a pure function of n), dispatch the update,
     then read the metrics of step n - 1, while the devices work on n;
  3. every `eval_every` steps and at the end: validation loss, and the best
     parameters so far are kept in `best/`;
  4. every `save_every` steps and at the end: the whole state, in `latest/`.
"""

import math
import pathlib
from collections.abc import Callable

import jax

from pav_jax.errors import UserError
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics as metrics_lib
from pav_jax.training.checkpoint import Checkpoints
from pav_jax.training.state import TrainState


def train(state: TrainState, step_fn: Callable, batch_fn: Callable, key, *, num_steps: int,
          evaluate: Callable, eval_every: int, save_every: int, log_every: int,
          path: pathlib.Path, meta: dict, mesh, what: str) -> dict:
  """Trains to num_steps and returns {'loss': best validation loss, 'step': where it was reached}.

  step_fn(state, batch, key) -> (state, metrics); batch_fn(n) -> host arrays of
  step n; evaluate(params) -> dict of floats with a 'loss'. Writes
  path/curves.jsonl, path/best, path/latest. Raises UserError when a loss is
  not finite; the checkpoints written before stay.
  """
  latest = Checkpoints(path / "latest")
  best = Checkpoints(path / "best", by_loss=True)
  if latest.latest() is not None:
    state = latest.restore(state)
  first = int(state.step)
  curves = metrics_lib.Curves(path / "curves.jsonl", first)
  seen = [r for r in metrics_lib.read_curves(path / "curves.jsonl") if "valid_loss" in r]
  found = min(({"loss": r["valid_loss"], "step": r["step"]} for r in seen), key=lambda r: r["loss"],
              default={"loss": math.inf, "step": 0})

  bar = metrics_lib.progress(what=what, unit="step", total=num_steps, initial=first)
  pending = None

  def read(n, metrics):
    values = {name: float(x) for name, x in metrics.items()}
    if not math.isfinite(values["loss"]) or not math.isfinite(values["grad_norm"]):
      raise UserError(f"{what}: loss {values['loss']}, gradient norm {values['grad_norm']} at step {n}, "
                      f"batch {n - 1}; the last good checkpoint is {latest.latest()} in {latest.path}")
    if n % log_every == 0 or n == num_steps:
      curves.write(n, **values)
      bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

  with bar:
    for n in range(first, num_steps):
      state, metrics = step_fn(state, mesh_lib.put_rows(batch_fn(n), mesh), key)
      if pending is not None:
        read(*pending)
      pending = (n + 1, metrics)
      bar.update()
      at_end = n + 1 == num_steps
      if at_end or (n + 1) % eval_every == 0:
        read(*pending)
        pending = None
        values = evaluate(state.params)
        curves.write(n + 1, **{f"valid_{name}": x for name, x in values.items()})
        if not math.isfinite(values["loss"]):
          raise UserError(f"{what}: validation loss {values['loss']} at step {n + 1}; "
                          f"the last good checkpoint is {latest.latest()} in {latest.path}")
        if values["loss"] < found["loss"]:
          found = {"loss": values["loss"], "step": n + 1}
          best.save(state, meta, values["loss"])
      if at_end or (n + 1) % save_every == 0:
        if pending is not None:
          read(*pending)
          pending = None
        latest.save(state, meta)
  jax.block_until_ready(state.params)
  for checkpoints in (latest, best):
    checkpoints.close()
  return found
