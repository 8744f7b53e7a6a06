"""Continuations by the thousand: the queue that feeds the engine's lanes, and the log sorted into responses.

  1. Jobs of one source make a bundle, the longest first; bundles wait with the
     greatest work first, so that the ends are short.
  2. Lanes that have run dry get the next bundles, several in one call.
  3. The engine decodes until enough lanes are dry again; its log is sorted
     into the jobs' responses while nothing else waits.
"""

import collections
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import mesh as mesh_lib


JOBS_PER_LANE = 256  # a lane's list of jobs; a source with more takes several lanes


class Jobs(NamedTuple):
  """One continuation per row r: which trajectory, cut where, at most how long, and its name.

  source_r: row of the trajectories; cut_r: tokens of it to keep (>= 1);
  budget_r: new tokens at most; name_rn: int32 (r, names), what keys its randomness.
  """

  source_r: np.ndarray
  cut_r: np.ndarray
  budget_r: np.ndarray
  name_rn: np.ndarray


class Done(NamedTuple):
  """What came of each job: padded new tokens, their number, log-probabilities, whether EOS was met."""

  token_rt: np.ndarray
  length_r: np.ndarray
  log_prob_rt: np.ndarray
  ended_r: np.ndarray


def token_tables(vocabulary, rows: int) -> engine.Tokens:
  """The sampler's tables for an embedding of `rows` rows: padding, BOS, UNK, scoring and spare rows are never drawn."""
  never_v = np.ones(rows, bool)
  never_v[:vocabulary.size] = False
  never_v[[vocabulary.pad_id, vocabulary.bos_id, vocabulary.unk_id, vocabulary.scoring_id]] = True
  rule = vocabulary.step_rule
  class_v = np.pad(rule.class_v, (0, rows - vocabulary.size))
  return engine.Tokens(jnp.int32(vocabulary.eos_id), jnp.int32(vocabulary.pad_id), jnp.asarray(never_v), jnp.asarray(class_v),
                       jnp.asarray(rule.next_cs), jnp.asarray(rule.ends_cs))


