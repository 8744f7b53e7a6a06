"""Our values as TRL's rows: what a row says, and that labels and steps come back as they went."""

import json
import shutil
import types

import numpy as np
import pyarrow.parquet
import pytest

from configs import default
from pav_jax import export
from pav_jax import main
from pav_jax.problems import given
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import records
from pav_jax.values import imported
from pav_jax.values import monte_carlo
from tests import labelled
from tests.test_pipeline import miniature

# Steps, whether they end in eos, successes and continuations of each prefix.
RESPONSES = (
    (["1: +3 = 9", "2: *2 = 18", "#### 18"], True, [1, 2, 0, 1], [3, 7, 3, 1]),  # thirds and sevenths
    (["\n1: +1 = 2", "#### 2", ""], True, [0, 1, 3, 1], [0, 1, 4, 1]),  # the bare question has no label; eos is a step of its own
    (["1: +1 = 2", "2: *2 = 4", "#### 4"], True, [1, 1, 0, 0], [4, 4, 4, 1]),
    (["1: +1 = 2", "2: *2 = 4", "#### 4"], True, [0, 0, 0, 1], [0, 0, 0, 1]),  # only the outcome
    (["1: +1 = 2", "2: *2 = 4", "#### 4"], True, [2, 0, 0, 0], [4, 4, 0, 1]),  # a pit, and no label behind it
    (["1: +1", "2: x"], False, [1, 1, 0], [2, 2, 1]))  # cut off


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A run with these responses: of each problem two."""
  root = labelled.problems(tmp_path_factory.mktemp("root"))
  vocabulary = prepared.vocabulary(records.Folder(root / "problems/train"))
  count = len(RESPONSES)
  found = [given.tokens(steps, vocabulary, separator="\n", ended=ended) for steps, ended, *_ in RESPONSES]
  padded = lambda xs, fill: np.array([np.pad(x, (0, 64 - len(x)), constant_values=fill) for x in xs], np.int32)
  zeros = np.zeros((count, 64), np.float32)
  arrays = {
      "rollouts": collect.Rollouts(np.arange(count) // 2, np.arange(count) % 2, padded([x.token_t for x in found], 0),
                                   np.array([len(x.token_t) for x in found]), zeros, np.array([x[1] for x in RESPONSES]), np.zeros(count, np.int8)),
      "values": monte_carlo.Values(padded([[-1, *x.end_s] for x in found], -2), *(padded([x[i] for x in RESPONSES], 0) for i in (2, 3)))}
  for name, values in arrays.items():
    folder = records.Folder(root / name)
    folder.start(name, {}, {})
    folder.write_shard(0, values._asdict(), {})
    folder.finish(1)
  return root


def test_rows(root, tmp_path, capsys):
  assert export.main([str(root), f"--output={tmp_path}/out.jsonl"]) == 0
  assert capsys.readouterr().out == (f"{tmp_path}/out.jsonl: 5 rows, 12 labels; left out: 1 responses of which only the outcome is known, "
                                     "2 steps at and behind one without a label\n")
  rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert all(list(row) == list(export.FIELDS) for row in rows)
  assert rows[0] == {"prompt": labelled.QUESTIONS[0], "completions": ["1: +3 = 9", "2: *2 = 18", "#### 18"], "labels": [2 / 7, 0.0, 1.0],
                     "counts": [7, 3, 1], "prompt_label": 1 / 3, "prompt_count": 3, "ended": True, "id": "train/0", "sample": 0}
  assert (rows[1]["completions"], rows[1]["prompt_label"], rows[1]["prompt_count"]) == (["\n1: +1 = 2", "#### 2", ""], None, 0)
  assert (rows[3]["completions"], rows[3]["labels"], rows[3]["ended"], rows[3]["id"]) == (["1: +1 = 2"], [0.0], False, "train/2")
  assert (rows[4]["completions"], rows[4]["ended"], rows[4]["sample"]) == (["1: +1", "2: x"], False, 1)
  assert {type(label) for row in rows for label in row["labels"]} == {float}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_there_and_back(root, tmp_path, ending):
  """The same ids, ends, labels to the last bit, and counts."""
  assert export.main([str(root), f"--output={tmp_path}/out.{ending}"]) == 0
  labelled.copy(root, tmp_path / "run")
  config = default.get_config()
  config.update_from_flattened_dict({"stage": "labels", "labels.files": f"{tmp_path}/out.{ending}"})
  main.run(config, tmp_path / "run")
  folder = lambda name: records.Folder(tmp_path / "run" / name)
  vocabulary = prepared.vocabulary(folder("problems/train"))
  found = imported.read(types.SimpleNamespace(folder=folder), vocabulary)
  rollouts = collect.Rollouts(**records.Folder(root / "rollouts").read())
  values = monte_carlo.Values(**records.Folder(root / "values").read())
  kept = {0: 4, 1: 4, 2: 4, 4: 2, 5: 3}  # responses, and of how many prefixes
  assert len(found.length_b) == len(kept)
  np.testing.assert_array_equal(found.problem_b, [0, 0, 1, 2, 2])
  problems = prepared.read(folder("problems/train"))
  for row, (b, prefixes) in enumerate(kept.items()):
    length = values.end_bz[b, prefixes - 1] + 1
    np.testing.assert_array_equal(found.token_bt[row, :found.length_b[row]], rollouts.token_bt[b, :length])
    np.testing.assert_array_equal(found.end_bz[row, :prefixes], values.end_bz[b, :prefixes])
    np.testing.assert_array_equal(found.q_bz[row, :prefixes], values.q_bz[b, :prefixes])
    np.testing.assert_array_equal(found.count_bz[row, :prefixes], values.continuations_bz[b, :prefixes])
    assert (found.end_bz[row, prefixes:] == -2).all() and np.isnan(found.q_bz[row, prefixes:]).all()
    np.testing.assert_array_equal(found.prompt_bt[row, :found.prompt_length_b[row]],
                                  problems.prompt_pt[found.problem_b[row], :found.prompt_length_b[row]])


def test_parquet_has_the_columns_that_others_read(root, tmp_path):
  assert export.main([str(root), f"--output={tmp_path}/out.parquet"]) == 0
  schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
  assert schema.names == list(export.FIELDS)
  assert {name: str(schema.field(name).type) for name in ("prompt", "completions", "labels")} == {
      "prompt": "string", "completions": "list<element: string>", "labels": "list<element: double>"}


def test_mistakes_are_one_line(root, tmp_path, capsys):
  for arguments, said in (([str(root), "--output=x.csv"], "ends in neither .jsonl nor .parquet"),
                          ([str(tmp_path), f"--output={tmp_path}/x.jsonl"], "problems/train is not there"),
                          ([str(root), f"--output={tmp_path}"], "ends in neither"),
                          ([str(root), "--output=/proc/nosuch/x.jsonl"], "cannot be")):
    assert export.main(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert not out and len(lines) == 1 and said in lines[0], err


@pytest.mark.slow
def test_values_of_a_run_teach_a_verifier_beside_its_own(done, tmp_path):
  """From a whole run: labels, then verifiers of both."""
  assert export.main([str(done), f"--output={tmp_path}/values.parquet"]) == 0
  for name in ("problems", "sft", "rollouts", "values"):
    shutil.copytree(done / name, tmp_path / "run" / name)
  config = miniature(**{"labels.files": f"{tmp_path}/values.parquet", "verifier.labels": "both"})
  for name in ("labels", "verifier"):
    with config.unlocked():
      config.stage = name
    main.run(config, tmp_path / "run")
  rows = {name: records.Folder(tmp_path / "run" / "verifier").manifest()["facts"][name] for name in ("orm", "q", "advantage")}
  responses = len(records.Folder(done / "rollouts").read()["problem_b"])
  exported = len(records.Folder(tmp_path / "run" / "labels").read()["problem_b"])
  assert rows["q"]["train_rows"] + rows["q"]["valid_rows"] == responses + exported
  assert rows["orm"]["train_rows"] + rows["orm"]["valid_rows"] == responses
