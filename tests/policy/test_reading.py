"""What the tokens of two responses are paid by every reward, and what it costs, by hand, on a policy and a verifier of a few odds."""

import types

import jax
import numpy as np
import pytest

from pav_jax.grading import grading
from pav_jax.policy import arms
from pav_jax.policy import credit
from pav_jax.policy import reading
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import mesh as mesh_lib
from tests import fakes
from tests.fakes import A, B, BOS, C, EOS, NL, RIGHT, SIZE, WRONG
from tests.test_pipeline import miniature

CHANCES = {NL: {A: 0.4, B: 0.1, RIGHT: 0.25, WRONG: 0.25}, **{last: {NL: 1.0} for last in (A, B)}, RIGHT: {EOS: 1.0}, WRONG: {EOS: 1.0}}
INITIAL = fakes.chain_params(CHANCES)
MODEL = fakes.chain_params(CHANCES | {NL: {A: 0.4, B: 0.1, RIGHT: 0.4, WRONG: 0.1}})
ROWS = [[A, NL, RIGHT, EOS], [A, NL, B, NL, WRONG, EOS]]


def _prover():
  """Odds of 1, times 9 for every b that was read: Q .5 .5 .5 | .5 .5 .9 .9 at the ends of steps."""
  score_d = np.zeros(2 * SIZE, np.float32)
  score_d[SIZE + B] = np.log(9)
  return INITIAL | {"score_d": score_d}


def _verifier():
  """Odds of 1 to 3, times 3 for every a and 1/9 for every b that was read: Q .25 .5 .5 | .25 .5 .1 .1 at the ends of steps."""
  score_d = np.zeros(2 * SIZE, np.float32)
  score_d[[NL, EOS]], score_d[SIZE + A], score_d[SIZE + B] = -np.log(3), np.log(3), -np.log(9)
  return INITIAL | {"score_d": score_d}


def _read(arm, learnt=None, **changes):
  knobs = arms.knobs_of(miniature(**{f"rl.{name}": x for name, x in ({"group": 2} | changes).items()}).rl, arm)
  row = lambda row, width: np.array(row + [0] * (width - len(row)), np.int32)[None]
  problems = prepared.Problems(np.array(["x"]), np.array(["arithmetic"]), np.array(["c"]), np.array(["7"]), row([BOS, C, NL], 8),
                               np.array([3]), row([RIGHT, EOS], 8), np.array([2]))
  rollouts = collect.Rollouts(
      np.zeros(2, int), np.arange(2), np.concatenate([row(x, 8) for x in ROWS]), np.array([4, 6]), np.zeros((2, 8)), np.ones(2, bool),
      np.array([grading.Verdict.CORRECT, grading.Verdict.INCORRECT]))
  mesh = mesh_lib.make_mesh(data=1, fsdp=1, model=1, devices=jax.devices()[:1])
  arena = reading.Arena(problems, fakes.VOCABULARY, None, mesh, miniature(), knobs, (0, 0))
  chain = types.SimpleNamespace(network=fakes.CHAIN)
  own = "@" in arm
  asked = (chain, _verifier()) if reading.asks_verifier(knobs, own) else (None, None)
  players = reading.Players(chain, INITIAL, *asked, *((chain, _prover()) if own else ()))
  seen = reading.read(arena, players, INITIAL, learnt or {}, rollouts, 0)
  return seen, reading.cost(seen, arena, players, 1)


def _of_steps(first, second):
  """(b, t - 1) with these numbers on the steps' tokens, two a step; a prompt of three tokens has two columns."""
  paid_bt = np.zeros((2, 15))
  paid_bt[0, 2:6], paid_bt[1, 2:8] = np.repeat(first, 2), np.repeat(second, 2)
  return paid_bt


@pytest.mark.parametrize("arm, changes, first, second", [
    ("outcome", {}, [1, 1], [0, 0, 0]),
    ("reinforce", {"alpha": 5.0}, [1, 1], [0, 0, 0]),
    ("self", {"alpha": 2.0}, [1.5, 1], [0.5, -0.8, 0]),
    ("uncertain", {"alpha": 2.0, "prover": "q"}, [1.5, 1], [0.5, -0.8, 0]),
    ("shaping", {"alpha": 2.0, "prover": "q"}, [1.5, 1], [-0.3, -0.8, 0]),
    ("progress@other", {"alpha": 2.0, "prover_k": 4}, [1, 1], [0, 0.8, 0]),
    ("progress@other", {"alpha": 2.0, "critic": True}, [1, 1], [0, 0.8, 0]),
    ("min_form@other", {"alpha": 2.0, "min_form.temperature": 0.0}, [1, 1], [0, 0, 0]),
    ("min_form", {"alpha": 2.0, "prover": "q", "min_form.temperature": 0.0}, [1, 1], [-0.8, -0.8, 0]),
    ("first_error", {"alpha": 2.0}, [1, 1], [1, 0, 0]),
    ("first_error", {"first_error.min_q": 0.6}, [1, 1], [0, 0, 0]),
    ("first_error", {"first_error.min_ratio": 0.1}, [1, 1], [1, 1, 0])])
