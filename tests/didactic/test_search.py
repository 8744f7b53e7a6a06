"""Search in the planted world: beams that must be plain sampling, and beams that can be written down."""

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.didactic import search
from pav_jax.didactic import sequence

WORLD = sequence.World(6, 5, (0, 1, 2))
POLICY = sequence.procedural(WORLD, 3)
VALUE = sequence.values(WORLD, POLICY)


def _share(value_zj=VALUE, prover_zj=VALUE, alpha=0.0, runs=20_000, rollouts=0, **knobs):
  f = lambda x: jnp.asarray(x, jnp.float32)
  return float(search.beam(WORLD, f(POLICY), f(value_zj), f(prover_zj), alpha, jax.random.key(3), runs=runs,
                           rollouts=rollouts, **knobs).mean())


def _near(share, want, runs=20_000):
  assert abs(share - want) < 4 * np.sqrt(want * (1 - want) / runs), (share, want)


def test_a_beam_of_one_with_one_candidate_is_sampling():
  _near(_share(width=1, candidates=1), VALUE[0, 0])


def test_one_candidate_each_is_best_of_n_whatever_the_scores():
  _near(_share(width=4, candidates=1, alpha=2.0), search.best_of_n(VALUE[0, 0], 4))


def test_a_beam_of_one_by_exact_q_climbs_as_its_chain_says():
  """The best of three draws by Q, position by position: a chain over the states of the match."""
  next_jv = sequence.transitions(WORLD)
  chance_j = np.eye(5)[0]
  for z in range(WORLD.length):
    moved_j = np.zeros(5)
    for j in range(WORLD.done):
      to_j = np.bincount(next_jv[j], POLICY[j], minlength=5)
      # Done is seen whenever it is drawn; otherwise the best live state; dead only if all are.
      order = [WORLD.done, *sorted(range(WORLD.done), key=lambda k: -VALUE[z + 1, k]), WORLD.dead]
      worse = 1.0
      for k in order:
        moved_j[k] += chance_j[j] * (worse ** 3 - (worse - to_j[k]) ** 3)
        worse -= to_j[k]
    moved_j[WORLD.done] += chance_j[WORLD.done]
    moved_j[WORLD.dead] += chance_j[WORLD.dead]
    chance_j = moved_j
    # At the end all live states are worth 0, which no longer matters.
  _near(_share(width=1, candidates=3), chance_j[WORLD.done])


def test_rough_values_search_worse():
  exact, rough = (_share(width=2, candidates=3, rollouts=n) for n in (0, 1))
  assert rough < exact - 0.02


def test_the_prover_matters_only_through_alpha():
  other = sequence.values(WORLD, sequence.procedural(WORLD, 50))
  assert _share(width=2, candidates=3, prover_zj=other) == _share(width=2, candidates=3)
