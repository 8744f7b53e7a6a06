"""Our networks against transformers on the same weights, by the folders that `publish` writes.

They run where torch and transformers are (`pip install torch transformers`), and one with published weights where
PAV_JAX_GGUF names a GGUF file of Gemma.
"""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pav_jax.models import gemma
from pav_jax.models import network
from pav_jax.models import weights
from pav_jax.models.formats import huggingface
from tests.models.test_weight_files import folder_of
from tests.models.test_weight_files import tensors_of

for _name in ("torch", "transformers"):
  pytest.importorskip(_name, reason=f"{_name} is not installed: nothing was compared with transformers")

import torch
import transformers

# Rows are longer than the window; caps bend; the third layer is global, its positions divided.
SHAPES = {
    "gemma2": gemma.GemmaConfig(3, 36, 4, 2, 8, 72, 8**-0.5, vocab_size=40, window=5, attention_cap=2.0, logit_cap=1.5),
    "gemma3": gemma.GemmaConfig(4, 36, 4, 1, 8, 72, 10**-0.5, vocab_size=40, window=5, attention_cap=0.0, logit_cap=0.0, qk_norm=True,
                                local_per_global=2, global_rope_base=1_000_000.0, global_rope_scale=8.0)}


def _random(config):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: np.asarray(0.3 * rng.standard_normal(x.shape), np.float32), weights.abstract(config))


def _hidden(config, params, token_bt):
  net = network.from_gemma(config, scoring_id=7)
  return net, jax.jit(net.hidden)(params, jnp.asarray(token_bt))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_transformers(name, tmp_path):
  config = SHAPES[name]
  params, token_bt = _random(config), np.random.default_rng(1).integers(3, 40, (2, 19))
  path = folder_of(tmp_path / "hf", config, tensors_of(params, config))
  model, told = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", output_loading_info=True)
  assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  assert {"gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}[name] == type(model).__name__
  with torch.inference_mode():
    theirs = model(torch.from_numpy(token_bt)).logits.numpy()
  net, hidden_btd = _hidden(config, params, token_bt)
  np.testing.assert_allclose(net.logits(params, hidden_btd), theirs, rtol=0, atol=2e-5)
  assert np.abs(theirs).max() > 0.5
  model.save_pretrained(tmp_path / "theirs")
  found = weights.look(tmp_path / "theirs")
  assert found.config == config
  jax.tree.map(np.testing.assert_array_equal, weights.load(found, found.config), params)


@pytest.mark.parametrize("name", SHAPES)
def test_a_reward_models_logit_is_the_score_before_cap_and_shift(name, tmp_path):
  config = SHAPES[name]
  params, token_bt = _random(config), np.random.default_rng(1).integers(3, 40, (2, 19))
  tensors = tensors_of(params, config) | {"score.weight": params["embedding"][7][None]}
  path = folder_of(tmp_path / "hf", config, tensors)
  (path / "config.json").write_text(json.dumps(huggingface.config_json(config, {"pad": 0, "eos": 1, "bos": 2}, "float32", score=True)))
  model, told = transformers.AutoModelForSequenceClassification.from_pretrained(path, attn_implementation="eager", output_loading_info=True)
  assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  with torch.inference_mode():
    x_b = model(torch.from_numpy(token_bt)).logits.numpy()[:, 0]
  net, hidden_btd = _hidden(config, params, token_bt)
  capped_b = config.logit_cap * np.tanh(x_b / config.logit_cap) if config.logit_cap else x_b
  np.testing.assert_allclose(net.scores(params, hidden_btd)[:, -1], capped_b, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_published_weights_through_a_folder_give_transformers_the_same_logits(tmp_path):
  if "PAV_JAX_GGUF" not in os.environ:
    pytest.skip("PAV_JAX_GGUF names no GGUF file of Gemma: published weights were not compared")
  from pav_jax import publish
  path = pathlib.Path(os.environ["PAV_JAX_GGUF"])
  publish.publish(str(path), str(tmp_path / "hf"))
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
  token_bt = np.array([tokenizer("Ann has 3 boxes of 12 pens and gives away 7. How many pens has she?\n3 * 12 = 36\n36 - 7 = 29\n").input_ids])
  with torch.inference_mode():
    theirs = model(torch.from_numpy(token_bt)).logits.double().log_softmax(-1).numpy()
  found = weights.look(path)
  params = weights.load(found, found.config)
  net, hidden_btd = _hidden(found.config, params, token_bt)
  ours = np.asarray(jax.nn.log_softmax(net.logits(params, hidden_btd)), np.float64)
  assert (np.exp(theirs) * (theirs - ours)).sum(-1).mean() <= 1e-6
