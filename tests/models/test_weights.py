"""Official checkpoints on disk: they come back as they went, or one line says why not."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.models import gemma
from pav_jax.models import network
from pav_jax.models import weights
from pav_jax.models.formats import official
from pav_jax.training import checkpoint
from tests.models import official_weights
from tests.models.official_weights import refused

CONFIG = gemma.GemmaConfig(2, 12, 4, 2, 6, 20, 6**-0.5, vocab_size=16)


def _params(config=CONFIG):
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(network.from_gemma(config, scoring_id=7).init, jax.random.key(0))
  return jax.tree.map(lambda x: np.asarray(rng.standard_normal(x.shape), x.dtype), shapes)


def _assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "official"
  weights.save_official(path, _params(), CONFIG)
  return path


def test_the_layout_is_the_published_one():
  tree = weights.to_official(_params(), CONFIG)
  layer = {
      "attn/q_einsum": {"w": (4, 12, 6)}, "attn/kv_einsum": {"w": (2, 2, 12, 6)},
      "attn/attn_vec_einsum": {"w": (4, 6, 12)},
      "mlp/gating_einsum": {"w": (2, 12, 20)}, "mlp/linear": {"w": (20, 12)},
      "pre_attention_norm": {"scale": (12,)}, "post_attention_norm": {"scale": (12,)},
      "pre_ffw_norm": {"scale": (12,)}, "post_ffw_norm": {"scale": (12,)},
  }
  expected = {f"transformer/layer_{i}/{name}": leaf for i in range(2) for name, leaf in layer.items()}
  expected |= {"transformer/embedder": {"input_embedding": (16, 12)}, "transformer/final_norm": {"scale": (12,)}}
  assert jax.tree.map(np.shape, tree) == expected


@pytest.mark.parametrize("config", [
    CONFIG,
    dataclasses.replace(CONFIG, param_dtype="bfloat16"),
    dataclasses.replace(CONFIG, width=20),  # d = f: the shape does not tell gating's axes
], ids=["float32", "bfloat16", "square"])
@pytest.mark.parametrize("transposed", [False, True])
def test_there_and_back_is_the_identity(config, transposed, monkeypatch):
  monkeypatch.setattr(official, "transposed_gating", lambda config: transposed)
  params = _params(config)
  tree = weights.to_official(params, config)
  if config.width != config.ffn_width:
    assert (tree["transformer/layer_0/mlp/gating_einsum"]["w"].shape == (2, 20, 12)) == transposed
  _assert_same(official_weights.from_tree(tree, config), params)
  _assert_same(weights.to_official(official_weights.from_tree(tree, config), config), tree)


def test_a_checkpoint_on_disk_comes_back(saved):
  _assert_same(official_weights.load(saved, CONFIG), _params())


def test_a_relative_path_is_written_where_it_points(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  weights.save_official("here", _params(), CONFIG)
  _assert_same(official_weights.load("here", CONFIG), _params())


def test_a_checkpoint_in_a_bucket_comes_back(bucket):
  weights.save_official("gs://bucket/official", _params(), CONFIG)
  assert "bucket/official/_METADATA" in bucket.objects
  _assert_same(official_weights.load("gs://bucket/official", CONFIG), _params())
  assert weights.is_foreign("gs://bucket/official")
  with pytest.raises(UserError, match="gs://bucket/nowhere: no such checkpoint"):
    official_weights.load("gs://bucket/nowhere", CONFIG)


def test_flat_and_nested_checkpoints_hold_the_same(saved, tmp_path):
  nested = {}
  for module, leaves in weights.to_official(_params(), CONFIG).items():
    *above, last = module.split("/")[1:]
    inner = functools.reduce(lambda tree, name: tree.setdefault(name, {}), above, nested)
    inner[last] = leaves["w"] if last in ("linear", "gating_einsum") else leaves  # as gm has it
  checkpoint.save_tree(tmp_path / "nested", nested)
  _assert_same(official_weights.load(tmp_path / "nested", CONFIG), _params())


def test_loading_casts_to_the_parameters_type(saved):
  loaded = official_weights.load(saved, dataclasses.replace(CONFIG, param_dtype="bfloat16"))
  _assert_same(loaded, jax.tree.map(lambda x: x.astype(jnp.bfloat16), _params()))


@pytest.mark.parametrize("change,words", [
    (dict(vocab_size=17), ["embedder/input_embedding", "(16, 12)", "(17, 12)"]),
    (dict(num_layers=3), ["2 layers", "3"]),
    (dict(num_layers=1), ["2 layers", "1"]),
    (dict(num_kv_heads=1), ["layer_0/attn/kv_einsum/w", "(2, 2, 12, 6)", "(2, 1, 12, 6)"]),
    (dict(ffn_width=24), ["layer_0/mlp/gating_einsum/w", "(2, 12, 20)", "(2, 12, 24)"]),
    (dict(num_kv_heads=4), ["num_kv_heads"]),
])
def test_another_architecture_is_refused_before_weights_are_read(saved, change, words, monkeypatch):
  def read(*_):
    raise AssertionError("weights were read")
  monkeypatch.setattr(checkpoint, "read_leaf", read)
  refused(lambda: official_weights.load(saved, dataclasses.replace(CONFIG, **change)), saved, *words)


@pytest.mark.parametrize("name,change", [
    ("final_norm/scale is missing", lambda tree: tree.pop("transformer/final_norm")),
    ("layer_1/mlp/linear/w is missing", lambda tree: tree.pop("transformer/layer_1/mlp/linear")),
    ("layer_1/attn/_key_norm/scale belongs to no Gemma of this shape",
     lambda tree: tree.update({"transformer/layer_1/attn/_key_norm": {"scale": np.zeros(6)}})),
])
def test_missing_and_foreign_leaves_are_named(name, change):
  tree = weights.to_official(_params(), CONFIG)
  change(tree)
  refused(lambda: official_weights.from_tree(tree, CONFIG), name)


def test_a_path_without_checkpoint_isrefused(tmp_path):
  refused(lambda: official_weights.load(tmp_path / "nowhere", CONFIG), tmp_path / "nowhere", "no such checkpoint")
  refused(lambda: official_weights.load(tmp_path, CONFIG), tmp_path, "not a readable Gemma checkpoint")
  (tmp_path / "file").write_text("weights")
  refused(lambda: official_weights.load(tmp_path / "file", CONFIG), tmp_path / "file", "not a readable")


def test_damaged_files_are_refused_or_harmless(saved, tmp_path):
  """Each file cut in half: a clear line, or (where orbax has it twice) the right weights; never wrong ones."""
  refused = 0
  for file in sorted(p for p in saved.rglob("*") if p.is_file()):
    copy = tmp_path / "copy"
    shutil.copytree(saved, copy)
    damaged = copy / file.relative_to(saved)
    damaged.write_bytes(damaged.read_bytes()[:damaged.stat().st_size // 2])
    try:
      _assert_same(official_weights.load(copy, CONFIG), _params())
    except UserError as error:
      assert str(copy) in str(error) and "\n" not in str(error)
      refused += 1
    shutil.rmtree(copy)
  assert refused >= 3  # its metadata, its manifest, its data


def test_nothing_is_overwritten(saved):
  refused(lambda: weights.save_official(saved, _params(), CONFIG), saved, "cannot be written")
