"""The one loop. Its order is fixed, because exact resume depends on it:

  1. restore the newest state that can be read, if there is one;
  2. for each step n: batch n (a pure function of n), dispatch the update,
     then read the metrics of step n - 1, while the devices work on n;
  3. every `eval_every` steps and at the end: validation loss, and the best
     parameters so far are kept in `best/`;
  4. every `save_every` steps, at the end, and when the machine is to be taken
     (SIGTERM) or Ctrl-C is pressed: the whole state, in `latest/`, after `best/`
     is whole; it is written while the next steps are computed;
  5. at the end, and after an error: nothing is being written when it returns.
"""

import math
from collections.abc import Callable
from typing import Any
from typing import Protocol

from etils import epath
import jax

from pav_jax.errors import UserError
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics as metrics_lib
from pav_jax.training.checkpoint import Checkpoints
from pav_jax.training.preemption import NOTICE
from pav_jax.training.state import TrainState


class Memory(Protocol):
  """What a step function keeps beside the state for its figures, saved with every state."""

  def tell(self) -> Any:
    """As JSON values."""

  def recall(self, step: int, told: Any):
    """What it told when so many steps were done; None where nothing has been saved."""


def train(state: TrainState, step_fn: Callable, batch_fn: Callable, key, *, num_steps: int,
          evaluate: Callable, eval_every: int, save_every: int, keep: int, log_every: int,
          path: epath.Path, meta: dict, mesh, what: str, memory: Memory | None = None) -> dict:
  """Trains to num_steps and returns {'loss': best validation loss, 'step': where it was reached}.

  step_fn(state, batch, key) -> (state, metrics); batch_fn(n) -> host arrays of
  step n; evaluate(params) -> dict of floats with a 'loss'; memory: what
  step_fn keeps beside the state. Writes path/curves.jsonl, path/best, and the
  newest `keep` states to path/latest. Raises UserError when a loss is not
  finite (the checkpoints written before stay), Preempted after SIGTERM or Ctrl-C.
  """
  latest = Checkpoints(path / "latest", keep=keep)
  best = Checkpoints(path / "best", by_loss=True)
  remembered = None
  if latest.latest() is not None:
    state, saved = latest.restore(state)
    remembered = saved.get("memory")
  first = int(state.step)
  if memory is not None:
    memory.recall(first, remembered)
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

  with bar, NOTICE.waits(), latest, best:
    leaving = NOTICE.due(first)  # all hosts begin to count here
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
      leaving = NOTICE.due(n + 1) or leaving
      if at_end or leaving or (n + 1) % save_every == 0:
        if pending is not None:
          read(*pending)
          pending = None
        best.wait()  # who goes on from this state does not come by the best one again
        latest.save(state, meta if memory is None else meta | {"memory": memory.tell()})
      if leaving and not at_end:
        latest.wait()
        raise NOTICE.left(f"{what}: saved at step {n + 1}")
  jax.block_until_ready(state.params)
  return found
