"""Search in the planted world: config -> results. The base policy is procedural, so that every value is exact."""

import jax
import jax.numpy as jnp

from pav_jax.didactic import search
from pav_jax.didactic import sequence
from pav_jax.training.metrics import progress


def compare(config, _) -> dict:
  """Rows of success with intervals: beams by Q^pi + alpha A^mu over width, alpha, gamma and how values are known."""
  world = sequence.World(**config.world)
  exact = lambda gamma: sequence.values(world, sequence.procedural(world, gamma))
  policy_jv, value_zj = sequence.procedural(world, config.base_gamma), exact(config.base_gamma)
  # alpha = infinity is A^mu alone.
  settings = [(rollouts, width, gamma, alpha) for rollouts in config.rollouts for width in config.widths
              for gamma, alpha in _provers(config)]
  rows = []
  for n, (rollouts, width, gamma, alpha) in enumerate(progress(settings, what="search", unit="beam")):
    alone = alpha == "only"
    found_i = search.beam(
        world, jnp.asarray(policy_jv, jnp.float32), jnp.asarray(value_zj, jnp.float32),
        jnp.asarray(exact(gamma), jnp.float32), jnp.float32(1.0 if alone else alpha),
        jnp.float32(0.0 if alone else 1.0),
        jax.random.fold_in(jax.random.key(config.seed), n), width=width, candidates=config.candidates,
        runs=config.runs, rollouts=rollouts)
    share, low, high = search.interval(int(found_i.sum()), config.runs)
    rows.append({"rollouts": rollouts, "width": width, "gamma": gamma, "alpha": alpha, "success": share, "low": low,
                 "high": high})
  value = float(value_zj[0, 0])
  best = [{"n": config.candidates * n, "width": n, "success": search.best_of_n(value, config.candidates * n)}
          for n in config.widths]
  return {"rows": rows, "best_of_n": best, "prover_success": {str(g): float(exact(g)[0, 0]) for g in config.gammas}}


def _provers(config) -> list[tuple]:
  """(gamma, alpha): Q alone; every gamma at the middle alpha; every alpha at the middle gamma; A^mu of it alone."""
  pairs = [(g, config.alpha) for g in config.gammas] + [(config.gamma, a) for a in config.alphas]
  return list(dict.fromkeys([(config.gamma, 0.0), *pairs, (config.gamma, "only")]))
