"""The ways of keeping candidates, by hand."""

import numpy as np
import pytest

from pav_jax.search import keep
from pav_jax.search import ranking

SCORE_C = np.array([0.3, 0.9, 0.9, 0.5, 0.95, 0.1])  # of three parents, two candidates each


def _done(score):
  return keep.Finished(np.array([1]), score, np.array([score, np.nan]))


def _kept(way, finished=(), score_c=SCORE_C, seed=0, width=3, names=None, progress=False, temperature=1.0):
  kept_c, stay = keep.kept(way, score_c, list(finished), np.random.default_rng(seed), width=width, candidates=2, names=names,
                           progress=progress, temperature=temperature)
  return kept_c.tolist(), [one.score for one in stay]


def test_a_beam_keeps_the_best_in_the_places_that_are_left():
  assert _kept("beam") == ([4, 1, 2], [])
  assert _kept("beam", [_done(0.2)]) == ([4, 1], [0.2])
  assert _kept("beam", names=list("abbcbd")) == ([4, 3, 0], [])


def test_a_subtree_keeps_the_best_of_its_own_candidates():
  assert _kept("subtrees") == ([1, 2, 4], [])
  assert _kept("subtrees", [_done(0.99)], score_c=SCORE_C[:4]) == ([1, 2], [0.99])
  assert _kept("subtrees", score_c=np.array([0.5, 0.5])) == ([0], [])  # ties by index


def test_equal_scores_keep_the_order_in_which_they_were_drawn():
  raw_cv = np.random.default_rng(0).random((6, 2))
  score_c = ranking.candidate_scores(raw_cv, raw_cv, ranking.Ranking("constant"))
  assert _kept("beam", score_c=score_c)[0] == [0, 1, 2] and _kept("subtrees", score_c=score_c)[0] == [0, 2, 4]


def test_dealt_advantages_are_the_same_ones():
  rng = np.random.default_rng(0)
  raw_cv, parent_cv = rng.random((2, 50, 2))
  rank = ranking.Ranking("random", ranking.Prover("q"), 1.0)
  dealt_c = ranking.candidate_scores(raw_cv, parent_cv, rank, np.random.default_rng(1)) - raw_cv[:, 0]
  advantage_c = raw_cv[:, 1] - parent_cv[:, 1]
  np.testing.assert_allclose(np.sort(dealt_c), np.sort(advantage_c))
  assert abs(np.corrcoef(dealt_c, advantage_c)[0, 1]) < 0.4
  np.testing.assert_allclose(
      ranking.candidate_scores(raw_cv, parent_cv, rank._replace(by="effective")) - raw_cv[:, 0], advantage_c)


@pytest.mark.parametrize("by, kind, alpha, reads", [
    ("q", "best_of_k", 0.5, (True, False)), ("effective", "best_of_k", 0.5, (True, False)), ("effective", "q", 0.5, (True, True)),
    ("effective", "q", 0.0, (True, False)), ("prover_q", "q", 0.5, (False, True)), ("prover_a", "q", 0.0, (False, True)),
    ("prover_a", "advantage", 0.5, (False, True)), ("prover_a", "best_of_k", 0.5, (True, False)), ("random", "q", 0.5, (True, True)),
    ("constant", "q", 0.5, (False, False))])
def test_who_is_read(by, kind, alpha, reads):
  assert ranking.Ranking(by, ranking.Prover(kind), alpha).reads == reads


def test_scores_of_the_prover_alone():
  raw_cv, parent_cv = np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[0.5, 0.3], [0.5, 0.3]])
  score = lambda by, kind, k=2: ranking.candidate_scores(raw_cv, parent_cv, ranking.Ranking(by, ranking.Prover(kind, k))).tolist()
  assert score("prover_q", "q") == [0.9, 0.2]
  assert score("prover_a", "q") == pytest.approx([0.6, -0.1])
  assert score("prover_a", "advantage") == pytest.approx([0.8, -0.6])
  assert score("prover_a", "best_of_k") == pytest.approx([0.19 - 0.75, 0.96 - 0.75])


def _shares(log_weight_n, rounds=4000):
  rng = np.random.default_rng(0)
  return np.bincount(np.concatenate([keep.drawn(log_weight_n, rng) for _ in range(rounds)]), minlength=len(log_weight_n)) / (
      rounds * len(log_weight_n))


def test_particles_are_drawn_by_the_odds_of_their_values():
  """Odds 1 : 3 : 0 at temperature 1, their square roots at 2, the same for all as it grows."""
  value_n = np.array([0.5, 0.75, 0.0])
  np.testing.assert_allclose(_shares(keep.log_weights(value_n, False, 1.0)), [1 / 4, 3 / 4, 0], atol=0.015)
  np.testing.assert_allclose(_shares(keep.log_weights(value_n[:2], False, 2.0)), np.array([1, 3**0.5]) / (1 + 3**0.5), atol=0.015)
  np.testing.assert_allclose(_shares(keep.log_weights(value_n, False, 1e9)), 1 / 3, atol=0.015)


def test_particles_by_progress_telescope():
  """Over rounds the weights of a path multiply to exp((Q_end - Q_start) / temperature)."""
  q_z = np.array([0.2, 0.5, 0.4, 0.9])
  assert keep.log_weights(np.diff(q_z), True, 0.5).sum() == pytest.approx((0.9 - 0.2) / 0.5)
  np.testing.assert_allclose(_shares(keep.log_weights(np.array([0.0, np.log(3)]), True, 1.0)), [0.25, 0.75], atol=0.015)


def test_a_finished_particle_is_drawn_with_the_others():
  """It may be doubled, or die, and there are as many particles as before; by progress its increment is 0, whatever its score."""
  assert _kept("particles", [_done(1.0)], score_c=np.zeros(3)) == ([], [1.0] * 4)
  assert _kept("particles", [_done(0.0)], score_c=np.ones(2))[1] == []
  counts = [len(_kept("particles", [_done(0.9)], score_c=np.array([0.0]), seed=seed, progress=True)[1]) for seed in range(400)]
  assert set(counts) == {0, 1, 2} and abs(np.mean(counts) - 1) < 0.15
