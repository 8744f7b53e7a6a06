"""Token ids of a text and back: SentencePiece, Gemma's vocabulary or one of ours.

Ours has Gemma's frame (pad 0, eos 1, bos 2, unk 3, bytes for what has no
piece, `<unused0>` as the scoring token), so that nothing downstream asks
which of the two it holds. `encode` adds neither bos nor eos.

Text never becomes a control token, whatever it spells: SentencePiece spells
`<eos>` in pieces by itself, and `encode` does the same for `<unused0>` and its
like, which SentencePiece would read as one piece.
"""

import functools
import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.problems import pieces
from pav_jax.problems import steps as steps_lib
from pav_jax.training import files

# It announces every model it reads.
sentencepiece.set_min_log_level(2)

SCORING_PIECE = "<unused0>"
# Within these, text is cut before it is encoded: no piece reaches over the cut.
_UNUSED = re.compile(r"(?<=<)(?=unused\d+>)")
_SPARE_ROWS = 256  # published embeddings are padded to a multiple of 64 or 128
_FRAME = {"pad": 0, "eos": 1, "bos": 2, "unk": 3}


class Vocabulary:
  """A SentencePiece model, read once from its bytes."""

  def __init__(self, model: bytes, path: str, steps: str = "newline"):
    """Reads `model`; `path` is only named in messages; steps: the rule that ends them."""
    self.path, self._steps = path, steps
    self.fingerprint = hashlib.sha256(model).hexdigest()
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(model)
    except (RuntimeError, OSError) as error:
      raise UserError(f"vocabulary {path}: not a SentencePiece model") from error
    self.size = self._processor.GetPieceSize()
    for name, expected in _FRAME.items():
      found = getattr(self._processor, f"{name}_id")()
      if found != expected:
        raise UserError(f"vocabulary {path}: {name} has id {found}; Gemma's frame wants {expected}")
    self.pad_id, self.eos_id, self.bos_id, self.unk_id = _FRAME.values()
    self.scoring_id = self._processor.PieceToId(SCORING_PIECE)
    if self.scoring_id == self.unk_id:
      raise UserError(f"vocabulary {path}: no piece {SCORING_PIECE!r}, the scoring token")
    if not any("\n" in self._text(i) for i in range(self.size)):
      raise UserError(f"vocabulary {path}: no piece holds a newline, so steps would never end")
    # A space put in front of every text would stand between a prompt and its response.
    if self.decode(self.encode("  a \n\n b ")) != "  a \n\n b " or not all("\n" in self._text(i) for i in self.encode("\n")):
      raise UserError(f"vocabulary {path}: it changes white space; train it with identity and no dummy prefix")

  def _text(self, i: int) -> str:
    if self._processor.IsControl(i):
      return ""
    piece = self._processor.IdToPiece(i)
    if self._processor.IsByte(i):  # from 128 on a part of a character, which is seen
      return chr(byte) if (byte := int(piece[3:-1], 16)) < 128 else "\ufffd"
    return piece.replace("▁", " ")

  @functools.cached_property
  def step_rule(self) -> steps_lib.Rule:
    """What ends a step of this run, as tables over the pieces."""
    return steps_lib.rule_of(self._steps, [self._text(i) for i in range(self.size)], self.eos_id)

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without bos and eos, and never the scoring token's."""
    if "<unused" not in text:
      return self._processor.EncodeAsIds(text)
    return [i for part in _UNUSED.split(text) for i in self._processor.EncodeAsIds(part)]

  def holds(self, piece: str) -> bool:
    """Whether there is such a piece."""
    return self._processor.PieceToId(piece) != self.unk_id

  def decode(self, ids: Sequence[int] | np.ndarray) -> str:
    """The text of `ids`; control pieces (pad, eos, bos) have none."""
    return self._processor.DecodeIds([int(i) for i in ids])

  def check_rows(self, rows: int, published: bool = False) -> None:
    """Raises UserError unless an embedding of `rows` rows holds every piece (Gemma's holds more).

    published: of weights of others, which have a row for each piece and few more; else the pieces are another family's.
    """
    if rows < self.size:
      raise UserError(f"vocabulary {self.path}: {self.size} pieces, but the model embeds only {rows}")
    if published and rows > self.size + _SPARE_ROWS:
      raise UserError(f"vocabulary {self.path}: {self.size} pieces, and the weights embed {rows}: it is of another family; give "
                      "vocabulary.path, the weights' own tokenizer.model")


