"""The losses of RL: the policy's surrogate of Eq. 5, the value function's square loss, the reward model's cross-entropy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pav_jax.models import network as network_lib
from pav_jax.models.network import Network


class RolloutBatch(NamedTuple):
  """Rows of prompt + response, right-padded; everything else is about predicting token t + 1 from tokens up to t, (b, t - 1).

  mask: 1 on the response's tokens; advantage: what multiplies their gradient;
  target: what is learnt beside the policy, by the value function the effective reward, by a reward model Rex; old, reference:
  log-probabilities under the policy that drew them and under the initial one.
  """

  token_bt: np.ndarray
  mask_bt: np.ndarray
  advantage_bt: np.ndarray
  target_bt: np.ndarray
  old_bt: np.ndarray
  reference_bt: np.ndarray


def scores(network: Network, params, token_bt):
  """float32 (b, t): the scoring token's logit after every token."""
  return network.scores(params, network.hidden(params, token_bt))


def values(network: Network, params, token_bt):
  """float32 (b, t - 1): the value function after token t, of the reward token t + 1 gets: the scoring token's logit, as it is."""
  return scores(network, params, token_bt)[:, :-1]


def policy_loss(network: Network, *, clip_ratio: float, kl: float):
  """Minus the summed surrogate over tokens, per response; its gradient at the drawing policy is minus Eq. 5's.

  The surrogate is ratio * advantage, ratio = p / p_old, which at p = p_old has
  REINFORCE's gradient. clip_ratio: PPO's, for several updates of a batch; 0
  clips nothing. kl: times KL(pi || initial) at the states met (section 5), by
  the estimate ratio * (exp(-d) - 1 + d), d = log p - log p_initial, on the
  tokens of the drawing policy. It is never negative, its value is unbiased,
  and so is its gradient, ratio * d * grad log p, after any number of updates.
  Without the ratio the gradient would be that of KL(initial || pi). It is not
  clipped: what lies beyond the ratio's bounds must still be pulled back.
  """
  def loss_fn(params, batch: RolloutBatch, key):
    del key
    log_prob_bt = network_lib.token_log_probs(network, params, batch.token_bt)
    ratio_bt = jnp.exp((log_prob_bt - batch.old_bt) * batch.mask_bt)
    gain_bt = ratio_bt * batch.advantage_bt
    if clip_ratio:
      clipped_bt = jnp.clip(ratio_bt, 1 - clip_ratio, 1 + clip_ratio)
      gain_bt = jnp.minimum(gain_bt, clipped_bt * batch.advantage_bt)
    far_bt = (log_prob_bt - batch.reference_bt) * batch.mask_bt
    divergence = (ratio_bt * (jnp.exp(-far_bt) - 1 + far_bt)).sum()
    loss = -(gain_bt * batch.mask_bt).sum()
    if kl:
      loss += kl * divergence
    tokens = batch.mask_bt.sum()
    cut_bt = (gain_bt < ratio_bt * batch.advantage_bt) * batch.mask_bt  # beyond a bound, and further from it still is what is asked
    rows = (batch.mask_bt.sum(axis=1) > 0).sum().astype(jnp.float32)
    return loss, rows, {"kl": (divergence, tokens), "entropy": (-(ratio_bt * log_prob_bt * batch.mask_bt).sum(), tokens),
                        "ratio_clipped": (cut_bt.sum(), tokens)}
  return loss_fn


def value_loss(network: Network):
  """Summed square error of the value function, per token."""
  def loss_fn(params, batch: RolloutBatch, key):
    del key
    error_bt = (values(network, params, batch.token_bt) - batch.target_bt) * batch.mask_bt
    return (error_bt**2).sum(), batch.mask_bt.sum(), {}
  return loss_fn


def reward_model_loss(network: Network, beta: float):
  """Summed cross-entropy of sigmoid(sum_t r_t) against the outcome, per response; r as in `credit.implicit`.

  So PRIME's reward model learns from outcomes alone (2502.01456). The target is Rex on every token of a response.
  """
  def loss_fn(params, batch: RolloutBatch, key):
    del key
    logit_b = (beta * (network_lib.token_log_probs(network, params, batch.token_bt) - batch.reference_bt) * batch.mask_bt).sum(axis=1)
    outcome_b, there_b = (batch.target_bt * batch.mask_bt).max(axis=1), batch.mask_bt.max(axis=1)
    return (optax.sigmoid_binary_cross_entropy(logit_b, outcome_b) * there_b).sum(), there_b.sum(), {}
  return loss_fn


def penalised(advantage_bt, mask_bt, old_bt, reference_bt, *, kl: float, entropy: float):
  """advantage_bt less kl (log p - log p_initial) and plus entropy (-log p), token by token.

  In expectation over the token these add the gradients of -kl KL(pi || initial)
  and of entropy times the entropy at the states met, with no sum over the vocabulary:
  exactly at the policy that drew them. Further updates of the same batch go on with
  its log-probabilities, and PPO's clipping stops them with the rest.
  """
  return advantage_bt - (kl * (old_bt - reference_bt) + entropy * old_bt) * mask_bt


def parity(log_prob_bt, drawn_bt, mask_bt) -> jax.Array:
  """The greatest |training forward - sampler| over the tokens drawn: how far the policy learned is from the one that drew."""
  return jnp.max(jnp.abs(log_prob_bt - drawn_bt) * mask_bt)