def rows_of_lane(jobs_per_source: float) -> int:
  """How many rows share a source: few enough that each takes about four jobs, since a lane's last rows wait for one another."""
  return max(1, int(jobs_per_source) // 4)


def lanes_of(rows: int, share: int, mesh=None) -> tuple[int, int, int]:
  """(lanes, rows of each, sources that one prefill reads): as many lanes and sources on every part of the mesh.

  No more than `rows` rows together, unless there are more parts: each has one lane of at least one row.
  """
  parts = mesh_lib.num_parts(mesh)
  share = max(1, min(share, rows // parts))
  lanes = max(1, rows // share // parts)
  return lanes * parts, share, max(1, lanes // 8) * parts


def lines_of(max_new: int) -> int:
  """Steps the engine takes at most before the host sees its log."""
  return max(64, max_new)


def run(network: Network, params, token_bt: np.ndarray, length_b: np.ndarray, jobs: Jobs, tokens: engine.Tokens, *,
        rows: int, share: int, max_new: int, sampling: sampling_lib.Sampling, seed: int, jobs_per_lane: int = JOBS_PER_LANE,
        mesh=None, bar=None) -> Done:
  """Runs every job; one compilation each of `engine.install` and `engine.advance` whatever their number and lengths.

  token_bt, length_b: the sources, right-padded. rows: that decode together,
  in lanes of `share` rows (`rows_of_lane`); a source with more than
  jobs_per_lane jobs takes several lanes. max_new: the longest budget; mesh:
  lanes are cut over its data and fsdp axes, and their number is made a
  multiple of these; bar: a progress bar that counts jobs.

  Raises ValueError for a cut outside its source or a budget beyond max_new:
  nothing is cut short in silence.
  """
  if (jobs.cut_r < 1).any() or (jobs.cut_r > length_b[jobs.source_r]).any():
    raise ValueError("a job's cut lies outside its trajectory")
  if (jobs.budget_r > max_new).any() or (jobs.budget_r < 0).any():
    raise ValueError(f"a job's budget is outside 0..{max_new}")
  count = len(jobs.source_r)
  if not count:
    raise UserError("no prefix to continue")
  lanes, share, at_once = lanes_of(rows, share, mesh)
  params = network_lib.for_decoding(network, params)
  key_r2 = np.asarray(jax.random.key_data(sampling_lib.row_keys(seed, *jobs.name_rn.T)))
  waiting = collections.deque(_bundles(jobs, jobs_per_lane))
  state = engine.empty(network, params, lanes=lanes, rows=share, jobs=jobs_per_lane, width=token_bt.shape[1],
                       slots=max_new, mesh=mesh)
  done = Done(np.full((count, max_new), int(tokens.pad_id), np.int32), np.zeros(count, np.int32),
              np.zeros((count, max_new), np.float32), np.zeros(count, bool))
  running = {}  # lane -> its bundle
  if bar is not None:
    bar.update(int((jobs.budget_r == 0).sum()))
  while waiting or running:
    for lane_p in _places([lane for lane in range(lanes) if lane not in running], lanes, at_once, mesh_lib.num_parts(mesh)):
      bundles = [waiting.popleft() if lane < lanes and waiting else np.zeros(0, int) for lane in lane_p]
      fresh = {int(lane): bundle_j for lane, bundle_j in zip(lane_p, bundles) if len(bundle_j)}
      if not fresh:
        break
      running |= fresh
      # A call has one shape: places without a bundle name a lane that is not there.
      lane_p = np.where([len(bundle_j) > 0 for bundle_j in bundles], lane_p, lanes).astype(np.int32)
      source_p = np.array([jobs.source_r[bundle_j[0]] if len(bundle_j) else 0 for bundle_j in bundles])
      state = engine.install(network, params, state, lane_p, token_bt[source_p],
                             _work(bundles, jobs, key_r2, token_bt, jobs_per_lane), mesh=mesh)
    wanted = min(max(1, lanes // 8), len(waiting)) if waiting else lanes + 1
    state, log, steps, busy_i = engine.advance(
        network, params, state, tokens, wanted, lines=lines_of(max_new), sampling=sampling)
    log, steps, busy_i = mesh_lib.fetch((log, steps, busy_i))
    over = _sort(log, int(steps), running, share, done, int(tokens.eos_id), jobs.budget_r)
    running = {lane: bundle_j for lane, bundle_j in running.items() if busy_i[lane]}
    if bar is not None:
      bar.update(over)
  return done


def _bundles(jobs: Jobs, jobs_per_lane: int) -> list[np.ndarray]:
  """Indices of the jobs of each source, at most jobs_per_lane together; long budgets first, within and among bundles."""
  order_r = np.lexsort((-jobs.budget_r, jobs.source_r))
  order_r = order_r[jobs.budget_r[order_r] > 0]
  starts = np.flatnonzero(np.diff(jobs.source_r[order_r], prepend=-1))
  bundles = [piece_j for mine_j in np.split(order_r, starts[1:]) if len(mine_j)
             for piece_j in np.array_split(mine_j, -(-len(mine_j) // jobs_per_lane))]
  return sorted(bundles, key=lambda bundle_j: -int(jobs.budget_r[bundle_j].sum()))


def _places(free: list[int], lanes: int, at_once: int, parts: int):
  """lane_p of each call that fills the free lanes: every part of the mesh has its share of a call's places, and in them
  its own lanes or, for want of them, one that is not there."""
  own = [[lane for lane in free if lane * parts // lanes == part] for part in range(parts)]
  share = at_once // parts
  for start in range(0, max(map(len, own)), share):
    yield np.concatenate([np.array([*mine[start:start + share], *[lanes] * share][:share]) for mine in own])


def _work(bundles: list[np.ndarray], jobs: Jobs, key_r2, token_bt, jobs_per_lane: int) -> engine.Work:
  """The bundles as tables, one line a lane, padded to one shape."""
  def table(x_r):
    x_ij = np.zeros((len(bundles), jobs_per_lane, *x_r.shape[1:]), x_r.dtype)
    for line, bundle_j in zip(x_ij, bundles):
      line[:len(bundle_j)] = x_r[bundle_j]
    return x_ij
  count_i = np.array([len(bundle_j) for bundle_j in bundles], np.int32)
  last_r = jobs.cut_r - 1
  endless_r = np.full(len(last_r), np.iinfo(np.int32).max, np.int32)
  return engine.Work(count_i, *(table(np.asarray(x_r, np.int32)) for x_r in (
      token_bt[jobs.source_r, last_r], last_r, jobs.budget_r, endless_r, np.zeros(len(last_r)))), table(key_r2))


def _sort(log: engine.Log, steps: int, running: dict, share: int, done: Done, eos_id: int, budget_r) -> int:
  """Writes the log's tokens where they belong; the number of jobs that ended."""
  name_ij = np.zeros((max(running) + 1, max(map(len, running.values()))), np.int64)
  for lane, bundle_j in running.items():
    name_ij[lane, :len(bundle_j)] = bundle_j
  n, b = np.nonzero(log.job_nb[:steps] >= 0)
  r, at, token = name_ij[b // share, log.job_nb[n, b]], log.at_nb[n, b], log.token_nb[n, b]
  done.token_rt[r, at], done.log_prob_rt[r, at] = token, log.log_prob_nb[n, b]
  np.maximum.at(done.length_r, r, at + 1)
  done.ended_r[r[token == eos_id]] = True
  return int(((token == eos_id) | (at + 1 == budget_r[r])).sum())
