"""The probability of the reference's answer after every step, against numbers by hand, on a policy of a few odds."""

import re

import jax
import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.policy import belief
from pav_jax.policy import credit
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import mesh as mesh_lib
from pav_jax.values import equations
from tests import fakes

EOS, BOS, NL, A, B, MARK, SEVEN, THREE = 1, 2, 5, 6, 7, 8, 9, 10
PIECES = ("", "", "", " ", "", "\n", "a", "b", "####", " 7", " 3")
NAN = np.nan


class Vocabulary:
  """Pieces as SentencePiece cuts them: the marker's space belongs to the number behind it."""

  eos_id = EOS

  def encode(self, text):
    return [PIECES.index(piece) for piece in re.findall(r"####| 7| 3|.|\n", text)]

  def decode(self, ids):
    return "".join(PIECES[i] for i in ids)


def _problems(family="arithmetic", answers=("7", "3"), solution=(MARK, SEVEN, EOS)):
  rows = lambda row: np.array([[*row, *[0] * (8 - len(row))]] * len(answers), np.int32)
  return prepared.Problems(
      np.array(["x", "y"]), np.array([family] * len(answers)), np.array(["b"] * len(answers)), np.array(answers), rows((BOS, B, NL)),
      np.full(len(answers), 3), rows(solution), np.full(len(answers), len(solution)))


def test_lines_give_the_marker_and_score_the_answer_and_the_end():
  found = belief.lines(_problems(), Vocabulary())
  np.testing.assert_array_equal(found.token_pt, [[MARK, SEVEN, EOS], [MARK, THREE, EOS]])
  np.testing.assert_array_equal([found.length_p, found.given_p], [[3, 3], [1, 1]])


def test_a_form_that_no_solution_has_is_refused_in_a_line():
  with pytest.raises(UserError) as told:
    belief.lines(_problems("math"), Vocabulary())
  assert str(told.value).startswith(r"rl: arm answer_probability: none of 2 solutions of family math holds '\\boxed{'") and "\n" not in str(told.value)


def test_values_by_hand_and_their_changes_telescope():
  """Every a read makes 7 three times as likely behind the marker: 1/2, 3/4, 9/10; the end follows 7 with .8, 3 with .5.

     problem 7: a | a | #### 7    .5 * .8 = .4   .6   .72   right: 1
     problem 7: b | #### 3        .4             .4         wrong: 0
     problem 3: a | #### 3        .5 * .5 = .25  .125       right: 1
     problem 3: a a a (cut off)   .25                       wrong: 0    """
  params = fakes.chain_params({MARK: {SEVEN: 0.5, THREE: 0.5}, SEVEN: {EOS: 0.8, NL: 0.2}, THREE: {EOS: 0.5, NL: 0.5}})
  logit_dv = np.array(params["logit_dv"])
  logit_dv[fakes.SIZE + A, SEVEN] = np.log(3)
  params = params | {"logit_dv": logit_dv}
  rows = [[A, NL, A, NL, MARK, SEVEN, EOS], [B, NL, MARK, THREE, EOS], [A, NL, MARK, THREE, EOS], [A, A, A]]
  token_bt, length_b = np.zeros((4, 7), np.int32), np.array([7, 5, 5, 3])
  for b, row in enumerate(rows):
    token_bt[b, :len(row)] = row
  rollouts = collect.Rollouts(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), token_bt, length_b, np.zeros((4, 7)), length_b > 3, None)
  end_bz = np.array([[-1, 1, 3, 6], [-1, 1, 4, -2], [-1, 1, 4, -2], [-1, 2, -2, -2]])
  outcome_b, mesh = np.array([1, 0, 1, 0]), mesh_lib.make_mesh(data=1, fsdp=1, model=1, devices=jax.devices()[:1])
  problems = _problems()
  q_bz, flops = belief.values(mesh, fakes.CHAIN, params, problems, rollouts, end_bz, belief.lines(problems, Vocabulary()), outcome_b)
  want_bz = [[0.4, 0.6, 0.72, 1], [0.4, 0.4, 0, NAN], [0.25, 0.125, 1, NAN], [0.25, 0, NAN, NAN]]
  np.testing.assert_allclose(q_bz, want_bz, atol=1e-6)
  assert q_bz.dtype == np.float32
  stop_r = np.array([6, 8, 10, 6, 8, 6, 8, 6])  # prompt, prefix and line of each row that is read; two logits of each are used
  assert flops == (3 * stop_r + stop_r**2 + 7 * 2).sum()
  step_bs, _ = credit.process_rewards(q_bz, outcome_b, reward="advantage", outcome_last=False, clip=np.inf, temperature=0.0, min_q=0.0,
                                      min_ratio=0.0)
  np.testing.assert_allclose(step_bs.sum(axis=1), outcome_b - q_bz[:, 0], atol=1e-6)
  np.testing.assert_allclose(step_bs[0], equations.advantages(np.array(want_bz))[0], atol=1e-6)
