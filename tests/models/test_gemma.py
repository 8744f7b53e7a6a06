"""Gemma 2 against the gemma library, the published sizes, and itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import gemma
from pav_jax.models import network
from pav_jax.models import readout
from pav_jax.models import size
from pav_jax.models import weights
from pav_jax.models.formats import official

from tests.gemma_library import gm
from tests.models import official_weights

# Tiny, with what tells the official sizes apart: heads per group, the rule of
# the query scale, the gating matrix's axes. Rows are longer than the window,
# and the caps are low enough to bend the logits.
_LOW = dict(vocab_size=40, window=5, attention_cap=2.0, logit_cap=1.5)
SHAPED = {
    "2b": gemma.GemmaConfig(2, 36, 4, 2, 8, 72, 8**-0.5, **_LOW),
    "9b": gemma.GemmaConfig(3, 28, 6, 2, 8, 56, 8**-0.5, **_LOW),
    "27b": gemma.GemmaConfig(2, 72, 4, 2, 8, 100, (72 / 4) ** -0.5, **_LOW),
}
TINY = SHAPED["2b"]
NET = network.from_gemma(TINY, scoring_id=7, logit_chunk=3)
HIDDEN = jax.jit(NET.hidden)


def _tokens(rows=2, length=17, seed=0):
  # Never 0: gm takes it for padding.
  return jnp.asarray(np.random.default_rng(seed).integers(1, 40, (rows, length)), jnp.int32)


def _random(shapes, seed=0):
  """Every leaf away from its initial value; norms start at 0 and would hide mistakes."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32), shapes)


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


@functools.cache
def _both(name):
  """(loss, logits), gradients of our network and of theirs, compiled once for both directions."""
  net, model = network.from_gemma(SHAPED[name], scoring_id=7), _library(name)

  def compiled(logits):
    def loss(params, token_bt):
      logit_btv = logits(params, token_bt)
      log_prob_btv = jax.nn.log_softmax(logit_btv[:, :-1])
      return -jnp.take_along_axis(log_prob_btv, token_bt[:, 1:, None], axis=-1).mean(), logit_btv
    return jax.jit(jax.value_and_grad(loss, has_aux=True))

  return (compiled(lambda params, token_bt: net.logits(params, net.hidden(params, token_bt))),
          compiled(lambda params, token_bt: model.apply({"params": params}, token_bt).logits))


def _compare(name, ours, theirs, token_bt):
  """Logits within 1e-5; gradients of every leaf within 1e-5 of its largest entry."""
  our_gradient, their_gradient = _both(name)
  ours, theirs = jax.device_get((ours, theirs))  # a checkpoint's placement would compile anew
  (_, our_logits), our_grads = jax.device_get(our_gradient(ours, token_bt))
  (_, their_logits), their_grads = jax.device_get(their_gradient(theirs, token_bt))
  assert np.abs(their_logits).max() > 0.8 * SHAPED[name].logit_cap, "the cap must matter"
  np.testing.assert_allclose(our_logits, their_logits, rtol=0, atol=1e-5)
  their_grads = official_weights.from_tree(their_grads, SHAPED[name])
  for (path, a), b in zip(jax.tree.leaves_with_path(our_grads), jax.tree.leaves(their_grads), strict=True):
    scale = np.abs(b).max()
    assert scale > 0, path
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", SHAPED)
def test_their_weights_through_a_checkpoint_give_their_function(name, tmp_path):
  token_bt = _tokens()
  theirs = _random(jax.eval_shape(_library(name).init, jax.random.key(0), token_bt)["params"])
  gm.ckpts.save_params(theirs, tmp_path / "theirs", wait_until_finished=True)
  _compare(name, official_weights.load(tmp_path / "theirs", SHAPED[name]), theirs, token_bt)


@pytest.mark.parametrize("name", SHAPED)
def test_our_weights_through_a_checkpoint_give_our_function(name, tmp_path, monkeypatch):
  # The layout goes by width, and these are all narrower than the 2B.
  monkeypatch.setattr(official, "transposed_gating", lambda config: name != "2b")
  ours = _ours(SHAPED[name], seed=1)
  weights.save_official(tmp_path / "ours", ours, SHAPED[name])
  _compare(name, ours, gm.ckpts.load_params(tmp_path / "ours"), _tokens(seed=1))


