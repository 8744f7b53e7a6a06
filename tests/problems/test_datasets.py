"""The TFDS builders, from files in their publishers' layouts."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from pav_jax.errors import UserError
from pav_jax.grading import boxes
from pav_jax.problems import problem
from pav_jax.problems.arithmetic import Arithmetic
from pav_jax.problems.datasets import arithmetic, builder, gsm8k
from pav_jax.problems.datasets import math as math_builder


def _prepared(builder_cls, data_dir, manual_dir, config=None):
  dataset = builder_cls(data_dir=data_dir, config=config)
  dataset.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
  return dataset


def _sizes(dataset):
  return {split: info.num_examples for split, info in dataset.info.splits.items()}


def _ids(dataset, split):
  return [row["id"].decode() for row in tfds.as_numpy(dataset.as_dataset(split=split))]


def test_gsm8k(publisher_dir, tmp_path):
  dataset = _prepared(gsm8k.PavGsm8k, tmp_path, publisher_dir)
  assert _sizes(dataset) == {"train": 30, "test": 4}
  rows = list(tfds.as_numpy(dataset.as_dataset(split="train")))
  assert [row["id"] for row in rows] == [f"gsm8k/train/{i}".encode() for i in range(1, 31)]
  assert sorted(rows[0]) == sorted(builder.FIELDS) and rows[2]["solution"] == b"2+2 = 4 hats.\n#### 4"
  noted = _prepared(gsm8k.PavGsm8k, tmp_path, publisher_dir, "notes")
  assert b"<<" in next(iter(tfds.as_numpy(noted.as_dataset(split="train"))))["solution"]


def test_math_and_its_split_by_prm800k(publisher_dir, tmp_path):
  own = _prepared(math_builder.PavMath, tmp_path, publisher_dir)
  prm = _prepared(math_builder.PavMath, tmp_path, publisher_dir, "prm800k")
  assert _sizes(own) == {"train": 6, "test": 5} and _sizes(prm) == {"train": 9, "test": 2}
  assert _ids(prm, "test") == ["math/test/algebra/4.json", "math/test/algebra/2.json"]
  # What was left out is still told by a set that someone else prepared.
  again = math_builder.PavMath(data_dir=tmp_path, config="prm800k")
  assert len(again.info.metadata["malformed"]["train"]) == 1
  assert "7115.json, field answer" in again.info.metadata["malformed"]["train"][0]


def test_a_copy_from_before_several_boxes_counted_is_made_anew(publisher_dir, tmp_path, monkeypatch):
  """Prepared when only the last box was read, and of another version: it is not what is read now."""
  manual = tmp_path / "manual"
  shutil.copytree(publisher_dir / "MATH", manual / "MATH")
  path = sorted((manual / "MATH/train").rglob("*.json"))[0]
  path.write_text(json.dumps(json.loads(path.read_text()) | {"solution": r"$x = \boxed{4}$ or $x = \boxed{9}$."}))
  answers = lambda: [row["answer"].decode() for row in tfds.as_numpy(_prepared(math_builder.PavMath, tmp_path, manual).as_dataset(split="train"))]
  with monkeypatch.context() as patched:
    patched.setattr(math_builder.PavMath, "VERSION", tfds.core.Version("1.0.0"))
    patched.setattr(problem.boxes, "boxed", lambda text: boxes.Boxed(0, "9", False))
    assert set(answers()) == {"9"}
  assert r"4 \text{ or } 9" in answers()
  assert math_builder.PavMath.VERSION > "1.0.0" and set(math_builder.PavMath.RELEASE_NOTES) == {"1.0.0", str(math_builder.PavMath.VERSION)}


def test_only_known_oddities_are_let_pass(publisher_dir, tmp_path):
  shutil.copytree(publisher_dir / "MATH", tmp_path / "manual/MATH")
  (tmp_path / "manual/MATH/test/algebra/1.json").write_text("{")
  with pytest.raises(UserError, match="1 of 5 rows are malformed, more than max_malformed = 0"):
    _prepared(math_builder.PavMath, tmp_path, tmp_path / "manual")
  assert not math_builder.PavMath(data_dir=tmp_path).is_prepared()
  lenient = math_builder.MathConfig(name="lenient", max_malformed=1)
  assert _sizes(_prepared(math_builder.PavMath, tmp_path, tmp_path / "manual", lenient)) == {"train": 6, "test": 4}
  strict = math_builder.MathConfig(name="strict", known=frozenset(), max_malformed=0)
  with pytest.raises(UserError, match="7115"):
    _prepared(math_builder.PavMath, tmp_path, tmp_path / "manual", strict)


def _no_network(*args, **kwargs):
  raise OSError("no network")


def test_neither_file_nor_network(publisher_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(builder.urllib.request, "urlopen", _no_network)
  shutil.copytree(publisher_dir / "MATH", tmp_path / "manual/MATH")
  for builder_cls, config, missing in ((gsm8k.PavGsm8k, "plain", "gsm8k/train.jsonl"),
                                       (math_builder.PavMath, "prm800k", "prm800k/math_splits/test.jsonl")):
    with pytest.raises(UserError, match=f"none of {missing} in the manual directory .* cannot be downloaded"):
      _prepared(builder_cls, tmp_path, tmp_path / "manual", config)
  with pytest.raises(UserError, match=r"manual directory \(absent or empty\)"):
    _prepared(math_builder.PavMath, tmp_path, tmp_path / "absent")


def test_download(publisher_dir, tmp_path, monkeypatch):
  """A stand-in for the network, under the names that TFDS gives its downloads."""

  class Answer:
    def close(self):
      pass

  def download(self, url):
    path = tmp_path / f"raw.git_{len(list(tmp_path.iterdir()))}.tmp"
    shutil.copy(publisher_dir / "gsm8k" / pathlib.Path(url).name, path)
    return path

  monkeypatch.setattr(builder.urllib.request, "urlopen", lambda url, timeout: Answer())
  monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
  dataset = _prepared(gsm8k.PavGsm8k, tmp_path / "data", tmp_path / "absent")
  assert _sizes(dataset) == {"train": 30, "test": 4} and _ids(dataset, "test")[0] == "gsm8k/test/1"


_TINY = Arithmetic(min_length=1, max_length=1, modulus=3, operations=("+1", "+2", "+3"), lured=0)


def test_generated_splits_share_no_question(monkeypatch):
  def generate(dials, seed, count):
    del dials
    questions = np.random.default_rng(seed).permutation(30)[:count]
    if len(questions) < count:
      raise UserError(f"fewer than {count}")
    return [problem.Problem(f"{seed}/{i}", "arithmetic", str(q), "", "") for i, q in enumerate(questions)]

  monkeypatch.setattr(arithmetic, "generate", generate)
  config = arithmetic.ArithmeticConfig(train_size=8, validation_size=8, test_size=8)
  problems, collisions = arithmetic.disjoint(config)
  assert {split: len(rows) for split, rows in problems.items()} == {"train": 8, "validation": 8, "test": 8}
  assert len({p.question for rows in problems.values() for p in rows}) == 24
  assert collisions["test"] == 0 and collisions["validation"] > 0 and collisions["train"] > 0
  with pytest.raises(UserError, match="fewer than"):
    arithmetic.disjoint(dataclasses.replace(config, train_size=20))


def test_generated_test_split_depends_on_the_dials_alone():
  one = arithmetic.ArithmeticConfig(train_size=5, validation_size=5, test_size=20)
  other = arithmetic.ArithmeticConfig(train_size=9, validation_size=6, test_size=20, train_seed=8, validation_seed=9)
  assert arithmetic.disjoint(one)[0]["test"] == arithmetic.disjoint(other)[0]["test"]
  assert one.name != other.name and one.name == arithmetic.ArithmeticConfig(train_size=5, validation_size=5,
                                                                            test_size=20).name


def test_generated_set(tmp_path):
  config = arithmetic.ArithmeticConfig(dials=_TINY, train_size=9, validation_size=5, test_size=6)
  dataset = _prepared(arithmetic.PavArithmetic, tmp_path, tmp_path, config)
  assert _sizes(dataset) == {"train": 9, "validation": 5, "test": 6}
  assert _ids(dataset, "validation") == [p.id for p in arithmetic.disjoint(config)[0]["validation"]]
  assert set(dataset.info.metadata["collisions"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("wrong", [{"train_size": 0}, {"train_seed": 2}, {"validation_seed": arithmetic.TEST_SEED}])
def test_generated_set_with_wrong_dials(wrong):
  with pytest.raises(UserError, match="arithmetic"):
    arithmetic.ArithmeticConfig(**wrong)
