"""What a checkpoint's texts were made with: found in the folders above it, or told."""

import shutil

import pytest

from pav_jax.errors import UserError
from pav_jax.problems import home
from pav_jax.problems import vocabulary
from tests import made as made_lib


@pytest.mark.parametrize("name", ["verifier/q/best", "verifier/q/best/1", "sft/best"])
def test_the_run_above_says_it(made, name):
  found = home.of(str(made / name))
  assert (found.prompt, found.steps) == (made_lib.PROMPT, "newline")
  assert found.vocabulary.step_rule.begun_s.tolist() == [False, True]
  v = found.vocabulary
  assert found.prompt_t("Ann has 3?").tolist() == [v.bos_id, *v.encode("Q: Ann has 3?\n")]


def test_the_question_is_no_template(made):
  found = home.of(str(made / "sft/best"), prompt="{question} {question}\n")
  v = found.vocabulary
  assert found.prompt_t("{0} {question}").tolist() == [v.bos_id, *v.encode("{0} {question} {0} {question}\n")]


def test_what_is_given_wins(made):
  found = home.of(str(made / "verifier/q/best"), prompt="{question}\n", steps="blank")
  assert (found.prompt, found.steps) == ("{question}\n", "blank")
  assert found.vocabulary.step_rule.begun_s.tolist().count(True) == 2  # the rule of blank lines


def test_without_a_run_all_of_it_must_be_given(made, tmp_path):
  shutil.copytree(made / "verifier/q/best", tmp_path / "q")
  vocabulary_path = str(made / "problems/test/vocabulary.model")
  with pytest.raises(UserError, match="give vocabulary=FILE.model and prompt=.* and steps=newline|blank|outside"):
    home.of(str(tmp_path / "q"))
  with pytest.raises(UserError, match="unknown: give steps="):
    home.of(str(tmp_path / "q"), vocabulary=vocabulary_path, prompt="{question}\n")
  found = home.of(str(tmp_path / "q"), vocabulary=vocabulary_path, prompt="{question}\n", steps="outside")
  assert (found.vocabulary.size, found.prompt, found.steps) == (400, "{question}\n", "outside")


def test_another_vocabulary_is_refused(made, tmp_path):
  other = vocabulary.train(made_lib.TEXTS[:30], 390, tmp_path / "other.model")
  with pytest.raises(UserError, match="trained with another vocabulary than .*other.model"):
    home.of(str(made / "verifier/q/best"), vocabulary=other.path)


@pytest.mark.parametrize("given, said", [
    ({"prompt": "{q}\n"}, "no {question}"), ({"prompt": "{question}"}, "must end in a newline"), ({"steps": "line"}, "none of newline")])
def test_what_means_nothing(made, given, said):
  with pytest.raises(UserError, match=said):
    home.of(str(made / "verifier/q/best"), **given)


def test_no_checkpoint(tmp_path):
  with pytest.raises(UserError, match="no such folder"):
    home.of(str(tmp_path / "nothing"))


def test_line_ends_of_other_systems_are_newlines(made):
  found = home.of(str(made / "sft/best"))
  assert found.prompt_t("Ann\r\nhas\r3\u2028mod 7").tolist() == found.prompt_t("Ann\nhas\n3\nmod 7").tolist()
