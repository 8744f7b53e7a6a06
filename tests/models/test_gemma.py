"""Gemma 2 against the gemma library, the published sizes, and itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import gemma
from pav_jax.models import network
from pav_jax.models import weights

from gemma import gm  # after weights, which mends its import

# Tiny, with what tells the official sizes apart: heads per group, the rule of
# the query scale, the gating matrix's axes. Rows are longer than the window,
# and the caps are low enough to bend the logits.
_LOW = dict(vocab_size=40, window=5, attention_cap=2.0, logit_cap=1.5)
SHAPED = {
    "2b": gemma.GemmaConfig(2, 36, 4, 2, 8, 72, 8**-0.5, **_LOW),
    "9b": gemma.GemmaConfig(3, 28, 6, 2, 8, 56, 8**-0.5, **_LOW),
    "27b": gemma.GemmaConfig(4, 72, 4, 2, 8, 100, (72 / 4) ** -0.5, **_LOW),
}
TINY = SHAPED["2b"]
NET = network.from_gemma(TINY, scoring_id=7, logit_chunk=3)


def _tokens(rows=2, length=17, seed=0):
  return jax.random.randint(jax.random.key(seed), (rows, length), 1, 40)  # gm takes 0 for padding


def _random(shapes, seed=0):
  """Every leaf away from its initial value; norms start at 0 and would hide mistakes."""
  leaves, treedef = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  return treedef.unflatten([0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])


def _ours(config, seed=0):
  return _random(jax.eval_shape(network.from_gemma(config, scoring_id=7).init, jax.random.key(0)), seed)


def _library(name):
  c, norm = SHAPED[name], gm.nn.config.QueryPreAttentionNormalisation
  pattern = (gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL)
  return gm.nn.Transformer(dtype=jnp.float32, config=gm.nn.config.TransformerConfig(
      num_embed=c.vocab_size, embed_dim=c.width, hidden_dim=c.ffn_width, num_heads=c.num_heads,
      head_dim=c.head_width, num_kv_heads=c.num_kv_heads, final_logit_softcap=c.logit_cap,
      use_post_attn_norm=True, use_post_ffw_norm=True, attn_logits_soft_cap=c.attention_cap,
      attention_types=gm.nn.config.make_attention_layers_types(pattern, num_layers=c.num_layers),
      query_pre_attn_norm=(norm.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS if name == "27b"
                           else norm.BY_ONE_OVER_SQRT_HEAD_DIM),
      sliding_window_size=c.window, transpose_gating_einsum=name != "2b"))


def _cross_entropy(logit_btv, token_bt):
  log_prob_btv = jax.nn.log_softmax(logit_btv[:, :-1])
  return -jnp.take_along_axis(log_prob_btv, token_bt[:, 1:, None], axis=-1).mean()


def _compare(name, ours, theirs, token_bt):
  """Same weights: logits within 1e-5, gradients of every leaf within 1e-5 of its largest entry."""
  config, model = SHAPED[name], _library(name)
  net = network.from_gemma(config, scoring_id=7)

  def our_loss(params):
    logit_btv = net.logits(params, net.hidden(params, token_bt))
    return _cross_entropy(logit_btv, token_bt), logit_btv

  def their_loss(params):
    logit_btv = model.apply({"params": params}, token_bt).logits
    return _cross_entropy(logit_btv, token_bt), logit_btv

  (_, our_logits), our_grads = jax.jit(jax.value_and_grad(our_loss, has_aux=True))(ours)
  (_, their_logits), their_grads = jax.jit(jax.value_and_grad(their_loss, has_aux=True))(theirs)
  assert np.abs(their_logits).max() > 0.8 * config.logit_cap, "the cap must matter"
  np.testing.assert_allclose(our_logits, their_logits, rtol=0, atol=1e-5)
  their_grads = weights.from_official(their_grads, config)
  for (path, a), b in zip(jax.tree.leaves_with_path(our_grads), jax.tree.leaves(their_grads), strict=True):
    scale = np.abs(b).max()
    assert scale > 0, path
    print(name, jax.tree_util.keystr(path), np.abs(a - b).max() / scale, np.abs(our_logits - their_logits).max())
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", SHAPED)
def test_their_weights_through_a_checkpoint_give_their_function(name, tmp_path):
  token_bt = _tokens()
  theirs = _random(jax.eval_shape(_library(name).init, jax.random.key(0), token_bt)["params"])
  gm.ckpts.save_params(theirs, tmp_path / "theirs", wait_until_finished=True)
  _compare(name, weights.load_official(tmp_path / "theirs", SHAPED[name]), theirs, token_bt)


@pytest.mark.parametrize("name", SHAPED)
def test_our_weights_through_a_checkpoint_give_our_function(name, tmp_path, monkeypatch):
  # Written by width; these are all narrower than the 2B.
  monkeypatch.setattr(weights, "transposed_gating", lambda config: name != "2b")
  ours = _ours(SHAPED[name], seed=1)
  weights.save_official(tmp_path / "ours", ours, SHAPED[name])
  _compare(name, ours, gm.ckpts.load_params(tmp_path / "ours"), _tokens(seed=1))
