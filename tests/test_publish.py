"""A checkpoint as others load it: back again to the bit, with its vocabulary; and what cannot be written is one line."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from configs import default
from pav_jax import publish
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import weights
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import mesh as mesh_lib


def restored(path, vocabulary, **changes):
  return architecture.restore(str(path), default.model(size="", **changes), vocabulary, mesh_lib.make_mesh(data=-1, fsdp=1, model=1))


@pytest.fixture(scope="module")
def vocabulary(made):
  return vocabulary_lib.load(made / "problems/test/vocabulary.model")


@pytest.mark.parametrize("format", publish.FORMATS)
def test_a_policy_comes_back_with_its_vocabulary(format, made, vocabulary, tmp_path, capsys):
  out = tmp_path / "out"
  assert publish.main([str(made / "sft/best"), f"--output={out}", f"--format={format}"]) == 0
  assert "a policy, " in capsys.readouterr().out
  arch, params = restored(made / "sft/best", vocabulary)
  section = {"size": "nano", "vocab_size": 400} if format == "orbax" else {}
  found_arch, found = restored(out, vocabulary_lib.load(out), **section) if not section else architecture.restore(
      str(out), default.model(**section), vocabulary_lib.load(out), mesh_lib.make_mesh(data=-1, fsdp=1, model=1))
  jax.tree.map(np.testing.assert_array_equal, found, params)
  assert found_arch.config == arch.config and found_arch.vocabulary_fingerprint == arch.vocabulary_fingerprint
  # Weights that learnt no English are told so.
  assert "random weights, another tokenizer" in capsys.readouterr().err


def test_a_verifier_is_a_reward_model_whose_head_is_one_row(made, vocabulary, tmp_path):
  found = publish.publish(str(made / "verifier/q/best"), str(tmp_path / "out"), dtype="bfloat16")
  assert found["kind"] == "q"
  tensors = safetensors.numpy.load_file(tmp_path / "out/model.safetensors")
  assert {x.dtype.name for x in tensors.values()} == {"bfloat16"} and tensors["score.weight"].shape == (1, 64)
  np.testing.assert_array_equal(tensors["score.weight"][0], tensors["model.embed_tokens.weight"][vocabulary.scoring_id])
  said = json.loads((tmp_path / "out/config.json").read_text())
  assert said["architectures"] == ["Gemma2ForSequenceClassification"] and said["pav_jax"] == {"kind": "q", "cap": 30.0, "shift": 0.0}
  assert said["num_labels"] == 1 and said["dtype"] == "bfloat16"


def test_what_cannot_be_written_is_one_line(made, tmp_path, capsys):
  (tmp_path / "there").mkdir()
  (tmp_path / "there/file").write_text("")
  for checkpoint, output, said in ((made / "sft/best", tmp_path / "there", "is there already"), (tmp_path / "nosuch", tmp_path / "x", "no such folder")):
    assert publish.main([str(checkpoint), f"--output={output}"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
  assert not (tmp_path / "x").exists()


def test_weights_of_others_say_what_a_section_does_not(made, vocabulary, tmp_path):
  publish.publish(str(made / "sft/best"), str(tmp_path / "hf"))
  path = str(tmp_path / "hf")
  assert architecture.shape(default.model(size="", vocab_size=7), path).vocab_size == 400
  assert architecture.shape(default.model(size="nano", vocab_size=400), path) == architecture.shape(default.model(size=""), path)
  with pytest.raises(UserError, match=r"width 64 \(not 96\)"):
    architecture.shape(default.model(size="micro", vocab_size=400), path)
  with pytest.raises(UserError, match=r"vocab_size 400 \(not 376\)"):
    architecture.shape(default.model(size="nano"), path)
  with pytest.raises(UserError, match="there are none"):
    architecture.shape(default.model(size=""))
  small = vocabulary_lib.train(["1 + 1 = 2\n", "2 * 3 = 6\n"] * 9, 272, tmp_path / "other.model")
  small.check_rows(400, published=True)
  with pytest.raises(UserError, match="another family"):
    small.check_rows(600, published=True)
  config = default.get_config()
  assert vocabulary_lib.given(config) == ""
  config.policy.init_from = path
  assert vocabulary_lib.given(config) == path and vocabulary_lib.load(path).fingerprint == vocabulary.fingerprint
  config.vocabulary.path = "mine"
  assert vocabulary_lib.given(config) == "mine" and not weights.is_foreign(made / "sft/best")
