"""The surrogate's gradient against Eq. 5 in closed form and against finite differences, on a tabular policy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.policy import advantages
from pav_jax.policy import credit
from pav_jax.policy import losses

TOKENS, STEPS = 3, 3  # every step is one token; the state is all tokens before it
ALL_BS = np.array(list(itertools.product(range(TOKENS), repeat=STEPS)))


def _states(token_bt):
  """The number of each prefix among all of them; 0 is the empty one (token 0 of a row is the prompt)."""
  number_b, numbers = jnp.zeros(len(token_bt), jnp.int32), []
  for t in range(token_bt.shape[1]):
    number_b = number_b if t == 0 else number_b * TOKENS + token_bt[:, t] + 1
    numbers.append(number_b)
  return jnp.stack(numbers, axis=1)


COUNT = sum(TOKENS**t for t in range(STEPS + 1))
TABLE = Network(
    init=None, hidden=lambda params, token_bt: jax.nn.one_hot(_states(token_bt), COUNT), logits=None,
    scores=lambda params, hidden: hidden @ params["value"],
    log_probs=lambda params, hidden, target_bt: jnp.take_along_axis(
        jax.nn.log_softmax(hidden @ params["policy"]), target_bt[..., None], -1)[..., 0],
    computed=None, read=None, extend=None, flops=None)
RNG = np.random.default_rng(0)
PARAMS = {"policy": jnp.asarray(RNG.standard_normal((COUNT, TOKENS)), jnp.float32),
          "value": jnp.asarray(RNG.standard_normal(COUNT), jnp.float32)}
OUTCOME_B = RNG.random(len(ALL_BS)) < 0.3
TOKEN_BT = np.concatenate([np.zeros((len(ALL_BS), 1), int), ALL_BS], axis=1).astype(np.int32)
MASK_BT = np.ones((len(ALL_BS), STEPS), np.float32)


def _probabilities(params):
  return np.exp(np.asarray(network_lib.token_log_probs(TABLE, params, TOKEN_BT), np.float64).sum(1))


def _values(chance_b):
  """Q under a policy whose responses have these chances: exact, (b, z)."""
  q_bz = np.zeros((len(ALL_BS), STEPS + 1))
  for z in range(STEPS + 1):
    for b, row in enumerate(ALL_BS):
      same_b = (ALL_BS[:, :z] == row[:z]).all(axis=1)
      q_bz[b, z] = chance_b[same_b] @ OUTCOME_B[same_b] / chance_b[same_b].sum()
  return q_bz


KNOBS = {"outcome_last": False, "clip": np.inf, "temperature": 0.1, "min_q": 0.05, "min_ratio": 0.8}


def _process(q_bz, **knobs):
  return credit.process_rewards(q_bz, OUTCOME_B, **KNOBS | knobs)[0]


PROVER = _values(RNG.dirichlet(np.ones(len(ALL_BS))))


def _gradient(reward_bt, *, clip_ratio=0.0, kl=0.0, params=PARAMS, reference=None, old=None):
  """Of the expected loss: the responses of `old` (None: the policy itself), all of them, each with its chance."""
  old = params if old is None else old
  old_bt = np.asarray(network_lib.token_log_probs(TABLE, old, TOKEN_BT))
  loss_fn = losses.policy_loss(TABLE, clip_ratio=clip_ratio, kl=kl)
  reference_bt = old_bt if reference is None else np.asarray(network_lib.token_log_probs(TABLE, reference, TOKEN_BT))
  chance_b = _probabilities(old)
  def loss(params):
    total = 0.0
    for b in range(len(ALL_BS)):
      row = losses.RolloutBatch(*(x[b:b + 1] for x in (TOKEN_BT, MASK_BT, reward_bt, reward_bt, old_bt, reference_bt)))
      total += chance_b[b] * loss_fn(params, row, None)[0]
    return total
  return np.asarray(jax.grad(loss)(params)["policy"])


def _eq5(reward_bt):
  """-sum over y, h of pi(y) grad log pi(a_h | s_h) w_h, by the softmax's closed form."""
  chance_b, grad = _probabilities(PARAMS), np.zeros((COUNT, TOKENS))
  state_bt = np.asarray(_states(jnp.asarray(TOKEN_BT)))
  pi = np.asarray(jax.nn.softmax(PARAMS["policy"]), np.float64)
  for b, row in enumerate(ALL_BS):
    for h, a in enumerate(row):
      grad[state_bt[b, h]] -= chance_b[b] * reward_bt[b, h] * (np.eye(TOKENS)[a] - pi[state_bt[b, h]])
  return grad


