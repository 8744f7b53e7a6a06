"""A toy training run for the tests of faults: one process or one of several, as main runs a stage.

  python tests/faults/toy.py WORKDIR HOSTS STEPS [WHAT INDEX STEP]

WHAT happens on process INDEX (-1: all) before that step, -1 is as soon as JAX's service is there: die, fail, term or int.
"""

import os
import pathlib
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed
from jax.sharding import PartitionSpec as P

from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.training import hosts
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import state as state_lib
from pav_jax.training import step as step_lib


def _loss(params, batch, key):
  noisy_b = batch["x_bd"] @ params["w_d"] + 0.1 * jax.random.normal(key, (len(batch["x_bd"]),))
  return ((noisy_b - 1)**2).sum(), jnp.float32(len(batch["x_bd"])), {}


def train(workdir: pathlib.Path, spec: str, num_steps: int, at_step=lambda n: None):
  """Trains a linear model; at_step(n) is called before every step."""
  hosts._HEARTBEAT_S = 10  # who waits for it should not wait long
  initialize = jax.distributed.initialize
  def initialized(*args, **options):
    initialize(*args, **options)
    at_step(-1)
  jax.distributed.initialize = initialized
  hosts.join(spec)
  mesh = mesh_lib.make_mesh(data=-1, fsdp=1, model=1)
  tx = state_lib.optimizer(peak_lr=0.1, warmup_steps=2, num_steps=100, b1=0.9, b2=0.95, clip_norm=1.0, weight_decay=0.0)
  key = jax.random.key(0)
  state = state_lib.create(lambda key: {"w_d": jax.random.normal(key, (3,))}, tx, key, mesh, ((".*", P()),))
  step_fn = step_lib.jitted(_loss, tx, microbatches=1, state_shardings=jax.tree.map(lambda x: x.sharding, state))
  def batch(n):
    at_step(n)
    return {"x_bd": np.random.default_rng(n).standard_normal((8, 3)).astype(np.float32)}
  loop.train(state, step_fn, batch, key, num_steps=num_steps, evaluate=lambda params: {"loss": 1.0}, eval_every=10**6,
             save_every=10**6, keep=2, log_every=1, path=workdir, meta={}, mesh=mesh, what="toy")


def happens(what: str, index: int, step: int):
  """at_step for `train`: at that step, on that process (-1: all), this happens."""
  def at_step(n):
    if n != step or index not in (-1, distributed.global_state.process_id):
      return
    if what == "fail":
      raise UserError("a mistake that this host alone can see")
    os.kill(os.getpid(), {"die": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}[what])
  return at_step


if __name__ == "__main__":
  root, spec, steps, *rest = sys.argv[1:]
  signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal, whoever runs this
  event = happens(rest[0], int(rest[1]), int(rest[2])) if rest else lambda n: None
  status = main.to_the_end(lambda: train(pathlib.Path(root), spec, int(steps), event), several=bool(spec))
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
