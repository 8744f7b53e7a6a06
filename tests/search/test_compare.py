"""The search stage's records, on a fake network whose responses are known."""

import types

import numpy as np
import pytest

from configs import default
import fakes
from fakes import A, B, BOS, EOS, NL, PAD, RIGHT, WRONG
from pav_jax.errors import UserError
from pav_jax.evaluation import tables
from pav_jax.grading import grading
from pav_jax.problems import prepared
from pav_jax.search import arms
from pav_jax.search import beam
from pav_jax.search import best_of_n
from pav_jax.search import compare
from pav_jax.search import players as players_lib
from pav_jax.search import ranking
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
      verifiers={name: beam.Player(fakes.CHAIN, fakes.random_chain(n)) for n, name in enumerate(("orm", "q", "strong"), start=1)},
      kinds={"strong": "q"}, kind="q", process=(types.SimpleNamespace(network=fakes.CHAIN), fakes.random_chain(2)))
  players.judges = types.MethodType(players_lib.Players.judges, players)
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
  arrays, _ = _searched(stage, "q_beam", 4)
  (responses, ended), = grader.asked
  tokens = lambda text: text.replace("#### 7", "r").replace("#### 3", "w")
  # Shorter than the budget and not empty: it met EOS.
  assert [e for text, e in zip(responses, ended) if text] and len(arrays["right_p"]) == 2
  for text, over in zip(responses, ended):
    assert over == (0 < len(tokens(text)) < 8) or len(tokens(text)) in (0, 7)
  assert True in ended and False in ended


def _searched(stage, arm, width=2, value=None):
  run, players, grader = stage
  return players_lib.searched(run, players, grader, arm, arms.settings_of(arm, run.config.search, value), width, 0, None)


def test_only_who_is_read_is_paid_for(stage):
  """Tokens read by verifiers a token drawn: two where Q^pi and a prover of its own are read; none where all scores are alike."""
  for arm, readers in (("q_beam", 1), ("pav_beam", 1), ("pav_beam@strong", 2), ("prover_q_beam@strong", 1), ("prover_a_beam@strong", 1),
                       ("prover_a_beam", 1), ("random_beam@strong", 2), ("constant_beam", 0)):
    arrays, _ = _searched(stage, arm)
    np.testing.assert_array_equal(arrays["scored_p"], readers * (arrays["generated_p"] + arrays["prompt_p"]), err_msg=arm)
    assert (arrays["verifier_flops_p"] > 0).all() == (readers > 0)
  plain, _ = _searched(stage, "pav_beam@strong", value=0.0)  # with alpha 0 no prover is asked
  np.testing.assert_array_equal(plain["scored_p"], plain["generated_p"] + plain["prompt_p"])


def test_final_choices_are_those_of_whom_was_read(stage):
  """NaN where nobody says it, or where it is the answer itself."""
  for arm, choices in (("q_beam", []), ("pav_beam", ["effective"]), ("pav_beam@strong", ["effective", "prover"]),
                       ("prover_q_beam@strong", ["q"]), ("prover_a_beam@strong", ["q", "effective"]), ("constant_beam", [])):
    arrays, _ = _searched(stage, arm)
    there = [by for by in ("q", "effective", "prover", "draw") if not np.isnan(arrays[f"right_by_{by}_p"]).any()]
    assert there == choices, arm
    assert arrays["method_p"].tolist() == [arm] * 2


def test_a_second_opinion_says_what_the_beam_would_have_read(stage, monkeypatch):
  """Q^pi of the finished, from whole responses, is the beam's own; read are the prompts once and what finished, and no more."""
  run, players, _ = stage
  kept, search = [], beam.search
  monkeypatch.setattr(beam, "search", lambda *args, **kwargs: kept.append(search(*args, **kwargs)) or kept[-1])
  _searched(stage, "q_beam", 4)
  (found,) = kept
  score_pk, cost = players_lib._second_opinion(run, players, found)
  there_pk = found.pool_length_pk > 0
  np.testing.assert_allclose(score_pk[there_pk], found.pool_raw_pkv[..., 0][there_pk], rtol=1e-5)
  assert there_pk.any() and np.isneginf(score_pk[~there_pk]).all()
  np.testing.assert_array_equal(cost.scored_p, players.problems.prompt_length_p + found.pool_length_pk.sum(axis=1))
  assert (cost.verifier_flops_p > 0).all() and not cost.policy_flops_p.any()


