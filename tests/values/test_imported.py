"""Stage labels: ids, ends and labels of what others wrote, and what is said of rows that cannot be read."""

import gzip
import json
import math
import re
import types

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import fakes
from configs import default
from fakes import A, B, BOS, C, EOS, NL
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.problems import home as home_lib
from pav_jax.problems import prepared
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.values import formats
from pav_jax.values import imported
from pav_jax.verifiers import taught
from pav_jax.verifiers import train
from tests import labelled

NAN = math.nan


class Letters(fakes.Vocabulary):
  """A token a letter."""

  def encode(self, text):
    return [self.pieces.index(letter) for letter in text]


HOME = home_lib.Home(Letters(), "{question}\n", "newline")


def rows(*solutions, home=HOME, max_prompt=8, max_response=8, max_steps=3):
  return imported.arrays([formats.Labelled(*x) for x in solutions], list(range(len(solutions))), home, max_prompt=max_prompt,
                         max_response=max_response, max_steps=max_steps)


def test_tokens_ends_and_labels():
  """  prompt   bos a  \\n  |             bos b  \\n  |
       token              b  c  \\n a  eos             c  \\n b  \\n
       end      (-1)            2     4    (-1)           1     3
       label     .5             1    .25     -            0     -
       count      8             1     4      0            1     0   """
  found, counts = rows(("a", ("bc", "a"), (0.5, 1.0, 0.25), (8, 1, 4), True), ("b", ("c", "b"), (NAN, 0.0, NAN), (0, 1, 0), False))
  np.testing.assert_array_equal(found.prompt_bt[:, :4], [[BOS, A, NL, 0], [BOS, B, NL, 0]])
  np.testing.assert_array_equal(found.prompt_length_b, [3, 3])
  np.testing.assert_array_equal(found.token_bt[:, :6], [[B, C, NL, A, EOS, 0], [C, NL, B, NL, 0, 0]])
  np.testing.assert_array_equal(found.length_b, [5, 4])
  np.testing.assert_array_equal(found.end_bz, [[-1, 2, 4, -2], [-1, 1, 3, -2]])
  np.testing.assert_array_equal(found.q_bz, [[0.5, 1, 0.25, NAN], [NAN, 0, NAN, NAN]])
  np.testing.assert_array_equal(found.count_bz, [[8, 1, 4, 0], [0, 1, 0, 0]])
  assert found.q_bz.dtype == np.float64 and {x.dtype for x in found if x is not found.q_bz} == {np.dtype(np.int32)}
  assert {k: n for k, n in counts.items() if n} == {"solutions": 2, "labels": 4, "labels of 0": 1, "labels of 1": 1, "tokens": 15}


def test_a_step_is_never_split_and_a_fraction_stays_one():
  found, _ = rows(("a", ("b\nc\n\na",), (NAN, 0.1), (0, 1), False))
  np.testing.assert_array_equal(found.token_bt[0, :7], [B, NL, C, NL, NL, A, NL])
  np.testing.assert_array_equal(found.end_bz[0], [-1, 6, -2, -2])
  assert found.q_bz[0, 1] == 0.1
  found, _ = rows(("a", ("b", "c"), (NAN, 1.0, 1.0), (0, 1, 1), True), home=HOME._replace(steps="blank"))
  np.testing.assert_array_equal(found.token_bt[0, :5], [B, NL, NL, C, EOS])


def test_a_bare_question():
  found, _ = rows(("a", (), (0.3,), (1,), False))
  np.testing.assert_array_equal((found.length_b[0], found.end_bz[0, 0], found.end_bz[0, 1], found.q_bz[0, 0]), [0, -1, -2, 0.3])


