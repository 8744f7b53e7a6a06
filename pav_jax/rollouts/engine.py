"""The rollout engine: lanes of rows that share a prefix, refilled on the device while they decode.

  1. A lane holds one source (a prompt, a trajectory, an item of a beam), read
     once, and r rows. Whatever goes on from it attends to that one copy, each
     row cut at its own length, and to a suffix of its own (`models/decoding.py`).
  2. A lane has a list of jobs: cut here, go on for so many tokens or steps,
     draw with this key. A row that ends takes the lane's next job in the same
     jitted loop; no host, no prefill, no other shape (`advance`).
  3. When enough lanes have run dry the loop returns, and the host gives them
     new sources, several read in one call of a fixed shape (`install`).
  4. The loop writes a log, one line a step, of who drew what: contiguous
     writes; the host sorts it into responses (`Log`).

Invariant: a row has read all its tokens but the last, which is fed next. The
n-th new token of a job is drawn with fold_in(its key, n), so its tokens depend
on nothing but the job. The last bits of its log-probabilities depend on more:
with another number of rows or devices float32 sums are taken in another order
(differences of 1e-5), and a token whose draw falls into that gap is another one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from pav_jax.models import decoding
from pav_jax.models.network import Network
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import mesh as mesh_lib


class Tokens(NamedTuple):
  """What the loop must know of a vocabulary: ids, and tables over it.

  never_v: never drawn; class_v, next_cs, ends_cs: what ends a step (`problems.steps.Rule`).
  """

  eos_id: jax.Array
  pad_id: jax.Array
  never_v: jax.Array
  class_v: jax.Array
  next_cs: jax.Array
  ends_cs: jax.Array


class Work(NamedTuple):
  """The jobs of each lane, j-th of lane i; count_i of them count.

  fed_ij: the last token of the prefix; cut_ij: tokens before it; budget_ij: new
  tokens at most; steps_ij: steps at most; state_ij: where the prefix leaves the
  rule of steps (problems/steps.py); key_ij2: uint32 key data.
  """

  count_i: jax.Array
  fed_ij: jax.Array
  cut_ij: jax.Array
  budget_ij: jax.Array
  steps_ij: jax.Array
  state_ij: jax.Array
  key_ij2: jax.Array


class Rows(NamedTuple):
  """What each row is about: job_b of its lane (-1: none), and how far it has come."""

  job_b: jax.Array
  fed_b: jax.Array
  drawn_b: jax.Array
  budget_b: jax.Array
  steps_b: jax.Array
  state_b: jax.Array
  key_b2: jax.Array


class Log(NamedTuple):
  """Line n: what each row drew in the n-th step: job_nb (-1: nothing), as its at_nb-th token, with what log-probability."""

  job_nb: jax.Array
  at_nb: jax.Array
  token_nb: jax.Array
  log_prob_nb: jax.Array


class Continuations(NamedTuple):
  """New tokens of each row: padded token_bt, length_b with EOS, log_prob_bt, whether EOS was met, the rule of steps' state."""

  token_bt: jax.Array
  log_prob_bt: jax.Array
  length_b: jax.Array
  ended_b: jax.Array
  state_b: jax.Array


class Lanes(NamedTuple):
  """The whole state of the engine; next_i: jobs of a lane that were taken."""

  cache: decoding.Cache
  work: Work
  next_i: jax.Array
  rows: Rows

  @property
  def busy_i(self) -> jax.Array:
    """bool: the lane has a job running or waiting."""
    running_i = (self.rows.job_b >= 0).reshape(len(self.next_i), -1).any(axis=1)
    return running_i | (self.next_i < self.work.count_i)


# Jitted, so that lanes are born where they belong, and no two arrays are one buffer, which could not be donated.
@functools.partial(jax.jit, static_argnames=("network", "lanes", "rows", "jobs", "width", "slots", "mesh"))
def empty(network: Network, params, *, lanes: int, rows: int, jobs: int, width: int, slots: int, mesh=None) -> Lanes:
  """Lanes without work. rows of each lane; jobs of each at most; width: tokens of a source; slots: of a suffix.
  On a mesh, in its `layout`.
  """
  ints = functools.partial(jnp.zeros, dtype=jnp.int32)
  b = lanes * rows
  work = Work(ints(lanes), *(ints((lanes, jobs)) for _ in range(5)), jnp.zeros((lanes, jobs, 2), jnp.uint32))
  idle = Rows(ints(b) - 1, *(ints(b) for _ in range(5)), jnp.zeros((b, 2), jnp.uint32))
  state = Lanes(decoding.begin(blank(network, params, lanes, width), ints(b), slots), work, ints(lanes), idle)
  return placed(state, mesh)


