"""Gemma 3 against the gemma library, and what it has that Gemma 2 has not: periods of layers, two rotations, norms of queries and keys."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import decoding
from pav_jax.models import gemma
from pav_jax.models import network
from pav_jax.models import size
from tests.gemma_library import gm

# Tiny, with what tells the official sizes apart: heads of keys, the rule of the query scale, the scale of global
# positions, and how the last period ends. Rows are longer than the window, and longer than a period.
_LOW = dict(vocab_size=40, window=5, attention_cap=0.0, logit_cap=0.0, qk_norm=True, local_per_global=5,
            local_rope_base=30.0, global_rope_base=700.0)
SHAPED = {
    "270m": gemma.GemmaConfig(6, 20, 4, 1, 8, 32, 8**-0.5, **_LOW),
    "1b": gemma.GemmaConfig(8, 28, 4, 1, 8, 56, 8**-0.5, **_LOW),
    "4b": gemma.GemmaConfig(10, 36, 4, 2, 8, 56, 8**-0.5, **_LOW, global_rope_scale=8.0),
    "12b": gemma.GemmaConfig(6, 28, 6, 3, 8, 56, 8**-0.5, **_LOW, global_rope_scale=8.0),
    "27b": gemma.GemmaConfig(8, 72, 4, 2, 8, 100, (72 / 4) ** -0.5, **_LOW, global_rope_scale=8.0),
}
# For the cache: two periods of three, the second cut short.
CONFIG = dataclasses.replace(SHAPED["1b"], num_layers=4, local_per_global=2, global_rope_scale=8.0)
NET = network.from_gemma(CONFIG, scoring_id=7)


def _tokens(rows=2, length=17, seed=0):
  # Never 0: gm takes it for padding.
  return jnp.asarray(np.random.default_rng(seed).integers(1, 40, (rows, length)), jnp.int32)


def _random(config, seed=0):
  """Every leaf away from its initial value: norms start at 0, and a scale of 1 would hide a missing '1 +'."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(network.from_gemma(config, scoring_id=7).init, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), jnp.float32), shapes)


PARAMS = _random(CONFIG)


def _library(name):
  c, norm = SHAPED[name], gm.nn.config.QueryPreAttentionNormalisation
  pattern = [gm.nn.AttentionType.LOCAL_SLIDING] * 5 + [gm.nn.AttentionType.GLOBAL]
  return gm.nn.Transformer(dtype=jnp.float32, config=gm.nn.config.TransformerConfig(
      num_embed=c.vocab_size, embed_dim=c.width, hidden_dim=c.ffn_width, num_heads=c.num_heads,
      head_dim=c.head_width, num_kv_heads=c.num_kv_heads, final_logit_softcap=None,
      use_post_attn_norm=True, use_post_ffw_norm=True, attn_logits_soft_cap=None, use_qk_norm=True,
      attention_types=gm.nn.config.make_attention_layers_types(tuple(pattern), num_layers=c.num_layers),
      query_pre_attn_norm=(norm.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS if name == "27b"
                           else norm.BY_ONE_OVER_SQRT_HEAD_DIM),
      sliding_window_size=c.window, transpose_gating_einsum=True, local_base_frequency=int(c.local_rope_base),
      global_base_frequency=int(c.global_rope_base), global_scale_factor=c.global_rope_scale))


def _in_their_tree(ours):
  """Our parameters, or gradients of them, as the library has them: what the shapes of both say, apart from weights.py."""
  def layer(y):
    own = jax.tree.map(lambda x: x[y], ours["layers"])
    query_dhe, key_value_2dge = own["attention"]["query"], own["attention"]["key_value"]
    return {
        "attn": {"q_einsum": {"w": jnp.moveaxis(query_dhe, 1, 0)}, "kv_einsum": {"w": jnp.moveaxis(key_value_2dge, 2, 1)},
                 "attn_vec_einsum": {"w": own["attention"]["out"]},
                 "_query_norm": own["attention"]["query_norm"], "_key_norm": own["attention"]["key_norm"]},
        "mlp": {"gating_einsum": jnp.swapaxes(own["ffn"]["gate_up"], 1, 2), "linear": own["ffn"]["down"]},
        "pre_attention_norm": own["pre_attention_norm"], "post_attention_norm": own["post_attention_norm"],
        "pre_ffw_norm": own["pre_ffn_norm"], "post_ffw_norm": own["post_ffn_norm"]}
  layers = len(ours["layers"]["ffn"]["down"])
  return {"embedder": {"input_embedding": ours["embedding"]}, "final_norm": ours["final_norm"],
          **{f"layer_{y}": layer(y) for y in range(layers)}}