def test_a_second_opinion_is_paid_for(stage):
  arrays, _ = _searched(stage, "prover_q_beam@strong", 4)
  cells = {cell.method: cell for cell in tables.beam_cells(arrays)}
  own, second = cells["prover_q_beam@strong"].costs, cells["prover_q_beam@strong_by_q"].costs
  assert second.verifier_flops - own.verifier_flops == pytest.approx(arrays["second_flops_p"].mean()) and arrays["second_flops_p"].all()
  assert tables.verifiers_of("prover_q_beam@strong_by_q") == ["q", "strong"] and tables.verifiers_of("prover_q_beam@strong") == ["strong"]
  assert not _searched(stage, "pav_beam@strong", 4)[0]["second_flops_p"].any()


def test_alpha_0_is_the_beam_by_q(stage):
  q, pav = _searched(stage, "q_beam")[0], _searched(stage, "pav_beam", value=0.0)[0]
  for name in ("right_p", "passed_p", "generated_p", "verifier_flops_p"):
    np.testing.assert_array_equal(q[name], pav[name])


def test_an_arm_draws_as_many_steps_a_round_as_the_others():
  knobs = default.get_config().search
  places = lambda arm, value=None, width=4: arms.places(width, arms.settings_of(arm, knobs, value), knobs.candidates)
  assert [places("q_beam", c) for c in (1, 2, 3, 4, 6, 12, 24)] == [12, 6, 4, 3, 2, 1, 1]
  assert places("pav_beam", 7.0) == 4
  assert places("particles") == 12 and places("q_lookahead", 1) == 2 and places("q_lookahead", 0) == 4


def test_a_prover_is_a_verifier_that_says_what_its_arm_reads():
  check = lambda kind, *names: players_lib._check_kind("weak", kind, names, "config.search.provers.weak: PATH")
  check("q", "prover_q_beam@weak")
  check("advantage", "pav_beam@weak", "prover_q_beam@strong")
  with pytest.raises(UserError, match="says no Q, which the arm prover_q_beam@weak asks for"):
    check("advantage", "pav_beam@weak", "prover_q_beam@weak")


def test_best_of_k_may_have_a_k_of_its_own(stage, monkeypatch):
  """best_of_8 has K = 8 whatever search.prover_k is, and best_of_1 is the policy itself; all read Q^pi alone."""
  run, *_ = stage
  asked, search = [], beam.search
  monkeypatch.setattr(beam, "search", lambda *args, way, **kwargs: asked.append(way.ranking.prover) or search(*args, way=way, **kwargs))
  run.config.search.prover_k = 2
  arrays = {name: _searched(stage, name)[0] for name in ("pav_beam", "pav_beam@best_of_2", "pav_beam@best_of_1", "pav_beam@strong")}
  assert asked == [ranking.Prover("best_of_k", 2), ranking.Prover("best_of_k", 2), ranking.Prover("best_of_k", 1), ranking.Prover("q")]
  assert [set(x["prover_p"]) for x in arrays.values()] == [{"best_of_k"}, {"best_of_2"}, {"best_of_1"}, {"strong"}]
  np.testing.assert_array_equal(arrays["pav_beam"]["scored_p"], arrays["pav_beam@best_of_2"]["scored_p"])
  assert arms.readers("pav_beam@best_of_8") == arms.readers("pav_beam") == ["q"]


def test_lookahead_of_none_is_the_beam(stage):
  q, ahead = _searched(stage, "q_beam")[0], _searched(stage, "q_lookahead", value=0)[0]
  for name in ("right_p", "passed_p", "generated_p", "policy_flops_p", "verifier_flops_p"):
    np.testing.assert_array_equal(q[name], ahead[name])


def test_a_draw_is_one_more_choice_of_particles(stage):
  arrays, _ = _searched(stage, "particles", 4)
  assert arrays["places_p"].tolist() == [8, 8] and ((0 <= arrays["right_by_draw_p"]) & (arrays["right_by_draw_p"] <= arrays["passed_p"])).all()