def load(path: str | os.PathLike, steps: str = "newline") -> Vocabulary:
  """The vocabulary at `path`, as in `model_of`. steps: as in `Vocabulary`."""
  return Vocabulary(model_of(path), str(path), steps)


def model_of(path: str | os.PathLike) -> bytes:
  """The SentencePiece model at a path: Gemma's `tokenizer.model`, one that `train` wrote, a folder with a `tokenizer.model`, a GGUF file."""
  # Only here, and in `given`: these import jax, and who reads problems alone does without.
  from pav_jax.models.formats import gguf_file
  path = files.path(path)
  with files.told(path, "read"):
    folder = path.is_dir()
    if folder and not (path / "tokenizer.model").exists():
      ggufs = [x for x in path.iterdir() if x.suffix == ".gguf"]
      if len(ggufs) != 1:
        raise UserError(f"vocabulary {path}: there is no tokenizer.model in this folder: name a SentencePiece file in its place (vocabulary.path)")
      path, folder = ggufs[0], False
    if not folder and path.exists() and gguf_file.is_ours(path):
      return pieces.of_gguf(gguf_file.metadata(path), str(path))
  return files.read(path / "tokenizer.model" if folder else path)


def given(config) -> str:
  """The path of the vocabulary that a config's problems are read with: vocabulary.path, or the policy's weights, if they are of others.

  '' where one is to be trained. It is looked for and not yet read.
  """
  from pav_jax.models import weights
  start = config.policy.init_from
  return config.vocabulary.path or (start if start and weights.is_foreign(start) else "")


def check_fits(config, rows: int, where: str):
  """UserError where a model section, named `where`, embeds fewer rows than the vocabulary of the config will have."""
  path = given(config)
  if path and files.exists(files.path(path)):
    with errors.at(where):
      load(path).check_rows(rows)
  elif not path and rows < config.vocabulary.size:
    raise UserError(f"{where}.vocab_size {rows} is less than config.vocabulary.size {config.vocabulary.size}")


def train(texts: Iterable[str], size: int, path: str | os.PathLike) -> Vocabulary:
  """Trains a BPE of exactly `size` pieces and writes it; the same texts give the same file.

  Words are cut at white space alone, so that `Ann`, `+5` and `12` can become
  one piece each. The newline is a symbol of its own, which no merge crosses:
  a step's end never hides inside another piece.
  """
  # One line at a time: the trainer skips long sentences without a word.
  lines = [line for text in texts for line in text.split("\n") if line]
  if not lines:
    raise UserError(f"vocabulary {path}: no text to train on")
  buffer = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines), model_writer=buffer, model_type="bpe", vocab_size=size,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
        user_defined_symbols=[SCORING_PIECE, "\n"],
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        byte_fallback=True, split_by_number=False, split_by_unicode_script=False,
        character_coverage=1.0, max_sentence_length=max(10, *(len(line.encode()) + 1 for line in lines)),  # it takes no less than 10
        num_threads=1, minloglevel=2)
  except RuntimeError as error:
    # The trainer's own message carries the largest possible size, after its C++ source line.
    reason = " ".join(str(error).split("] ")[-1].split()) or "too few different characters or words"
    raise UserError(f"vocabulary {path}: cannot train {size} pieces: {reason}") from error
  vocabulary = Vocabulary(buffer.getvalue(), str(path))
  if vocabulary.size != size:
    raise UserError(f"vocabulary {path}: asked for {size} pieces, got {vocabulary.size}")
  files.write(files.path(path), buffer.getvalue())
  return vocabulary
