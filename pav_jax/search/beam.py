"""Step-level search: a beam by the effective reward (section 4.1), and its neighbours.

  1. The beam of a problem holds `width` prefixes, at first all the bare prompt.
  2. For each, draw C candidates for the next step from pi.
  3. Let the judges say what they make of every candidate, and score it by that
     (ranking.py): Q^pi + alpha A^mu, A against its own parent (Eq. 2), or another
     score. With `lookahead` they say it of where pi is so many steps later
     (2408.03314); those steps are drawn, read and paid for, and not kept.
  4. Keep as many as there are places (keep.py): the best, where copies of a prefix
     that is already kept come last (`distinct`); the best of each parent; or
     particles, drawn by their weights.
  5. A kept candidate that has answered leaves the beam for good, and its place
     with it; so does one out of tokens. Go on until no place is left, at most
     `max_rounds` times.
  6. The answer is the finished candidate with the highest Q^pi; where that is not
     read, the highest Q^mu, and where that is not, the highest score. What each
     finished one got besides is kept, for other final choices (`chosen`).

alpha = 0 is the beam by Q^pi alone. An item is a lane of the engine: policy and
verifiers hold its prefix once for its C candidates, and a chosen candidate's
tokens are added to a copy of it (`decoding.commit`), so that a round costs its
new tokens, not the whole text. Calls have one fixed shape for all widths; the
lanes a beam no longer needs go to the next problem.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import keep
from pav_jax.search import lanes as lanes_lib
from pav_jax.search import ledger
from pav_jax.search import ranking as ranking_lib
from pav_jax.training import mesh as mesh_lib


class Player(NamedTuple):
  """A network and its parameters."""

  network: Network
  params: object


class Judges(NamedTuple):
  """Who is asked about a prefix: verifiers of Q^pi and of the prover; told(problem_r, token_rt, length_r) -> (r,) is a
  prover that reads the response's text on the host and costs nothing. None: nobody."""

  q: Player | None = None
  prover: Player | None = None
  told: Callable | None = None

  @property
  def players(self) -> list[Player]:
    """The verifiers that are there."""
    return [x for x in (self.q, self.prover) if x is not None]

  def said(self, raw_rn: np.ndarray, problem_r: np.ndarray, token_rt: np.ndarray, length_r: np.ndarray) -> np.ndarray:
    """raw_rv as in ranking.py, from a column for the policy, which says nothing, and one for each of the players."""
    raw_rv, columns = np.full((len(raw_rn), 2), np.nan), [v for v, x in enumerate((self.q, self.prover)) if x is not None]
    raw_rv[:, columns] = raw_rn[:, 1:]
    if self.told is not None:
      raw_rv[:, 1] = self.told(problem_r, token_rt, length_r)
    return raw_rv


class Found(NamedTuple):
  """Per problem and seed: the chosen response's tokens and length (0: none finished), its Q, and the cost.

  q_p: Q^pi, or Q^mu or the score where that is not read. pool_*: all finished
  candidates, for Pass@N of the beam and other choices; length 0 where there is
  none. pool_score_pk: the score of the last step; pool_raw_pkv: what the judges
  said at its end, as in ranking.py; -1 where there is none.
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


CHOICES = ("q", "effective", "prover")


def chosen(found: Found, by: str) -> np.ndarray:
  """int (p,): which of the pool a final choice takes: by Q^pi ('q'), by the score of the last step ('effective'), or by the
  prover's Q^mu ('prover', where a judge says it); 0 where nothing finished."""
  score_pk = {"q": found.pool_raw_pkv[..., 0], "effective": found.pool_score_pk, "prover": found.pool_raw_pkv[..., 1]}[by]
  return np.where(found.pool_length_pk > 0, score_pk, -np.inf).argmax(axis=1)


