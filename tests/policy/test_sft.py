"""Rows for the language loss, as aligned columns."""

import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL, PAD
from pav_jax.errors import UserError
from pav_jax.problems import prepared
from pav_jax.problems import text


def _problems(solution_length_p=(3, 2)):
  return prepared.Problems(
      np.array(["p0", "p1"]), *[np.array(["", ""])] * 3, np.array([[BOS, A, NL], [BOS, NL, PAD]], np.int32),
      np.array([3, 2], np.int32), np.array([[B, C, EOS], [C, EOS, PAD]], np.int32), np.array(solution_length_p, np.int32))


def test_token_target_weight():
  rows = text.text_rows(_problems())
  columns = lambda b: list(zip(rows.token_bt[b, :-1].tolist(), rows.token_bt[b, 1:].tolist(), rows.weight_bt[b, 1:].tolist()))
  #                    token target weight of the target
  assert columns(0) == [(BOS, A, 0),
                        (A, NL, 0),
                        (NL, B, 1),
                        (B, C, 1),
                        (C, EOS, 1),
                        (EOS, PAD, 0),
                        (PAD, PAD, 0)]
  assert columns(1) == [(BOS, NL, 0), (NL, C, 1), (C, EOS, 1), (EOS, PAD, 0), (PAD, PAD, 0), (PAD, PAD, 0), (PAD, PAD, 0)]
  assert not rows.weight_bt[:, 0].any() and rows.weight_bt.dtype == np.float32


def test_the_loss_is_on_the_response_alone():
  rows = text.text_rows(_problems())
  params = fakes.chain_params({BOS: {EOS: 1}, A: {EOS: 1}, EOS: {A: 1},  # a prompt and padding it thinks impossible
                               NL: {B: 0.5, C: 0.25, A: 0.25}, B: {C: 0.125, A: 0.875}, C: {EOS: 0.5, A: 0.5}})
  loss_sum, weight_sum, _ = text.language_loss(fakes.CHAIN)(params, rows, None)
  assert weight_sum == 5
  assert float(loss_sum) == pytest.approx(np.log(2) + np.log(8) + np.log(2) + np.log(4) + np.log(2), rel=1e-5)
  masked = text.language_loss(fakes.CHAIN)(params, rows.masked(np.array([False, True])), None)
  assert masked[1] == 2 and float(masked[0]) == pytest.approx(np.log(4) + np.log(2), rel=1e-5)


def test_a_problem_without_a_solution():
  with pytest.raises(UserError, match="1 of 2 problems have no solution to imitate, first p1"):
    text.text_rows(_problems((3, 1)))