def placed(tree, mesh):
  """The tree of lanes, rows, keys and values in its `layout`, inside of jit; as it is without a mesh."""
  return tree if mesh is None else jax.lax.with_sharding_constraint(tree, layout(tree, mesh))


def layout(lanes, mesh):
  """Shardings of the engine's state, or of a part of it: lanes and rows over data and fsdp; keys and values over model, too, where heads divide."""
  def place(x):
    heads = x.ndim == 4 and x.shape[1] % mesh.shape["model"] == 0
    return NamedSharding(mesh, PartitionSpec(*([("data", "fsdp")] if x.ndim else []), *(["model"] if heads else [])))
  return jax.tree.map(place, lanes)


def blank(network: Network, params, sources: int, width: int) -> decoding.Prefix:
  """A prefix of so many sources with room for `width` tokens, nothing read yet."""
  _, prefix = jax.eval_shape(network.read, params, jax.ShapeDtypeStruct((sources, width), jnp.int32))
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), prefix)


@functools.partial(jax.jit, static_argnames=("network", "sources", "width", "mesh"))
def blanks(network: Network, params, *, sources: int, width: int, mesh=None) -> decoding.Prefix:
  """`blank`, born where it belongs."""
  return placed(blank(network, params, sources, width), mesh)


@functools.partial(jax.jit, static_argnames=("network", "mesh"), donate_argnames="lanes")
def install(network: Network, params, lanes: Lanes, lane_p, token_pt, work: Work, *, mesh=None) -> Lanes:
  """Reads the sources token_pt (right-padded) into the idle lanes lane_p, with their work; a lane that is not there is skipped.

  On a mesh every part reads its own share of the sources, in order, and a source's lane must be one of that part's.
  """
  def own(params, lanes, number_i, lane_p, token_pt, work):
    _, prefix = network.read(params, token_pt)
    at_p = jnp.where(lane_p >= number_i[0], lane_p - number_i[0], len(number_i))  # below its first: another part's, skipped
    cache = lanes.cache._replace(prefix=decoding.put(lanes.cache.prefix, at_p, prefix))
    work = Work(*(x.at[at_p].set(new, mode="drop") for x, new in zip(lanes.work, work)))
    return lanes._replace(cache=cache, work=work, next_i=lanes.next_i.at[at_p].set(0, mode="drop"))
  return mesh_lib.by_part(mesh, own, params, lanes, jnp.arange(len(lanes.next_i)), lane_p, token_pt, work)


def refill(lanes: Lanes) -> Lanes:
  """Every idle row of a lane with jobs left takes the next of them."""
  rows, work = lanes.rows, lanes.work
  count = len(lanes.next_i)
  idle_ir = (rows.job_b < 0).reshape(count, -1)
  job_ir = lanes.next_i[:, None] + jnp.cumsum(idle_ir, axis=1) - 1
  fresh_ir = idle_ir & (job_ir < work.count_i[:, None])
  at_ir = jnp.where(fresh_ir, job_ir, 0)
  fresh_b = fresh_ir.reshape(-1)
  def pick(x_ij, old_b):
    expand = lambda x: x.reshape(*x.shape, *[1] * (x_ij.ndim - 2))
    new_b = jnp.take_along_axis(x_ij, expand(at_ir), axis=1).reshape(old_b.shape)
    return jnp.where(fresh_b.reshape(-1, *[1] * (old_b.ndim - 1)), new_b, old_b)
  begun = Rows(jnp.where(fresh_b, job_ir.reshape(-1), rows.job_b), pick(work.fed_ij, rows.fed_b),
               jnp.where(fresh_b, 0, rows.drawn_b), pick(work.budget_ij, rows.budget_b), pick(work.steps_ij, rows.steps_b),
               pick(work.state_ij, rows.state_b), pick(work.key_ij2, rows.key_b2))
  cache = decoding.restart(lanes.cache, fresh_b, pick(work.cut_ij, lanes.cache.cut_b))
  return lanes._replace(cache=cache, next_i=lanes.next_i + fresh_ir.sum(axis=1, dtype=jnp.int32), rows=begun)


def step(network: Network, params, cache: decoding.Cache, rows: Rows, tokens: Tokens, sampling: sampling_lib.Sampling):
  """(cache, rows, line of the log): every row that has a job draws one token."""
  live_b = rows.job_b >= 0
  hidden_b1d, cache = network.extend(params, cache, rows.fed_b[:, None], live_b[:, None])
  key_b = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(rows.key_b2), rows.drawn_b)
  token_b, log_prob_b = sampling_lib.draw(network.logits(params, hidden_b1d[:, 0]), key_b, sampling, tokens.never_v)
  token_b = jnp.where(live_b, token_b, tokens.pad_id)
  line = (rows.job_b, rows.drawn_b, token_b, jnp.where(live_b, log_prob_b, 0.0))
  class_b = tokens.class_v[token_b]
  steps_b = rows.steps_b - (live_b & tokens.ends_cs[class_b, rows.state_b])
  state_b = jnp.where(live_b, tokens.next_cs[class_b, rows.state_b], rows.state_b)
  drawn_b = rows.drawn_b + live_b
  over_b = (token_b == tokens.eos_id) | (drawn_b >= rows.budget_b) | (steps_b <= 0)
  return cache, Rows(jnp.where(over_b, -1, rows.job_b), token_b, drawn_b, rows.budget_b, steps_b,
                     state_b, rows.key_b2), line


