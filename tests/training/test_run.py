"""What a stage says of its own work, and when that is an error."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.training import run as run_lib
from pav_jax.verifiers import train

CUT, NONE = "all 8 responses were cut at rollouts.max_new = 5 tokens: none came to its end", "none of 8 responses is correct"


@pytest.mark.parametrize("truncated, correct, said", [
    (8, 0, [CUT, NONE]), (8, 1, [CUT]), (7, 0, [NONE]), (7, 1, []), (0, 8, [])])
def test_useless_responses(truncated, correct, said):
  assert run_lib.useless_responses({"responses": 8, "truncated": truncated, "correct": correct}, 5) == said


def test_counts_of_folders_without_responses_say_nothing():
  assert run_lib.useless_responses({}, 5) == run_lib.useless_responses({"responses": 0, "truncated": 0, "correct": 0}, 5) == []


@pytest.mark.parametrize("targets, said", [
    ([[0.0, np.nan], [0.0, 0.0]], ["q: all 3 labels are 0: there is nothing to tell apart"]),
    ([[1.0, np.nan], [np.nan, 1.0]], ["q: all 2 labels are 1: there is nothing to tell apart"]),
    ([[0.0, 1.0]], []), ([[0.5, 0.5]], []), ([[np.nan]], [])])
def test_labels_of_one_class(targets, said):
  assert train.one_class("q", np.array(targets)) == said


def test_a_doubt_is_a_line_and_an_error_if_strict(tmp_path, capsys):
  run_lib.Run(None, tmp_path, None).doubt("rollouts", [CUT, NONE], "stays")
  assert capsys.readouterr().err == f"rollouts: {CUT}\nrollouts: {NONE}\n"
  strict = run_lib.Run(None, tmp_path, None, strict=True)
  strict.doubt("rollouts", [], "stays")
  with pytest.raises(UserError) as caught:
    strict.doubt("rollouts", [CUT, NONE], "the folder stays")
  assert str(caught.value) == f"rollouts: {CUT}, and {NONE} (--strict); the folder stays"
