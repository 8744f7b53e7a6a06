"""Tasks and mixtures: ids, order, shards, resumption, carved validation."""

import itertools
import json

import numpy as np
import pytest

seqio = pytest.importorskip("seqio")

from pav_jax.errors import UserError
from pav_jax.problems import tasks, vocabulary
from pav_jax.problems.arithmetic import Arithmetic
from pav_jax.problems.datasets.arithmetic import ArithmeticConfig
from pav_jax.problems.datasets.math import PavMath
from pav_jax.problems.problem import EMPTY_BOXES


@pytest.fixture(scope="module")
def paths(publisher_dir, tmp_path_factory):
  """Keyword arguments of `examples`, with a vocabulary of the small sets."""
  root = tmp_path_factory.mktemp("tasks")
  where = {"data_dir": root / "data", "manual_dir": publisher_dir}
  texts = [p.question + "\n" + p.solution for p in _load("gsm8k", "train", validation_size=0, **where)]
  vocabulary.train(texts, 300, root / "tokenizer.model")
  return {**where, "vocabulary_path": root / "tokenizer.model", "validation_size": 5}


def _load(name, split, **source):
  return tasks.load(name, split, tasks.Source(**source))


def _examples(mixture, split, **settings):
  """`tasks.examples`, the fields of its source among the keywords."""
  source = tasks.Source(**{name: settings.pop(name) for name in tasks.Source._fields if name in settings})
  return tasks.examples(mixture, split, source, **settings)


def _ids(iterator, count=None):
  return [row["id"] for row in itertools.islice(iterator, count)]


def test_an_example(paths):
  pure = vocabulary.load(paths["vocabulary_path"])
  rows = list(_examples("gsm8k", "test", prompt="Q: {question}\n{question}\n", **paths))
  row = rows[2]
  assert {name: row[name] for name in ("id", "dataset", "question", "answer", "solution")} == {
      "id": "gsm8k/test/3", "dataset": "gsm8k", "question": "Ann has 2 hats and buys 2. How many (test)?",
      "answer": "4", "solution": "2+2 = 4 hats.\n#### 4"}
  assert row["prompt_t"].dtype == row["response_t"].dtype == np.int32
  assert row["prompt_t"].tolist() == [2, *pure.encode(f"Q: {row['question']}\n{row['question']}\n")]
  assert row["response_t"].tolist() == [*pure.encode(row["solution"]), 1]
  # No piece of the response reaches over the boundary.
  together = pure.encode(f"Q: {row['question']}\n{row['question']}\n{row['solution']}")
  assert [*row["prompt_t"][1:], *row["response_t"][:-1]] == together


def test_same_ids_in_both_worlds(paths, tmp_path):
  texts = ["é ☃ 𝄞 and ▁", "  two  spaces ", "\n\n a\n", "\t",
           r"\frac{1}{2} \1 {question}", "<eos> <unused0>", "a" * 500]
  path = tmp_path / "odd.jsonl"
  path.write_text("".join(json.dumps({"question": f"x{text}x", "answer": "1", "solution": text}) + "\n"
                          for text in texts))
  pure = vocabulary.load(paths["vocabulary_path"])
  assert pure.scoring_id in seqio.SentencePieceVocabulary(str(paths["vocabulary_path"]), extra_ids=0).encode("<unused0>")
  for row, text in zip(_examples(str(path), "test", **paths), texts, strict=True):
    assert row["response_t"].tolist() == [*pure.encode(text), 1]
    assert row["prompt_t"].tolist() == [2, *pure.encode(f"Question: x{text}x\nAnswer:\n")]
    assert not {0, 1, 2, 3, pure.scoring_id} & {*row["response_t"].tolist()[:-1], *row["prompt_t"].tolist()[1:]}
    assert pure.decode(row["response_t"]) == text.replace("▁", " ")


def test_no_solution_no_response(paths, tmp_path):
  path = tmp_path / "bare.jsonl"
  path.write_text('{"question": "1+1?", "answer": "2"}')
  row, = _examples(str(path), "test", **paths)
  assert row["response_t"].shape == (0,) and row["response_t"].dtype == np.int32