@pytest.mark.parametrize("name,value", [
    ("window", 6), ("attention_cap", 4.0), ("logit_cap", 3.0), ("query_scale", 0.2)])
def test_each_rule_of_the_comparison_matters(name, value):
  """Parity would be empty if the tiny rows never met the window or the caps."""
  params, token_bt = _ours(TINY), _tokens()
  other = network.from_gemma(dataclasses.replace(TINY, **{name: value}), scoring_id=7)
  read = lambda net: jax.jit(lambda: net.logits(params, net.hidden(params, token_bt)))()
  assert np.abs(read(other) - read(NET)).max() > 1e-2


# What the papers and model cards state, Gemma 2 with their vocabulary of 256,000; Gemma 3 as the gemma library's text part counts.
@pytest.mark.parametrize("name,published", [
    ("gemma2_2b", 2_614_341_888), ("gemma2_9b", 9_241_705_984), ("gemma2_27b", 27_227_128_320),
    ("gemma3_270m", 268_098_176), ("gemma3_1b", 999_885_952), ("gemma3_4b", 3_880_099_328),
    ("gemma3_12b", 11_765_788_416), ("gemma3_27b", 27_009_002_240)])
def test_number_of_parameters_is_the_published_one(name, published):
  config = gemma.SIZES[name] if name.startswith("gemma3") else dataclasses.replace(gemma.SIZES[name], vocab_size=256_000)
  params = jax.eval_shape(network.from_gemma(config, scoring_id=7).init, jax.random.key(0))
  embedding = params.pop("embedding").size
  assert size.num_params(config) == (embedding, sum(x.size for x in jax.tree.leaves(params)))
  assert sum(size.num_params(config)) == published


@pytest.mark.parametrize("name", [*(f"Gemma2_{size}" for size in ("2B", "9B", "27B")),
                                  *(f"Gemma3_{size}" for size in ("270M", "1B", "4B", "12B", "27B"))])
def test_sizes_are_the_librarys(name):
  theirs = getattr(gm.nn, name).config
  ours = gemma.SIZES[name.lower()]
  assert ours == gemma.GemmaConfig(
      theirs.num_layers, theirs.embed_dim, theirs.num_heads, theirs.num_kv_heads, theirs.head_dim,
      theirs.hidden_dim, theirs.query_pre_attn_scalar(), theirs.num_embed, theirs.sliding_window_size,
      theirs.attn_logits_soft_cap or 0, theirs.final_logit_softcap or 0, qk_norm=theirs.use_qk_norm,
      local_per_global=ours.local_per_global, local_rope_base=theirs.local_base_frequency,
      global_rope_base=theirs.global_base_frequency, global_rope_scale=theirs.global_scale_factor)
  assert theirs.local_scale_factor == 1
  assert [ours.is_local(y) for y in range(ours.num_layers)] == [
      kind == gm.nn.AttentionType.LOCAL_SLIDING for kind in theirs.attention_types]
  if name.startswith("Gemma2"):
    assert official.transposed_gating(ours) == theirs.transpose_gating_einsum


def test_nothing_looks_to_its_right():
  """d hidden[t] / d input[u] is exactly 0 for u > t, and is not for u <= t."""
  token_1t = jnp.arange(1, 10)[None]  # each token once, so a row of the embedding is an input
  params = _ours(TINY)

  def gradient(t):
    hidden_d = lambda embedding: NET.hidden(params | {"embedding": embedding}, token_1t)[0, t].sum()
    return jax.grad(hidden_d)(params["embedding"])[token_1t[0]]

  touched_tu = np.abs(jax.jit(jax.vmap(gradient))(jnp.arange(9))).max(axis=-1) > 0
  np.testing.assert_array_equal(touched_tu, np.tri(9, dtype=bool))


