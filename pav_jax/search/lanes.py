"""The lanes of a search: which item of which beam lies where, and the programs that move them.

An item (a prefix that is kept) is a lane: policy and verifiers hold what they
have read of it once for all of its candidates. Three programs of fixed shape:
a prompt enters a lane (`admit`), candidates are drawn and read (`expand`), and
a chosen candidate becomes the item of a lane (`commit`).
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import decoding
from pav_jax.rollouts import engine
from pav_jax.training import mesh as mesh_lib


class Items(NamedTuple):
  """The items of all beams in their lanes: problem_i (-1: none), its response so far, where that leaves the rule of
  steps (problems/steps.py), and what the judges said of it (ranking.py)."""

  problem_i: np.ndarray
  token_it: np.ndarray
  length_i: np.ndarray
  state_i: np.ndarray
  raw_iv: np.ndarray


@functools.partial(jax.jit, static_argnames=("networks", "mesh"), donate_argnames="prefixes")
def admit(networks, params, prefixes, prompt_pt, length_p, lane_q, source_q, *, mesh):
  """(prefixes with prompt source_q in lane lane_q, sigmoids of the scores at the prompts' ends (p, n)).

  prefixes: one for each network. A lane that is not there is skipped. On a
  mesh a part has its share of the prompts and of lane_q, and counts both from its own first.
  """
  def own(params, prefixes, prompt_pt, length_p, lane_q, source_q):
    grown, raw = [], []
    for network, weights, prefix in zip(networks, params, prefixes):
      hidden_ptd, new = network.read(weights, prompt_pt)
      grown.append(decoding.put(prefix, lane_q, decoding.take(new, source_q)))
      last_pd = jnp.take_along_axis(hidden_ptd, length_p[:, None, None] - 1, axis=1)[:, 0]
      raw.append(jax.nn.sigmoid(network.scores(weights, last_pd)))
    return grown, jnp.stack(raw, axis=1)
  return mesh_lib.by_part(mesh, own, params, prefixes, prompt_pt, length_p, lane_q, source_q)


@functools.partial(jax.jit, static_argnames=("networks", "candidates", "max_step", "lookahead", "sampling", "ahead", "mesh"),
                   donate_argnames="prefixes")
def expand(networks, params, prefixes, length_i, last_i, state_i, budget_i, key_r, tokens, *, candidates, max_step, lookahead,
           sampling, ahead, mesh):
  """A step for every candidate: (Continuations, sigmoids of the scores at its end (r, n), prefixes, caches without them, beyond).

  networks: the policy, whose score is nobody's and 0 here, then the verifiers, if there are any. length_i: tokens
  of the item, prompt included; state_i: as in Items, for it may end within a
  step; budget_i: tokens it may still get; 0 draws nothing. beyond: with
  lookahead the (Continuations, sigmoids) of up to so many further steps, as
  many times max_step tokens at most, sampled as `ahead` says; else None. The
  caches end with the candidate's own step.
  """
  policy, *verifiers = networks
  each = lambda x_i: jnp.repeat(x_i, candidates)
  slots = max_step * (1 + lookahead)
  begun = lambda prefix, length_r: engine.placed(decoding.begin(prefix, length_r, slots), mesh)
  last_of = lambda x_rtd, length_r: jnp.take_along_axis(x_rtd, jnp.maximum(length_r - 1, 0)[:, None, None], axis=1)[:, 0]
  step, cache = engine.generate(policy, params[0], begun(prefixes[0], each(length_i - 1)), each(last_i),
                                jnp.minimum(each(budget_i), max_step), key_r, tokens, max_new=max_step, sampling=sampling, steps=1,
                                state_b=each(state_i))
  caches, further = [cache], None
  if lookahead:
    going_r = ~step.ended_b & (step.length_b > 0)
    last_r = jnp.take_along_axis(step.token_bt, jnp.maximum(step.length_b - 1, 0)[:, None], axis=1)[:, 0]
    key_r = jax.vmap(jax.random.fold_in, (0, None))(key_r, max_step)  # the step's own tokens have the numbers below
    further, _ = engine.generate(policy, params[0], cache, last_r, jnp.where(going_r, each(budget_i) - step.length_b, 0), key_r, tokens,
                                 max_new=lookahead * max_step, sampling=ahead, steps=lookahead, state_b=step.state_b)
  raw, raw_beyond = [jnp.zeros(len(key_r))], [jnp.zeros(len(key_r))]
  for verifier, weights, prefix in zip(verifiers, params[1:], prefixes[1:]):
    def read(cache, new):
      valid_rt = jnp.arange(new.token_bt.shape[1])[None] < new.length_b[:, None]
      hidden_rtd, cache = verifier.extend(weights, cache, new.token_bt, valid_rt)
      return jax.nn.sigmoid(verifier.scores(weights, last_of(hidden_rtd, new.length_b))), cache
    said_r, cache = read(begun(prefix, each(length_i)), step)
    raw.append(said_r)
    caches.append(cache)
    if lookahead:
      raw_beyond.append(jnp.where(further.length_b > 0, read(cache, further)[0], said_r))
  beyond = (further, jnp.stack(raw_beyond, axis=1)) if lookahead else None
  return (step, jnp.stack(raw, axis=1), [cache.prefix for cache in caches], [cache._replace(prefix=None) for cache in caches],
          beyond)


@functools.partial(jax.jit, static_argnames="mesh", donate_argnames="prefixes")
def commit(prefixes, caches, row_i, *, mesh):
  """Candidate row_i becomes the item of lane i; on a mesh both are of one part, and rows are counted from its first."""
  def own(_, prefixes, caches, row_i):
    return [decoding.commit(cache._replace(prefix=prefix), row_i) for prefix, cache in zip(prefixes, caches)]
  return mesh_lib.by_part(mesh, own, (), prefixes, caches, row_i)


def lanes_of(rows: int, candidates: int, width: int, parts: int) -> int:
  """Lanes of each part of the mesh: those of its share of the rows, and room for one beam at least, since a beam is on one part.

  Raises UserError where not even all rows together hold a beam.
  """
  if rows // candidates < width:
    raise UserError(f"{rows} rows are too few for a beam of {width} with {candidates} candidates each")
  return max(width, rows // candidates // parts)


def begin(free: list[np.ndarray], first: int, room: int, at_once: int, width: int, absent: int) -> tuple[np.ndarray, np.ndarray]:
  """(problem_jb, lane_jbw): which problem, -1 for none, begins on part j as its b-th in this call, and in which of the
  part's lanes, `absent` where there is none. Takes the lanes out of `free`; parts have their turns."""
  problem_jb = np.full((len(free), at_once), -1)
  lane_jbw = np.full((len(free), at_once, width), absent)
  for b in range(at_once):
    for j, mine_i in enumerate(free):
      if room and len(mine_i) >= width:
        problem_jb[j, b], lane_jbw[j, b], free[j] = first, mine_i[:width], mine_i[width:]
        first, room = first + 1, room - 1
  return problem_jb, lane_jbw


def places(problem_i: np.ndarray) -> np.ndarray:
  """The how-manieth item of its beam each lane holds, from 0: what names its candidates' randomness."""
  place_i, seen = np.zeros(len(problem_i), int), collections.Counter()
  for i, p in enumerate(problem_i):
    place_i[i] = seen[p]
    seen[p] += 1
  return place_i
