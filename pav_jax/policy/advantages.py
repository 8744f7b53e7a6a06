"""What is taken off the rewards of a step (credit.py), and which tokens they count for; pure functions on arrays."""

import numpy as np

from pav_jax.errors import UserError
from pav_jax.policy import credit

BASELINES = ("value", "leave_one_out", "group", "none")


def critic(q_pi_bt, q_mu_bt, start_bs, end_bs, *, alpha: float, reward: str):
  """What a verifier that is read at every token expects a token's step to be paid, given the tokens before it, float32 (b, t):

    Q^pi(s_t) + alpha (Q^mu(s_t) - Q^mu(s_{h-1}))

  the effective reward with the step's end replaced by the place where it
  stands; where `reward` pays the value itself, without the last term. Once the choice in a step is made, the reward less this is 0, and the
  tokens that only carry it out are not paid for it. As a function of the past
  alone it moves no gradient, however wrong it is.

  q_pi_bt, q_mu_bt: values of the tokens up to the one before; start_bs: Q^mu
  before each step; end_bs: as in `credit.per_token`. alpha: 0 where the process reward
  can't be foreseen, as one dealt at random: there is nothing of it to take off.
  """
  before_bt = 0.0 if reward == "value" else credit.per_token(start_bs, end_bs, q_mu_bt.shape[1])
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
    leave_one_out  reward minus the mean R of the problem's other responses (RLOO, 2402.14740)
    group          (reward - mean R of the group) / (its deviation of R + 1e-6), as GRPO's (2402.03300). GRPO divides
                   each response's sum by its length, too, which favours long wrong ones (Dr. GRPO, 2503.20783);
                   nothing here does. Without the deviation it is leave_one_out times (n - 1) / n, where R is Rex
    none           reward: REINFORCE
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


def implicit(reward_bt, mask_bt, *, group: int, discount: float):
  """PRIME's advantage of implicit process rewards (2502.01456), float32 (b, t), 0 off the mask:

    A_t = sum over t' >= t of discount^(t' - t) (r_t' - the mean over the problem's other responses of their mean token's r)

  To this comes what the outcome pays, less a baseline of its own. reward_bt: credit.implicit, 0 off the mask.
  """
  mean_pn = (reward_bt.sum(axis=1) / np.maximum(mask_bt.sum(axis=1), 1)).reshape(-1, group)
  others_b1 = (mean_pn - leave_one_out(mean_pn)).reshape(-1, 1)
  return (credit.to_come((reward_bt - others_b1) * mask_bt, discount) * mask_bt).astype(np.float32)


def uncertain(advantage_bt, log_prob_bt, certain: float):
  """The advantages of tokens that had a probability of at most `certain`, 0 for the others: SPO's mask (2505.23564).

  Where the policy had no choice there is nothing to credit. log_prob_bt: of the policy that drew; certain = 1 changes nothing.
  """
  return np.where(np.exp(np.minimum(log_prob_bt, 0)) <= certain, advantage_bt, 0)