def test_scores_are_the_logits_of_the_scoring_token():
  params = _ours(TINY)
  hidden_btd = HIDDEN(params, _tokens())
  np.testing.assert_allclose(
      NET.scores(params, hidden_btd), NET.logits(params, hidden_btd)[..., 7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_chunked_log_probs_are_the_dense_ones(chunk):
  params, target_bt = _ours(TINY), _tokens(seed=2)
  hidden_btd = HIDDEN(params, _tokens())
  weight_bt = np.random.default_rng(0).standard_normal(target_bt.shape)

  def chunked(params, hidden_btd):
    log_prob_bt = readout.target_log_probs(TINY, params, hidden_btd, target_bt, chunk)
    return (log_prob_bt * weight_bt).sum(), log_prob_bt

  def dense(params, hidden_btd):
    log_prob_btv = jax.nn.log_softmax(NET.logits(params, hidden_btd))
    log_prob_bt = jnp.take_along_axis(log_prob_btv, target_bt[..., None], axis=-1)[..., 0]
    return (log_prob_bt * weight_bt).sum(), log_prob_bt

  run = lambda f: jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))(params, hidden_btd)
  (_, value), grads = run(chunked)
  (_, expected), expected_grads = run(dense)
  assert value.shape == target_bt.shape
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
               (value, grads), (expected, expected_grads))


