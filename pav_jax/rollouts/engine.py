"""The sampler: one prefill for each trajectory, a jitted loop with a cache for what follows.

  1. Read each trajectory once (`read`): keys and values for all its prefixes.
  2. For every continuation wanted, fork the trajectory's row and cut it at the
     prefix (`decoding.fork`): the rollouts of a prompt, the continuations of
     each prefix and the candidates of a beam are all this.
  3. Feed the last token of the prefix, draw the next, and go on until every
     row has met its stop, or its budget (`generate`).

Invariant of every cache here: it holds all tokens of a row but the last, which
is fed first. Finished rows feed nothing: their cache stays as it was.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pav_jax.models import decoding
from pav_jax.models.network import Network
from pav_jax.rollouts import sampling as sampling_lib


class Tokens(NamedTuple):
  """What the loop must know of a vocabulary: ids, and tables over it.

  newline_v: the token's text contains a newline; content_v: it contains
  something else; never_v: never drawn.
  """

  eos_id: jax.Array
  pad_id: jax.Array
  newline_v: jax.Array
  content_v: jax.Array
  never_v: jax.Array


class Continuations(NamedTuple):
  """New tokens of each row: padded token_bt, length_b with EOS, log_prob_bt, and why it ended.

  ended_b: met EOS. stopped_b: met the stop asked for (a step's end, or EOS);
  a row that did not is truncated by its budget.
  """

  token_bt: jax.Array
  log_prob_bt: jax.Array
  length_b: jax.Array
  ended_b: jax.Array
  stopped_b: jax.Array


def read(network: Network, params, token_bt, length_b, slots: int):
  """A cache of `slots` slots with all but each row's last token read. token_bt: right-padded."""
  return network.read(params, token_bt, length_b - 1, slots)[1]


def generate(network: Network, params, cache, last_b, budget_b, key_b, tokens: Tokens, *,
             max_new: int, sampling: sampling_lib.Sampling, step_begun_b: jax.Array | None = None):
  """(Continuations, cache): draw up to min(max_new, budget_b) tokens after last_b.

  cache: holds what precedes last_b. The n-th new token of a row is drawn with
  fold_in(key_b, n). step_begun_b: None to go on to EOS; else bool, and a row
  stops at the end of its step, too: at the first newline after something that
  is not one (see problems/steps.py), which a row whose step has begun has seen.
  """
  stop_at_step = step_begun_b is not None
  rows = last_b.shape[0]

  def alive(carry):
    n, _, _, _, state = carry
    return (n < max_new) & jnp.any(~(state.stopped_b | (state.length_b >= budget_b)))

  def one(carry):
    n, cache, fed_b, content_b, state = carry
    live_b = ~state.stopped_b & (state.length_b < budget_b)
    hidden_b1d, cache = network.extend(params, cache, fed_b[:, None], live_b[:, None])
    drawn_b, log_prob_b = sampling_lib.draw(
        network.logits(params, hidden_b1d[:, 0]), jax.vmap(jax.random.fold_in, (0, None))(key_b, n),
        sampling, tokens.never_v)
    drawn_b = jnp.where(live_b, drawn_b, tokens.pad_id)
    ended_b = live_b & (drawn_b == tokens.eos_id)
    content_b |= tokens.content_v[drawn_b]
    stop_b = ended_b | (live_b & tokens.newline_v[drawn_b] & content_b) if stop_at_step else ended_b
    state = Continuations(
        token_bt=state.token_bt.at[:, n].set(drawn_b),
        log_prob_bt=state.log_prob_bt.at[:, n].set(jnp.where(live_b, log_prob_b, 0.0)),
        length_b=state.length_b + live_b,
        ended_b=state.ended_b | ended_b,
        stopped_b=state.stopped_b | stop_b)
    return n + 1, cache, jnp.where(live_b, drawn_b, fed_b), content_b, state

  blank_b = jnp.zeros(rows, bool)
  state = Continuations(
      token_bt=jnp.full((rows, max_new), tokens.pad_id, jnp.int32),
      log_prob_bt=jnp.zeros((rows, max_new), jnp.float32),
      length_b=jnp.zeros(rows, jnp.int32), ended_b=blank_b, stopped_b=blank_b)
  begun_b = step_begun_b if stop_at_step else blank_b
  _, cache, _, _, state = jax.lax.while_loop(alive, one, (0, cache, last_b, begun_b, state))
  return state, cache


@functools.partial(jax.jit, static_argnames=("network", "slots", "max_new", "sampling"))
def continue_prefixes(network: Network, params, token_bt, length_b, source_r, cut_r, budget_r, key_r,
                      tokens: Tokens, *, slots: int, max_new: int, sampling: sampling_lib.Sampling) -> Continuations:
  """Whole responses from prefixes of trajectories; each trajectory is read once.

  token_bt, length_b: trajectories, right-padded. Row r continues the first
  cut_r >= 1 tokens of trajectory source_r for at most budget_r tokens; the
  caller sees to it that no row outgrows the slots: cut_r + budget_r <= slots.
  """
  cache = read(network, params, token_bt, length_b, slots)
  cache = decoding.fork(cache, source_r, cut_r - 1)
  last_r = token_bt[source_r, cut_r - 1]
  return generate(network, params, cache, last_r, budget_r, key_r, tokens,
                  max_new=max_new, sampling=sampling)[0]
