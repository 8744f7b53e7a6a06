"""Checkpoints in use, from Python: what comes out has the shapes and the meaning that are promised."""

import shutil

import numpy as np
import pytest

import pav_jax
from pav_jax import library
from pav_jax.errors import UserError
from pav_jax.problems import given
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.verifiers import given as values_lib
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
  assert len(listed) == 3 and all(x.dtype == np.float32 for x in listed)
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

  for wrong in (policy.params, "sft/best", None):
    with pytest.raises(UserError, match="^verifier is not a Model, as pav_jax.load gives, but "):
      pav_jax.score_steps(wrong, QUESTIONS[:1], [["a"]])
  with pytest.raises(UserError, match="^prover is not a Model.*, but str 'q'"):
    pav_jax.beam_search(policy, verifier, QUESTIONS, max_new=4, prover="q")
  other = shutil.copytree(made / "verifier/q/best", tmp_path / "other/best")
  vocabulary = vocabulary_lib.train(made_lib.TEXTS[:30], 390, tmp_path / "other.model")
  with pytest.raises(UserError, match="another vocabulary"):
    pav_jax.load(str(other), vocabulary=vocabulary.path, prompt="{question}\n", steps="newline")
  stranger = verifier._replace(home=verifier.home._replace(vocabulary=vocabulary))
  with pytest.raises(UserError, match="two models with different vocabularies"):
    pav_jax.beam_search(policy, stranger, QUESTIONS, max_new=4)


SCORE, SAMPLE, BEAM = "score", "sample", "beam"


@pytest.mark.parametrize("what, arguments, said", [
    (SCORE, {"questions": "Ann"}, "questions is not a list, but str 'Ann'"),
    (SCORE, {"questions": None}, "questions is not a list, but NoneType None"),
    (SCORE, {"questions": [None]}, r"questions\[0\] is not a string, but NoneType None"),
    (SCORE, {"questions": ["\ud800"]}, r"questions\[0\] is not a text that can be encoded"),
    (SCORE, {"questions": ["Ann"] * 2}, "there are 1 steps for 2 questions"),
    (SCORE, {"steps": "a"}, "steps is not a list, but str 'a'"),
    (SCORE, {"steps": [None]}, r"steps\[0\] is not a list, but NoneType None"),
    (SCORE, {"steps": [["a", 3]]}, r"steps\[0\]\[1\] is not a string, but int 3"),
    (SCORE, {"steps": [[]]}, r"steps\[0\] has no step"),
    (SCORE, {"steps": [["a", " \n"]]}, r"steps\[0\]\[1\] is not a text with something in it, but str ' \\n'"),
    (SCORE, {"ended": [True, False]}, "there are 2 ended for 1 questions"),
    (SCORE, {"ended": ["no"]}, r"ended\[0\] is not True or False, but str 'no'"),
    (SCORE, {"ended": None}, "ended is not a list"),
    (SCORE, {"alpha": "0.5"}, "alpha is not a number, but str '0.5'"),
    (SCORE, {"alpha": None}, "alpha is not a number, but NoneType None"),
    (SCORE, {"prover_k": "4"}, "prover_k is not a number, but str '4'"),
    (SCORE, {"rows": 2.0}, "rows is not a whole number, but float 2.0"),
    (SAMPLE, {"questions": "Ann"}, "questions is not a list"),
    (SAMPLE, {"n": 1.5}, "n is not a whole number, but float 1.5"),
    (SAMPLE, {"n": True}, "n is not a whole number, but bool True"),
    (SAMPLE, {"max_new": "8"}, "max_new is not a whole number, but str '8'"),
    (SAMPLE, {"seed": None}, "seed is not a whole number, but NoneType None"),
    (SAMPLE, {"temperature": None}, "temperature is not a number"),
    (SAMPLE, {"top_k": 0.5}, "top_k is not a whole number"),
    (SAMPLE, {"seed": 2**70}, "seed 1180591620717411303424 has more than 63 bits"),
    (BEAM, {"questions": "Ann"}, "questions is not a list"),
    (BEAM, {"alpha": -1}, "alpha -1 is negative"),
    (BEAM, {"max_step": 0}, "max_step 0 is less than 1"),
    (BEAM, {"seed": 0.5}, "seed is not a whole number")])
