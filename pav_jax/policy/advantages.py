"""What every step of a response is paid, and what is taken off it; pure functions on arrays.

A token of step h carries the *effective reward* of Eq. 5, Rex(y) + alpha A^mu(s_h, a_h):
Q^pi by its one-sample estimate, the outcome, and the advantage under the
prover as an immediate term. Rewards are floats from end to end.
"""

import numpy as np

from pav_jax.errors import UserError
from pav_jax.values import equations

REWARDS = ("advantage", "shaping", "value")
BASELINES = ("value", "leave_one_out", "group", "none")


def process_rewards(q_bz, outcome_b, *, reward: str, outcome_last: bool, clip: float):
  """(what the process pays each step, share of advantages clipped): float32 (b, s), 0 where there is no step.

  q_bz: Q^mu at the bare prompt and after every step, NaN where there is no such
  prefix. outcome_last: Rex in place of the verifier's value after the last
  step. clip: advantages are cut to +-clip; inf cuts none.

    advantage  A^mu(s_h, a_h) (Eq. 5)
    shaping    the sum of A^mu from step h on, as a return would have it: it
               telescopes to the last value minus Q^mu(s_{h-1}, a_{h-1}),
               potential-based shaping, which is another estimator
    value      Q^mu(s_h, a_h): App. G's control, which pays for repetition
  """
  if reward not in REWARDS:
    raise UserError(f"rl.reward {reward!r} is none of {', '.join(REWARDS)}")
  q_bz = np.array(q_bz, np.float32)
  if outcome_last:
    last_b = (~np.isnan(q_bz)).sum(axis=1) - 1
    q_bz[np.arange(len(q_bz)), last_b] = outcome_b
  if reward == "value":
    return np.nan_to_num(q_bz[:, 1:]), 0.0
  raw_bs = equations.advantages(q_bz)
  there_bs = ~np.isnan(raw_bs)
  advantage_bs = np.clip(np.nan_to_num(raw_bs), -clip, clip)
  clipped = float((np.abs(raw_bs[there_bs]) > clip).mean()) if there_bs.any() else 0.0
  if reward == "shaping":
    advantage_bs = np.cumsum(advantage_bs[:, ::-1], axis=1)[:, ::-1]
  return np.where(there_bs, advantage_bs, 0).astype(np.float32), clipped


def per_token(step_bs, end_bs, width: int):
  """float32 (b, width): every token of step s has what step_bs says; 0 after the last step.

  end_bs: index of each step's last token, ascending, below 0 where there is no step.
  """
  at_bst = (np.arange(width) <= end_bs[:, :, None]) & (end_bs >= 0)[:, :, None]
  first_bt = at_bst.argmax(axis=1)  # the first step that reaches this token
  return np.where(at_bst.any(axis=1), np.take_along_axis(np.asarray(step_bs, np.float32), first_bt, axis=1), 0)


def critic(q_pi_bt, q_mu_bt, start_bs, end_bs, *, alpha: float, reward: str):
  """What a verifier that is read at every token expects a token's step to be paid, given the tokens before it, float32 (b, t):

    Q^pi(s_t) + alpha (Q^mu(s_t) - Q^mu(s_{h-1}))

  the effective reward with the step's end replaced by the place where it
  stands; where `reward` pays the value itself, without the last term. Once the choice in a step is made, the reward less this is 0, and the
  tokens that only carry it out are not paid for it. As a function of the past
  alone it moves no gradient, however wrong it is.

  q_pi_bt, q_mu_bt: values of the tokens up to the one before; start_bs: Q^mu
  before each step; end_bs: as in `per_token`. alpha: 0 where the process reward
  can't be foreseen, as one dealt at random: there is nothing of it to take off.
  """
  before_bt = 0.0 if reward == "value" else per_token(start_bs, end_bs, q_mu_bt.shape[1])
  return (q_pi_bt + alpha * (q_mu_bt - before_bt)).astype(np.float32)


def leave_one_out(reward_pn):
  """reward_pn minus the mean of the problem's other responses: unbiased, as that mean does not depend on this one."""
  n = reward_pn.shape[1]
  if n < 2:
    raise UserError("rl.baseline 'leave_one_out' needs rl.group of at least 2")
  return reward_pn - (reward_pn.sum(axis=1, keepdims=True) - reward_pn) / (n - 1)


def centred(reward_bt, mask_bt, value_bt, *, baseline: str, group: int):
  """What multiplies the gradient of each token's log-probability, float32 (b, t), 0 off the mask.

  reward_bt: effective rewards. A response's own reward R is the mean of its
  tokens'. Rows of one problem stand together, `group` of them.

    value, critic  reward minus value_bt of the state before the token: the value function's, or `critic`
    leave_one_out  reward minus the mean R of the problem's other responses
    group          (reward - mean R of the group) / (its deviation of R + 1e-6), as GRPO's
    none           reward
  """
  if baseline == "none":
    return reward_bt * mask_bt
  if baseline in ("value", "critic"):
    return (reward_bt - value_bt) * mask_bt
  if baseline not in BASELINES:
    raise UserError(f"rl.baseline {baseline!r} is none of {', '.join(BASELINES)}")
  response_pn = ((reward_bt * mask_bt).sum(axis=1) / np.maximum(mask_bt.sum(axis=1), 1)).reshape(-1, group)
  if baseline == "leave_one_out":
    shift_b = (response_pn - leave_one_out(response_pn)).reshape(-1, 1)
    return (reward_bt - shift_b) * mask_bt
  spread = lambda x_p1: np.repeat(x_p1, group, axis=0)
  mean_b1, std_b1 = (spread(f(axis=1, keepdims=True)) for f in (response_pn.mean, response_pn.std))
  return (reward_bt - mean_b1) / (std_b1 + 1e-6) * mask_bt