@pytest.mark.parametrize("reward", credit.OF_VALUES)
@pytest.mark.parametrize("outcome_last", [False, True])
def test_the_gradient_is_eq_5(reward, outcome_last):
  step_bs = _process(PROVER, reward=reward, outcome_last=outcome_last, clip=0.4)
  assert np.abs(step_bs).max() > 0.1
  reward_bt = (OUTCOME_B[:, None] + 1.5 * step_bs).astype(np.float32)
  np.testing.assert_allclose(_gradient(reward_bt), _eq5(reward_bt), atol=2e-6)


def test_without_process_rewards_it_is_the_gradient_of_accuracy():
  gradient = _gradient(np.repeat(OUTCOME_B[:, None], STEPS, 1).astype(np.float32))
  accuracy = lambda policy: _probabilities({**PARAMS, "policy": policy}) @ OUTCOME_B
  for at in [(0, 0), (0, 2), (1, 1), (5, 0)]:
    bump = np.zeros((COUNT, TOKENS), np.float32)
    bump[at] = 1e-2
    slope = (accuracy(PARAMS["policy"] + bump) - accuracy(PARAMS["policy"] - bump)) / 2e-2
    np.testing.assert_allclose(-gradient[at], slope, atol=5e-5)


def test_shaping_by_potentials_moves_no_gradient_but_that_of_the_last_value():
  """Future advantages summed are last value - value before the step; the latter is a baseline, gone in expectation."""
  step_bs = _process(PROVER, reward="shaping", outcome_last=True)
  np.testing.assert_allclose(_gradient(step_bs), _gradient(np.repeat(OUTCOME_B[:, None], STEPS, 1).astype(np.float32)), atol=2e-6)


def test_the_policys_own_advantages_scale_the_outcomes_gradient():
  """mu = pi: the same direction, 1 + alpha times as long (section 3.1: nothing new is said)."""
  own_bs = _process(_values(_probabilities(PARAMS)), reward="advantage")
  outcome_bt = np.repeat(OUTCOME_B[:, None], STEPS, 1).astype(np.float32)
  np.testing.assert_allclose(_gradient(outcome_bt + 2 * own_bs), 3 * _gradient(outcome_bt), atol=4e-6)


def test_a_baseline_of_the_state_moves_nothing():
  outcome_bt = np.repeat(OUTCOME_B[:, None], STEPS, 1).astype(np.float32)
  value_bt = np.asarray(losses.values(TABLE, PARAMS, TOKEN_BT))
  centred_bt = advantages.centred(outcome_bt, MASK_BT, value_bt, baseline="value", group=1)
  assert np.abs(centred_bt - outcome_bt).max() > 0.5
  np.testing.assert_allclose(_gradient(centred_bt), _gradient(outcome_bt), atol=4e-6)


def test_penalties_have_the_gradients_of_kl_and_entropy():
  """In expectation, at the states met."""
  other = {**PARAMS, "policy": PARAMS["policy"] + jnp.asarray(RNG.standard_normal((COUNT, TOKENS)), jnp.float32)}
  old_bt, reference_bt = (np.asarray(network_lib.token_log_probs(TABLE, p, TOKEN_BT)) for p in (PARAMS, other))
  paid_bt = losses.penalised(np.zeros_like(MASK_BT), MASK_BT, old_bt, reference_bt, kl=0.7, entropy=0.3)
  state_bt, chance_b = np.asarray(_states(jnp.asarray(TOKEN_BT)))[:, :STEPS], _probabilities(PARAMS)
  def objective(policy):
    log_pi, log_other = jax.nn.log_softmax(policy), jax.nn.log_softmax(other["policy"])
    kl_s, entropy_s = (jnp.exp(log_pi) * (log_pi - log_other)).sum(1), -(jnp.exp(log_pi) * log_pi).sum(1)
    return (chance_b[:, None] * (0.7 * kl_s - 0.3 * entropy_s)[state_bt]).sum()
  np.testing.assert_allclose(_gradient(paid_bt.astype(np.float32)), jax.grad(objective)(PARAMS["policy"]), atol=4e-6)


def _kl(policy, other, chance_b):
  """KL(policy || other) at the states that responses with these chances meet, by the sum over the vocabulary."""
  log_pi, log_other = jax.nn.log_softmax(policy), jax.nn.log_softmax(other)
  kl_s = (jnp.exp(log_pi) * (log_pi - log_other)).sum(1)
  return (chance_b[:, None] * kl_s[np.asarray(_states(jnp.asarray(TOKEN_BT)))[:, :STEPS]]).sum()