def test_slips_at_the_door(policy, verifier, what, arguments, said):
  call = {SCORE: lambda **x: pav_jax.score_steps(**{"verifier": verifier, "questions": ["Ann"], "steps": [["a"]]} | x),
          SAMPLE: lambda **x: pav_jax.sample(**{"policy": policy, "questions": ["Ann"], "max_new": 4} | x),
          BEAM: lambda **x: pav_jax.beam_search(
              **{"policy": policy, "verifier": verifier, "questions": ["Ann"], "max_new": 4} | x)}[what]
  with pytest.raises(UserError, match=said) as caught:
    call(**arguments)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments, said", [
    (("5", ["5"]), "references is not a list, but str '5'"), ((["5"], ["5"] * 2), "there are 2 responses for 1 references"),
    ((["5"], [None]), r"responses\[0\] is not a string"), ((["5"], ["5"], "maths"), "dataset 'maths' is none of gsm8k, math"),
    ((["5"], ["5"], None), "dataset None is none of")])
def test_slips_in_grading(arguments, said):
  with pytest.raises(UserError, match=said):
    pav_jax.grade_answers(*arguments)
  with pytest.raises(UserError, match="there are 2 ended for 1 references"):
    pav_jax.grade_answers(["5"], ["5"], ended=[True, False])


def test_arrays_are_lists(verifier):
  arrays = pav_jax.score_steps(verifier, np.array(QUESTIONS), np.array([["a", "b"]] * 2), ended=np.array([True, False]),
                               alpha=np.float32(0.5))
  lists = pav_jax.score_steps(verifier, QUESTIONS, [["a", "b"]] * 2, ended=[True, False])
  for one, other in zip(arrays, lists, strict=True):
    np.testing.assert_array_equal(one.q_z, other.q_z)


def test_a_row_that_would_take_all_memory_is_refused(verifier, monkeypatch):
  monkeypatch.setattr(values_lib, "values", lambda *_, **__: 1 / 0)
  steps = ["1 " * 20_000]
  with pytest.raises(UserError, match=r"row 1 \(questions\[1\] with steps\[1\]\) has \d+ tokens, more than 8192"):
    pav_jax.score_steps(verifier, QUESTIONS, [["a"], steps])


def test_other_line_ends_change_nothing_and_a_final_newline_leaves_the_end_as_a_step(verifier):
  text = "1: +5 = 8\n#### 8"
  plain, windows, newline, listed = pav_jax.score_steps(
      verifier, [QUESTIONS[0] + "\n.", QUESTIONS[0] + "\r\n.", *[QUESTIONS[0] + "\n."] * 2],
      [text, text.replace("\n", "\r\n"), text + "\n", [*text.split("\n"), ""]])
  np.testing.assert_allclose(windows.q_z, plain.q_z, atol=1e-6)
  assert len(newline.q_z) == len(plain.q_z) + 1
  np.testing.assert_allclose(newline.q_z, listed.q_z, atol=1e-6)


def test_a_policy_is_no_verifier_and_a_verifier_no_policy(policy, verifier):
  """Their score heads, or their steps, have learnt nothing: numbers would come all the same."""
  with pytest.raises(UserError, match="a verifier of kind q, hard, drop, relative, effective or implicit is needed, and a checkpoint of a policy is given"):
    pav_jax.score_steps(policy, ["q"], [["a"]])
  with pytest.raises(UserError, match="a policy is needed, and a checkpoint of a verifier of kind q is given"):
    pav_jax.sample(verifier, ["q"], max_new=2)
  with pytest.raises(UserError, match="kind advantage is needed"):
    pav_jax.score_steps(verifier, ["q"], [["a"]], prover=verifier, prover_kind="advantage")
  verdict = verifier._replace(kind="relative")
  said, = pav_jax.score_steps(verdict, ["q"], [["a", "b"]])
  assert said._fields == ("verdict_s",)
  np.testing.assert_array_equal(said.verdict_s, pav_jax.score_steps(verifier, ["q"], [["a", "b"]])[0].q_z[1:])
  with pytest.raises(UserError, match="kind q, hard or drop is needed"):
    pav_jax.score_steps(verifier, ["q"], [["a"]], prover=verdict)
  with pytest.raises(UserError, match="the verifier is a verifier of kind relative, a verdict on the last step"):
    pav_jax.beam_search(policy, verdict, ["q"], max_new=2)
  hard = verifier._replace(kind="hard")
  assert pav_jax.score_steps(hard, ["q"], [["a"]], prover=hard)[0].advantage_s.shape == (1,)
  unknown = verifier._replace(kind="")  # of a checkpoint from before it was told
  assert pav_jax.score_steps(unknown, ["q"], [["a"]])[0].q_z.shape == (2,)
