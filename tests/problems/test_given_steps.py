"""Steps that others cut: encoded one by one, never joined as text, never split again."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import given
from pav_jax.problems import steps as steps_lib
from pav_jax.problems import vocabulary
from tests.made import TEXTS

EOS = 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  return vocabulary.train(TEXTS, 400, tmp_path_factory.mktemp("vocabulary") / "tokenizer.model")


@pytest.mark.parametrize("separator", ["\n", "\n\n", " "])
def test_tokens_are_the_steps_with_the_separators_ids_between(trained, separator):
  a, b, c, between = (trained.encode(text) for text in ("1: Ann +5", "Bob *3", "#### 17", separator))
  found = given.tokens(["1: Ann +5", "Bob *3", "#### 17"], trained, separator=separator)
  assert found.token_t.tolist() == a + between + b + between + c + [EOS]
  ends = np.cumsum([len(a + between), len(b + between), len(c) + 1]) - 1
  assert found.end_s.tolist() == ends.tolist()
  assert found.token_t.dtype == found.end_s.dtype == np.int32
  going_on = given.tokens(["1: Ann +5", "Bob *3"], trained, separator=separator, ended=False)
  assert going_on.token_t.tolist() == a + between + b + between and going_on.end_s.tolist() == ends[:2].tolist()


def test_joining_the_texts_would_give_other_ids(trained):
  """The reason why it is not done: here a step would lend its first word the separator."""
  found = given.tokens(["Ann", "Bob"], trained, separator=" ")
  assert found.token_t.tolist() != trained.encode("Ann Bob") + [EOS]
  assert trained.decode(found.token_t) == "Ann Bob"


def test_a_step_of_many_lines_stays_one(trained):
  steps = ["1: +5 = 17\n\n2: -3 = 14", "#### 14"]
  found = given.tokens(steps, trained, separator="\n")
  assert len(found.end_s) == 2 and trained.decode(found.token_t) == "\n".join(steps)
  assert len(given.cut("\n".join(steps), trained).end_s) == 3


@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n"])
def test_line_breaks_at_a_steps_end_are_the_separators(trained, end):
  plain, broken = (given.tokens(["1: +5" + x, "#### 5" + x], trained, separator="\n") for x in ("", end))
  assert plain.token_t.tolist() == broken.token_t.tolist() and plain.end_s.tolist() == broken.end_s.tolist()


def test_a_text_is_cut_as_a_stage_cuts_it(trained):
  """Where a text's lines are its steps, both ways give the same."""
  text = "1: +5 = 17\n2: -3 = 14\n#### 14"
  cut, listed = given.cut(text, trained), given.tokens(text.split("\n"), trained, separator="\n")
  assert cut.token_t.tolist() == listed.token_t.tolist() and cut.end_s.tolist() == listed.end_s.tolist()


@pytest.mark.parametrize("end", ["", "\n", "\n\n", " \n", "\t"])
def test_white_space_at_the_end_is_kept_and_cut_as_in_what_a_policy_wrote(trained, end):
  """The ids that sampling this text gives, eos behind them, and their steps; eos behind a line's end is one of its own."""
  text = "1: +5 = 17\n#### 17"
  cut, sampled_t = given.cut(text + end, trained), np.array(trained.encode(text + end) + [EOS])
  assert cut.token_t.tolist() == sampled_t.tolist()
  assert cut.end_s.tolist() == steps_lib.step_ends(sampled_t, trained.step_rule).tolist()
  assert len(cut.end_s) == 2 + ("\n" in end)
  listed = given.tokens(["1: +5 = 17", "#### 17", ""], trained, separator="\n")
  if end == "\n":
    assert (listed.token_t.tolist(), listed.end_s.tolist()) == (cut.token_t.tolist(), cut.end_s.tolist())
  going_on = given.cut(text + "\n", trained, ended=False)
  assert going_on.token_t.tolist() == trained.encode(text + "\n") and len(going_on.end_s) == 2


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("ended", [True, False])
def test_line_ends_of_other_systems_are_newlines(trained, end, ended):
  text, steps = "1: Ann +5 = 17\n2: -3 = 14\n#### 14", ["1: Ann +5\n= 17", "#### 17"]
  other = lambda text: text.replace("\n", end)
  for found, want in ((given.cut(other(text), trained, ended=ended), given.cut(text, trained, ended=ended)),
                      (given.tokens(list(map(other, steps)), trained, separator="\n", ended=ended),
                       given.tokens(steps, trained, separator="\n", ended=ended))):
    assert found.token_t.tolist() == want.token_t.tolist() and found.end_s.tolist() == want.end_s.tolist()
  assert trained.encode(other(text)) != trained.encode(text)


def test_other_texts_keep_their_ids(trained):
  text = " 1: +5\t= 17\xa0\n\n \u200b2: é\n#### 14"
  assert given.cut(text, trained).token_t.tolist() == trained.encode(text) + [EOS]
  assert given.tokens([text], trained, separator="\n").token_t.tolist() == trained.encode(text) + [EOS]


def test_no_steps_at_all(trained):
  for found in (given.tokens([], trained, separator="\n"), given.cut("", trained, ended=False)):
    assert found.token_t.shape == found.end_s.shape == (0,)


def test_separators():
  assert [given.separator_of(rule) for rule in ("newline", "outside", "blank")] == ["\n", "\n", "\n\n"]
  with pytest.raises(UserError, match="'line' is none of newline, blank, outside"):
    given.separator_of("line")
