"""Whatever way tokens reach the cache, the network reads what it reads without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import decoding
from pav_jax.models import gemma
from pav_jax.models import network

CONFIG = gemma.GemmaConfig(
    num_layers=3, width=36, num_heads=4, num_kv_heads=2, head_width=8, ffn_width=72,
    query_scale=8**-0.5, vocab_size=40, window=5, attention_cap=2.0, logit_cap=1.5)
NET = network.from_gemma(CONFIG, scoring_id=7)
HIDDEN, EXTEND = jax.jit(NET.hidden), jax.jit(NET.extend)
LENGTH_B = np.array([14, 9, 1])
SLOTS = 16
UNTOUCHED = 777.0  # what a slot holds that nobody wrote


def _params():
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(NET.init, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32), shapes)


PARAMS = _params()


def _tokens(seed=0):
  return np.random.default_rng(seed).integers(1, 40, (3, SLOTS))


def _fresh(token_bt):
  return np.asarray(HIDDEN(PARAMS, jnp.asarray(token_bt, jnp.int32)))


def _empty():
  _, cache = NET.read(PARAMS, jnp.zeros((3, 1), jnp.int32), jnp.zeros(3, jnp.int32), SLOTS)
  return cache._replace(keys_ybgle=cache.keys_ybgle + UNTOUCHED, values_ybgle=cache.values_ybgle + UNTOUCHED)


def _append(cache, token_bt, until_b, width, counts=None):
  """Appends each row's tokens up to until_b, at most `width` a call, padding with token 39.

  counts: an rng that makes the pieces ragged. Returns [(row, position, hidden)] and the cache.
  """
  read = []
  done_b = np.array(cache.length_b)
  while (done_b < until_b).any():
    count_b = np.minimum(until_b - done_b, width if counts is None else counts.integers(0, width + 1, 3))
    valid_bt = np.arange(width) < count_b[:, None]
    position_bt = np.minimum(done_b[:, None] + np.arange(width), SLOTS - 1)
    piece_bt = np.where(valid_bt, np.take_along_axis(token_bt, position_bt, axis=1), 39)
    hidden_btd, cache = EXTEND(PARAMS, cache, jnp.asarray(piece_bt, jnp.int32), jnp.asarray(valid_bt))
    read += [(b, done_b[b] + t, np.asarray(hidden_btd[b, t])) for b in range(3) for t in range(count_b[b])]
    done_b += count_b
    np.testing.assert_array_equal(cache.length_b, done_b)
  return read, cache


def _assert_read(read, fresh_btd):
  assert read
  for row, position, hidden_d in read:
    np.testing.assert_allclose(
        hidden_d, fresh_btd[row, position], rtol=0, atol=1e-5, err_msg=f"row {row}, position {position}")


@pytest.mark.parametrize("width,ragged", [(1, False), (4, False), (4, True), (16, False)])
def test_any_chunking_reads_what_the_uncached_forward_reads(width, ragged):
  token_bt = _tokens()
  read, cache = _append(_empty(), token_bt, LENGTH_B, width, np.random.default_rng(1) if ragged else None)
  assert sorted((b, t) for b, t, _ in read) == [(b, t) for b in range(3) for t in range(LENGTH_B[b])]
  _assert_read(read, _fresh(token_bt))
  # Padding was never written, and every real token was.
  untouched_ybl = np.asarray((cache.keys_ybgle == UNTOUCHED).all(axis=(2, 4)))
  np.testing.assert_array_equal(untouched_ybl[0], np.arange(SLOTS) >= LENGTH_B[:, None])
  np.testing.assert_array_equal(untouched_ybl, np.asarray((cache.values_ybgle == UNTOUCHED).all(axis=(2, 4))))


def test_forked_and_cut_rows_go_on_like_fresh_ones():
  token_bt, other_bt = _tokens(), _tokens(seed=1)
  _, cache = _append(_empty(), token_bt, LENGTH_B, 16)
  source_b, cut_b = np.array([1, 0, 0]), np.array([9, 6, 0])
  cache = decoding.fork(cache, jnp.asarray(source_b), jnp.asarray(cut_b))
  joined_bt = np.where(np.arange(SLOTS) < cut_b[:, None], token_bt[source_b], other_bt)
  read, _ = _append(cache, joined_bt, np.array([14, 14, 14]), 4)
  _assert_read(read, _fresh(joined_bt))


@pytest.mark.parametrize("slots", [14, SLOTS])
def test_what_was_read_at_once_goes_on_like_what_was_appended(slots):
  """Right-padded rows: what their padding left in the cache is never seen."""
  token_bt, read_b = _tokens(), np.array([11, 5, 0])
  padded_bt = np.where(np.arange(14) < read_b[:, None], token_bt[:, :14], 39)
  hidden_btd, cache = jax.jit(NET.read, static_argnums=3)(PARAMS, jnp.asarray(padded_bt, jnp.int32), jnp.asarray(read_b), slots)
  np.testing.assert_array_equal(cache.length_b, read_b)
  assert cache.keys_ybgle.shape[3] == slots
  fresh_btd = _fresh(token_bt)
  _assert_read([(b, t, np.asarray(hidden_btd[b, t])) for b in range(3) for t in range(read_b[b])], fresh_btd)
  _assert_read(_append(cache, token_bt, np.array([14, 14, 14]), 3)[0], fresh_btd)


def test_a_rewound_row_forgets_what_it_read():
  token_bt, other_bt = _tokens(), _tokens(seed=1)
  _, cache = _append(_empty(), token_bt, np.array([14, 14, 14]), 16)
  cut_b = np.array([3, 13, 0])  # longer tails stay behind in the slots than are written over
  joined_bt = np.where(np.arange(SLOTS) < cut_b[:, None], token_bt, other_bt)
  read, _ = _append(cache._replace(length_b=jnp.asarray(cut_b)), joined_bt, cut_b + 1, 1)
  _assert_read(read, _fresh(joined_bt))


@pytest.mark.parametrize("cached", [False, True])
def test_a_local_layer_sees_exactly_its_window(cached):
  """One (local) layer: changing token 0 reaches positions 0 .. window - 1 and no further."""
  config = gemma.GemmaConfig(1, 36, 4, 2, 8, 72, 8**-0.5, vocab_size=40, window=5)
  net = network.from_gemma(config, scoring_id=7)
  params = jax.tree.map(lambda x: x[:1] if x.ndim > 1 and x.shape[0] == 3 else x, PARAMS)
  token_bt = jnp.asarray(_tokens()[:2], jnp.int32)
  token_bt = token_bt.at[1].set(token_bt[0]).at[1, 0].set(token_bt[0, 0] % 39 + 1)

  @jax.jit
  def read(token_bt):
    if not cached:
      return net.hidden(params, token_bt)
    hidden_btd, cache = net.read(params, token_bt[:, :6], jnp.full(2, 6), SLOTS)
    pieces = [hidden_btd]
    for start, stop in ((6, 11), (11, SLOTS)):
      hidden_btd, cache = net.extend(params, cache, token_bt[:, start:stop], jnp.ones((2, stop - start), bool))
      pieces.append(hidden_btd)
    return jnp.concatenate(pieces, axis=1)

  hidden_btd = np.asarray(read(token_bt))
  reached_t = (hidden_btd[0] != hidden_btd[1]).any(axis=-1)
  np.testing.assert_array_equal(reached_t, np.arange(SLOTS) < config.window)
