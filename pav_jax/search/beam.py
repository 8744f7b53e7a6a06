"""Step-level beam search by the effective reward (section 4.1).

  1. The beam of a problem holds `width` prefixes, at first all the bare prompt.
  2. For each, draw C candidates for the next step from pi.
  3. Score every candidate: Q^pi + alpha A^mu, A against its own parent (Eq. 2).
  4. Keep the best, as many as the beam has places; copies of a prefix that is
     already kept come last (`distinct`).
  5. A kept candidate that has answered leaves the beam for good, and its place
     with it; so does one out of tokens. Go on until no place is left, at most
     `max_rounds` times.
  6. The answer is the finished candidate with the highest Q^pi.

alpha = 0 is the beam by Q^pi alone. Policy and verifiers each keep a cache: a
round costs its new tokens, not the whole text. All problems advance together,
in calls of one fixed shape.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.models import decoding
from pav_jax.models.network import Network
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import ledger
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

  pool_*: all finished candidates, for Pass@N of the beam; length 0 where there is none.
  """

  token_pt: np.ndarray
  length_p: np.ndarray
  q_p: np.ndarray
  pool_token_pkt: np.ndarray
  pool_length_pk: np.ndarray
  rounds: int
  cost: ledger.Cost


def candidate_scores(raw_rv: np.ndarray, parent_rv: np.ndarray, prover: Prover, alpha: float) -> np.ndarray:
  """Effective reward (r,) of candidates from the sigmoids of their verifiers and of their parents'.

  raw_rv[:, 0] is Q^pi; raw_rv[:, 1], if there is a second verifier, Q^mu or (1 + A^mu) / 2.
  """
  q_r = raw_rv[:, 0]
  if not alpha:
    return q_r
  if prover.kind == "advantage":
    advantage_r = 2 * raw_rv[:, 1] - 1
  else:
    q_mu = (lambda x_rv: x_rv[:, 1]) if prover.kind == "q" else (lambda x_rv: equations.best_of_k(x_rv[:, 0], prover.k))
    advantage_r = equations.advantages(np.stack([q_mu(parent_rv), q_mu(raw_rv)], axis=1))[:, 0]
  return equations.effective_reward(q_r, advantage_r, alpha)


@functools.partial(jax.jit, static_argnames=("network", "slots"))
def _read_prompts(network, params, prompt_bt, length_b, source_r, *, slots):
  """A cache whose row r holds the whole prompt source_r, and the sigmoid of the score at each prompt's end.

  With a row for every candidate from the start, `_expand` is compiled once for all rounds and widths.
  """
  hidden_btd, cache = network.read(params, prompt_bt, length_b, slots)
  cache = decoding.fork(cache, source_r, length_b[source_r])
  last_bd = jnp.take_along_axis(hidden_btd, length_b[:, None, None] - 1, axis=1)[:, 0]
  return cache, jax.nn.sigmoid(network.scores(params, last_bd))


@functools.partial(jax.jit, static_argnames=("networks", "max_new", "sampling"))
def _expand(networks, params, caches, source_r, length_r, last_r, begun_r, budget_r, key_r, tokens, *, max_new,
            sampling):
  """One step for every row: (Continuations, sigmoid of each verifier's score (r, v), caches).

  networks: the policy, then the verifiers. length_r: tokens of the prefix.
  Row r goes on from row source_r of the caches, in the middle of a step where
  begun_r; budget 0 draws nothing.
  """
  policy, *verifiers = networks
  forked = [decoding.fork(cache, source_r, length_r - (i == 0)) for i, cache in enumerate(caches)]
  step, grown = engine.generate(policy, params[0], forked[0], last_r, budget_r, key_r, tokens, max_new=max_new,
                                sampling=sampling, step_begun_b=begun_r)
  valid_rt = jnp.arange(max_new)[None] < step.length_b[:, None]
  raw, grown = [], [grown]
  for verifier, weights, cache in zip(verifiers, params[1:], forked[1:]):
    hidden_rtd, cache = verifier.extend(weights, cache, step.token_bt, valid_rt)
    last_rd = jnp.take_along_axis(hidden_rtd, jnp.maximum(step.length_b - 1, 0)[:, None, None], axis=1)[:, 0]
    raw.append(jax.nn.sigmoid(verifier.scores(weights, last_rd)))
    grown.append(cache)
  return step, jnp.stack(raw, axis=1), grown


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
           rows_per_call: int, distinct: bool, bar=None) -> Found:
  """Beam search for all the problems; see the top of this file.

  verifiers: Q^pi's, and the prover's where prover.kind needs one. name_p:
  int32, what keys each problem's randomness. max_new: tokens of a response;
  max_step: of a step (a longer one is cut there and goes on as the next).
  rows_per_call must be a multiple of width * candidates.
  """
  per_call = rows_per_call // (width * candidates)
  if per_call * width * candidates != rows_per_call:
    raise ValueError(f"rows_per_call {rows_per_call} is not a multiple of {width} x {candidates}")
  found = []
  for start in range(0, len(name_p), per_call):
    row_p = np.minimum(np.arange(start, start + per_call), len(name_p) - 1)
    live_p = np.arange(start, start + per_call) < len(name_p)
    some = _search_call(
        policy, verifiers, prompt_pt[row_p], prompt_length_p[row_p], name_p[row_p], live_p, tokens, prover=prover,
        alpha=alpha, width=width, candidates=candidates, max_rounds=max_rounds, max_new=max_new, max_step=max_step,
        sampling=sampling, seed=seed, distinct=distinct)
    found.append(some)
    if bar is not None:
      bar.update(int(live_p.sum()))
  joined = {name: np.concatenate([getattr(f, name) for f in found])[:len(name_p)]
            for name in ("token_pt", "length_p", "q_p", "pool_token_pkt", "pool_length_pk")}
  cost = ledger.Cost(*(np.concatenate(x)[:len(name_p)] for x in zip(*(f.cost for f in found))))
  return Found(**joined, rounds=max(f.rounds for f in found), cost=cost)


