"""Step-level beam search by the effective reward (section 4.1).

  1. The beam of a problem holds `width` prefixes, at first all the bare prompt.
  2. For each, draw C candidates for the next step from pi.
  3. Score every candidate: Q^pi + alpha A^mu, A against its own parent (Eq. 2).
  4. Keep the best, as many as the beam has places; copies of a prefix that is
     already kept come last (`distinct`).
  5. A kept candidate that has answered leaves the beam for good, and its place
     with it; so does one out of tokens. Go on until no place is left, at most
     `max_rounds` times.
  6. The answer is the finished candidate with the highest Q^pi. What each finished
     one got besides is kept, for other final choices (`chosen`).

alpha = 0 is the beam by Q^pi alone. An item is a lane of the engine: policy and
verifiers hold its prefix once for its C candidates, and a chosen candidate's
tokens are added to a copy of it (`decoding.commit`), so that a round costs its
new tokens, not the whole text. Calls have one fixed shape for all widths; the
lanes a beam no longer needs go to the next problem.
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import decoding
from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import ledger
from pav_jax.training import mesh as mesh_lib
from pav_jax.values import equations


class Prover(NamedTuple):
  """Whose advantages A^mu are added.

  kind: 'best_of_k' (from Q^pi, Eq. 30), 'q' (a second verifier says Q^mu) or
  'advantage' (a second verifier says A^mu itself, as (1 + A) / 2).
  """

  kind: str = "best_of_k"
  k: float = 4


class Player(NamedTuple):
  """A network and its parameters."""

  network: Network
  params: object


class Found(NamedTuple):
  """Per problem and seed: the chosen response's tokens and length (0: none finished), its Q, and the cost.

  pool_*: all finished candidates, for Pass@N of the beam and other choices;
  length 0 where there is none. pool_score_pk: the effective reward of the last
  step; pool_raw_pkv: the sigmoids of the verifiers' scores at its end; -1 where there is none.
  """

  token_pt: np.ndarray
  length_p: np.ndarray
  q_p: np.ndarray
  pool_token_pkt: np.ndarray
  pool_length_pk: np.ndarray
  pool_score_pk: np.ndarray
  pool_raw_pkv: np.ndarray
  rounds: int
  cost: ledger.Cost


def step_advantages(raw_rv: np.ndarray, parent_rv: np.ndarray, prover: Prover) -> np.ndarray:
  """A^mu (r,) of steps from the sigmoids of their verifiers and of those before them.

  raw_rv[:, 0] is Q^pi; raw_rv[:, 1], if there is a second verifier, Q^mu or (1 + A^mu) / 2.
  """
  if prover.kind == "advantage":
    return 2 * raw_rv[:, 1] - 1
  q_mu = (lambda x_rv: x_rv[:, 1]) if prover.kind == "q" else (lambda x_rv: equations.best_of_k(x_rv[:, 0], prover.k))
  return equations.advantages(np.stack([q_mu(parent_rv), q_mu(raw_rv)], axis=1))[:, 0]


class Finished(NamedTuple):
  """A candidate that has answered: its response, the effective reward of its last step, the verifiers' sigmoids at its end."""

  token_t: np.ndarray
  score: float
  raw_v: np.ndarray


CHOICES = ("q", "effective", "prover")


def chosen(found: Found, by: str) -> np.ndarray:
  """int (p,): which of the pool a final choice takes: by Q^pi ('q', what the beam answers), by the effective reward of
  the last step, or by the prover's Q^mu ('prover', where a second verifier says it); 0 where nothing finished."""
  score_pk = {"q": found.pool_raw_pkv[..., 0], "effective": found.pool_score_pk, "prover": found.pool_raw_pkv[..., -1]}[by]
  return np.where(found.pool_length_pk > 0, score_pk, -np.inf).argmax(axis=1)


def candidate_scores(raw_rv: np.ndarray, parent_rv: np.ndarray, prover: Prover, alpha: float) -> np.ndarray:
  """Effective reward (r,) of candidates; the arguments are those of `step_advantages`."""
  q_r = raw_rv[:, 0]
  return equations.effective_reward(q_r, step_advantages(raw_rv, parent_rv, prover), alpha) if alpha else q_r


