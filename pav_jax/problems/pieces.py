"""A GGUF file's vocabulary as the SentencePiece model that it was made from.

Pieces, scores and kinds are copied, but for what the makers of such files
changed: Gemma's runs of spaces stand there with spaces, where SentencePiece
has U+2581, and its control pieces in text (`<start_of_turn>`, `<unused0>`)
are of kind "control", where they were "user defined", which is read as one piece.
"""

from collections.abc import Mapping

from sentencepiece import sentencepiece_model_pb2

from pav_jax.errors import UserError

_KIND = sentencepiece_model_pb2.ModelProto.SentencePiece
_CONTROL, _USER_DEFINED = 3, 4
_FRAME = 3  # pad, eos and bos are controls, unknown is next


def of_gguf(metadata: Mapping, path: str) -> bytes:
  """The model, serialised. metadata: of the file; UserError, which names path, where its tokenizer is of another family."""
  said = {name: metadata.get(f"tokenizer.ggml.{name}") for name in (
      "model", "tokens", "scores", "token_type", "padding_token_id", "eos_token_id", "bos_token_id", "unknown_token_id")}
  ids = [said[f"{name}_token_id"] for name in ("padding", "eos", "bos", "unknown")]
  if said["model"] != "llama" or ids != [0, 1, 2, 3]:
    raise UserError(f"vocabulary {path}: it is of kind {said['model']!r} with pad, eos, bos, unk {ids}: Gemma's is 'llama' with 0, 1, 2, 3")
  columns = [said[name] for name in ("tokens", "scores", "token_type")]
  if any(x is None for x in columns) or len({len(x) for x in columns}) > 1 or not isinstance(columns[0], list):
    raise UserError(f"vocabulary {path}: tokens, scores and token_type are not three lists of one length")
  model = sentencepiece_model_pb2.ModelProto()
  for i, (piece, score, kind) in enumerate(zip(columns[0], columns[1].tolist(), columns[2].tolist())):
    if i == _FRAME:
      kind = _KIND.UNKNOWN
    elif kind == _CONTROL and i > _FRAME:
      kind = _USER_DEFINED
    if kind not in _KIND.Type.values() or not isinstance(piece, str):
      raise UserError(f"vocabulary {path}: piece {i} is of the unknown kind {kind}")
    model.pieces.add(piece=piece.replace(" ", "▁") if kind == _USER_DEFINED else piece, score=score, type=kind)
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  trainer.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
  trainer.vocab_size = len(model.pieces)
  trainer.byte_fallback = True
  trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = range(4)
  trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = (x.piece for x in model.pieces[:4])
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = False
  normalizer.escape_whitespaces = True
  return model.SerializeToString()