@pytest.mark.parametrize("updates", [0, 4])
@pytest.mark.parametrize("clip_ratio", [0.0, 0.2])
def test_kl_as_a_loss_has_the_gradient_of_kl(updates, clip_ratio):
  """KL(pi || initial), not KL(initial || pi): in closed form, at the policy that drew and after updates of the batch."""
  initial, zero_bt = PARAMS["policy"] + jnp.asarray(RNG.standard_normal((COUNT, TOKENS)), jnp.float32), np.zeros_like(MASK_BT)
  reward_bt, now = np.repeat(OUTCOME_B[:, None], STEPS, 1).astype(np.float32), PARAMS
  for _ in range(updates):
    now = {**now, "policy": now["policy"] - 2.0 * _gradient(reward_bt, params=now, old=PARAMS)}
  assert (np.abs(now["policy"] - PARAMS["policy"]).max() > 0.3) == (updates > 0)
  gradient = _gradient(zero_bt, kl=1.0, clip_ratio=clip_ratio, params=now, reference={**PARAMS, "policy": initial}, old=PARAMS)
  chance_b = _probabilities(PARAMS)
  np.testing.assert_allclose(gradient, jax.grad(_kl)(now["policy"], initial, chance_b), atol=1e-5)
  reverse = jax.grad(lambda policy: _kl(initial, policy, chance_b))(now["policy"])
  assert np.abs(gradient - reverse).max() > 0.05


def test_what_is_told_of_kl_is_the_policys():
  """Not that of the policy that drew, however many updates ago."""
  now, initial = ({**PARAMS, "policy": jnp.asarray(RNG.standard_normal((COUNT, TOKENS)), jnp.float32)} for _ in range(2))
  chance_b, (old_bt, initial_bt) = _probabilities(PARAMS), (np.asarray(network_lib.token_log_probs(TABLE, p, TOKEN_BT)) for p in (PARAMS, initial))
  loss_fn, told = losses.policy_loss(TABLE, clip_ratio=0.2, kl=0.0), 0.0
  for b in range(len(ALL_BS)):
    row = losses.RolloutBatch(*(x[b:b + 1] for x in (TOKEN_BT, MASK_BT, 0 * MASK_BT, MASK_BT, old_bt, initial_bt)))
    told += chance_b[b] * loss_fn(now, row, None)[2]["kl"][0]
  np.testing.assert_allclose(told, _kl(now["policy"], initial["policy"], chance_b), rtol=1e-5)


def test_kl_as_a_loss_is_nothing_at_the_start_and_pulls_back_elsewhere():
  zero_bt = np.zeros_like(MASK_BT)
  assert not _gradient(zero_bt, kl=1.0).any()
  away = {**PARAMS, "policy": PARAMS["policy"].at[0, 0].add(1.0)}
  gradient = _gradient(zero_bt, kl=1.0, params=away, reference=PARAMS)
  assert gradient[0, 0] > 0.05 and np.abs(np.delete(gradient.ravel(), [0, 1, 2])).max() < 1e-6


def test_clipping_stops_at_the_ratio():
  """One token: beyond 1 + clip a good one is pushed no further, a bad one still is."""
  for sign, moves in ((1.0, False), (-1.0, True)):
    row = losses.RolloutBatch(TOKEN_BT[:1], MASK_BT[:1], sign * MASK_BT[:1], MASK_BT[:1],
                              np.asarray(network_lib.token_log_probs(TABLE, PARAMS, TOKEN_BT[:1])) - 0.5, MASK_BT[:1])
    loss = losses.policy_loss(TABLE, clip_ratio=0.2, kl=0.0)
    gradient = jax.grad(lambda params: loss(params, row, None)[0])(PARAMS)["policy"]
    assert bool(jnp.abs(gradient).max() > 0) == moves
    assert loss(PARAMS, row, None)[2]["ratio_clipped"][0] == (0 if moves else STEPS)  # as many tokens as did not move