@pytest.mark.parametrize("name", SHAPED)
def test_the_function_and_its_gradients_are_the_librarys(name):
  """Logits within 1e-5; gradients of every leaf within 1e-5 of its largest entry."""
  net, model, ours, token_bt = network.from_gemma(SHAPED[name], scoring_id=7), _library(name), _random(SHAPED[name]), _tokens()
  def of(logits, params):
    def loss(params):
      logit_btv = logits(params)
      log_prob_btv = jax.nn.log_softmax(logit_btv[:, :-1])
      return -jnp.take_along_axis(log_prob_btv, token_bt[:, 1:, None], axis=-1).mean(), logit_btv
    return jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(params))
  (_, our_logits), our_grads = of(lambda params: net.logits(params, net.hidden(params, token_bt)), ours)
  (_, their_logits), their_grads = of(lambda params: model.apply({"params": params}, token_bt).logits, _in_their_tree(ours))
  np.testing.assert_allclose(our_logits, their_logits, rtol=0, atol=1e-5 * np.abs(their_logits).max())
  our_grads = jax.device_get(_in_their_tree(our_grads))
  assert jax.tree.structure(our_grads) == jax.tree.structure(their_grads)
  for (path, b), a in zip(jax.tree.leaves_with_path(their_grads), jax.tree.leaves(our_grads)):
    scale = np.abs(b).max()
    assert scale > 0, path
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5, err_msg=jax.tree_util.keystr(path))


@functools.cache
def _logits(**changes):
  net, params, token_bt = network.from_gemma(dataclasses.replace(SHAPED["4b"], **changes), scoring_id=7), _random(SHAPED["4b"]), _tokens()
  return np.asarray(jax.jit(lambda: net.logits(params, net.hidden(params, token_bt)))())


@pytest.mark.parametrize("changes", [
    dict(qk_norm=False), dict(local_per_global=4), dict(local_per_global=1), dict(local_rope_base=35.0), dict(global_rope_base=1400.0),
    dict(global_rope_scale=4.0), dict(window=4), dict(window=6), dict(attention_cap=5.0), dict(logit_cap=10.0)], ids=str)
def test_each_rule_of_the_comparison_matters(changes):
  """Parity would be empty if the tiny rows did not feel it."""
  assert np.abs(_logits(**changes) - _logits()).max() > 1e-2


def test_a_checkpoint_from_before_gemma_3_is_a_gemma_2():
  """Checkpoints hold the shape as a dict; those that lie on disks know nothing of the new fields."""
  old = {field.name: getattr(gemma.SIZES["nano"], field.name) for field in dataclasses.fields(gemma.GemmaConfig)[:14]}
  assert list(old)[-1] == "score_shift" and gemma.GemmaConfig(**old) == gemma.SIZES["nano"]
  assert [gemma.SIZES["nano"].is_local(y) for y in range(3)] == [True, False, True]


def _poisoned(x_yw, blocks_w):
  """NaN in these blocks of the local layers: it would come through any product, masked or not."""
  return tuple(tuple(x + jnp.nan if CONFIG.is_local(y) and w in blocks_w else x for w, x in enumerate(x_w)) for y, x_w in enumerate(x_yw))


READ, EXTEND = (jax.jit(lambda params, *rest: NET.read(NET.computed(params), *rest)),
                jax.jit(lambda params, *rest: NET.extend(NET.computed(params), *rest)))


