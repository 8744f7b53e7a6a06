"""Our SentencePiece vocabularies: the frame, the round trip, one piece a word."""

import io
import re
import types

import numpy as np
import pytest
import sentencepiece

from pav_jax.errors import UserError
from pav_jax.problems import prepared
from pav_jax.problems import steps
from pav_jax.problems import vocabulary

TEXTS = [f"Ann has {i} mod 40. 1: Ann +{i % 9} Bob *{i % 7} 2: Bob -3 Ann +5\n1: +{i % 9} = {i * 3 % 40}\n#### {i}"
         for i in range(40)] * 20
WORDS = "Ann has 12 mod 40. 1: Ann +5 Bob *3\n1: +5 = 17\n#### 17"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return vocabulary.train(TEXTS, 400, tmp_path_factory.mktemp("vocabulary") / "tokenizer.model")


def test_frame(trained):
  assert (trained.pad_id, trained.eos_id, trained.bos_id, trained.unk_id) == (0, 1, 2, 3)
  assert trained.size == 400 and trained._processor.EncodeAsIds("<unused0>") == [trained.scoring_id]
  assert trained.decode([2, *trained.encode("Ann"), 1, 0]) == "Ann"


def test_one_piece_a_word(trained):
  words = re.findall(r"\S+|\n", WORDS)
  assert len(trained.encode(WORDS)) <= 1.1 * len(words)


@pytest.mark.parametrize("text", [WORDS, "", " ", " a", "a ", "  two  spaces ", "\n\n a\n", "\t\r\n", "é ☃ 𝄞",
                                  "a\x00b", r"\frac{1}{2}", "<eos>", "<0x0A>",
                                  "<unused0>", "a <unused0><unused1> b", "<<unused0>>", "<unused0"])
def test_round_trip(trained, text):
  ids = trained.encode(text)
  assert trained.decode(ids) == text and trained.decode(np.array(ids, np.int32)) == text
  assert not {0, 1, 2, 3, trained.scoring_id} & set(ids)


def test_the_rule_of_steps_is_that_of_the_problems(trained, tmp_path):
  (tmp_path / "vocabulary.model").write_bytes(open(trained.path, "rb").read())
  facts = {"vocabulary": trained.fingerprint, "steps": "blank"}
  folder = types.SimpleNamespace(path=tmp_path, manifest=lambda: {"facts": facts})
  ids = np.array(trained.encode("a\nb\n\n"))
  assert [len(steps.split(ids, prepared.vocabulary(folder).step_rule)), len(steps.split(ids, trained.step_rule))] == [1, 2]
  del facts["steps"]  # made before there was a choice
  assert len(steps.split(ids, prepared.vocabulary(folder).step_rule)) == 2


def test_newlines_never_hide(trained):
  """No piece of ours holds a newline and something else; the byte <0x0A> is a newline, too."""
  rule = trained.step_rule
  ends_vs = rule.ends_cs[rule.class_v]
  assert len(ends_vs) == 400 and rule.begun_s.tolist() == [False, True]
  assert [trained.decode([int(i)]) for i in np.flatnonzero(ends_vs[:, 1])] == ["", "\n", "\n"]  # eos is the first
  ids = np.array(trained.encode("1: +5 = 17\n\n2: -3 = 14\nAnn\n"))
  assert trained.decode(np.concatenate(steps.split(ids, rule)[:2])) == "1: +5 = 17\n\n2: -3 = 14\n"
  # Control pieces are content; white space is none, be it a piece or bytes, but half a letter is.
  content_v = rule.next_cs[rule.class_v, 0] == 1
  assert content_v[[0, 2, 3]].all() and not content_v[trained.encode(" \t\r\n  ")].any() and content_v[trained.encode("\u00e0")].all()


def test_the_rule_of_steps_travels_with_the_vocabulary(trained):
  assert vocabulary.load(trained.path, "blank").step_rule.begun_s.tolist().count(True) == 2
  with pytest.raises(UserError, match="problems.steps 'line' is none of newline, blank, outside"):
    vocabulary.load(trained.path, "line").step_rule


