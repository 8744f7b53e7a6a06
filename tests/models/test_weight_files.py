"""Hugging Face's safetensors and GGUF: written by their own libraries, read to the bit; what is wrong is one line."""

import dataclasses
import json
import pickle
import struct

import gguf
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from pav_jax.models import architecture
from pav_jax.models import gemma
from pav_jax.models import weights
from pav_jax.models.formats import gguf_file
from pav_jax.models.formats import huggingface
from pav_jax.models.formats import names
from pav_jax.training import mesh as mesh_lib
from tests.models.official_weights import refused

GEMMA2 = gemma.GemmaConfig(2, 12, 4, 2, 6, 20, 6**-0.5, vocab_size=16)
GEMMA3 = gemma.GemmaConfig(3, 12, 4, 1, 6, 20, 5**-0.5, vocab_size=16, window=8, attention_cap=0.0, logit_cap=0.0, qk_norm=True,
                           local_per_global=2, global_rope_base=1_000_000.0, global_rope_scale=8.0)
BOTH = pytest.mark.parametrize("config", [GEMMA2, GEMMA3], ids=["gemma2", "gemma3"])
IDS = {"pad": 0, "eos": 1, "bos": 2}


def params_of(config, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: np.asarray(rng.standard_normal(x.shape), x.dtype), weights.abstract(config))


def same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def tensors_of(params, config, prefix="model."):
  return {prefix + name: x for name, x in weights.theirs(params, config, huggingface.TABLE)}


def folder_of(path, config, tensors, **changes):
  """A folder as transformers leaves it, of one shard."""
  path.mkdir(exist_ok=True)
  said = huggingface.config_json(config, IDS, "float32", score=False) | changes
  (path / "config.json").write_text(json.dumps(said))
  safetensors.numpy.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
  return path


def read(path, config, **changes):
  found = weights.look(path)
  return weights.load(found, dataclasses.replace(found.config, **changes))


@BOTH
def test_what_is_written_comes_back_to_the_bit(config, tmp_path):
  params = params_of(config)
  path = folder_of(tmp_path / "hf", config, tensors_of(params, config))
  assert weights.is_foreign(path) and weights.look(path).config == config
  same(read(path, config), params)


def test_a_matrix_lies_as_a_linear_layer_wants_it():
  """[out, in]; the heads of an output stand one after another, a pair are two tensors."""
  params = params_of(GEMMA3)
  layer = params["layers"]
  found = tensors_of(params, GEMMA3, "")
  x = np.random.default_rng(1).standard_normal(12).astype(np.float32)
  q_he = np.einsum("d,dhe->he", x, layer["attention"]["query"][1])
  np.testing.assert_allclose(found["layers.1.self_attn.q_proj.weight"] @ x, q_he.reshape(-1), rtol=1e-5)
  v_ge = np.einsum("d,dge->ge", x, layer["attention"]["key_value"][2, 1])
  np.testing.assert_allclose(found["layers.2.self_attn.v_proj.weight"] @ x, v_ge.reshape(-1), rtol=1e-5)
  np.testing.assert_allclose(found["layers.0.self_attn.o_proj.weight"] @ q_he.reshape(-1),
                             np.einsum("he,hed->d", q_he, layer["attention"]["out"][0]), rtol=1e-4)
  np.testing.assert_allclose(found["layers.0.mlp.up_proj.weight"] @ x, x @ layer["ffn"]["gate_up"][0, 1], rtol=1e-4)
  np.testing.assert_array_equal(found["layers.2.mlp.down_proj.weight"], layer["ffn"]["down"][2].T)
  np.testing.assert_array_equal(found["layers.1.self_attn.k_norm.weight"], layer["attention"]["key_norm"]["scale"][1])
  np.testing.assert_array_equal(found["norm.weight"], params["final_norm"]["scale"])


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "model.language_model."])
def test_every_prefix_in_use_is_known(prefix, tmp_path):
  params = params_of(GEMMA3)
  images = {"vision_tower.blocks.0.weight": np.zeros(3, np.float32)} if "language" in prefix else {}
  path = folder_of(tmp_path / "hf", GEMMA3, tensors_of(params, GEMMA3, prefix) | images)
  same(read(path, GEMMA3), params)
  assert weights.look(path).left_out == len(images)