def test_local_layers_read_what_their_window_needs_and_no_more():
  """Two sources of 96 tokens, cut at 80 and later, then 80 tokens each: 3 blocks of 32, and 3 of 32 in the suffix."""
  source_it, own_bt = np.asarray(_tokens(2, 96)), np.asarray(_tokens(4, 176, seed=1))
  cut_b = np.array([80, 96, 91, 85])
  whole_bt = np.where(np.arange(176) < cut_b[:, None], np.pad(np.repeat(source_it, 2, axis=0), ((0, 0), (0, 80))), own_bt)
  expected_btd = np.asarray(jax.jit(NET.hidden)(PARAMS, jnp.asarray(whole_bt)))
  _, prefix = READ(PARAMS, jnp.asarray(source_it))
  assert [len(x_w) for x_w in prefix.keys_ywigel] == [3, 3, 1, 3] and prefix.slots == 96
  prefix = decoding.Prefix(_poisoned(prefix.keys_ywigel, {0, 1}), _poisoned(prefix.values_ywigle, {0, 1}))
  cache = decoding.begin(prefix, jnp.asarray(cut_b), 80)
  assert [x.shape[3] for x in cache.keys_ywbgel[0]] == [40, 40]
  for t in range(0, 80, 8):
    if t == 48:  # the first block's last token is 9 back
      cache = cache._replace(keys_ywbgel=_poisoned(cache.keys_ywbgel, {0}), values_ywbgle=_poisoned(cache.values_ywbgle, {0}))
    at_bt = cut_b[:, None] + np.arange(t, t + 8)
    hidden_btd, cache = EXTEND(PARAMS, cache, jnp.asarray(np.take_along_axis(whole_bt, at_bt, axis=1)), jnp.ones((4, 8), bool))
    np.testing.assert_allclose(hidden_btd, np.take_along_axis(expected_btd, at_bt[:, :, None], axis=1), rtol=0, atol=2e-5)


def test_a_row_that_sees_nothing_leaves_no_nan_behind():
  """Keys that nobody reads, no token that is there: what is written must not spoil the slots for later rows."""
  _, prefix = READ(PARAMS, _tokens(1, 96))
  cache = decoding.begin(prefix, jnp.array([90, 90]), 64)
  hidden_btd, cache = EXTEND(PARAMS, cache, jnp.ones((2, 3), jnp.int32), jnp.zeros((2, 3), bool))
  assert np.isfinite(hidden_btd).all() and all(np.isfinite(x).all() for x in jax.tree.leaves(cache))


def test_blocks_are_filled_and_committed_across_their_borders():
  """A prompt of 40 tokens is put into room for 96; a row goes on from it for 50, and is an item like any other."""
  token_bt = np.asarray(_tokens(2, 96))
  expected_btd = np.asarray(jax.jit(NET.hidden)(PARAMS, jnp.asarray(token_bt)))
  _, blank = READ(PARAMS, jnp.zeros((2, 96), jnp.int32))
  _, prompts = READ(PARAMS, jnp.asarray(token_bt[:, :40]))
  prefix = decoding.put(blank, jnp.array([1, 0, 7]), jax.tree.map(lambda x: x[jnp.array([1, 0, 0])], prompts))
  cache = decoding.begin(prefix, jnp.array([40, 40]), 64)
  for t in range(40, 90, 10):
    hidden_btd, cache = EXTEND(PARAMS, cache, jnp.asarray(token_bt[:, t:t + 10]), jnp.ones((2, 10), bool))
    np.testing.assert_allclose(hidden_btd, expected_btd[:, t:t + 10], rtol=0, atol=2e-5)
  again = decoding.begin(decoding.commit(cache, jnp.array([1, 0])), jnp.array([90, 90]), 6)
  hidden_btd, _ = EXTEND(PARAMS, again, jnp.asarray(token_bt[::-1, 90:]), jnp.ones((2, 6), bool))
  np.testing.assert_allclose(hidden_btd, expected_btd[::-1, 90:], rtol=0, atol=2e-5)


def test_flops_and_parameters_counted_by_hand():
  """Two local layers of window 2, a global one, and a local one; d = 4, 2 heads on 1, e = 2, f = 3, v = 5; token 3 of 4."""
  config = gemma.GemmaConfig(4, 4, 2, 1, 2, 3, 1.0, vocab_size=5, window=2, qk_norm=True, local_per_global=2)
  matrices = 4 * 4 + 4 * 2 * 2 + 4 * 4 + 3 * 4 * 3
  assert size.forward_flops(config, 3, 4, logit_count=1) == 2 * 4 * matrices + 4 * 2 * 2 * (3 * 2 + 4) + 2 * 5 * 4
  assert size.num_params(config) == (20, 4 * (matrices + 4 * 4 + 2 * 2) + 4)