def test_order(paths):
  plain = _ids(_examples("gsm8k", "train", **paths))
  assert len(plain) == 25 and plain == sorted(plain, key=lambda name: int(name.split("/")[-1]))
  endless = {"seed": 7, "repeat": True, **paths}
  two_epochs = _ids(_examples("gsm8k", "train", **endless), 50)
  assert two_epochs == _ids(_examples("gsm8k", "train", **endless), 50)
  # Each epoch has every problem once, in an order of its own.
  first, second = two_epochs[:25], two_epochs[25:]
  assert sorted(first) == sorted(second) == sorted(plain) and len({*map(tuple, (plain, first, second))}) == 3
  assert first != _ids(_examples("gsm8k", "train", **{**endless, "seed": 8}), 25)
  assert first == _ids(_examples("gsm8k", "train", seed=7, **paths))


MIXTURES = ["gsm8k", "gsm8k:3,math_prm800k"]


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("start", [1, 26, 29])
def test_resumed_equals_uninterrupted(paths, mixture, repeat, start):
  settings = {"seed": 3, "repeat": repeat, "shard": 1, "num_shards": 2, **paths, "validation_size": 1}
  whole = _ids(_examples(mixture, "train", **settings), 60)
  assert _ids(_examples(mixture, "train", start=start, **settings), 60 - start) == whole[start:]


def test_resumed_far_away(paths):
  for mixture in MIXTURES:
    settings = {"seed": 3, "repeat": True, **paths}
    far = _ids(_examples(mixture, "train", start=9_990, **settings), 20)
    assert far[10:] == _ids(_examples(mixture, "train", start=10_000, **settings), 10)


