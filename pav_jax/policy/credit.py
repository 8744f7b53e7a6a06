"""What a step or a token is paid for its part in a response; pure functions on arrays, each with its equation and source.

A token of step h carries the *effective reward* of Eq. 5, Rex(y) + alpha A^mu(s_h, a_h):
Q^pi by its one-sample estimate, the outcome, and the advantage under the
prover as an immediate term. In the place of A^mu stand the process rewards of
the method's neighbours. Rewards are floats from end to end.
"""

import numpy as np

from pav_jax.errors import UserError
from pav_jax.values import equations

# Made of values at the ends of steps; and of what a reward model learns while the policy does.
OF_VALUES = ("advantage", "shaping", "min_form", "first_error", "value")
REWARDS = (*OF_VALUES, "implicit")


def process_rewards(q_bz, outcome_b, *, reward: str, outcome_last: bool, clip: float, temperature: float, min_q: float,
                    min_ratio: float):
  """(what the process pays each step, share of advantages clipped): float32 (b, s), 0 where there is no step.

  q_bz: Q^mu at the bare prompt and after every step, NaN where there is no such
  prefix. outcome_last: Rex in place of the verifier's value after the last
  step. clip: advantages are cut to +-clip; inf cuts none.

    advantage    A^mu(s_h, a_h) (Eq. 5)
    shaping      the sum of A^mu from step h on, as a return would have it: it
                 telescopes to the last value minus Q^mu(s_{h-1}, a_{h-1}),
                 potential-based shaping, which is another estimator
    min_form     the soft minimum of A^mu from step h on (`min_form`; temperature)
    first_error  1 for what stands before a wrong response's first error (`first_error`; min_q, min_ratio)
    value        Q^mu(s_h, a_h): App. G's control, which pays for repetition
  """
  if reward not in OF_VALUES:
    raise UserError(f"rl.reward {reward!r} is none of {', '.join(OF_VALUES)}")
  q_bz = np.array(q_bz, np.float32)
  if outcome_last:
    last_b = (~np.isnan(q_bz)).sum(axis=1) - 1
    q_bz[np.arange(len(q_bz)), last_b] = outcome_b
  if reward == "value":
    return np.nan_to_num(q_bz[:, 1:]), 0.0
  if reward == "first_error":
    return first_error(q_bz, outcome_b, min_q=min_q, min_ratio=min_ratio), 0.0
  raw_bs = equations.advantages(q_bz)
  there_bs = ~np.isnan(raw_bs)
  advantage_bs = np.clip(np.nan_to_num(raw_bs), -clip, clip)
  clipped = float((np.abs(raw_bs[there_bs]) > clip).mean()) if there_bs.any() else 0.0
  if reward == "shaping":
    advantage_bs = to_come(advantage_bs)
  if reward == "min_form":
    advantage_bs = min_form(advantage_bs, there_bs, temperature)
  return np.where(there_bs, advantage_bs, 0).astype(np.float32), clipped


def to_come(paid_bt, discount: float = 1.0):
  """The return of every place: sum over t' >= t of discount^(t' - t) paid_bt'. Any float type, any meaning of t."""
  found_bt = np.array(paid_bt)
  for t in range(found_bt.shape[1] - 2, -1, -1):
    found_bt[:, t] += discount * found_bt[:, t + 1]
  return found_bt


def min_form(paid_bs, there_bs, temperature: float):
  """Min-form credit of PURE (2504.15275): a step's return is the least reward to come, not their sum; (b, s).

    r*_h = r_h exp(-r_h / T) / sum_h' exp(-r_h' / T),   the return of h: sum over h' >= h of r*_h'

  At T = 0 it is min_h' r_h' up to the step that is worst (the first of equals),
  and 0 behind it: what follows the worst step is neither praised nor blamed for it.
  r is A^mu here. PURE's reward model, as we read it, says of a step whether it is right, from -1 to 1; a value is low
  on a hard problem however right the step is, so progress is the nearest that a verifier of values has.

  paid_bs: r, anything where there_bs is False; every row has a step.
  """
  low_bs = np.where(there_bs, paid_bs, np.inf)
  if temperature:
    weight_bs = np.exp(-(low_bs - low_bs.min(axis=1, keepdims=True)) / temperature)
    weight_bs /= weight_bs.sum(axis=1, keepdims=True)
  else:
    weight_bs = np.arange(low_bs.shape[1]) == low_bs.argmin(axis=1)[:, None]
  return to_come(np.where(there_bs, weight_bs * paid_bs, 0)) * there_bs


def first_error(q_bz, outcome_b, *, min_q: float, min_ratio: float):
  """Reward up to the first error, as we read VPPO (2601.18984); float32 (b, s): what is added to Rex.

    wrong response: 1 before its first error, 0 from there on;   right response: 0, it has Rex at every step

  So at alpha = 1 a step is paid 1 up to the first error and 0 behind it: a wrong response's right beginning is not
  punished for what came later. The first error is the first step with Q < min_q or Q_h / Q_{h-1} < min_ratio (relative
  progress, GenPRM 2504.00891), in a wrong response its last step at the latest. The verifier is not asked about a
  right response: that one's outcome is known. (VPPO's reward model names the error itself.)

  q_bz: NaN where there is no prefix.
  """
  before_bs, after_bs = q_bz[:, :-1], q_bz[:, 1:]
  there_bs = ~np.isnan(after_bs)
  error_bs = (after_bs < min_q) | (after_bs < min_ratio * before_bs)
  error_bs[np.arange(len(q_bz)), there_bs.sum(axis=1) - 1] = True
  right_bs = ~np.logical_or.accumulate(error_bs, axis=1)
  return (right_bs & there_bs & (np.asarray(outcome_b)[:, None] == 0)).astype(np.float32)


def implicit(log_prob_bt, reference_bt, mask_bt, beta: float):
  """PRIME's implicit process reward (2502.01456): beta (log pi_RM - log pi_ref) of each token, 0 off the mask.

  Its sum over a response is the logit of the response's being right (losses.reward_model_loss), up to a token the
  logit's value there: r is an advantage, and alpha = 0 or a model that has learnt nothing pays nothing. log_prob_bt: the
  reward model's; reference_bt: the initial policy's, from which the model starts.
  """
  return (beta * (log_prob_bt - reference_bt) * mask_bt).astype(np.float32)


def per_token(step_bs, end_bs, width: int):
  """float32 (b, width): every token of step s has what step_bs says; 0 after the last step.

  end_bs: index of each step's last token, ascending, below 0 where there is no step.
  """
  at_bst = (np.arange(width) <= end_bs[:, :, None]) & (end_bs >= 0)[:, :, None]
  first_bt = at_bst.argmax(axis=1)  # the first step that reaches this token
  return np.where(at_bst.any(axis=1), np.take_along_axis(np.asarray(step_bs, np.float32), first_bt, axis=1), 0)