def test_the_value_function_learns_its_target():
  """Square loss by hand, and a finite difference."""
  target_bt = RNG.standard_normal(MASK_BT.shape).astype(np.float32)
  mask_bt = MASK_BT.copy()
  mask_bt[::2, -1] = 0
  batch = losses.RolloutBatch(TOKEN_BT, mask_bt, mask_bt, target_bt, mask_bt, mask_bt)
  loss = lambda params: losses.value_loss(TABLE)(params, batch, None)
  value_bt = np.asarray(PARAMS["value"])[np.asarray(_states(jnp.asarray(TOKEN_BT)))[:, :STEPS]]
  np.testing.assert_allclose(loss(PARAMS)[0], (mask_bt * (value_bt - target_bt)**2).sum(), rtol=1e-5)
  assert loss(PARAMS)[1] == mask_bt.sum()


def test_the_reward_model_learns_outcomes_by_their_cross_entropy():
  """The loss and its gradient in closed form: d/dlogit is sigmoid - Rex, and the logit's is beta grad log pi, summed over tokens."""
  beta, initial = 0.7, {**PARAMS, "policy": PARAMS["policy"] + jnp.asarray(RNG.standard_normal((COUNT, TOKENS)), jnp.float32)}
  mask_bt = MASK_BT.copy()
  mask_bt[::3, -1] = 0
  mask_bt[1] = 0  # a row that weighs nothing
  reference_bt = np.asarray(network_lib.token_log_probs(TABLE, initial, TOKEN_BT))
  target_bt = (OUTCOME_B[:, None] * mask_bt).astype(np.float32)
  batch = losses.RolloutBatch(TOKEN_BT, mask_bt, 0 * mask_bt, target_bt, reference_bt, reference_bt)
  loss = lambda params: losses.reward_model_loss(TABLE, beta)(params, batch, None)
  log_bt, live_b = np.asarray(network_lib.token_log_probs(TABLE, PARAMS, TOKEN_BT), np.float64), mask_bt.any(axis=1)
  chance_b = 1 / (1 + np.exp(-credit.implicit(log_bt, reference_bt, mask_bt, beta).sum(axis=1)))
  want = -np.log(np.where(OUTCOME_B, chance_b, 1 - chance_b))[live_b].sum()
  np.testing.assert_allclose([*loss(PARAMS)[:2]], [want, live_b.sum()], rtol=1e-5)
  grad = np.zeros((COUNT, TOKENS))
  state_bt, pi = np.asarray(_states(jnp.asarray(TOKEN_BT))), np.asarray(jax.nn.softmax(PARAMS["policy"]), np.float64)
  for b, row in enumerate(ALL_BS):
    for h, a in enumerate(row):
      grad[state_bt[b, h]] += beta * (chance_b[b] - OUTCOME_B[b]) * mask_bt[b, h] * (np.eye(TOKENS)[a] - pi[state_bt[b, h]])
  np.testing.assert_allclose(jax.grad(lambda params: loss(params)[0])(PARAMS)["policy"], grad, atol=1e-5)
  at_start = losses.reward_model_loss(TABLE, beta)(initial, batch, None)
  assert at_start[0] == pytest.approx(live_b.sum() * np.log(2), rel=1e-6)  # it knows nothing yet


def test_a_reward_model_that_knows_the_outcome_pays_each_token_its_advantage():
  """PRIME's claim, exactly: with pi_RM = pi exp(Rex / beta) / Z, where beta log is Rex less the state's soft value, the
  rewards so far are the soft value of the prefix, less the prompt's. Free of beta: its sum is Rex - V(prompt)."""
  beta, chance_b = 0.5, _probabilities(PARAMS)
  tilted_b = chance_b * np.exp(OUTCOME_B / beta)
  def log_of(weight_b):  # log-probabilities of tokens under the distribution over responses with these weights
    sums = np.stack([[weight_b[(ALL_BS[:, :z] == row[:z]).all(axis=1)].sum() for z in range(STEPS + 1)] for row in ALL_BS])
    return np.log(sums[:, 1:] / sums[:, :-1]), sums
  (model_bt, tilted_bz), (reference_bt, chance_bz) = log_of(tilted_b), log_of(chance_b)
  soft_bz = beta * np.log(tilted_bz / chance_bz)  # beta log E exp(Rex / beta) given the prefix
  reward_bt = credit.implicit(model_bt, reference_bt, MASK_BT, beta)
  np.testing.assert_allclose(reward_bt, soft_bz[:, 1:] - soft_bz[:, :-1], atol=1e-6)
  np.testing.assert_allclose(reward_bt.sum(axis=1), OUTCOME_B - soft_bz[:, 0], atol=1e-6)


def test_parity_looks_at_drawn_tokens_only():
  assert losses.parity(np.array([[0.0, 5.0]]), np.array([[0.25, 0.0]]), np.array([[1.0, 0.0]])) == 0.25
