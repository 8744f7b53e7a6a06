"""Ways to search beside the beam, on a network of which all is known: a letter, then what the letter decides."""

import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS, NL, RIGHT, SIZE, WRONG
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import beam
from pav_jax.search import ranking


def _policy():
  """From C to A or B, equally likely; a new line; RIGHT if there was an A, WRONG if a B; the end."""
  params = fakes.chain_params({C: {A: 0.5, B: 0.5}, A: {NL: 1}, B: {NL: 1}, NL: {RIGHT: 0.5, WRONG: 0.5}, RIGHT: {EOS: 1}, WRONG: {EOS: 1}})
  return beam.Player(fakes.CHAIN, params | {"logit_dv": params["logit_dv"].at[SIZE + A, RIGHT].set(20).at[SIZE + B, WRONG].set(20)})


def _verifier(**logits):
  """A verifier whose score is the sum of these logits of the pieces that were read."""
  params = fakes.chain_params()
  for name, logit in logits.items():
    params["score_d"] = params["score_d"].at[SIZE + getattr(fakes, name)].set(logit)
  return beam.Player(fakes.CHAIN, params)


def _searched(judges, count=60, max_rounds=9, **way):
  return beam.search(
      _policy(), judges, np.tile([[BOS, C]], (count, 1)).astype(np.int32), np.full(count, 2, np.int32), np.arange(count, dtype=np.int32),
      fakes.TOKENS, way=beam.Way(**way), max_rounds=max_rounds, max_new=8, max_step=4, sampling=sampling_lib.Sampling(), seed=0, rows=64)


def _share(found):
  """Of all finished candidates, how many had an A."""
  there_pk = found.pool_length_pk > 0
  return ((found.pool_token_pkt[..., 0] == A) & there_pk).sum() / there_pk.sum()


Q = ranking.Ranking("q")
BLIND = beam.Judges(_verifier(RIGHT=3.0, WRONG=-3.0))  # sees what is answered, not what leads to it


def test_lookahead_sees_where_a_step_leads_and_pays_for_it():
  plain, ahead = (_searched(BLIND, ranking=Q, width=1, candidates=8, lookahead=k) for k in (0, 1))
  assert 0.3 < (plain.token_pt[:, 0] == A).mean() < 0.7 and (ahead.token_pt[:, 0] == A).all()
  # Eight steps of two tokens, twice; with lookahead two more after the first. The second step ends the response.
  assert (plain.cost.generated_p == 32).all() and (ahead.cost.generated_p == 48).all()
  f = fakes.CHAIN.flops
  np.testing.assert_array_equal(ahead.cost.policy_flops_p, f(0, 1) + 8 * (f(1, 3, 2) + 2 * f(3, 5, 2)))
  np.testing.assert_array_equal(ahead.cost.verifier_flops_p, f(0, 2) + 8 * (f(2, 4) + 2 * f(4, 6)))
  # What is kept is the step alone, with what the verifier says at its own end.
  assert (ahead.length_p == 4).all()
  one = _searched(BLIND, ranking=Q, width=1, candidates=8, lookahead=1, max_rounds=1)
  assert (one.length_p == 0).all() and (one.cost.generated_p == 32).all()


def test_lookahead_takes_progress_from_the_parent_to_where_it_looks():
  judges = beam.Judges(_verifier(), _verifier(RIGHT=3.0, WRONG=-3.0))
  way = dict(ranking=ranking.Ranking("effective", ranking.Prover("q"), 1.0), width=1, candidates=8)
  assert (_searched(judges, lookahead=1, **way).token_pt[:, 0] == A).all()
  assert (_searched(judges, **way).token_pt[:, 0] == A).mean() < 0.7


def test_subtrees_of_one_place_are_a_beam_of_one():
  judge = beam.Judges(_verifier(A=1.0))
  one, other = (_searched(judge, ranking=Q, way=way, width=1, candidates=3) for way in ("beam", "subtrees"))
  np.testing.assert_array_equal(one.pool_token_pkt, other.pool_token_pkt)
  np.testing.assert_array_equal(one.cost.flops_p, other.cost.flops_p)


def test_subtrees_do_not_crowd_one_another_out():
  """Two candidates each: a tree has an A with chance 3/4 by itself; one A in four candidates fills both places of a beam."""
  judge = beam.Judges(_verifier(A=1.0))
  beams, trees = (_searched(judge, count=400, ranking=Q, way=way, width=2, candidates=2) for way in ("beam", "subtrees"))
  assert _share(trees) == pytest.approx(3 / 4, abs=0.06)
  assert _share(beams) == pytest.approx(15 / 16, abs=0.04)
  assert (trees.pool_length_pk > 0).all()


def test_particles_follow_the_odds_of_every_round():
  """A's odds are 3, B's 1, at both steps: 9 in 10; as the temperature grows the policy's own 1 in 2."""
  judge = beam.Judges(_verifier(A=np.log(3)))
  share = lambda temperature: _share(_searched(
      judge, count=40, ranking=Q, way="particles", width=64, candidates=1, particle_temperature=temperature))
  assert share(1.0) == pytest.approx(0.9, abs=0.03)
  assert share(1e9) == pytest.approx(0.5, abs=0.06)


def test_particles_by_progress_follow_the_value_at_the_end():
  """Q^mu rises to .75 with an A and stays .5 with a B; the second step brings no progress: exp(.25 / .2) to 1."""
  judges = beam.Judges(None, _verifier(A=np.log(3)))
  found = _searched(judges, count=40, ranking=ranking.Ranking("prover_a", ranking.Prover("q")), way="particles", width=64, candidates=1,
                    particle_temperature=0.2)
  odds = np.exp(0.25 / 0.2)
  assert _share(found) == pytest.approx(odds / (1 + odds), abs=0.04)
  np.testing.assert_allclose(found.q_p, 0.75, atol=1e-6)  # the answer is the finished one that the prover likes best
  assert np.isnan(found.pool_raw_pkv[..., 0]).all()


def test_equal_scores_are_plain_sampling():
  found = _searched(beam.Judges(), count=400, ranking=ranking.Ranking("constant"), width=2, candidates=3)
  assert (found.token_pt[:, 0] == A).mean() == pytest.approx(0.5, abs=0.08)
  assert not found.cost.scored_p.any() and not found.cost.verifier_flops_p.any()


def test_a_prover_that_reads_the_text_costs_nothing():
  seen = []
  def told(problem_r, token_rt, length_r):
    seen.append((problem_r, length_r))
    return np.array([float((token_t[:length] == A).any()) for token_t, length in zip(token_rt, length_r)])
  judges = beam.Judges(None, None, told)
  found = _searched(judges, ranking=ranking.Ranking("prover_q", ranking.Prover("q")), width=1, candidates=8)
  assert (found.token_pt[:, 0] == A).all() and (found.q_p == 1).all() and not found.cost.verifier_flops_p.any()
  assert any((problem_r == -1).any() for problem_r, _ in seen) and (seen[0][1] == 0).all()  # the bare prompts first; lanes without an item