def test_every_arm_pays_by_hand(arm, changes, first, second):
  seen, _ = _read(arm, **changes)
  np.testing.assert_allclose(seen.reward_bt, _of_steps(first, second), atol=1e-6)
  assert not seen.own_bt.any()


def test_the_reward_model_pays_by_hand():
  """Its log-ratio is ln 1.6 at the right answer and ln .4 at the wrong one, 0 at all other tokens; beta 1/2."""
  seen, _ = _read("implicit", {"reward_model": MODEL}, **{"implicit.beta": 0.5, "alpha": 9.0})
  good, bad = np.log(1.6) / 2, np.log(0.4) / 2
  want_bt = np.zeros((2, 15))
  want_bt[0, 2:6] = -bad / 6 * np.array([4, 3, 2, 1]) + [good, good, good, 0]  # the other response's mean token off each
  want_bt[1, 2:8] = -good / 4 * np.array([6, 5, 4, 3, 2, 1]) + [bad, bad, bad, bad, bad, 0]
  np.testing.assert_allclose(seen.own_bt, want_bt, atol=1e-6)
  np.testing.assert_allclose(seen.reward_bt, _of_steps([1, 1], [0, 0, 0]))
  assert seen.figures["reward"] == pytest.approx((good + bad) / 5, rel=1e-5)
  at_start, _ = _read("implicit", {"reward_model": INITIAL})
  assert not at_start.own_bt.any() and at_start.figures["reward"] == 0


def test_the_critic_of_an_own_prover_has_the_value_of_one_verifier_and_the_progress_of_the_other():
  """Q^pi(s_t) + alpha (Q^mu(s_t) - Q^mu(s_{h-1})), Q^pi .25 .5 .5 | .25 .5 .1 .1 and Q^mu .5 .5 .5 | .5 .5 .9 .9 (at steps' ends).

  Odds of Q^pi between the ends are 3 times as high, for the end's own token takes a third.
  """
  seen, _ = _read("progress@other", alpha=2.0, critic=True)
  odds = lambda q: q / (1 - q)
  within = lambda end: 3 * odds(end) / (1 + 3 * odds(end))
  q_pi = [[0.25, within(0.5), 0.5, within(0.5)], [0.25, within(0.5), 0.5, within(0.1), 0.1, within(0.1)]]
  q_mu_less_before = [[0, 0, 0, 0], [0, 0, 0, 0.4, 0, 0]]
  for b, (start, stop) in enumerate([(2, 6), (2, 8)]):
    np.testing.assert_allclose(seen.value_bt[b, start:stop], np.array(q_pi[b]) + 2 * np.array(q_mu_less_before[b]), atol=1e-6)


@pytest.mark.parametrize("reward", credit.REWARDS)
def test_alpha_0_pays_the_outcome_alone(reward):
  seen, _ = _read("progress", alpha=0.0, reward=reward)
  np.testing.assert_array_equal(seen.reward_bt, _of_steps([1, 1], [0, 0, 0]))
  assert not seen.own_bt.any() and "reward" not in seen.figures


def test_flops_by_hand():
  """FLOPs of the fake: 3 a token, (stop^2 - start^2), 7 a logit. The reward model is read and updated; the verifier is read."""
  prompt, drawn, one, judged = 10, 72 + 120, 98 + 150, 70 + 108
  outcome = prompt + drawn + (2 + 3) * one
  assert [_read(arm)[1] for arm in ("outcome", "reinforce", "grpo")] == [outcome] * 3
  assert [_read(arm)[1] for arm in ("min_form", "first_error", "uncertain")] == [outcome + judged] * 3
  assert _read("progress@other")[1] == outcome + judged and _read("progress@other", critic=True)[1] == outcome + 2 * judged
  assert _read("implicit", {"reward_model": MODEL})[1] == outcome + (1 + 3) * one
  assert _read("implicit", {"reward_model": MODEL}, updates=4, clip_ratio=0.2)[1] == outcome + 9 * one + (1 + 12) * one