def _equations(jaxpr):
  """Every equation of a jaxpr, those inside scans, jits and checkpoints too."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)


def _gradient_jaxpr(config, token_bt):
  net = network.from_gemma(config, scoring_id=7, logit_chunk=3)
  loss = lambda params: net.log_probs(params, net.hidden(params, token_bt), token_bt).sum()
  return jax.make_jaxpr(jax.grad(loss))(_ours(config)).jaxpr


def _stacked_features(jaxpr, config):
  """Feed-forward activations (b, t, f) that some scan hands on for every layer."""
  return [v.aval.shape for equation in _equations(jaxpr) if equation.primitive.name == "scan"
          for v in equation.outvars if v.aval.shape[:1] + v.aval.shape[-1:] == (config.num_layers, config.ffn_width)
          and v.aval.ndim >= 4 and v.aval.shape[1] == 2 and v.aval.shape[-2] == 17]


def test_layers_are_scanned_and_their_insides_recomputed(monkeypatch):
  config, token_bt = SHAPED["9b"], _tokens()
  jaxpr = _gradient_jaxpr(config, token_bt)
  lengths = [e.params["length"] for e in _equations(jaxpr) if e.primitive.name == "scan"]
  assert lengths.count(config.num_layers) == 2, "one scan forward, one backward"
  assert not _stacked_features(jaxpr, config)
  # The same search does find them once remat is taken away.
  monkeypatch.setattr(gemma.nn, "remat", lambda block, **kwargs: block)
  assert _stacked_features(_gradient_jaxpr(config, token_bt), config)


def test_a_loss_never_holds_logits_of_all_positions():
  largest = max((v.aval.size for e in _equations(_gradient_jaxpr(TINY, _tokens())) for v in e.outvars
                 if v.aval.shape[-1:] == (TINY.vocab_size,)))
  assert largest == 2 * 3 * TINY.vocab_size  # rows x chunk x vocabulary


def test_bfloat16_parameters_keep_the_float32_islands():
  config = dataclasses.replace(TINY, param_dtype="bfloat16", dtype="bfloat16")
  net = network.from_gemma(config, scoring_id=7, logit_chunk=3)
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), _ours(TINY))
  token_bt = _tokens()
  assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(net.init, jax.random.key(0)))} == {jnp.dtype("bfloat16")}

  def read(params):
    hidden_btd = net.hidden(params, token_bt)
    return (hidden_btd, net.logits(params, hidden_btd), net.scores(params, hidden_btd),
            net.log_probs(params, hidden_btd, token_bt))

  jaxpr = jax.make_jaxpr(read)(params).jaxpr
  hidden, *heads = [v.aval.dtype for v in jaxpr.outvars]
  assert hidden == jnp.bfloat16 and heads == [jnp.float32] * 3
  dtypes = lambda *names: {v.aval.dtype for e in _equations(jaxpr) if e.primitive.name in names
                           for v in e.outvars}
  assert dtypes("rsqrt") == {jnp.dtype("float32")}  # norms
  assert dtypes("exp", "log") == {jnp.dtype("float32")}  # softmax, log-probabilities
  assert dtypes("sin", "cos") == {jnp.dtype("float32")}  # rotary angles
  # The matrices do multiply in bfloat16.
  operands = {v.aval.dtype for e in _equations(jaxpr) if e.primitive.name == "dot_general" for v in e.invars}
  assert jnp.dtype("bfloat16") in operands


def test_bfloat16_norm_rounds_only_once():
  """Half a spacing of bfloat16 from the float32 result; rounding before the scale doubles that."""
  rng = np.random.default_rng(0)
  x_btd, scale_d = (jnp.asarray(rng.standard_normal(s), jnp.bfloat16) for s in ((4, 50, 96), 96))
  normed_btd = gemma.RMSNorm("bfloat16").apply({"params": {"scale": scale_d}}, x_btd)
  assert normed_btd.dtype == jnp.bfloat16
  x_btd, scale_d = np.asarray(x_btd, np.float64), np.asarray(scale_d, np.float64)
  exact_btd = x_btd / np.sqrt((x_btd**2).mean(axis=-1, keepdims=True) + 1e-6) * (1 + scale_d)
  np.testing.assert_allclose(np.asarray(normed_btd, np.float64), exact_btd, rtol=1.001 * 2**-8, atol=0)


def test_weights_in_the_type_of_the_computation_give_the_same_numbers():
  config = dataclasses.replace(SHAPED["9b"], dtype="bfloat16")
  net = network.from_gemma(config, scoring_id=7)
  params = jax.tree.map(lambda x: x + 0.01, net.init(jax.random.key(0)))
  token_bt = jnp.asarray(np.random.default_rng(0).integers(0, config.vocab_size, (3, 9)), jnp.int32)
  stored = {**params, "layers": [jax.tree.map(lambda x: x[y], params["layers"]) for y in range(config.num_layers)]}
  hidden_btd = net.read(stored, token_bt)[0]
  drawing, scoring = net.computed(params), net.computed(params, scoring=True)
  down = [tree["layers"][2]["ffn"]["down"].dtype for tree in (drawing, scoring)]
  assert drawing["embedding"].dtype == down[0] == down[1] == jnp.bfloat16
  assert drawing["final_norm"]["scale"].dtype == scoring["embedding"].dtype == jnp.float32
  np.testing.assert_array_equal(net.logits(drawing, net.read(drawing, token_bt)[0]), net.logits(params, hidden_btd))
  np.testing.assert_array_equal(net.scores(scoring, net.read(scoring, token_bt)[0]), net.scores(params, hidden_btd))


def test_flops_of_a_case_counted_by_hand():
  """A local layer of window 2 and a global one, d = 4, 2 heads on 1, e = 2, f = 3, v = 5; tokens 1 and 2 of 3."""
  config = gemma.GemmaConfig(2, 4, 2, 1, 2, 3, 1.0, vocab_size=5, window=2)
  matrices = 4 * 4 + 4 * 2 * 2 + 4 * 4 + 3 * 4 * 3  # query, key and value, out, gate and up and down
  pairs = (2 + 2) + (2 + 3)  # local: both see 2 keys; global: 2 and 3
  by_hand = 2 * (2 * 2 * matrices) + (2 + 2) * 2 * 2 * pairs + 2 * 5 * 4
  assert size.forward_flops(config, 1, 3, logit_count=1) == by_hand


def test_flops_add_up_and_respect_the_window():
  config = SHAPED["9b"]  # local, global, local; window 5
  b = np.arange(30)
  whole = size.forward_flops(config, 0, b)
  for a in range(30):
    np.testing.assert_array_equal(
        size.forward_flops(config, 0, a) + size.forward_flops(config, a, b[a:]), whole[a:])
  seen = lambda position: 2 * min(position + 1, config.window) + position + 1
  no_keys = size.forward_flops(config, 0, 1) - 4 * 6 * 8 * 3
  brute = [n * no_keys + 4 * 6 * 8 * sum(seen(i) for i in range(n)) for n in range(30)]
  np.testing.assert_array_equal(whole, brute)


def test_flops_are_what_xla_counts():
  """A scan's body is counted once, hence one layer; XLA multiplies masked pairs too."""
  config, t = gemma.GemmaConfig(1, 128, 4, 2, 32, 512, 32**-0.5, vocab_size=1000), 64
  net = network.from_gemma(config, scoring_id=7)
  params = jax.eval_shape(net.init, jax.random.key(0))
  read = jax.jit(lambda params, token_bt: net.logits(params, net.hidden(params, token_bt)))
  counted = read.lower(params, jax.ShapeDtypeStruct((1, t), jnp.int32)).compile().cost_analysis()["flops"]
  masked = 4 * config.num_heads * config.head_width * t * (t - 1) // 2
  assert counted == pytest.approx(size.forward_flops(config, 0, t, t) + masked, rel=0.05)