def test_types_are_cast_to_the_parameters(tmp_path):
  params = params_of(GEMMA2)
  half = {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors_of(params, GEMMA2).items()}
  path = folder_of(tmp_path / "hf", GEMMA2, half)
  same(read(path, GEMMA2, param_dtype="bfloat16"), jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params))
  same(read(path, GEMMA2), jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params))


def test_a_tied_head_is_read_and_another_is_refused(tmp_path):
  params = params_of(GEMMA2)
  tensors = tensors_of(params, GEMMA2)
  head = tensors["model.embed_tokens.weight"]
  same(read(folder_of(tmp_path / "tied", GEMMA2, tensors | {"lm_head.weight": head}), GEMMA2), params)
  other = folder_of(tmp_path / "other", GEMMA2, tensors | {"lm_head.weight": head + 1})
  refused(lambda: read(other, GEMMA2), other, "lm_head.weight")


def test_shards_are_one_model_and_lie_where_the_mesh_wants_them(tmp_path, monkeypatch):
  monkeypatch.setattr(huggingface, "_SHARD", 2000)
  params = params_of(GEMMA2)
  tensors = tensors_of(params, GEMMA2)
  huggingface.save(tmp_path, huggingface.config_json(GEMMA2, IDS, "float32", score=False), iter(tensors.items()),
                   {name: x.nbytes for name, x in tensors.items()})
  assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3 and not (tmp_path / "model.safetensors").exists()
  mesh = mesh_lib.make_mesh(data=-1, fsdp=1, model=1)
  layout = mesh_lib.shardings(weights.abstract(GEMMA2), mesh, architecture.SHARDING)
  found = weights.load(weights.look(tmp_path), GEMMA2, layout)
  same(found, params)
  assert jax.tree.map(lambda x: x.sharding, found) == layout


# The configurations that are published, where their keys matter.
@pytest.mark.parametrize("said, size", [
    ({"model_type": "gemma2", "vocab_size": 256_128}, "gemma2_2b"),
    ({"model_type": "gemma2", "vocab_size": 256_128, "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46,
      "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 144}, "gemma2_27b"),
    ({"model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
      "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 512,
      "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None, "_sliding_window_pattern": 6,
      "final_logit_softcapping": None}, "gemma3_270m"),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "vocab_size": 262_144, "hidden_size": 2560,
      "intermediate_size": 10240, "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
      "sliding_window": 1024}}, "gemma3_4b")])
def test_published_configurations_are_the_sizes(said, size, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(said))
  assert huggingface.config_of(tmp_path / "config.json") == gemma.SIZES[size]


@pytest.mark.parametrize("size", [name for name in gemma.SIZES if name.startswith("gemma")])
@pytest.mark.parametrize("score", [False, True])
def test_a_configuration_comes_back(size, score, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(huggingface.config_json(gemma.SIZES[size], IDS, "float32", score)))
  assert huggingface.config_of(tmp_path / "config.json") == gemma.SIZES[size]


@pytest.mark.parametrize("change, words", [
    ({"model_type": "llama"}, ["model_type 'llama'"]), ({"rms_norm_eps": 1e-5}, ["rms_norm_eps"]),
    ({"hidden_activation": "silu"}, ["hidden_activation"]), ({"hidden_size": -1}, ["hidden_size -1"]),
    ({"num_hidden_layers": 10**30}, ["num_hidden_layers"]), ({"vocab_size": "16"}, ["vocab_size"]),
    ({"query_pre_attn_scalar": 0}, ["query_pre_attn_scalar"]), ({"attention_bias": True}, ["attention_bias"]),
    ({"layer_types": ["full_attention"] * 3}, ["layer_types"]), ({"rope_parameters": {"rope_type": "yarn"}}, ["rotary"]),
    ({"layer_types": ["full_attention", "sliding_attention"]}, ["layer_types"]),
    ({"hidden_size": 14}, ["embed_tokens.weight", "(16, 12)", "(16, 14)"]), ({"num_hidden_layers": 3, "layer_types": None}, ["2 layers", "3"]),
    ({"num_key_value_heads": 1}, ["layers.0.self_attn.k_proj.weight", "(12, 12)", "(6, 12)"])])
def test_a_configuration_that_says_something_else(change, words, tmp_path):
  path = folder_of(tmp_path / "hf", GEMMA2, tensors_of(params_of(GEMMA2), GEMMA2), **change)
  refused(lambda: read(path, GEMMA2), path, *words)


