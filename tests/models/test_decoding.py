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
HIDDEN, READ, EXTEND = (
    jax.jit(NET.hidden), jax.jit(lambda params, *rest: NET.read(NET.computed(params), *rest)),
    jax.jit(lambda params, *rest: NET.extend(NET.computed(params), *rest)))
BEGIN = jax.jit(decoding.begin, static_argnums=2)
LENGTH = 16
UNTOUCHED = 777.0  # what a slot holds that nobody wrote


def _params():
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(NET.init, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32), shapes)


PARAMS = _params()


def _tokens(rows=3, seed=0):
  return np.random.default_rng(seed).integers(1, 40, (rows, LENGTH))


def _fresh(token_bt):
  return np.asarray(HIDDEN(PARAMS, jnp.asarray(token_bt, jnp.int32)))


def _began(source_it, cut_b, slots):
  """Rows that hold the first cut_b tokens of their sources; what nobody wrote is told apart."""
  _, prefix = READ(PARAMS, jnp.asarray(source_it, jnp.int32))
  cache = BEGIN(prefix, jnp.asarray(cut_b), slots)
  untouched = lambda xs: jax.tree.map(lambda x: x + UNTOUCHED, xs)
  return cache._replace(keys_ywbgel=untouched(cache.keys_ywbgel), values_ywbgle=untouched(cache.values_ywbgle))


def _append(cache, token_bt, until_b, width, counts=None):
  """Appends each row's tokens up to until_b, at most `width` a call, padding with token 39.

  counts: an rng that makes the pieces ragged. Returns [(row, position, hidden)] and the cache.
  """
  read, rows = [], len(token_bt)
  done_b = np.array(cache.length_b)
  while (done_b < until_b).any():
    count_b = np.minimum(until_b - done_b, width if counts is None else counts.integers(0, width + 1, rows))
    valid_bt = np.arange(width) < count_b[:, None]
    position_bt = np.minimum(done_b[:, None] + np.arange(width), LENGTH - 1)
    piece_bt = np.where(valid_bt, np.take_along_axis(token_bt, position_bt, axis=1), 39)
    hidden_btd, cache = EXTEND(PARAMS, cache, jnp.asarray(piece_bt, jnp.int32), jnp.asarray(valid_bt))
    read += [(b, done_b[b] + t, np.asarray(hidden_btd[b, t])) for b in range(rows) for t in range(count_b[b])]
    done_b += count_b
    np.testing.assert_array_equal(cache.length_b, done_b)
  return read, cache


def _assert_read(read, fresh_btd):
  assert read
  for row, position, hidden_d in read:
    np.testing.assert_allclose(
        hidden_d, fresh_btd[row, position], rtol=0, atol=1e-5, err_msg=f"row {row}, position {position}")