@pytest.mark.parametrize("changed, limit", [({"max_prompt": 2}, "max_prompt"), ({"max_response": 4}, "max_response"), ({"max_steps": 1}, "max_steps")])
def test_what_is_too_long_is_left_out_whole(changed, limit):
  long, short = ("a", ("bc", "a"), (NAN, 1.0, 1.0), (0, 1, 1), True), ("", ("a",), (NAN, 1.0), (0, 1), True)
  assert len(rows(long, short)[0].problem_b) == 2
  found, counts = rows(long, short, **changed)
  np.testing.assert_array_equal(found.problem_b, [1])
  assert (counts["solutions"], counts["left out"], counts[f"longer than {limit}"], counts["labels"]) == (1, 1, 1, 1)
  assert sum(n for what, n in counts.items() if what.startswith("longer")) == 1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A run of which the problems are prepared."""
  return labelled.problems(tmp_path_factory.mktemp("root"))


ROWS = [{"prompt": f"Ann has {n}", "completions": [f"+{n} = 3", "#### 7"], "labels": [n % 2 == 0, n / 10]} for n in range(7)]


def config_of(path, **changes):
  config = default.get_config()
  config.update_from_flattened_dict({"stage": "labels", "labels.files": str(path), "labels.rows_per_shard": 3, **changes})
  return config


def lines(path, given):
  path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in given) + "\n")
  return path


def run_in(root, path, tmp_path, **changes):
  """What the stage makes in a copy of the run."""
  labelled.copy(root, tmp_path / "run")
  main.run(config_of(path, **changes), tmp_path / "run")
  run = types.SimpleNamespace(folder=lambda name: records.Folder(tmp_path / "run" / name))
  return imported.read(run, types.SimpleNamespace(fingerprint=run.folder("problems/train").manifest()["facts"]["vocabulary"]))


def test_the_stage_makes_shards_and_goes_on(root, tmp_path, capsys):
  """Shards of three of seven solutions; a lost one is made again alike, with the same numbers of questions."""
  path = lines(tmp_path / "a.jsonl", [*ROWS[:3], ROWS[0] | {"labels": [0, 1]}, *ROWS[3:6]])
  found = run_in(root, path, tmp_path)
  np.testing.assert_array_equal(found.problem_b, [0, 1, 2, 0, 3, 4, 5])
  np.testing.assert_array_equal(found.q_bz, [[NAN, 1, 0], [NAN, 0, 0.1], [NAN, 1, 0.2], [NAN, 0, 1], [NAN, 0, 0.3], [NAN, 1, 0.4], [NAN, 0, 0.5]])
  folder = records.Folder(tmp_path / "run" / "labels")
  assert [shard["rows"] for shard in folder.manifest()["shards"]] == [3, 3, 1]
  assert "labels: 7 rows, 7 solutions read" in capsys.readouterr().err
  before = folder.read()
  for name in ("manifest.json", "00001.json", "00001.npz"):
    (folder.path / name).unlink()
  main.run(config_of(path), tmp_path / "run")
  for name, x in folder.read().items():
    np.testing.assert_array_equal(x, before[name])
  with pytest.raises(UserError, match="labels.max_steps was 64, now 2"):
    main.run(config_of(path, **{"labels.max_steps": 2}), tmp_path / "run")


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "parquet", "two", "bom.jsonl", "folder"])
def test_every_kind_of_file_gives_the_same(root, tmp_path, kind):
  expected = run_in(root, lines(tmp_path / "a.jsonl", ROWS), tmp_path / "one")
  path = tmp_path / f"b.{kind}"
  text = "\r\n".join(map(json.dumps, ROWS)) + "\r\n \r\n"
  if kind == "jsonl.gz":
    path.write_bytes(gzip.compress(text.encode()))
  elif kind == "json":
    path.write_text(json.dumps(ROWS, indent=1))
  elif kind == "parquet":
    floats = [row | {"labels": [float(x) for x in row["labels"]]} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(floats), path)
  elif kind == "bom.jsonl":
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
  elif kind == "folder":
    path.mkdir()
    lines(path / "train-0.jsonl", ROWS[:2]), lines(path / "train-1.jsonl", ROWS[2:]), lines(path / "test.jsonl", ROWS)
  else:
    path = f"{lines(tmp_path / 'c.jsonl', ROWS[:2])}, {lines(tmp_path / 'd.jsonl', ROWS[2:])}"
  found = run_in(root, path, tmp_path / "other")
  for x, y in zip(found, expected):
    np.testing.assert_array_equal(x, y)


BROKEN = [ROWS[0], "{broken", ROWS[1] | {"labels": [True]}, "[1]", ROWS[2]]


def test_malformed_rows_are_told_and_limited(root, tmp_path, capsys):
  path = lines(tmp_path / "a.jsonl", BROKEN)
  told = (f"{path} row 2: broken JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); "
          f"{path} row 3, field labels: 1 for 2 completions; {path} row 4: not a JSON object")
  with pytest.raises(UserError, match=re.escape(f"3 of 5 rows are malformed, more than labels.max_malformed = 2: {told}")):
    run_in(root, path, tmp_path / "few", **{"labels.max_malformed": 2})
  assert not list((tmp_path / "few/run/labels").glob("0*"))
  found = run_in(root, path, tmp_path / "enough", **{"labels.max_malformed": 3})
  assert len(found.problem_b) == 2 and f"labels: 3 malformed rows left out: {told}\n" in capsys.readouterr().err
  assert records.Folder(tmp_path / "enough/run/labels").manifest()["facts"]["malformed"] == 3


def test_what_is_left_out_is_said(root, tmp_path, capsys):
  path = lines(tmp_path / "a.jsonl", [*ROWS, ROWS[0] | {"completions": ["x" * 90, "y"]}])
  found = run_in(root, path, tmp_path, **{"labels.max_response": 40})
  assert len(found.problem_b) == 7
  assert "labels: 1 of 8 solutions are too long (1 for labels.max_response=40), and left out" in capsys.readouterr().err
  with pytest.raises(UserError, match=r"8 of 8 solutions are too long \(8 for labels.max_prompt=1\): nothing is left"):
    run_in(root, path, tmp_path / "none", **{"labels.max_prompt": 1})


def test_questions_of_the_test_problems_are_counted(root, tmp_path, capsys):
  run_in(root, lines(tmp_path / "a.jsonl", [*ROWS, ROWS[0] | {"prompt": f"  {labelled.QUESTIONS[0]}\n"}]), tmp_path)
  assert "1 solutions to questions of problems/test" in capsys.readouterr().err


@pytest.mark.parametrize("name, content, said", [
    ("a.jsonl", "", "no label in 0 rows"), ("a.json", "[", "a.json: broken JSON"), ("a.parquet", "PAR1", "a.parquet is damaged, or no table"),
    ("a.jsonl.gz", "x", "a.jsonl.gz is damaged"), ("a.csv", "x", "ends in .jsonl, .jsonl.gz, .json"),
    ("a.jsonl", json.dumps({"prompt": "a", "completions": [], "labels": []}), "no label in 1 rows"),
])
def test_a_file_without_labels(root, tmp_path, name, content, said):
  path = tmp_path / name
  path.write_text(content)
  with pytest.raises(UserError, match=re.escape(said)) as caught:
    run_in(root, path, tmp_path / "x")
  assert "\n" not in str(caught.value)


def test_bare_questions_alone(root, tmp_path, capsys):
  path = lines(tmp_path / "a.jsonl", [{"q": f"Ann has {n}", "states": [{"state": "", "mcs": n / 4}]} for n in range(4)])
  found = run_in(root, path, tmp_path, **{"labels.format": "math_aps"})
  assert "labels: 4 rows, 4 prefixes read" in capsys.readouterr().err
  np.testing.assert_array_equal(found.q_bz, [[0], [0.25], [0.5], [0.75]])
  rows = train.value_rows(taught.others("q", default.get_config().verifier, found), found.q_bz, found.count_bz)
  np.testing.assert_array_equal(rows.position_bz[:, 0], found.prompt_length_b - 1)
  assert not rows.text_weight_bt.any()


def test_labels_that_are_all_the_same_are_told(root, tmp_path, capsys):
  path = lines(tmp_path / "a.jsonl", [row | {"labels": [0, False]} for row in ROWS])
  run_in(root, path, tmp_path)
  told = "labels: all 14 labels are 0: a verifier can learn nothing from them"
  assert told + "\n" in capsys.readouterr().err
  with pytest.raises(UserError, match=told):  # the finished folder is doubted again
    main.run(config_of(path), tmp_path / "run", strict=True)


def test_text_never_becomes_the_scoring_token(root, tmp_path):
  found = run_in(root, lines(tmp_path / "a.jsonl", [ROWS[0] | {"prompt": "<unused0>?", "completions": ["<unused0>", "<eos>"]}, ROWS[1]]), tmp_path)
  vocabulary = prepared.vocabulary(records.Folder(root / "problems/train"))
  ids = np.concatenate([found.prompt_bt, found.token_bt], axis=1)
  assert vocabulary.scoring_id not in ids and (ids == vocabulary.eos_id).sum() == 2


def test_ids_of_another_vocabulary(root, tmp_path):
  run_in(root, lines(tmp_path / "a.jsonl", ROWS), tmp_path)
  run = types.SimpleNamespace(folder=lambda name: records.Folder(tmp_path / "run" / name))
  with pytest.raises(UserError, match="ids of another vocabulary than problems/train"):
    imported.read(run, types.SimpleNamespace(fingerprint="other"))


@pytest.mark.parametrize("changes, said", [
    ({"labels.files": ""}, "config.labels.files names no file"), ({"labels.files": "nosuch.jsonl"}, "config.labels.files: there is no file"),
    ({"labels.format": "prm"}, "config.labels.format 'prm' is none of trl, prm800k, math_shepherd, math_aps"),
    ({"labels.neutral": "maybe"}, "config.labels.neutral 'maybe' is none of good, bad, out"),
    ({"labels.max_malformed": -1}, "config.labels.max_malformed -1 is less than 0"),
])
def test_what_the_check_refuses(tmp_path, changes, said):
  path = lines(tmp_path / "a.jsonl", ROWS)
  imported.check(config_of(path))
  with pytest.raises(UserError, match=re.escape(said)):
    imported.check(config_of(path, **changes), files.path(tmp_path))


def test_files_are_asked_for_where_they_are_needed(tmp_path):
  """In the pipeline only if a verifier learns from them, and not once labels are made."""
  of = lambda labels: config_of("", stage="pipeline", **{"verifier.labels": labels})
  imported.check(of("monte_carlo"), files.path(tmp_path))
  with pytest.raises(UserError, match="names no file"):
    imported.check(of("both"), files.path(tmp_path))
  folder = records.Folder(tmp_path / "labels")
  folder.start("labels", {}, {})
  folder.finish(0)
  imported.check(of("both"), files.path(tmp_path))