@pytest.mark.parametrize("seed", [None, 5])
def test_shards_part_the_whole(paths, seed):
  whole = _ids(_examples("gsm8k", "train", seed=seed, repeat=True, **paths), 60)
  shards = [_ids(_examples("gsm8k", "train", seed=seed, repeat=True, shard=i, num_shards=3, **paths), 20)
            for i in range(3)]
  assert [shards[i % 3][i // 3] for i in range(60)] == whole
  once = [_ids(_examples("gsm8k:1,math:2", "train", seed=seed, shard=i, num_shards=4, **paths)) for i in range(4)]
  assert sorted(sum(once, [])) == sorted(_ids(_examples("gsm8k", "train", **paths)) +
                                         _ids(_examples("math", "train", **paths)))


def test_more_hosts_than_problems(paths):
  assert _ids(_examples("gsm8k", "test", shard=5, num_shards=8, **paths)) == []
  assert _ids(_examples("gsm8k", "test", start=5, **paths)) == []


def test_mixture_keeps_its_rates(paths):
  names = _ids(_examples("math_prm800k,gsm8k:3", "train", seed=1, repeat=True, **paths), 2_000)
  share = np.mean([name.startswith("gsm8k") for name in names])
  assert abs(share - 0.75) < 0.04


def test_validation_is_carved_out_of_train(paths):
  where = {name: paths[name] for name in ("data_dir", "manual_dir")}

  def names(split, size):
    return [p.id for p in _load("gsm8k", split, validation_size=size, **where)]

  everything = names("train", 0)
  for size in (1, 5, 29):
    assert len(names("validation", size)) == size
    assert sorted(names("train", size) + names("validation", size)) == sorted(everything)
  # A larger validation set holds the smaller one.
  assert set(names("validation", 5)) < set(names("validation", 9))
  assert names("test", 1) == names("test", 5) and not set(names("test", 5)) & set(everything)


def test_generated(paths):
  config = ArithmeticConfig(dials=Arithmetic(min_length=1, max_length=2), train_size=20, validation_size=6, test_size=4)
  for split, count in (("train", 20), ("validation", 6), ("test", 4)):
    assert len(_ids(_examples("arithmetic", split, arithmetic=config, **paths))) == count


def test_files_of_ones_own(paths, tmp_path):
  for split in ("train", "test"):
    (tmp_path / f"{split}.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n{"question": ""}\n')
  path = str(tmp_path / "{split}.jsonl")
  assert _ids(_examples(path, "train", max_malformed=1, **paths)) == ["train/1"]
  with pytest.raises(UserError, match="1 of 2 rows are malformed"):
    _examples(path, "train", **paths)
  with pytest.raises(UserError, match="there is no file .*/validation.jsonl"):
    _examples(path, "validation", **paths)


def test_left_out_rows_do_not_leak_between_runs(paths, tmp_path):
  (tmp_path / "manual/gsm8k").mkdir(parents=True)
  for split in ("train", "test"):
    (tmp_path / f"manual/gsm8k/{split}.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\nbroken\nbroken\n')
  where = {"data_dir": tmp_path / "data", "manual_dir": tmp_path / "manual"}
  assert len(_load("gsm8k", "test", max_malformed=2, **where)) == 1
  for fewer in (0, 1):
    with pytest.raises(UserError, match=f"2 of 3 rows are malformed, more than max_malformed = {fewer}"):
      _load("gsm8k", "test", max_malformed=fewer, **where)


@pytest.mark.parametrize("wrong, reason", [
    ({"mixture": "chess"}, "task 'chess' is none of"),
    ({"mixture": "gsm8k,gsm8k"}, "occurs twice"),
    ({"mixture": "gsm8k:0"}, "must be positive"),
    ({"mixture": "gsm8k:nan"}, "must be positive"),
    ({"mixture": ""}, "task '' is none of"),
    ({"split": "dev"}, "split 'dev' is none of"),
    ({"prompt": "Question:\n"}, "has no {question}"),
    ({"prompt": "{question} Answer: "}, "must end in a newline"),
    ({"vocabulary_path": "absent.model"}, "absent.model cannot be read: No such file"),
    ({"shard": 2, "num_shards": 2}, "shard 2 is not in 0..1"),
    ({"start": -1}, "negative"),
    ({"seed": -1}, "negative"),
    ({"validation_size": 30}, "validation_size 30: gsm8k has 30 problems"),
    ({"validation_size": -1}, "validation_size -1"),
    ({"data_dir": "setup.py"}, "cannot prepare in data_dir setup.py"),
])
def test_what_a_user_can_get_wrong(paths, wrong, reason):
  with pytest.raises(UserError) as error:
    _examples(**{"mixture": "gsm8k", "split": "train", **paths, **wrong})
  assert reason in str(error.value) and "\n" not in str(error.value)


def test_real_prm800k(data_dir, tmp_path):
  where = {"data_dir": tmp_path / "data", "manual_dir": data_dir}
  train, validation, test = (_load("math_prm800k", split, **where) for split in ("train", "validation", "test"))
  left_out = PavMath(data_dir=tmp_path / "data", config="prm800k").info.metadata["malformed"]
  assert len(left_out["train"]) == len(EMPTY_BOXES) and not left_out["test"]
  assert (len(train), len(validation), len(test)) == (12_000 - len(EMPTY_BOXES) - 500, 500, 500)
  assert len({p.id for p in train + validation + test}) == 12_500 - len(EMPTY_BOXES)
  pure = vocabulary.train([p.solution for p in train[:2_000]], 1_000, tmp_path / "tokenizer.model")
  settings = {"vocabulary_path": tmp_path / "tokenizer.model", "seed": 0, "repeat": True, **where}
  for row in itertools.islice(_examples("math_prm800k", "train", **settings), 300):
    assert row["response_t"].tolist() == [*pure.encode(row["solution"]), 1]
    assert pure.decode(row["response_t"]) == row["solution"].replace("▁", " ")


def test_a_prepared_set_that_is_damaged_is_told_and_can_be_made_again(tmp_path):
  config = ArithmeticConfig(train_size=9, validation_size=4, test_size=4)
  load = lambda: _load("arithmetic", "test", data_dir=tmp_path / "data", manual_dir="", arithmetic=config)
  want = load()
  for name in ("*-test.tfrecord*", "dataset_info.json", "metadata.json"):
    [path] = (tmp_path / "data").glob(f"*/*/*/{name}")
    content = path.read_bytes()
    for harmed in (content[:len(content) // 2], content[:20] + bytes([content[20] ^ 128]) + content[21:]):
      path.write_bytes(harmed)
      with pytest.raises(UserError, match=r"arithmetic: the set prepared in .*data is damaged \(.*\); remove it") as raised:
        load()
      assert "\n" not in str(raised.value)
    path.write_bytes(content)
  (tmp_path / "data").rename(tmp_path / "away")
  assert load() == want