def test_same_texts_same_file(trained, tmp_path):
  again = vocabulary.train(iter(TEXTS), 400, tmp_path / "again.model")
  assert again.fingerprint == trained.fingerprint == vocabulary.load(tmp_path / "again.model").fingerprint
  other = vocabulary.train(TEXTS, 390, tmp_path / "other.model")
  assert other.fingerprint != trained.fingerprint


def test_long_lines_count(tmp_path):
  words = [f"w{i}" for i in range(30)]
  long = vocabulary.train([" ".join(words * 400)], 330, tmp_path / "long.model")
  assert len(long.encode("w1 w2 w3")) == 3


@pytest.mark.parametrize("size, reason", [(100, "smaller than required_chars"), (5_000, "size too high")])
def test_sizes_that_cannot_be(tmp_path, size, reason):
  with pytest.raises(UserError, match=f"cannot train {size} pieces: .*{reason}") as error:
    vocabulary.train(TEXTS, size, tmp_path / "a.model")
  assert "\n" not in str(error.value) and not (tmp_path / "a.model").exists()


def test_no_text(tmp_path):
  with pytest.raises(UserError, match="no text"):
    vocabulary.train(["\n"], 300, tmp_path / "a.model")


def _foreign(tmp_path, **options):
  buffer = io.BytesIO()
  lines = [line for text in TEXTS[:40] for line in text.split("\n")]
  defaults = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "byte_fallback": True, "vocab_size": 300,
              "user_defined_symbols": ["<unused0>", "\n"], "normalization_rule_name": "identity",
              "add_dummy_prefix": False, "remove_extra_whitespaces": False, "hard_vocab_limit": False}
  sentencepiece.SentencePieceTrainer.Train(sentence_iterator=iter(lines), model_writer=buffer, model_type="bpe",
                                           minloglevel=2, **{**defaults, **options})
  path = tmp_path / "foreign.model"
  path.write_bytes(buffer.getvalue())
  return path


@pytest.mark.parametrize("options, reason", [
    ({"pad_id": 3, "unk_id": 0}, "pad has id 3"),
    ({"user_defined_symbols": ["\n"]}, "no piece '<unused0>'"),
    ({"user_defined_symbols": ["<unused0>"], "byte_fallback": False}, "no piece holds a newline"),
    ({"add_dummy_prefix": True}, "white space"),
    ({"remove_extra_whitespaces": True}, "white space"),
])
def test_foreign_vocabularies_without_what_is_needed(tmp_path, options, reason):
  vocabulary.load(_foreign(tmp_path))
  with pytest.raises(UserError, match=reason):
    vocabulary.load(_foreign(tmp_path, **options))


def test_a_newline_with_something_else_is_both(tmp_path):
  foreign = vocabulary.load(_foreign(tmp_path, user_defined_symbols=["<unused0>", "\n", "\n\n", ".\n"]))
  ids = np.array(foreign.encode(".\n\n\n.\n"))
  assert [foreign.decode(part) for part in steps.split(ids, foreign.step_rule)] == [".\n", "\n\n.\n"]


def test_files_that_are_no_vocabulary(tmp_path, trained):
  with pytest.raises(UserError, match="No such file"):
    vocabulary.load(tmp_path / "absent.model")
  for content in (b"", b"rubbish", open(trained.path, "rb").read()[:200]):
    (tmp_path / "broken.model").write_bytes(content)
    with pytest.raises(UserError, match="broken.model"):
      vocabulary.load(tmp_path / "broken.model")


def test_too_few_rows_in_the_model(trained):
  trained.check_rows(400)
  with pytest.raises(UserError, match="400 pieces, but the model embeds only 399"):
    trained.check_rows(399)


def test_short_lines_train_too(tmp_path):
  """The trainer refuses to be told that no line is longer than nine bytes."""
  assert vocabulary.train(["a b\nc d"] * 9, 268, tmp_path / "short.model").decode([4]) == "<unused0>"
