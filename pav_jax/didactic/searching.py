"""Search in the planted world: config -> results. The base policy is procedural, so that every value is exact."""

import jax
import jax.numpy as jnp

from pav_jax.didactic import intervals
from pav_jax.didactic import search
from pav_jax.didactic import sequence
from pav_jax.training.metrics import progress


def compare(config, _) -> dict:
  """Rows of success with intervals, in three sweeps: over the width, over the prover's gamma, over alpha.

  Each with values exact or from rollouts; the two things not swept are config.width, config.gamma and config.alpha.
  """
  world = sequence.World(**config.world)
  table = lambda policy_jv: jnp.asarray(sequence.values(world, policy_jv), jnp.float32)
  policy_jv = sequence.procedural(world, config.base_gamma)
  value_zj, rows = table(policy_jv), []
  settings = [(sweep, rollouts, *at) for rollouts in config.rollouts for sweep, at in _sweeps(config)]
  for sweep, rollouts, width, gamma, alpha in progress(settings, what="search", unit="beam"):
    # The same key for all: beams that differ in one thing meet the same tokens.
    found_i = search.beam(
        world, jnp.asarray(policy_jv, jnp.float32), value_zj, table(sequence.procedural(world, gamma)), alpha,
        jax.random.key(config.seed), width=width, candidates=config.candidates, runs=config.runs, rollouts=rollouts)
    rows.append({"sweep": sweep, "rollouts": rollouts, "width": width, "gamma": gamma, "alpha": alpha,
                 **intervals.shares(found_i)})
  value = float(value_zj[0, 0])
  best = [{"n": config.candidates * n, "width": n, "share": search.best_of_n(value, config.candidates * n)}
          for n in config.widths]
  return {"rows": rows, "best_of_n": best, "width": config.width, "gamma": config.gamma, "alpha": config.alpha}


def _sweeps(config):
  """(sweep, (width, gamma, alpha)); alpha 0 is the beam by Q."""
  yield from (("width", (width, config.gamma, alpha)) for alpha in (0.0, config.alpha) for width in config.widths)
  yield from (("gamma", (config.width, gamma, config.alpha)) for gamma in config.gammas)
  yield from (("alpha", (config.width, config.gamma, alpha)) for alpha in config.alphas)