def _search_call(policy, verifiers, prompt_pt, prompt_length_p, name_p, live_p, tokens, *, prover, alpha, width,
                 candidates, max_rounds, max_new, max_step, sampling, seed, distinct) -> Found:
  players = [policy, *verifiers]
  networks, params = tuple(x.network for x in players), [x.params for x in players]
  count, rows = len(name_p), len(name_p) * width * candidates
  slots = prompt_pt.shape[1] + max_new
  problem_r = np.repeat(np.arange(count), width * candidates)
  read = [_read_prompts(n, w, prompt_pt, prompt_length_p, problem_r, slots=slots) for n, w in zip(networks, params)]
  caches = [cache for cache, _ in read]
  cost = ledger.prompts(policy.network.flops, prompt_length_p, verifier=False)
  for verifier in verifiers:
    cost += ledger.prompts(verifier.network.flops, prompt_length_p, verifier=True)

  # A beam's item: which cache row holds it, its response so far, and what the verifiers said.
  source_r = np.arange(rows)
  raw_rv = np.stack([np.asarray(score_p) for _, score_p in read[1:]], axis=1)[problem_r]
  token_rt = np.zeros((rows, max_new), np.int32)
  length_r = np.zeros(rows, np.int32)
  newline_v = np.asarray(tokens.newline_v)
  live_r = live_p[problem_r]
  pool = [[] for _ in range(count)]  # finished: (Q, tokens)
  rounds = 0
  while live_r.any() and rounds < max_rounds:
    before_r = prompt_length_p[problem_r] + length_r
    last_r = np.where(length_r > 0, token_rt[np.arange(rows), np.maximum(length_r - 1, 0)],
                      prompt_pt[problem_r, prompt_length_p[problem_r] - 1])
    begun_r = (length_r > 0) & ~newline_v[last_r]  # cut at max_step before the step's newline
    budget_r = np.where(live_r, np.minimum(max_step, max_new - length_r), 0).astype(np.int32)
    keys = sampling_lib.row_keys(seed, name_p[problem_r], np.full(rows, rounds), np.arange(rows) % (width * candidates))
    step, new_raw_rv, caches = _expand(
        networks, params, caches, source_r.astype(np.int32), before_r.astype(np.int32), last_r.astype(np.int32),
        begun_r, budget_r, keys, tokens, max_new=max_step, sampling=sampling)
    step, new_raw_rv = jax.device_get((step, new_raw_rv))
    new_r = step.length_b
    cost += ledger.drawn(policy.network.flops, problem_r, before_r, new_r, count)
    for verifier in verifiers:
      cost += ledger.scored(verifier.network.flops, problem_r, before_r, new_r, count)
    score_r = candidate_scores(new_raw_rv, raw_rv, prover, alpha)
    at_rt = length_r[:, None] + np.arange(max_step)[None]
    row_i, column_i = np.nonzero(np.arange(max_step)[None] < new_r[:, None])
    token_rt[row_i, at_rt[row_i, column_i]] = step.token_bt[row_i, column_i]
    length_r = length_r + new_r
    out_r = step.ended_b | (length_r >= max_new)

    source_r, next_live_r = np.zeros(rows, np.int64), np.zeros(rows, bool)
    for p in range(count):
      mine = np.flatnonzero(live_r & (problem_r == p))
      if not len(mine):
        continue
      names = [token_rt[r, :length_r[r]].tobytes() for r in mine] if distinct else None
      kept = mine[keep_best(score_r[mine], width - len(pool[p]), names)]
      pool[p] += [(new_raw_rv[r, 0], token_rt[r, :length_r[r]].copy()) for r in kept if out_r[r]]
      going = kept[~out_r[kept]]
      places = width - len(pool[p])
      if len(going) and places:
        slots_r = p * width * candidates + np.arange(len(going) * candidates)
        source_r[slots_r] = np.repeat(going, candidates)
        next_live_r[slots_r] = True
    token_rt, length_r, raw_rv = token_rt[source_r], length_r[source_r], new_raw_rv[source_r]
    live_r = next_live_r
    rounds += 1
  return _collect(pool, width, max_new, rounds, cost)


def _collect(pool, width: int, max_new: int, rounds: int, cost: ledger.Cost) -> Found:
  token_pkt = np.zeros((len(pool), width, max_new), np.int32)
  length_pk = np.zeros((len(pool), width), np.int32)
  q_pk = np.full((len(pool), width), -1.0)
  for p, finished in enumerate(pool):
    for k, (q, response_t) in enumerate(finished):
      token_pkt[p, k, :len(response_t)] = response_t
      length_pk[p, k], q_pk[p, k] = len(response_t), q
  best_p = q_pk.argmax(axis=1)
  at = np.arange(len(pool))
  return Found(token_pkt[at, best_p], length_pk[at, best_p], q_pk[at, best_p], token_pkt, length_pk, rounds, cost)