def generate(network: Network, params, cache: decoding.Cache, fed_b, budget_b, key_b, tokens: Tokens, *, max_new: int,
             sampling: sampling_lib.Sampling, steps: int | None = None, state_b=None) -> tuple[Continuations, decoding.Cache]:
  """One job a row and no queue: up to min(max_new, budget_b) tokens after fed_b, and at most `steps` steps.

  cache: holds what precedes fed_b. state_b: where the prefixes leave the rule
  of steps (see problems/steps.py); at its start by default.
  """
  b = len(fed_b)
  endless = jnp.iinfo(jnp.int32).max
  rows = Rows(jnp.where(budget_b > 0, 0, -1), fed_b.astype(jnp.int32), jnp.zeros(b, jnp.int32), budget_b.astype(jnp.int32),
              jnp.full(b, endless if steps is None else steps, jnp.int32),
              jnp.zeros(b, jnp.int32) if state_b is None else state_b, jax.random.key_data(key_b))

  def going(carry):
    n, _, rows, _ = carry
    return (n < max_new) & (rows.job_b >= 0).any()

  def one(carry):
    n, cache, rows, log = carry
    cache, rows, line = step(network, params, cache, rows, tokens, sampling)
    return n + 1, cache, rows, _written(log, n, line)

  _, cache, rows, log = jax.lax.while_loop(going, one, (jnp.int32(0), cache, rows, _blank(max_new, b, tokens)))
  at_end_b = jnp.take_along_axis(log.token_nb, jnp.maximum(rows.drawn_b - 1, 0)[None], axis=0)[0]
  ended_b = (rows.drawn_b > 0) & (at_end_b == tokens.eos_id)
  return Continuations(log.token_nb.T, log.log_prob_nb.T, rows.drawn_b, ended_b, rows.state_b), cache


def _blank(lines: int, b: int, tokens: Tokens) -> Log:
  ints = jnp.zeros((lines, b), jnp.int32)
  return Log(ints - 1, ints, ints + tokens.pad_id, jnp.zeros((lines, b), jnp.float32))


def _written(log: Log, n: jax.Array, line) -> Log:
  return Log(*(jax.lax.dynamic_update_slice(x_nb, x_b[None], (n, 0)) for x_nb, x_b in zip(log, line)))


@functools.partial(jax.jit, static_argnames=("network", "lines", "sampling"), donate_argnames="lanes")
def advance(network: Network, params, lanes: Lanes, tokens: Tokens, wanted: jax.Array, *, lines: int,
            sampling: sampling_lib.Sampling) -> tuple[Lanes, Log, jax.Array, jax.Array]:
  """(lanes, log, steps taken, busy_i): decodes until `wanted` lanes are idle, none is busy, or `lines` steps are taken."""
  def going(carry):
    n, lanes, _ = carry
    busy = lanes.busy_i.sum()
    return (n < lines) & (busy > 0) & (len(lanes.next_i) - busy < wanted)

  def one(carry):
    n, lanes, log = carry
    waiting = (lanes.rows.job_b < 0).reshape(len(lanes.next_i), -1).any(axis=1) & (lanes.next_i < lanes.work.count_i)
    # Keys and values stay outside: a branch might copy what it hands through.
    light = lanes._replace(cache=lanes.cache._replace(prefix=None, keys_ywbgel=None, values_ywbgle=None))
    light = jax.lax.cond(waiting.any(), refill, lambda lanes: lanes, light)
    lanes = light._replace(cache=light.cache._replace(
        prefix=lanes.cache.prefix, keys_ywbgel=lanes.cache.keys_ywbgel, values_ywbgle=lanes.cache.values_ywbgle))
    cache, rows, line = step(network, params, lanes.cache, lanes.rows, tokens, sampling)
    return n + 1, lanes._replace(cache=cache, rows=rows), _written(log, n, line)

  blank = _blank(lines, len(lanes.rows.job_b), tokens)
  n, lanes, log = jax.lax.while_loop(going, one, (jnp.int32(0), lanes, blank))
  return lanes, log, n, lanes.busy_i
