"""Best-of-N and beams in the planted world, with exact values or with values estimated from a few rollouts.

  1. A beam holds N prefixes, at first N empty ones.
  2. Each draws C tokens of the base policy.
  3. A candidate scores Q^pi(s, a) + alpha A^mu(s, a); each Q is exact, or the mean of `rollouts` outcomes of
     that policy (drawn as a binomial of the exact one), so that Q + alpha A sees twice as many outcomes as Q.
  4. Ones that are done or dead leave the beam; the best N of the others go on, ties at random.
  5. The run succeeds if any is ever done: what the highest Q^pi = 1 then picks.

Best-of-N with the true outcome succeeds with 1 - (1 - V)^N. A beam of N draws C N tokens a position, so it
stands beside best-of-(C N). The prover's baseline A^mu(s, a) = Q^mu(s') - Q^mu(s) uses the estimate made when s
itself was a candidate, as a verifier would.
"""

import functools

import jax
import jax.numpy as jnp

from pav_jax.didactic import sequence


def best_of_n(value: float, n: int) -> float:
  """The chance that one of n independent sequences is right."""
  return 1 - (1 - value) ** n


@functools.partial(jax.jit, static_argnames=("world", "width", "candidates", "runs", "rollouts"))
def beam(world: sequence.World, policy_jv, value_zj, prover_zj, alpha, key, *, width: int, candidates: int,
         runs: int, rollouts: int) -> jnp.ndarray:
  """success_i, bool (runs,): whether each simulated beam found the planted sequence.

  value_zj: V^pi; prover_zj: V^mu; alpha 0 is the beam by Q.
  """
  next_jv, log_jv = jnp.asarray(sequence.transitions(world)), jnp.log(jnp.asarray(policy_jv))
  seen = lambda key, exact: sequence.rollout_means(key, exact, rollouts)

  def one(carry, at):
    state_ik, base_ik, alive_ik, done_i = carry
    value_j, prover_j, key = at
    at_token, at_pi, at_mu, at_tie = jax.random.split(key, 4)
    shape = (runs, width, candidates)
    token = jax.random.categorical(at_token, log_jv[state_ik][:, :, None], shape=shape)
    state = next_jv[state_ik[:, :, None], token].reshape(runs, -1)
    alive = jnp.repeat(alive_ik, candidates, axis=1)
    done_i |= ((state == world.done) & alive).any(axis=1)
    q_mu = seen(at_mu, prover_j[state])
    score = seen(at_pi, value_j[state]) + alpha * (q_mu - jnp.repeat(base_ik, candidates, axis=1))
    alive &= state < world.done
    # A random order first, then a stable sort by score: ties are broken evenly.
    score = jnp.where(alive, score, -jnp.inf)
    order = jnp.lexsort((jax.random.uniform(at_tie, score.shape), -score), axis=1)[:, :width]
    take = lambda x: jnp.take_along_axis(x, order, axis=1)
    return (take(state), take(q_mu), take(alive), done_i), None

  key, at_base = jax.random.split(key)
  start = jnp.zeros((runs, width), jnp.int32)
  base = jnp.broadcast_to(seen(at_base, jnp.full((runs, 1), prover_zj[0, 0])), start.shape)
  carry = start, base, jnp.ones((runs, width), bool), jnp.zeros(runs, bool)
  carry, _ = jax.lax.scan(one, carry, (value_zj[1:], prover_zj[1:], jax.random.split(key, world.length)))
  return carry[-1]