def test_tensors_that_are_missing_or_too_many_are_named(tmp_path):
  tensors = tensors_of(params_of(GEMMA2), GEMMA2)
  path = folder_of(tmp_path / "more", GEMMA2, tensors | {"model.layers.1.self_attn.q_norm.weight": np.zeros(6, np.float32)})
  refused(lambda: read(path, GEMMA2), "layers.1.self_attn.q_norm.weight belongs to no Gemma")
  less = {name: x for name, x in tensors.items() if name != "model.layers.1.mlp.up_proj.weight"}
  path = folder_of(tmp_path / "less", GEMMA2, less)
  refused(lambda: read(path, GEMMA2), "layers.1.mlp.up_proj.weight is missing")


def test_wrong_files_of_a_folder_are_one_line_before_any_weight_is_read(tmp_path, monkeypatch):
  tensors = tensors_of(params_of(GEMMA2), GEMMA2)
  path = folder_of(tmp_path / "hf", GEMMA2, tensors)
  shard = path / "model.safetensors"
  whole = shard.read_bytes()
  for content, said in ((whole[:len(whole) // 2], "not a whole safetensors file"), (b"", "not a whole"), (whole[:6], "not a whole"),
                        (struct.pack("<Q", 2**62) + whole[8:], "not a whole")):
    shard.write_bytes(content)
    refused(lambda: weights.look(path), shard, said)
  shard.unlink()
  refused(lambda: weights.look(path), path, "neither model.safetensors")
  (path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
  refused(lambda: weights.look(path), "pytorch_model.bin is a pickle", "safetensors")
  index = path / "model.safetensors.index.json"
  for where, said in (({"x": "../model.safetensors"}, "weight_map"), ({"x": 3}, "weight_map"), ([], "weight_map"),
                      ({"x": "model-1.safetensors"}, "the shard model-1.safetensors is missing")):
    index.write_text(json.dumps({"weight_map": where}))
    refused(lambda: weights.look(path), path, said)
  index.write_text("[" * 100_000)
  refused(lambda: weights.look(path), index, "no JSON object")
  shard.write_bytes(whole)
  index.write_text(json.dumps({"weight_map": dict.fromkeys([*tensors][1:], "model.safetensors")}))
  refused(lambda: weights.look(path), shard, "is in it")
  safetensors.numpy.save_file(tensors | {"model.norm.weight": np.zeros(12, np.int32)}, shard)
  index.unlink()
  refused(lambda: weights.look(path), "model.norm.weight is of type I32")


QUANTISED = gemma.GemmaConfig(2, 256, 2, 1, 256, 512, 256**-0.5, vocab_size=16, window=8, attention_cap=0.0, logit_cap=0.0, qk_norm=True,
                              local_per_global=5, global_rope_base=1_000_000.0)
KINDS = {"attn_q": "Q8_0", "attn_k": "Q5_0", "attn_v": "F16", "attn_output": "BF16", "ffn_down": "F32"}


def gguf_of(path, config, params, kinds=KINDS, **changes):
  """A file as llama.cpp's converter leaves it: norms 1 + scale; returns what the tensors were rounded to, by their names."""
  kind = "gemma3" if config.qk_norm else "gemma2"
  writer = gguf.GGUFWriter(path, changes.pop("architecture", kind))
  said = {"block_count": config.num_layers, "embedding_length": config.width, "feed_forward_length": config.ffn_width,
          "attention.head_count": config.num_heads, "attention.head_count_kv": config.num_kv_heads,
          "attention.key_length": config.head_width, "attention.value_length": config.head_width,
          "attention.sliding_window": config.window} | changes
  for key, value in said.items():
    writer.add_uint32(f"{kind}.{key}", value)
  writer.add_float32(f"{kind}.rope.freq_base", config.global_rope_base)
  writer.add_float32(f"{kind}.attention.layer_norm_rms_epsilon", 1e-6)
  rounded = {}
  for name, x in weights.theirs(params, config, gguf_file.TABLE):
    wanted = gguf.GGMLQuantizationType[kinds.get(name.split(".")[-2], "F32")]
    data = gguf.quantize(x, wanted)
    rounded[name] = gguf.dequantize(data, wanted).reshape(x.shape)
    writer.add_tensor(name, data, raw_dtype=wanted)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return rounded


def test_gguf_is_read_as_the_package_reads_it(tmp_path):
  path = tmp_path / "model.gguf"
  rounded = gguf_of(path, QUANTISED, params_of(QUANTISED))
  found = weights.look(path)
  assert weights.is_foreign(path) and found.config == QUANTISED
  assert {name: x.shape for name, x in found.tensors.items()} == {name: x.shape for name, x in rounded.items()}
  for name, x in rounded.items():
    np.testing.assert_array_equal(found.tensors[name].read(), x)
  params = weights.load(found, QUANTISED)
  np.testing.assert_array_equal(params["layers"]["attention"]["query"][1],
                                rounded["blk.1.attn_q.weight"].reshape(2, 256, 256).transpose(2, 0, 1))
  np.testing.assert_array_equal(params["layers"]["pre_ffn_norm"]["scale"][1], rounded["blk.1.ffn_norm.weight"] - 1)


@pytest.mark.parametrize("kind, block, size", [("Q4_K", 256, 144), ("Q6_K", 256, 210), ("Q5_0", 32, 22), ("Q8_0", 32, 34), ("BF16", 1, 2)])
def test_blocks_that_nothing_here_writes_are_read_as_the_package_reads_them(kind, block, size, tmp_path):
  """Any bytes are such blocks; of scales that are no numbers the package says what they come to."""
  raw = np.random.default_rng(0).integers(0, 120, (512, 256 // block * size), dtype=np.uint8)
  wanted = gguf.GGMLQuantizationType[kind]
  writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gemma3")
  said = {"block_count": 1, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 2, "attention.head_count_kv": 1,
          "attention.sliding_window": 8}
  for key, value in said.items():
    writer.add_uint32(f"gemma3.{key}", value)
  writer.add_tensor("blk.0.ffn_up.weight", raw, raw_dtype=wanted)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  tensor = weights.look(tmp_path / "model.gguf").tensors["blk.0.ffn_up.weight"]
  assert tensor.shape == (512, 256)
  np.testing.assert_array_equal(tensor.read(), gguf.dequantize(raw, wanted))


@BOTH
def test_norms_that_are_stored_as_one_more_come_back(config, tmp_path):
  """x - 1 in float32 is what bfloat16 held, to the bit."""
  params = params_of(config)
  params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
  gguf_of(tmp_path / "model.gguf", config, params, kinds={})
  found = weights.look(tmp_path / "model.gguf")
  params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
  same(weights.load(found, dataclasses.replace(config, param_dtype="bfloat16")), params)


def test_wrong_gguf_files_are_one_line(tmp_path):
  path = tmp_path / "model.gguf"
  gguf_of(path, QUANTISED, params_of(QUANTISED))
  whole = path.read_bytes()
  assert weights.look(path)
  huge = whole.replace(b"gemma3.block_count\x04\x00\x00\x00", b"gemma3.block_count\x09\x00\x00\x00")  # an array of 2^58 and more
  endless = bytearray(whole)
  endless[16:24] = struct.pack("<Q", 2**63)
  cases = [(whole[:n], "not a whole GGUF") for n in (0, 3, 20, 300, len(whole) // 2, len(whole) - 40)]
  cases += [(b"GGML" + whole[4:], "does not begin"), (whole[:4] + b"\x07" + whole[5:], "version 7"), (huge, "not a whole"), (bytes(endless), "")]
  for content, said in cases:
    path.write_bytes(content)
    refused(lambda: weights.look(path), path, said)
  gguf_of(path, QUANTISED, params_of(QUANTISED), architecture="llama")
  refused(lambda: weights.look(path), path, "architecture 'llama'")
  gguf_of(path, QUANTISED, params_of(QUANTISED), block_count=3)
  refused(lambda: read(path, QUANTISED), path, "2 layers", "3")
  gguf_of(path, QUANTISED, params_of(QUANTISED), **{"feed_forward_length": 500})
  refused(lambda: read(path, QUANTISED), path, "ffn_gate.weight", "(512, 256)", "(500, 256)")


def test_a_table_names_every_array_of_ours():
  """Each once, whole: what a table leaves out would stay empty."""
  for config in (GEMMA2, GEMMA3):
    wanted = {"/".join(str(key.key) for key in path): x.size for path, x in jax.tree_util.tree_leaves_with_path(weights.abstract(config))}
    for table in (huggingface.TABLE, gguf_file.TABLE, weights.official.table(True), weights.official.table(False)):
      found = {}
      for place in names.places(config, table).values():
        found[place.path] = found.get(place.path, 0) + int(np.prod(place.shape))
      assert found == wanted
