"""The paper's equations on values, each in this one place; numpy and jax arrays alike.

z counts prefixes: z = 0 is the bare prompt, z = s + 1 the prefix that ends
with step s. Prefixes a response does not have are NaN and stay NaN.
"""

import numpy as np


def advantages(q_bz):
  """A(s_h, a_h) = Q(s_h, a_h) - Q(s_{h-1}, a_{h-1}), (b, s): Eq. 2, its second form.

  For the first step the earlier value is that of the bare prompt, so that the
  advantages of a response telescope to its outcome minus the prompt's value.
  """
  return q_bz[:, 1:] - q_bz[:, :-1]


def best_of_k(q, k: float):
  """Q^{BoK(pi)} = 1 - (1 - Q^pi)^K: one of K independent tries is right (Eq. 30).

  q: any shape, in [0, 1]; the prover's values without a rollout of its own. Of
  a learned Q: of a mean of few continuations it is no mean (`unbiased_best_of_k`).
  """
  return 1 - (1 - q) ** k


def unbiased_best_of_k(successes, continuations, k: int):
  """Q^{BoK(pi)} from continuations: 1 - C(n - s, K) / C(n, K), the share of sets of K of the n that hold a right one.

  s, n: any shapes; NaN where n < K, from which there is no unbiased estimate.
  Eq. 30 is concave, so best_of_k(s / n) is too low: with n = 2 and K = 4 it is
  .340 on average where Q = .2 makes it .590; with n = 20, .560.
  """
  wrong, n = np.asarray(continuations - successes)[..., None], np.asarray(continuations)[..., None]
  none_right = np.prod(np.maximum(wrong - np.arange(k), 0) / np.maximum(n - np.arange(k), 1), axis=-1)
  return np.where(continuations >= k, 1 - none_right, np.nan)


def effective_reward(q_pi, advantage_mu, alpha: float):
  """Q^pi + alpha A^mu: what search ranks by (section 4.1) and RL pays (Eq. 5)."""
  return q_pi + alpha * advantage_mu


def distinguishability(visit_xs, policy_xsa, advantage_mu_xsa):
  """E_{s ~ d^pi} Var_{a ~ pi}[A^mu(s, a)] (Theorem 3.1): how well the prover tells the policy's steps apart.

  visit: d^pi, the chance that pi comes by state s, so that the sum over states is one over the steps of a response;
  policy: pi(a|s); an axis of states and one of actions come last, whatever comes before stays. For advantages of pi
  itself it is what one step of pi's own policy gradient improves. A^mu may be off by a number for each state.
  """
  mean_xs1 = (policy_xsa * advantage_mu_xsa).sum(-1)[..., None]
  return (visit_xs * (policy_xsa * (advantage_mu_xsa - mean_xs1) ** 2).sum(-1)).sum(-1)


def alignment(visit_xs, policy_xsa, advantage_mu_xsa, advantage_pi_xsa):
  """E_{s ~ d^pi} E_{a ~ pi}[A^mu(s, a) A^pi(s, a)] (Theorem 3.1), the arguments as of `distinguishability`.

  To first order it is what a step by exp(eta A^mu) gains, over eta. Where E_{a ~ pi} A^pi is 0 A^mu may be off by a
  number for each state.
  """
  return (visit_xs * (policy_xsa * advantage_mu_xsa * advantage_pi_xsa).sum(-1)).sum(-1)


def monte_carlo(successes_bz, continuations_bz):
  """Q-hat = mean Rex over the continuations of a prefix (section 4.2); NaN where there are none."""
  continuations_bz = np.asarray(continuations_bz)
  return np.where(continuations_bz > 0, successes_bz / np.maximum(continuations_bz, 1), np.nan)