@pytest.mark.parametrize("width, ragged, slots", [(1, False, 14), (4, False, 16), (4, True, 60), (14, False, 14)])
def test_any_chunking_reads_what_the_uncached_forward_reads(width, ragged, slots):
  token_bt, until_b = _tokens(), np.array([14, 9, 1])
  read, _ = _append(_began(token_bt[:, :1], np.zeros(3, int), slots), token_bt, until_b, width,
                    np.random.default_rng(1) if ragged else None)
  assert sorted((b, t) for b, t, _ in read) == [(b, t) for b in range(3) for t in range(until_b[b])]
  _assert_read(read, _fresh(token_bt))


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("clock", [0, 30, 120])
def test_blocks_of_a_suffix_nobody_needs_are_not_read(width, clock):
  """NaN in what nobody wrote would come through any product, masked or not; idle rows need nothing."""
  token_bt, until_b = _tokens(), np.array([14, 9, 1])
  cache = _began(token_bt[:, :1], np.zeros(3, int), 128)
  cache = cache._replace(clock=jnp.int32(clock))
  written = {(clock + n) % 128 // 32 for n in range(15 + width)}
  poisoned = lambda x_yw: tuple(tuple(x if w in written else x + jnp.nan for w, x in enumerate(x_w)) for x_w in x_yw)
  cache = cache._replace(keys_ywbgel=poisoned(cache.keys_ywbgel), values_ywbgle=poisoned(cache.values_ywbgle))
  read, cache = _append(cache, token_bt, until_b, width)
  _assert_read(read, _fresh(token_bt))
  assert len(written) < len(cache.keys_ywbgel[0]) == 4
  assert np.isnan(cache.keys_ywbgel[0][(clock // 32 + 2) % 4]).all()  # nor are they written


@pytest.mark.parametrize("width", [1, 3])
def test_rows_of_a_source_go_on_from_their_own_cuts(width):
  """Six rows over two padded sources, each cut elsewhere: as if each had its own copy."""
  source_it, own_bt = _tokens(2, seed=1), _tokens(6)
  cut_b = np.array([11, 0, 5, 7, 7, 1])
  padded_it = np.where(np.arange(LENGTH) < np.array([[11], [7]]), source_it, 39)
  joined_bt = np.where(np.arange(LENGTH) < cut_b[:, None], np.repeat(source_it, 3, axis=0), own_bt)
  read, cache = _append(_began(padded_it, cut_b, 16), joined_bt, np.full(6, 14), width)
  _assert_read(read, _fresh(joined_bt))
  assert cache.prefix.sources == 2  # the prefix stays one a source


def test_a_restarted_row_forgets_and_the_others_go_on():
  source_it, first_bt, second_bt = _tokens(2, seed=1), _tokens(4), _tokens(4, seed=2)
  cut_b, again_b = np.array([4, 6, 2, 9]), np.array([5, 0, 3, 0])
  fresh_b = np.array([True, False, True, False])
  joined = lambda cut_b, own_bt: np.where(np.arange(LENGTH) < cut_b[:, None], np.repeat(source_it, 2, axis=0), own_bt)
  first_bt = joined(cut_b, first_bt)
  _, cache = _append(_began(source_it, cut_b, 12), first_bt, np.array([10, 11, 4, 12]), 1)
  cache = jax.jit(decoding.restart)(cache, fresh_b, jnp.asarray(again_b))
  np.testing.assert_array_equal(cache.length_b, [5, 11, 3, 12])
  second_bt = np.where(fresh_b[:, None], joined(again_b, second_bt), first_bt)
  _assert_read(_append(cache, second_bt, np.array([13, 14, 12, 15]), 1)[0], _fresh(second_bt))


def test_slots_are_used_again_when_their_tokens_are_done_with():
  """Five slots, three answers of four tokens one after the other."""
  source_it = _tokens(1, seed=1)
  cache = _began(source_it, np.array([6]), 5)
  for seed in range(3):
    joined_bt = np.where(np.arange(LENGTH) < 6, source_it, _tokens(1, seed))
    read, cache = _append(cache, joined_bt, np.array([10]), 1)
    _assert_read(read, _fresh(joined_bt))
    cache = decoding.restart(cache, np.array([True]), jnp.array([6]))


def test_more_tokens_at_once_than_slots_are_refused():
  with pytest.raises(ValueError, match="3 tokens at once do not fit into a suffix of 2 slots"):
    EXTEND(PARAMS, _began(_tokens(1), np.array([1]), 2), jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool))
  with pytest.raises(ValueError, match="3 rows cannot share 2 sources"):
    _began(_tokens(2), np.zeros(3, int), 2)


@pytest.mark.parametrize("width", [1, 4])
def test_a_committed_row_is_a_prefix_like_any_other(width):
  source_it, own_bt = _tokens(2, seed=1), _tokens(4)
  cut_b, until_b, row_i = np.array([4, 6, 2, 9]), np.array([8, 6, 5, 10]), np.array([2, 0, 0])
  joined_bt = np.where(np.arange(LENGTH) < cut_b[:, None], np.repeat(source_it, 2, axis=0), own_bt)
  _, cache = _append(_began(source_it, cut_b, 40), joined_bt, until_b, width, np.random.default_rng(0))
  prefix = jax.jit(decoding.commit)(cache, row_i)
  later_bt = np.where(np.arange(LENGTH) < until_b[row_i][:, None], joined_bt[row_i], _tokens(3, seed=5))
  again = BEGIN(prefix, jnp.asarray(until_b[row_i]), 12)
  _assert_read(_append(again, later_bt, np.full(3, 14), 2)[0], _fresh(later_bt))


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
    hidden_btd, prefix = net.read(net.computed(params), token_bt[:, :3])
    cache, pieces = decoding.begin(prefix, jnp.full(2, 3), 20), [hidden_btd]
    for start, stop in ((3, 6), (6, 11), (11, LENGTH)):
      hidden_btd, cache = net.extend(net.computed(params), cache, token_bt[:, start:stop], jnp.ones((2, stop - start), bool))
      pieces.append(hidden_btd)
    return jnp.concatenate(pieces, axis=1)

  hidden_btd = np.asarray(read(token_bt))
  reached_t = (hidden_btd[0] != hidden_btd[1]).any(axis=-1)
  np.testing.assert_array_equal(reached_t, np.arange(LENGTH) < config.window)
