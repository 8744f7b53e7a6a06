"""Labels of prefixes, against a policy whose values are known exactly."""

import types

import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL, PAD, RIGHT, WRONG
from pav_jax.grading import grading
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import sampling
from pav_jax.values import monte_carlo

MAX_NEW, N_MC = 8, 300
RESPONSES = (
    (A, NL, B, NL, RIGHT, EOS),
    (B, NL, WRONG, EOS),
    (A, NL, A, NL, A, NL, B, NL),  # truncated
    (RIGHT, EOS))


def _params():
  """After C or a line: more A's read make RIGHT more likely, more B's WRONG."""
  params = fakes.chain_params({
      C: {A: 0.4, B: 0.4, RIGHT: 0.1, WRONG: 0.1}, NL: {A: 0.2, B: 0.2, RIGHT: 0.3, WRONG: 0.3},
      A: {NL: 0.7, WRONG: 0.3}, B: {NL: 1}, RIGHT: {EOS: 1}, WRONG: {EOS: 1}})
  counts_vv = np.zeros((fakes.SIZE, fakes.SIZE), np.float32)
  counts_vv[A, RIGHT] = counts_vv[B, WRONG] = 1.0
  return {**params, "logit_dv": params["logit_dv"].at[fakes.SIZE:].set(counts_vv)}


def _exact(params, prefix, left):
  """Chance that the policy's response, at most `left` tokens longer, says RIGHT."""
  if prefix[-1] == EOS or not left:
    return float(RIGHT in prefix)
  hidden_d = np.concatenate([np.eye(fakes.SIZE)[prefix[-1]], np.bincount(prefix, minlength=fakes.SIZE)])
  logit_v = hidden_d @ np.asarray(params["logit_dv"], float)
  p_v = np.exp(logit_v - logit_v.max())
  p_v /= p_v.sum()
  return sum(p * _exact(params, [*prefix, token], left - 1) for token, p in enumerate(p_v) if p > 1e-12)


def _rollouts():
  token_bt = np.full((4, MAX_NEW), PAD, np.int32)
  for b, response in enumerate(RESPONSES):
    token_bt[b, :len(response)] = response
  return collect.Rollouts(
      np.array([0, 1, 1, 0], np.int32), np.array([0, 0, 1, 1], np.int32), token_bt,
      np.array([len(x) for x in RESPONSES], np.int32), np.zeros((4, MAX_NEW), np.float32),
      np.array([True, True, False, True]), np.array([1, 0, -1, 1], np.int8))


def _problems():
  """Two prompts of different lengths."""
  return prepared.Problems(
      np.array(["p0", "p1"]), np.array(["arithmetic"] * 2), np.array(["", ""]), np.array(["7", "7"]),
      np.array([[BOS, C, PAD], [BOS, B, C]], np.int32), np.array([2, 3], np.int32),
      np.zeros((2, 1), np.int32), np.zeros(2, np.int32))


def test_prefix_ends():
  rollouts = _rollouts()
  #        token  A  NL  B  NL  RIGHT EOS
  #        index  0  1   2  3   4     5
  #        end       1      3         5     and -1 for the bare prompt
  end_bz, joined = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, fakes.VOCABULARY, 4)
  np.testing.assert_array_equal(end_bz, [[-1, 1, 3, 5, -2], [-1, 1, 3, -2, -2], [-1, 1, 3, 5, 7], [-1, 1, -2, -2, -2]])
  assert joined == 0
  end_bz, joined = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, fakes.VOCABULARY, 2)
  np.testing.assert_array_equal(end_bz, [[-1, 1, 5], [-1, 1, 3], [-1, 1, 7], [-1, 1, -2]])
  assert joined == 2


@pytest.fixture(scope="module")
def labelled():
  rollouts, params = _rollouts(), _params()
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, fakes.VOCABULARY, 4)
  arch = types.SimpleNamespace(network=fakes.CHAIN, config=types.SimpleNamespace(vocab_size=fakes.SIZE))
  with grading.Grader(1) as grader:
    values, counts = monte_carlo.label(
        arch, params, _problems(), rollouts, end_bz, fakes.VOCABULARY, grader, strategy=monte_carlo.Strategy(n_mc=N_MC), seeds_per_problem=-1,
        sampling=sampling.Sampling(), seed=0, rows=64, max_new=MAX_NEW)
  return params, values, counts


def test_labels_are_unbiased(labelled):
  params, values, _ = labelled
  problems, z_scores = _problems(), []
  for b, response in enumerate(RESPONSES):
    p = _rollouts().problem_b[b]
    prompt = list(problems.prompt_pt[p, :problems.prompt_length_p[p]])
    for z, end in enumerate(values.end_bz[b]):
      if end == -2:
        assert np.isnan(values.q_bz[b, z]) and values.continuations_bz[b, z] == 0
        continue
      exact = _exact(params, prompt + list(response[:end + 1]), MAX_NEW - end - 1)
      sigma = np.sqrt(exact * (1 - exact) / N_MC)
      assert abs(values.q_bz[b, z] - exact) <= 4 * sigma + 1e-9, (b, z, values.q_bz[b, z], exact)
      z_scores += [(values.q_bz[b, z] - exact) / sigma] if sigma else []
  assert len(z_scores) == 10 and abs(np.mean(z_scores)) < 4 / np.sqrt(10)


def test_whole_responses_take_their_outcome(labelled):
  _, values, _ = labelled
  np.testing.assert_array_equal(values.continuations_bz, [
      [N_MC, N_MC, N_MC, 1, 0], [N_MC, N_MC, 1, 0, 0], [N_MC, N_MC, N_MC, N_MC, 1], [N_MC, 1, 0, 0, 0]])
  np.testing.assert_array_equal([values.successes_bz[b, z] for b, z in ((0, 3), (1, 2), (2, 4), (3, 1))], [1, 0, 0, 1])


def test_counts_add_up(labelled):
  _, values, counts = labelled
  assert counts["prefixes"] == 14
  assert counts["continuations"] == 10 * N_MC
  assert counts["correct"] == values.successes_bz.sum() - 2  # two responses ended right, without a continuation
  assert 0 < counts["ungradable"] <= counts["truncated"]


def test_which_prefixes_are_sampled():
  rollouts = _rollouts()
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, fakes.VOCABULARY, 4)
  sampled = lambda seeds: monte_carlo.sampled_prefixes(rollouts, end_bz, seeds).astype(int).tolist()
  first = [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
  assert sampled(-1) == sampled(2) == first + [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]
  assert sampled(1) == first + [[0] * 5] * 2


def test_a_seeds_own_ending_is_one_more_continuation():
  values = monte_carlo.Values(np.array([[-1, 3, 7], [-1, 4, -2]]), np.array([[2, 1, 1], [0, 0, 0]]),
                              np.array([[4, 4, 1], [0, 1, 0]]))
  found = monte_carlo.with_own_outcome(values, np.array([True, False]))
  np.testing.assert_array_equal(found.successes_bz, [[3, 2, 1], [0, 0, 0]])
  np.testing.assert_array_equal(found.continuations_bz, [[5, 5, 1], [1, 1, 0]])
