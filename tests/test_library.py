"""Checkpoints in use, from Python: what comes out has the shapes and the meaning that are promised."""

import shutil

import numpy as np
import pytest

import pav_jax
from pav_jax import library
from pav_jax.errors import UserError
from pav_jax.problems import given
from pav_jax.problems import vocabulary as vocabulary_lib
from tests import made as made_lib

QUESTIONS = ["Ann has 3 mod 40. 1: Ann +5 Bob *3", "Ann has 7 mod 40. 1: Ann +2"]


@pytest.fixture(scope="module")
def policy(made):
  return pav_jax.load(str(made / "sft/best"))


@pytest.fixture(scope="module")
def verifier(made):
  return pav_jax.load(str(made / "verifier/q/best"))


def test_loading_says_nothing(made, caplog):
  pav_jax.load(str(made / "sft/best/1"))
  assert not caplog.records


def test_samples_are_those_of_their_place_and_seed(policy):
  draw = lambda questions, n, seed=3: pav_jax.sample(policy, questions, n, max_new=12, seed=seed, rows=4)
  both = draw(QUESTIONS, 3)
  assert [len(x) for x in both] == [3, 3]
  for response in (x for some in both for x in some):
    assert len(response.token_t) == len(response.log_prob_t) <= 12 and (response.log_prob_t <= 0).all()
    assert response.text == policy.home.vocabulary.decode(response.token_t)
    assert response.ended == (response.token_t[-1] == policy.home.vocabulary.eos_id)
  texts = lambda some: [x.text for x in some]
  assert texts(draw(QUESTIONS[:1], 2)[0]) == texts(both[0][:2]) and texts(draw(QUESTIONS, 3, seed=4)[0]) != texts(both[0])
  greedy = pav_jax.sample(policy, QUESTIONS, 2, max_new=5, temperature=0)
  assert all(one.text == other.text for one, other in greedy)


def test_log_probs_are_the_networks(policy):
  response, = pav_jax.sample(policy, QUESTIONS[:1], max_new=8)[0]
  token_t = np.concatenate([policy.home.prompt_t(QUESTIONS[0]), response.token_t])
  network = policy.arch.network
  log_prob_bt = network.log_probs(policy.params, network.hidden(policy.params, token_t[None])[:, :-1], token_t[None, 1:])
  # Pieces that are never drawn are left out of what is drawn from.
  assert np.corrcoef(np.asarray(log_prob_bt)[0, -len(response.token_t):], response.log_prob_t)[0, 1] > 0.9


def test_scores_of_lists_and_of_texts(verifier):
  steps = ["1: +5 = 8", "#### 8"]
  listed, text, longer = pav_jax.score_steps(
      verifier, [QUESTIONS[0]] * 3, [steps, "\n".join(steps), ["1: +5 = 8\n#### 8"]], prover_k=2, alpha=0.25)
  for one, other in zip(listed, text):
    np.testing.assert_allclose(one, other, atol=1e-6)
  assert len(longer.q_z) == 2 and longer.q_z[-1] == pytest.approx(listed.q_z[-1], abs=1e-5)
  np.testing.assert_allclose(listed.effective_reward_s, listed.q_z[1:] + 0.25 * np.diff(1 - (1 - listed.q_z) ** 2), atol=1e-6)
  assert all(x.dtype == np.float32 for x in listed)
  assert pav_jax.score_steps(verifier, [], []) == []


def test_a_solution_that_goes_on_ends_in_the_separator(verifier):
  over, going_on = pav_jax.score_steps(verifier, QUESTIONS[:1] * 2, [["1: +5 = 8"]] * 2, ended=[True, False])
  longer, = pav_jax.score_steps(verifier, QUESTIONS[:1], [["1: +5 = 8", "#### 8"]])
  assert going_on.q_z[1] == pytest.approx(longer.q_z[1], abs=1e-5) and abs(over.q_z[1] - going_on.q_z[1]) > 1e-4


def test_a_beam_says_what_its_verifier_says(policy, verifier):
  """One greedy candidate in a beam of one is the greedy response, with the verifier's Q at its end."""
  found = pav_jax.beam_search(policy, verifier, QUESTIONS, width=1, candidates=1, max_new=10, temperature=0)
  for question, one, (greedy,) in zip(QUESTIONS, found, pav_jax.sample(policy, QUESTIONS, max_new=10, temperature=0)):
    assert (one.text, one.ended) == (greedy.text, greedy.ended)
    scores, = library.score_given(
        verifier, [verifier.home.prompt_t(question)], [given.Given(greedy.token_t, np.array([len(greedy.token_t) - 1]))],
        prover=None, how=library.how_of(None, "q", 4), alpha=0.0, rows=1)
    assert one.q == pytest.approx(scores.q_z[-1], abs=1e-5)
  assert pav_jax.beam_search(policy, verifier, QUESTIONS, width=1, candidates=1, max_new=10, max_step=2, max_rounds=1) == [None, None]
  assert pav_jax.beam_search(policy, verifier, [], max_new=4) == pav_jax.sample(policy, [], max_new=4) == []


def test_mistakes_are_told(policy, verifier, made, tmp_path):
  for call, said in (
      (lambda: pav_jax.sample(policy, QUESTIONS, max_new=0), "max_new 0 is less than 1"),
      (lambda: pav_jax.sample(policy, QUESTIONS, max_new=4, temperature=-1), "temperature -1"),
      (lambda: pav_jax.score_steps(verifier, QUESTIONS, [["a"]] * 2, alpha=-1), "alpha -1"),
      (lambda: pav_jax.score_steps(verifier, QUESTIONS, [["a"]] * 2, prover_kind="orm"), "none of q, advantage"),
      (lambda: pav_jax.beam_search(policy, verifier, QUESTIONS, max_new=4, rows=3), "too few for a beam"),
      (lambda: pav_jax.load(str(tmp_path)), "neither a checkpoint"),
      (lambda: pav_jax.grade_answers(["?"], ["1"], "arithmetic"), "reference")):
    with pytest.raises(UserError, match=said):
      call()
  other = shutil.copytree(made / "verifier/q/best", tmp_path / "other/best")
  vocabulary = vocabulary_lib.train(made_lib.TEXTS[:30], 390, tmp_path / "other.model")
  with pytest.raises(UserError, match="another vocabulary"):
    pav_jax.load(str(other), vocabulary=vocabulary.path, prompt="{question}\n", steps="newline")
  stranger = verifier._replace(home=verifier.home._replace(vocabulary=vocabulary))
  with pytest.raises(UserError, match="two models with different vocabularies"):
    pav_jax.beam_search(policy, stranger, QUESTIONS, max_new=4)
