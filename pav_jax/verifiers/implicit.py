"""Implicit process rewards: a language model trained on outcomes alone, whose drift from the policy is read as a value.

After arXiv 2412.01981 ("Free process rewards without process labels"), as PRIME (2502.01456) uses it:

  1. The reward of a response is r = beta sum_t log pi_RM(y_t | y_<t) / pi_ref(y_t | y_<t), over the response's tokens.
     pi_RM begins as pi_ref, where training starts from, so that at first every reward is 0.
  2. The loss is the cross-entropy of sigmoid(r) against the outcome, right and wrong weighing as the balance says:
     an ORM's loss, in which the reward is written by a policy.
  3. The same sum up to the end of step h is Q_h, in log-odds, and Q_h - Q_{h-1}, the step's own part of it, its process reward.

In that paper's terms Q_h is beta log E_{pi_ref}[exp(r / beta) | y_<=h], which the sum is, less the same of the bare prompt,
where pi_RM is pi_ref exp(r / beta) / Z; the sigmoid of it, a chance, is trained at the end of a response alone. It is no
mean of outcomes: what is made of Q^pi (best-of-K, the effective reward, a critic) is not made of it.

What balanced training adds to the log-odds (`targets.balance`) is taken off when a value is read, as of any verifier;
so the bare prompt, where the sum is empty, has the share of right responses of all problems, whatever it asks.

A checkpoint holds pi_RM. Its description names beta and the reference: where it lies (seen from the checkpoint, if in the
same run) and what it weighs to the last bit, since against another one the sums mean nothing.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib


class Pair(NamedTuple):
  """What stands in the place of a verifier's parameters: pi_RM, pi_ref of the same shape, and beta."""

  model: object
  reference: object
  beta: float


class OutcomeBatch(NamedTuple):
  """Rows of prompt + response. Of predicting token t + 1, (b, t - 1): mask_bt, 1 on the response's, and reference_bt, log pi_ref.

  target_b: the outcome, or what the balance made of it; weight_b.
  """

  token_bt: np.ndarray
  mask_bt: np.ndarray
  reference_bt: np.ndarray
  target_b: np.ndarray
  weight_b: np.ndarray

  def masked(self, live_b: np.ndarray) -> "OutcomeBatch":
    """The same rows, those that are not live weighing nothing."""
    return self._replace(weight_b=self.weight_b * live_b)


def outcome_loss(network: Network, beta: float):
  """Summed cross-entropy of sigmoid(beta sum_t log pi_RM / pi_ref) against the outcome (2412.01981, its loss of that name)."""
  def loss_fn(params, batch: OutcomeBatch, key):
    del key
    reward_b = beta * ((network_lib.token_log_probs(network, params, batch.token_bt) - batch.reference_bt) * batch.mask_bt).sum(axis=1)
    loss = (optax.sigmoid_binary_cross_entropy(reward_b, batch.target_b) * batch.weight_b).sum()
    return loss, batch.weight_b.sum(), {"reward": ((reward_b * batch.weight_b).sum(), batch.weight_b.sum())}
  return loss_fn


def reference_log_probs(network: Network, reference, token_bt: np.ndarray, *, rows: int, mesh) -> np.ndarray:
  """log pi_ref of all rows, float32 (b, t - 1): it never changes, and so is computed once; rows: that are read together."""
  read = jax.jit(mesh_lib.on(mesh, functools.partial(network_lib.token_log_probs, network)))
  pieces = []
  for start in range(0, len(token_bt), rows):
    index = np.minimum(np.arange(start, start + rows), len(token_bt) - 1)
    pieces.append(mesh_lib.fetch(read(reference, mesh_lib.put_rows(token_bt[index], mesh)))[:len(token_bt) - start])
  return np.concatenate(pieces)


@functools.partial(jax.jit, static_argnames=("network", "beta", "mesh"))
def every_value(network: Network, model, reference, beta: float, shift: float, token_bt, start_b, *, mesh):
  """float32 (b, t): sigmoid of Q after every token, the empty sum's before the response's first at start_b.

  shift: what balanced training has added to the log-odds.
  """
  def read(model, reference, token_bt, start_b):
    ratio_bt = network_lib.token_log_probs(network, model, token_bt) - network_lib.token_log_probs(network, reference, token_bt)
    own_bt = jnp.arange(1, token_bt.shape[1])[None] >= start_b[:, None]  # column t is about token t + 1
    return jax.nn.sigmoid(beta * jnp.cumsum(jnp.pad(ratio_bt * own_bt, ((0, 0), (1, 0))), axis=1) - shift)
  return (read if mesh is None else mesh_lib.on(mesh, read))(model, reference, token_bt, start_b)


def process_rewards(q_bz: np.ndarray) -> np.ndarray:
  """Process rewards (b, s) from the sigmoids of Q: differences of its log-odds, beta sum log pi_RM / pi_ref over each step's tokens."""
  q_bz = np.asarray(q_bz, np.float64)
  logit_bz = np.log(q_bz) - np.log1p(-q_bz)
  return logit_bz[..., 1:] - logit_bz[..., :-1]


def described(root, path, reference_path: str, beta: float) -> dict:
  """What the checkpoints in `path` say beside their kind.

  reference_path: the checkpoint that training starts from; named as it is seen from `path` if it lies in root.
  """
  if architecture.is_foreign(reference_path):
    return {"beta": beta, "reference": reference_path, "reference_digest": ""}
  found = files.path(reference_path)
  seen = f"{'../' * len(path.relative_to(root).parts)}{found.relative_to(root)}" if found.is_relative_to(root) else reference_path
  return {"beta": beta, "reference": seen, "reference_digest": checkpoint.digest(reference_path)}


def pair(path: str, meta: dict, arch: architecture.Architecture, params, mesh) -> Pair:
  """The parameters with their reference, as the checkpoint's meta says. UserError where that is gone, or is another one by now."""
  found = files.path(meta["reference"])
  if meta["reference"].startswith("../"):
    up, below = meta["reference"].count("../"), meta["reference"].rpartition("../")[2]
    # The path is the folder of steps, KIND/best, or a step's in it.
    tops = [above for above in list(files.path(path).parents)[up:up + 2] if files.exists(above / below)]
    found = tops[0] / below if tops else found
  if not files.exists(found):
    raise UserError(f"checkpoint {path} is of kind implicit, and the policy that it was trained against, {meta['reference']}, "
                    "is not there: keep both in one run")
  if meta["reference_digest"] and checkpoint.digest(found) != meta["reference_digest"]:
    raise UserError(f"checkpoint {path} is of kind implicit, and {found} is not the policy that it was trained against any more")
  return Pair(params, architecture.load(str(found), arch, mesh), meta["beta"])