def usual_choice(judges: Judges, prover: ranking_lib.Prover) -> str:
  """Which of CHOICES makes the answer: see the sixth sentence at the top of this file."""
  says_q = prover.kind == "q" and (judges.prover or judges.told) is not None
  return "q" if judges.q is not None else "prover" if says_q else "effective"


class Round(NamedTuple):
  """All candidates of a round: their problem (-1: none), response, whether it is over, what the judges say at its end, what
  they are judged by (the same but for lookahead), and what was said of their parents."""

  problem_r: np.ndarray
  token_rt: np.ndarray
  length_r: np.ndarray
  out_r: np.ndarray
  raw_rv: np.ndarray
  judged_rv: np.ndarray
  parent_rv: np.ndarray


class Way(NamedTuple):
  """How a beam goes on: what candidates are ranked by, one of keep.WAYS, its places, candidates of each, steps of lookahead
  and their temperature, the particles' temperature, whether copies come last."""

  ranking: ranking_lib.Ranking = ranking_lib.Ranking()
  way: str = "beam"
  width: int = 4
  candidates: int = 3
  lookahead: int = 0
  lookahead_temperature: float = 0.0
  particle_temperature: float = 1.0
  distinct: bool = False


def search(policy: Player, judges: Judges, prompt_pt: np.ndarray, prompt_length_p: np.ndarray, name_p: np.ndarray,
           tokens: engine.Tokens, *, way: Way, max_rounds: int, max_new: int, max_step: int, sampling: sampling_lib.Sampling,
           seed: int, rows: int, mesh=None, bar=None) -> Found:
  """The search for all the problems; see the top of this file.

  judges: those whom way.ranking reads. name_p: int32, what keys each problem's
  randomness. max_new: tokens of a response; max_step: of a step (a longer one
  is cut there and goes on as the next). rows: candidates that are drawn
  together, in lanes of way.candidates; no beam's outcome depends on it. mesh:
  its parts have a share of the lanes each (`lanes.lanes_of`), and a beam stays
  with the part it began on.

  Raises UserError where the rows do not hold one beam.
  """
  players, width, candidates = [policy, *judges.players], way.width, way.candidates
  networks, parts, count = tuple(x.network for x in players), mesh_lib.num_parts(mesh), len(name_p)
  params = [network_lib.for_decoding(x.network, x.params, scoring=x is not policy) for x in players]
  own = lanes_lib.lanes_of(rows, candidates, width, parts)
  lanes = own * parts
  cost = sum((ledger.prompts(x.network.flops, prompt_length_p, verifier=True) for x in judges.players),
             ledger.prompts(policy.network.flops, prompt_length_p, verifier=False))
  items = lanes_lib.Items(np.full(lanes, -1), np.zeros((lanes, max_new), np.int32), np.zeros(lanes, np.int32),
                          np.zeros(lanes, np.int32), np.full((lanes, 2), np.nan))
  pool: list[list[keep.Finished]] = [[] for _ in range(count)]
  round_p = np.zeros(count, int)
  prefixes = [engine.blanks(n, w, sources=lanes, width=prompt_pt.shape[1] + max_new, mesh=mesh) for n, w in zip(networks, params)]
  at_once = -(-own // (4 * width))  # beams that begin together on a part: one prefill of so many prompts
  caches, row_i, admitted = None, None, 0
  while True:
    if caches is not None:
      prefixes = lanes_lib.commit(prefixes, caches, (row_i % (own * candidates)).astype(np.int32), mesh=mesh)
    # Beams begin in the lanes that others have left, when it is worth a prefill.
    free = [np.flatnonzero(mine_i < 0) for mine_i in items.problem_i.reshape(parts, own)]
    room = min(sum(len(mine_i) // width for mine_i in free), count - admitted)
    if room < min(at_once * parts, count - admitted) and (items.problem_i >= 0).any():
      room = 0
    while room:
      problem_jb, lane_jbw = lanes_lib.begin(free, admitted, room, at_once, width, absent=own)
      began = int((problem_jb >= 0).sum())
      some_p = np.maximum(problem_jb, admitted).ravel()
      prefixes, raw_pn = lanes_lib.admit(
          networks, params, prefixes, prompt_pt[some_p], prompt_length_p[some_p], lane_jbw.ravel().astype(np.int32),
          np.tile(np.repeat(np.arange(at_once), width), parts).astype(np.int32), mesh=mesh)
      nothing_p = np.zeros(len(some_p), np.int32)
      raw_jbv = judges.said(mesh_lib.fetch(raw_pn), some_p, nothing_p[:, None], nothing_p).reshape(parts, at_once, 2)
      for j, b in zip(*np.nonzero(problem_jb >= 0)):
        lane_w = j * own + lane_jbw[j, b]
        items.problem_i[lane_w], items.raw_iv[lane_w] = problem_jb[j, b], raw_jbv[j, b]
        items.length_i[lane_w] = items.state_i[lane_w] = 0
      admitted, room = admitted + began, room - began
    if (items.problem_i < 0).all():
      break

    this, state_r, prefixes, caches, spent = _played(
        networks, params, prefixes, items, judges, prompt_pt, prompt_length_p, name_p, round_p, tokens, way=way, max_new=max_new,
        max_step=max_step, sampling=sampling, seed=seed, mesh=mesh)
    cost += spent
    row_i, next_i, done = _select(this, pool, round_p, name_p, way=way, max_rounds=max_rounds, lanes=lanes, parts=parts,
                                  seed=seed)
    items = lanes_lib.Items(next_i, this.token_rt[row_i], this.length_r[row_i], state_r[row_i], this.raw_rv[row_i])
    if bar is not None:
      bar.update(done)
  by = usual_choice(judges, way.ranking.prover)
  return _collect(pool, width, max_new, by, int(round_p.max(initial=0)), cost)


def _played(networks, params, prefixes, items, judges, prompt_pt, prompt_length_p, name_p, round_p, tokens, *, way, max_new, max_step,
            sampling, seed, mesh):
  """(Round, the rule of steps' state of each row, prefixes, caches, Cost): every item's candidates, drawn and judged."""
  problem_i, candidates, lanes = np.maximum(items.problem_i, 0), way.candidates, len(items.problem_i)
  before_i = prompt_length_p[problem_i] + items.length_i
  last_i = np.where(items.length_i > 0, items.token_it[np.arange(lanes), np.maximum(items.length_i - 1, 0)],
                    prompt_pt[problem_i, prompt_length_p[problem_i] - 1])
  budget_i = np.where(items.problem_i >= 0, max_new - items.length_i, 0)
  each = lambda x_i: np.repeat(x_i, candidates, axis=0)
  key_r = sampling_lib.row_keys(seed, each(name_p[problem_i]), each(round_p[problem_i]),
                                each(lanes_lib.places(items.problem_i)) * candidates + np.tile(np.arange(candidates), lanes))
  ints = lambda x_i: x_i.astype(np.int32)
  step, raw_rn, prefixes, caches, beyond = lanes_lib.expand(
      networks, params, prefixes, ints(before_i), ints(last_i), items.state_i, ints(budget_i), key_r, tokens, candidates=candidates,
      max_step=max_step, lookahead=way.lookahead, sampling=sampling, ahead=sampling._replace(temperature=way.lookahead_temperature),
      mesh=mesh)
  step, raw_rn, beyond = mesh_lib.fetch((step, raw_rn, beyond))

  def paid(start_r, new_r):
    of = lambda how, network: how(network.flops, each(problem_i), start_r, new_r, len(name_p))
    return sum((of(ledger.scored, network) for network in networks[1:]), of(ledger.drawn, networks[0]))
  spent = paid(each(before_i), step.length_b)
  problem_r = each(items.problem_i)
  token_rt, length_r = _joined(each(items.token_it), each(items.length_i), step)
  judged_rv = raw_rv = judges.said(raw_rn, problem_r, token_rt, length_r)
  if beyond is not None:
    further, raw_rn = beyond
    spent += paid(each(before_i) + step.length_b, further.length_b)
    judged_rv = judges.said(raw_rn, problem_r, *_joined(token_rt.copy(), length_r, further))
  out_r = step.ended_b | (length_r >= max_new)
  return Round(problem_r, token_rt, length_r, out_r, raw_rv, judged_rv, each(items.raw_iv)), step.state_b, prefixes, caches, spent


def _select(this: Round, pool, round_p, name_p, *, way: Way, max_rounds, lanes, parts, seed):
  """(row_i, problem_i, beams that are over): who goes on, beam by beam, packed into the first lanes of the beam's part.

  Adds what has finished to the pools, and a round to those who played it.
  """
  row_i, problem_i, done = np.zeros(lanes, int), np.full(lanes, -1), 0
  used_j = np.arange(parts) * (lanes // parts)
  for p in np.unique(this.problem_r[this.problem_r >= 0]):
    mine = np.flatnonzero(this.problem_r == p)
    rng = np.random.default_rng([seed % 2**64, int(name_p[p]), int(round_p[p])])
    score_c = ranking_lib.candidate_scores(this.judged_rv[mine], this.parent_rv[mine], way.ranking, rng)
    names = [this.token_rt[r, :this.length_r[r]].tobytes() for r in mine] if way.distinct else None
    kept_c, pool[p] = keep.kept(
        way.way, score_c, pool[p], rng, width=way.width, candidates=way.candidates, names=names,
        progress=way.ranking.by == "prover_a", temperature=way.particle_temperature)
    kept, out_k = mine[kept_c], this.out_r[mine[kept_c]]
    pool[p] = pool[p] + [keep.Finished(this.token_rt[mine[c], :this.length_r[mine[c]]].copy(), score_c[c], this.raw_rv[mine[c]])
                         for c in kept_c[out_k]]
    round_p[p] += 1
    going = kept[~out_k] if round_p[p] < max_rounds else kept[:0]
    part = mine[0] * parts // len(this.problem_r)
    place = slice(used_j[part], used_j[part] + len(going))
    row_i[place], problem_i[place] = going, p
    used_j[part], done = place.stop, done + (not len(going))
  return row_i, problem_i, done


def _joined(token_rt: np.ndarray, length_r: np.ndarray, step: engine.Continuations) -> tuple[np.ndarray, np.ndarray]:
  """Each row's response with its new tokens after it, and its length."""
  row_x, new_x = np.nonzero(np.arange(step.token_bt.shape[1])[None] < step.length_b[:, None])
  token_rt[row_x, length_r[row_x] + new_x] = step.token_bt[row_x, new_x]
  return token_rt, length_r + step.length_b


def _collect(pool: list[list[keep.Finished]], width: int, max_new: int, by: str, rounds: int, cost: ledger.Cost) -> Found:
  token_pkt = np.zeros((len(pool), width, max_new), np.int32)
  length_pk = np.zeros((len(pool), width), np.int32)
  score_pk, raw_pkv = np.full((len(pool), width), -1.0), np.full((len(pool), width, 2), -1.0)
  for p, finished in enumerate(pool):
    for k, one in enumerate(finished):
      token_pkt[p, k, :len(one.token_t)] = one.token_t
      length_pk[p, k], score_pk[p, k], raw_pkv[p, k] = len(one.token_t), one.score, one.raw_v
  found = Found(token_pkt[:, 0], length_pk[:, 0], score_pk[:, 0], token_pkt, length_pk, score_pk, raw_pkv, rounds, cost)
  best_p, at = chosen(found, by), np.arange(len(pool))
  said_pk = {"q": raw_pkv[..., 0], "effective": score_pk, "prover": raw_pkv[..., 1]}[by]
  return found._replace(token_pt=token_pkt[at, best_p], length_p=length_pk[at, best_p], q_p=said_pk[at, best_p])
