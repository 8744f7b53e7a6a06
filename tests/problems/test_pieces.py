"""A vocabulary as GGUF has it gives the ids of the SentencePiece model that it was made from."""

import gguf
import numpy as np
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from pav_jax.errors import UserError
from pav_jax.problems import pieces
from pav_jax.problems import vocabulary as vocabulary_lib

TEXTS = ["Ann has 12 apples.\nShe eats  three, and\n\n  gives  5 away: 12 - 3 - 5 = 4.\n#### 4"] * 30
SAID = ["12 - 3", "a  b   c", "\n\n\n", "é ☃ <unused0> <unused1>", "  Ann\n", "#### 4", ""]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
  """A model with Gemma's peculiarities: runs of spaces and controls in text are user-defined pieces."""
  path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
  vocabulary_lib.train(TEXTS, 330, path)
  model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
  for piece in ("▁▁", "▁▁▁", "<unused1>"):
    model.pieces.add(piece=piece, score=0.0, type=4)
  path.write_bytes(model.SerializeToString())
  return path


def metadata_of(path) -> dict:
  """What llama.cpp's converter makes of the model."""
  model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
  kinds = [3 if x.type == 4 and x.piece.startswith("<unused") else x.type for x in model.pieces]
  return {"tokenizer.ggml.model": "llama",
          "tokenizer.ggml.tokens": [x.piece.replace("▁", " ") if x.type == 4 else x.piece for x in model.pieces],
          "tokenizer.ggml.scores": np.array([x.score for x in model.pieces], np.float32),
          "tokenizer.ggml.token_type": np.array([3 if i == 3 else kind for i, kind in enumerate(kinds)], np.int32),
          **{f"tokenizer.ggml.{name}_token_id": i for i, name in enumerate(("padding", "eos", "bos", "unknown"))}}


def test_ids_are_the_originals(original):
  ours = sentencepiece.SentencePieceProcessor(model_proto=original.read_bytes())
  found = sentencepiece.SentencePieceProcessor(model_proto=pieces.of_gguf(metadata_of(original), "x.gguf"))
  assert [found.IdToPiece(i) for i in range(len(found))] == [ours.IdToPiece(i) for i in range(len(ours))]
  for text in SAID + TEXTS[:1]:
    assert found.EncodeAsIds(text) == ours.EncodeAsIds(text), text
    assert found.DecodeIds(found.EncodeAsIds(text)) == text
  assert found.IsUnknown(3) and all(found.IsControl(i) for i in range(3))


def test_a_vocabulary_is_read_from_a_file_a_folder_and_gguf(original, tmp_path):
  writer = gguf.GGUFWriter(tmp_path / "model.gguf", "gemma3")
  said = metadata_of(original)
  writer.add_tokenizer_model("llama")
  writer.add_token_list(said["tokenizer.ggml.tokens"])
  writer.add_token_scores(said["tokenizer.ggml.scores"].tolist())
  writer.add_token_types(said["tokenizer.ggml.token_type"].tolist())
  for i, name in enumerate(("padding", "eos", "bos", "unknown")):
    writer.add_uint32(f"tokenizer.ggml.{name}_token_id", i)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  found = [vocabulary_lib.load(path) for path in (original, original.parent, tmp_path / "model.gguf", tmp_path)]
  for text in SAID:
    assert len({tuple(x.encode(text)) for x in found}) == 1
  assert len({x.scoring_id for x in found}) == 1 and len({x.size for x in found}) == 1
  with pytest.raises(UserError, match="no tokenizer.model in this folder"):
    vocabulary_lib.load(tmp_path.parent)


@pytest.mark.parametrize("change, said", [
    ({"tokenizer.ggml.model": "gpt2"}, "'gpt2'"), ({"tokenizer.ggml.bos_token_id": 1}, "bos"),
    ({"tokenizer.ggml.scores": np.zeros(3, np.float32)}, "one length"), ({"tokenizer.ggml.tokens": None}, "three lists"),
    ({"tokenizer.ggml.token_type": np.full(333, 9, np.int32)}, "piece 0 is of the unknown kind 9")])
def test_another_familys_is_refused(change, said, original):
  with pytest.raises(UserError, match=said):
    pieces.of_gguf(metadata_of(original) | change, "x.gguf")
