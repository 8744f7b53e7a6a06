"""What is taken off rewards, by hand; the baselines' laws; the mask of uncertain tokens."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.policy import advantages
from pav_jax.policy import credit
from pav_jax.policy import provers

def test_baselines_by_hand():
  reward_bt = np.array([[1, 1, 0], [0, 0.5, 7], [0.25, 0, 0], [0.25, 9, 9]])
  mask_bt = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 0]], float)
  centred = lambda baseline: advantages.centred(reward_bt, mask_bt, 0.5 * np.ones((4, 3)), baseline=baseline, group=2)
  np.testing.assert_allclose(centred("none"), reward_bt * mask_bt)
  np.testing.assert_allclose(centred("value"), [[0.5, 0.5, 0], [-0.5, 0, 0], [-0.25, -0.5, 0], [-0.25, 0, 0]])
  # Responses' own: 1, .25 | .125, .25
  np.testing.assert_allclose(centred("leave_one_out"), [[0.75, 0.75, 0], [-1, -0.5, 0], [0, -0.25, 0], [0.125, 0, 0]])
  np.testing.assert_allclose(
      centred("group"), np.array([[0.375, 0.375, 0], [-0.625, -0.125, 0], [0.0625, -0.1875, 0], [0.0625, 0, 0]])
      / np.array([[0.375], [0.375], [0.0625], [0.0625]]), rtol=1e-4)


def test_leaving_one_out_is_unbiased_and_refuses_groups_of_one():
  reward_pn = np.random.default_rng(0).random((5, 4))
  for n in range(4):
    changed_pn = reward_pn.copy()
    changed_pn[:, n] += 3
    moved_pn = advantages.leave_one_out(changed_pn) - advantages.leave_one_out(reward_pn)
    np.testing.assert_allclose(moved_pn[:, n], 3)  # what is taken off a response does not depend on it
  with pytest.raises(UserError, match="rl.group"):
    advantages.leave_one_out(reward_pn[:, :1])


def test_without_its_deviation_the_groups_baseline_is_leave_one_out():
  """GRPO against REINFORCE with leave-one-out: a constant factor, of which Adam takes no notice, and the deviation."""
  right_b = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0], np.float32)
  reward_bt = np.repeat(right_b[:, None], 3, axis=1)
  of = lambda baseline: advantages.centred(reward_bt, np.ones((12, 3)), None, baseline=baseline, group=4)
  deviation_b1 = np.repeat([[np.sqrt(3) / 4], [np.sqrt(3) / 4], [0.0]], 4, axis=0)
  np.testing.assert_allclose(of("group") * (deviation_b1 + 1e-6), 3 / 4 * of("leave_one_out"), atol=1e-6)
  assert not of("group")[8:].any()  # none right: nothing to tell them apart


def test_prime_by_hand():
  """Two problems, two responses each; discount 1/2. Mean tokens: .2, .4 | 0, -.1; the others' is taken off every token.

       r            less the others'      what is to come, halved a token
       .1 .3  .     -.3  -.1   .          -.35 -.1   .
       .4  .  .      .2    .   .           .2    .   .
       .3 -.3 0      .4  -.2  .1           .325 -.15 .1
      -.1  .  .     -.1    .   .          -.1    .   .                 """
  reward_bt = np.array([[0.1, 0.3, 0], [0.4, 0, 0], [0.3, -0.3, 0], [-0.1, 0, 0]])
  mask_bt = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]], float)
  found_bt = advantages.implicit(reward_bt, mask_bt, group=2, discount=0.5)
  np.testing.assert_allclose(found_bt, [[-0.35, -0.1, 0], [0.2, 0, 0], [0.325, -0.15, 0.1], [-0.1, 0, 0]], atol=1e-6)
  assert not advantages.implicit(0 * reward_bt, mask_bt, group=2, discount=1.0).any()


def test_only_uncertain_tokens_count():
  advantage_bt, chance_bt = np.array([[1.0, -2.0, 3.0, 4.0]]), np.array([[0.2, 0.9, 0.95, 1.0]])
  np.testing.assert_array_equal(advantages.uncertain(advantage_bt, np.log(chance_bt), 0.9 + 1e-9), [[1, -2, 0, 0]])
  np.testing.assert_array_equal(advantages.uncertain(advantage_bt, np.log(chance_bt) + 1e-7, 1.0), advantage_bt)  # rounding, too


def test_unknown_names_are_told():
  with pytest.raises(UserError, match="rl.baseline 'x'"):
    advantages.centred(np.ones((2, 1)), np.ones((2, 1)), None, baseline="x", group=2)


def test_provers_read_the_verifier_and_the_control_knows_nothing():
  np.testing.assert_allclose(provers.q_mu(np.array([0.5, 1.2]), "best_of_k", 2), [0.75, 1])
  np.testing.assert_allclose(provers.q_mu(np.array([0.5, -0.1]), "q", 2), [0.5, 0])
  step_bs = np.random.default_rng(1).standard_normal((50, 6))
  there_bs = np.arange(6) < np.random.default_rng(2).integers(1, 7, 50)[:, None]
  dealt_bs = provers.dealt(step_bs, there_bs, np.random.default_rng(3))
  np.testing.assert_array_equal(np.sort(dealt_bs[there_bs]), np.sort(step_bs[there_bs]))
  assert not dealt_bs[~there_bs].any()
  assert abs(np.corrcoef(dealt_bs[there_bs], step_bs[there_bs])[0, 1]) < 0.2


def test_the_critic_pays_choices_and_not_their_carrying_out():
  """Two steps of two tokens; the first token decides. alpha 2, Q^pi = Q^mu:

       before token    0    1    2    3      (after the last: .9)
       Q              .5   .2   .2   .9
       step begins at .5   .5   .2   .2
       critic         .5  -.4   .2  2.3
       paid (Rex 1)    1 + 2 (.2 - .5) = .4 twice, 1 + 2 (.9 - .2) = 2.4 twice
       what is left  -.1   .8  2.2   .1                                     """
  q_bt, end_bs = np.array([[0.5, 0.2, 0.2, 0.9]]), np.array([[1, 3]])
  critic_bt = advantages.critic(q_bt, q_bt, np.array([[0.5, 0.2]]), end_bs, alpha=2.0, reward="advantage")
  np.testing.assert_allclose(critic_bt, [[0.5, -0.4, 0.2, 2.3]], rtol=1e-6)
  reward_bt = 1 + 2 * credit.per_token(np.array([[-0.3, 0.7]]), end_bs, 4)
  left_bt = advantages.centred(reward_bt, np.ones((1, 4)), critic_bt, baseline="critic", group=1)
  np.testing.assert_allclose(left_bt, [[-0.1, 0.8, 2.2, 0.1]], atol=1e-6)
  # What is left of the process is paid for the choice alone; with Rex as the last value nothing is left behind it.
  np.testing.assert_allclose(left_bt - (1 - q_bt), 2 * np.array([[-0.3, 0, 0.7, 0]]), atol=1e-6)


def test_the_critic_of_values_takes_the_whole_value_off():
  """Paid Rex + alpha Q^mu(s_h, a_h), the value itself: what is foreseen is Q^pi + alpha Q^mu of the tokens before."""
  q_bt = np.array([[0.5, 0.2, 0.2, 0.9]])
  critic_bt = advantages.critic(q_bt, q_bt, np.array([[0.5, 0.2]]), np.array([[1, 3]]), alpha=2.0, reward="value")
  np.testing.assert_allclose(critic_bt, 3 * q_bt, rtol=1e-6)