class Items(NamedTuple):
  """The items of all beams in their lanes: problem_i (-1: none), its response so far, where that leaves the rule of
  steps (problems/steps.py), and what the verifiers said of it."""

  problem_i: np.ndarray
  token_it: np.ndarray
  length_i: np.ndarray
  state_i: np.ndarray
  raw_iv: np.ndarray


@functools.partial(jax.jit, static_argnames=("networks", "mesh"), donate_argnames="prefixes")
def admit(networks, params, prefixes, prompt_pt, length_p, lane_q, source_q, *, mesh):
  """(prefixes with prompt source_q in lane lane_q, sigmoids of the scores at the prompts' ends (p, v)).

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
    return grown, jnp.stack(raw[1:], axis=1)
  return mesh_lib.by_part(mesh, own, params, prefixes, prompt_pt, length_p, lane_q, source_q)


@functools.partial(jax.jit, static_argnames=("networks", "candidates", "max_step", "sampling", "mesh"), donate_argnames="prefixes")
def expand(networks, params, prefixes, length_i, last_i, state_i, budget_i, key_r, tokens, *, candidates, max_step,
            sampling, mesh):
  """A step for every candidate: (Continuations, sigmoid of each verifier's score (r, v), prefixes, caches without them).

  networks: the policy, then the verifiers. length_i: tokens of the item,
  prompt included; state_i: as in Items, for it may end within a step; budget 0 draws nothing.
  """
  policy, *verifiers = networks
  each = lambda x_i: jnp.repeat(x_i, candidates)
  cache = engine.placed(decoding.begin(prefixes[0], each(length_i - 1), max_step), mesh)
  step, cache = engine.generate(policy, params[0], cache, each(last_i), each(budget_i), key_r, tokens, max_new=max_step,
                                sampling=sampling, steps=1, state_b=each(state_i))
  valid_rt = jnp.arange(max_step)[None] < step.length_b[:, None]
  raw, caches = [], [cache]
  for verifier, weights, prefix in zip(verifiers, params[1:], prefixes[1:]):
    cache = engine.placed(decoding.begin(prefix, each(length_i), max_step), mesh)
    hidden_rtd, cache = verifier.extend(weights, cache, step.token_bt, valid_rt)
    last_rd = jnp.take_along_axis(hidden_rtd, jnp.maximum(step.length_b - 1, 0)[:, None, None], axis=1)[:, 0]
    raw.append(jax.nn.sigmoid(verifier.scores(weights, last_rd)))
    caches.append(cache)
  return step, jnp.stack(raw, axis=1), [cache.prefix for cache in caches], [cache._replace(prefix=None) for cache in caches]


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


def keep_best(score_c: np.ndarray, places: int, names: list | None) -> np.ndarray:
  """Indices of the `places` best candidates, best first, ties by index; copies (equal names) after all others."""
  order = np.argsort(-score_c, kind="stable")
  if names is None:
    return order[:places]
  seen, firsts, copies = set(), [], []
  for c in order:
    (copies if names[c] in seen else firsts).append(c)
    seen.add(names[c])
  return np.array((firsts + copies)[:places], int)


def search(policy: Player, verifiers: list[Player], prompt_pt: np.ndarray, prompt_length_p: np.ndarray,
           name_p: np.ndarray, tokens: engine.Tokens, *, prover: Prover, alpha: float, width: int, candidates: int,
           max_rounds: int, max_new: int, max_step: int, sampling: sampling_lib.Sampling, seed: int,
           rows: int, distinct: bool, mesh=None, bar=None) -> Found:
  """Beam search for all the problems; see the top of this file.

  verifiers: Q^pi's, and the prover's where prover.kind needs one. name_p:
  int32, what keys each problem's randomness. max_new: tokens of a response;
  max_step: of a step (a longer one is cut there and goes on as the next).
  rows: candidates that are drawn together, in lanes of `candidates`; no
  beam's outcome depends on it. mesh: its parts have a share of the lanes
  each (`lanes_of`), and a beam stays with the part it began on.

  Raises UserError where the rows do not hold one beam.
  """
  players = [policy, *verifiers]
  networks, parts, count = tuple(x.network for x in players), mesh_lib.num_parts(mesh), len(name_p)
  params = [network_lib.for_decoding(x.network, x.params, scoring=x is not policy) for x in players]
  own = lanes_of(rows, candidates, width, parts)
  lanes = own * parts
  slots = prompt_pt.shape[1] + max_new
  cost = sum((ledger.prompts(x.network.flops, prompt_length_p, verifier=True) for x in verifiers),
             ledger.prompts(policy.network.flops, prompt_length_p, verifier=False))
  items = Items(np.full(lanes, -1), np.zeros((lanes, max_new), np.int32), np.zeros(lanes, np.int32), np.zeros(lanes, np.int32),
                np.zeros((lanes, len(verifiers)), np.float32))
  pool: list[list[Finished]] = [[] for _ in range(count)]
  round_p = np.zeros(count, int)
  prefixes = [engine.blanks(n, w, sources=lanes, width=slots, mesh=mesh) for n, w in zip(networks, params)]
  at_once = -(-own // (4 * width))  # beams that begin together on a part: one prefill of so many prompts
  caches, row_i, admitted = None, None, 0
  while True:
    if caches is not None:
      prefixes = commit(prefixes, caches, (row_i % (own * candidates)).astype(np.int32), mesh=mesh)
    # Beams begin in the lanes that others have left, when it is worth a prefill.
    free = [np.flatnonzero(mine_i < 0) for mine_i in items.problem_i.reshape(parts, own)]
    room = min(sum(len(mine_i) // width for mine_i in free), count - admitted)
    if room < min(at_once * parts, count - admitted) and (items.problem_i >= 0).any():
      room = 0
    while room:
      problem_jb, lane_jbw = _begin(free, admitted, room, at_once, width, absent=own)
      began = int((problem_jb >= 0).sum())
      some_p = np.maximum(problem_jb, admitted).ravel()
      prefixes, raw_pv = admit(
          networks, params, prefixes, prompt_pt[some_p], prompt_length_p[some_p], lane_jbw.ravel().astype(np.int32),
          np.tile(np.repeat(np.arange(at_once), width), parts).astype(np.int32), mesh=mesh)
      raw_jbv = mesh_lib.fetch(raw_pv).reshape(parts, at_once, -1)
      for j, b in zip(*np.nonzero(problem_jb >= 0)):
        lane_w = j * own + lane_jbw[j, b]
        items.problem_i[lane_w], items.raw_iv[lane_w] = problem_jb[j, b], raw_jbv[j, b]
        items.length_i[lane_w] = items.state_i[lane_w] = 0
      admitted, room = admitted + began, room - began
    if (items.problem_i < 0).all():
      break

    live_i = items.problem_i >= 0
    problem_i = np.maximum(items.problem_i, 0)
    before_i = prompt_length_p[problem_i] + items.length_i
    last_i = np.where(items.length_i > 0, items.token_it[np.arange(lanes), np.maximum(items.length_i - 1, 0)],
                      prompt_pt[problem_i, prompt_length_p[problem_i] - 1])
    budget_i = np.where(live_i, np.minimum(max_step, max_new - items.length_i), 0)
    each = lambda x_i: np.repeat(x_i, candidates, axis=0)
    key_r = sampling_lib.row_keys(seed, each(name_p[problem_i]), each(round_p[problem_i]),
                                  each(_places(items.problem_i)) * candidates + np.tile(np.arange(candidates), lanes))
    ints = lambda x_i: x_i.astype(np.int32)
    step, raw_rv, prefixes, caches = expand(networks, params, prefixes, ints(before_i), ints(last_i), items.state_i, ints(budget_i),
                                   key_r, tokens, candidates=candidates, max_step=max_step, sampling=sampling, mesh=mesh)
    step, raw_rv = mesh_lib.fetch((step, raw_rv))
    cost += ledger.drawn(policy.network.flops, each(problem_i), each(before_i), step.length_b, count)
    for verifier in verifiers:
      cost += ledger.scored(verifier.network.flops, each(problem_i), each(before_i), step.length_b, count)
    score_r = candidate_scores(raw_rv, each(items.raw_iv), prover, alpha)
    token_rt, length_r = _joined(each(items.token_it), each(items.length_i), step)
    out_r = step.ended_b | (length_r >= max_new)

    row_i, next_i, done = _select(each(items.problem_i), score_r, raw_rv, token_rt, length_r, out_r, pool, round_p,
                                  width=width, max_rounds=max_rounds, distinct=distinct, lanes=lanes, parts=parts)
    items = Items(next_i, token_rt[row_i], length_r[row_i], step.state_b[row_i], raw_rv[row_i])
    if bar is not None:
      bar.update(done)
  return _collect(pool, width, max_new, len(verifiers), int(round_p.max()), cost)


def _begin(free: list[np.ndarray], first: int, room: int, at_once: int, width: int, absent: int) -> tuple[np.ndarray, np.ndarray]:
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


def _select(problem_r, score_r, raw_rv, token_rt, length_r, out_r, pool, round_p, *, width, max_rounds, distinct, lanes, parts):
  """(row_i, problem_i, beams that are over): who goes on, beam by beam, packed into the first lanes of the beam's part.

  Adds what has finished to the pools, and a round to those who played it.
  """
  row_i, problem_i, done = np.zeros(lanes, int), np.full(lanes, -1), 0
  used_j = np.arange(parts) * (lanes // parts)
  for p in np.unique(problem_r[problem_r >= 0]):
    mine = np.flatnonzero(problem_r == p)
    names = [token_rt[r, :length_r[r]].tobytes() for r in mine] if distinct else None
    kept = mine[keep_best(score_r[mine], width - len(pool[p]), names)]
    pool[p] += [Finished(token_rt[r, :length_r[r]].copy(), score_r[r], raw_rv[r]) for r in kept if out_r[r]]
    round_p[p] += 1
    going = kept[~out_r[kept]] if round_p[p] < max_rounds else kept[:0]
    part = mine[0] * parts // len(problem_r)
    place = slice(used_j[part], used_j[part] + len(going))
    row_i[place], problem_i[place] = going, p
    used_j[part], done = place.stop, done + (not len(going))
  return row_i, problem_i, done


def _places(problem_i: np.ndarray) -> np.ndarray:
  """The how-manieth item of its beam each lane holds, from 0: what names its candidates' randomness."""
  place_i, seen = np.zeros(len(problem_i), int), collections.Counter()
  for i, p in enumerate(problem_i):
    place_i[i] = seen[p]
    seen[p] += 1
  return place_i


def _joined(token_rt: np.ndarray, length_r: np.ndarray, step: engine.Continuations) -> tuple[np.ndarray, np.ndarray]:
  """Each row's response with its new tokens after it, and its length."""
  row_x, new_x = np.nonzero(np.arange(step.token_bt.shape[1])[None] < step.length_b[:, None])
  token_rt[row_x, length_r[row_x] + new_x] = step.token_bt[row_x, new_x]
  return token_rt, length_r + step.length_b


def _collect(pool: list[list[Finished]], width: int, max_new: int, num_verifiers: int, rounds: int, cost: ledger.Cost) -> Found:
  token_pkt = np.zeros((len(pool), width, max_new), np.int32)
  length_pk = np.zeros((len(pool), width), np.int32)
  score_pk, raw_pkv = np.full((len(pool), width), -1.0), np.full((len(pool), width, num_verifiers), -1.0)
  for p, finished in enumerate(pool):
    for k, one in enumerate(finished):
      token_pkt[p, k, :len(one.token_t)] = one.token_t
      length_pk[p, k], score_pk[p, k], raw_pkv[p, k] = len(one.token_t), one.score, one.raw_v
  best_p, at = raw_pkv[..., 0].argmax(axis=1), np.arange(len(pool))
  return Found(token_pkt[at, best_p], length_pk[at, best_p], raw_pkv[at, best_p, 0], token_pkt, length_pk, score_pk, raw_pkv, rounds, cost)
