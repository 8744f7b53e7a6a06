"""The search stage's records, on a fake network whose responses are known."""

import types

import numpy as np
import pytest

from configs import default
import fakes
from fakes import A, B, BOS, EOS, NL, PAD, RIGHT, WRONG
from pav_jax.grading import grading
from pav_jax.problems import prepared
from pav_jax.search import beam
from pav_jax.search import best_of_n
from pav_jax.search import compare
from pav_jax.values import equations

# Lines of a and b, an answer in the end or on the way; EOS is rare enough that some run out of tokens.
CHANCES = {token: {A: 0.2, NL: 0.3, RIGHT: 0.2, WRONG: 0.2, EOS: 0.1} for token in (A, B, NL)}
CHANCES |= {token: {NL: 0.8, EOS: 0.2} for token in (RIGHT, WRONG)}


class Watched(grading.Grader):
  """A grader that remembers what it was asked."""

  asked = ()

  def grade(self, references, responses, datasets, ended=True):
    self.asked = [*self.asked, (responses, list(ended))]
    return super().grade(references, responses, datasets, ended)


@pytest.fixture
def stage():
  """(run, players, grader)."""
  config = default.get_config()
  config.rollouts.max_new = 8
  config.search.update(dict(max_n=12, rows=12, max_step=4, candidates=2, max_rounds=9))
  problems = prepared.Problems(
      *(np.array(x) for x in (["x/0", "x/1"], ["arithmetic"] * 2, ["?", "?"], ["7", "3"])), np.array([[BOS, A], [BOS, B]], np.int32),
      np.array([2, 2], np.int32), np.full((2, 1), PAD, np.int32), np.array([0, 0], np.int32))
  params = fakes.chain_params(CHANCES)
  players = types.SimpleNamespace(
      problems=problems, vocabulary=fakes.VOCABULARY, arch=types.SimpleNamespace(network=fakes.CHAIN), tokens=fakes.TOKENS,
      policy=beam.Player(fakes.CHAIN, params),
      verifiers={"orm": beam.Player(fakes.CHAIN, fakes.random_chain(1)), "q": beam.Player(fakes.CHAIN, fakes.random_chain(2))})
  with Watched() as grader:
    yield types.SimpleNamespace(config=config, mesh=None), players, grader


def test_samples_are_graded_once_and_keep_every_reading(stage):
  run, players, grader = stage
  arrays, counts = compare._samples(run, players, grader, 0, None)
  (responses, ended), = grader.asked
  assert len(responses) == 24 and 0 < counts["truncated"] == ended.count(False) < 24
  # The only answers are 7 and 3: right for one problem and wrong for the other, each a class of its own.
  for right_n, answer_n, texts in zip(arrays["right_pn"], arrays["answer_pn"], np.array(responses).reshape(2, 12)):
    stated = [text.rpartition("#### ")[2][:1] if "####" in text else "" for text in texts]
    assert [a == -1 for a in answer_n] == [not s for s in stated] and len(set(stated)) == 3
    assert len(set(zip(answer_n, stated))) == 3 and len(set(zip(right_n, stated))) == 3
  assert counts["comparisons of answers"] == 2 * 1
  # Verifier's scores and readings, from what was recorded: Q at the end is that of the last step's reward with alpha = 0.
  readings = {how: arrays[f"pav_{how}_pn"] for how in best_of_n.RERANKS}
  np.testing.assert_array_equal(arrays["pav_pn"], readings[run.config.search.pav_rerank])
  assert (readings["min"] <= readings["mean"] + 1e-6).all() and (readings["min"] <= readings["last"] + 1e-6).all()
  run.config.search.alpha, run.config.search.pav_rerank = 0.0, "last"
  plain, _ = compare._samples(run, players, grader, 0, None)
  np.testing.assert_allclose(plain["pav_last_pn"], arrays["q_pn"], rtol=1e-6)
  np.testing.assert_array_equal(plain["pav_pn"], plain["pav_last_pn"])
  assert not np.allclose(arrays["pav_last_pn"], arrays["q_pn"])


def test_a_beam_knows_which_of_its_responses_ended(stage):
  run, players, grader = stage
  arrays, _ = compare._beam(run, players, grader, ("q_beam", "best_of_k", 0.0, 4, 0), None)
  (responses, ended), = grader.asked
  tokens = lambda text: text.replace("#### 7", "r").replace("#### 3", "w")
  # Shorter than the budget and not empty: it met EOS.
  assert [e for text, e in zip(responses, ended) if text] and len(arrays["right_p"]) == 2
  for text, over in zip(responses, ended):
    assert over == (0 < len(tokens(text)) < 8) or len(tokens(text)) in (0, 7)
  assert True in ended and False in ended
