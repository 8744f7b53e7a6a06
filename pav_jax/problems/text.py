"""Text as a training signal: rows of prompt + solution, and the language loss on them."""

from typing import NamedTuple

import numpy as np

from pav_jax.errors import UserError
from pav_jax.models.network import Network
from pav_jax.problems import prepared


class TextBatch(NamedTuple):
  """token_bt: int32 rows; weight_bt: float32, 1 where the token is a target (never position 0)."""

  token_bt: np.ndarray
  weight_bt: np.ndarray

  def masked(self, live_b: np.ndarray) -> "TextBatch":
    """The same rows, those that are not live weighing nothing."""
    return self._replace(weight_bt=self.weight_bt * live_b[:, None])


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


def text_loss(network: Network, params, token_bt, weight_bt):
  """(sum of -log p over weighted tokens, sum of weights); position t predicts token t + 1."""
  hidden_btd = network.hidden(params, token_bt)
  log_prob_bt = network.log_probs(params, hidden_btd[:, :-1], token_bt[:, 1:])
  return -(log_prob_bt * weight_bt[:, 1:]).sum(), weight_bt[:, 1:].sum()


def language_loss(network: Network):
  """`text_loss` as `training.step` wants a loss."""
  def loss_fn(params, batch: TextBatch, key):
    del key  # nothing is random in it
    loss_sum, weight_sum = text_loss(network, params, batch.token_bt, batch.weight_bt)
    return loss_sum, weight_sum, {}
  return loss_fn
