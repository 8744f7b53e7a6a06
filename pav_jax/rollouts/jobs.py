"""Continuations by the thousand: a list of jobs cut into calls of one fixed shape."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models.network import Network
from pav_jax.rollouts import engine
from pav_jax.rollouts import sampling as sampling_lib


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
  newline_v = np.zeros(rows, bool)
  newline_v[:vocabulary.size] = vocabulary.newline_v
  content_v = np.ones(rows, bool)
  content_v[:vocabulary.size] = vocabulary.content_v
  return engine.Tokens(jnp.int32(vocabulary.eos_id), jnp.int32(vocabulary.pad_id), jnp.asarray(newline_v),
                       jnp.asarray(content_v), jnp.asarray(never_v))


def run(network: Network, params, token_bt: np.ndarray, length_b: np.ndarray, jobs: Jobs, tokens: engine.Tokens, *,
        rows_per_call: int, sources_per_call: int, slots: int, max_new: int, sampling: sampling_lib.Sampling,
        seed: int, bar=None) -> Done:
  """Runs every job; one compilation whatever their number.

  Calls take jobs by their budgets, so that rows that run together end
  together, up to rows_per_call of them over up to sources_per_call
  trajectories; the last call is filled up with copies whose budget is 0.
  slots: length of the cache; bar: a progress bar that counts jobs.

  Raises ValueError for a cut outside its trajectory or a job that would
  outgrow the cache: nothing is cut short in silence.
  """
  if (jobs.cut_r < 1).any() or (jobs.cut_r > length_b[jobs.source_r]).any():
    raise ValueError("a job's cut lies outside its trajectory")
  if (jobs.budget_r > max_new).any() or (jobs.budget_r < 0).any():
    raise ValueError(f"a job's budget is outside 0..{max_new}")
  if (jobs.cut_r + jobs.budget_r > slots).any() or token_bt.shape[1] > slots:
    raise ValueError(f"{slots} slots are too few for trajectories of {token_bt.shape[1]} tokens and jobs of up to "
                     f"{(jobs.cut_r + jobs.budget_r).max()}")
  order_r = np.argsort(jobs.budget_r, kind="stable")
  jobs = Jobs(*(x[order_r] for x in jobs))
  pieces, start, count = [], 0, len(jobs.source_r)
  while start < count:
    window_r = jobs.source_r[start:start + rows_per_call]
    _, first_r = np.unique(window_r, return_index=True)
    first_r = np.sort(first_r)
    stop = start + (first_r[sources_per_call] if len(first_r) > sources_per_call else len(window_r))
    used, local_r = np.unique(jobs.source_r[start:stop], return_inverse=True)
    used = np.pad(used, (0, sources_per_call - len(used)), mode="edge")
    pad = rows_per_call - (stop - start)
    fill = lambda x: np.pad(x[start:stop], [(0, pad)] + [(0, 0)] * (x.ndim - 1), mode="edge")
    budget_r = fill(jobs.budget_r)
    budget_r[stop - start:] = 0
    done = engine.continue_prefixes(
        network, params, token_bt[used], length_b[used], np.pad(local_r, (0, pad), mode="edge").astype(np.int32),
        fill(jobs.cut_r), budget_r, sampling_lib.row_keys(seed, *fill(jobs.name_rn).T), tokens,
        slots=slots, max_new=max_new, sampling=sampling)
    done = jax.device_get(done)
    pieces.append(Done(*(x[:stop - start] for x in (done.token_bt, done.length_b, done.log_prob_bt, done.ended_b))))
    if bar is not None:
      bar.update(stop - start)
    start = stop
  if not pieces:
    raise UserError("no prefix to continue")
  back_r = np.argsort(order_r)
  return Done(*(np.concatenate(x)[back_r] for x in zip(*pieces)))
