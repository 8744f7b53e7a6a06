"""Readers of the publishers' layouts: what they read, and what they refuse."""

import gzip
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import problem
from pav_jax.problems import steps
from pav_jax.problems.files import door
from pav_jax.problems.problem import Malformed, Problem


def _names(problems):
  return [p.id for p in problems]


def test_gsm8k_layout(publisher_dir):
  problems, malformed = problem.sift(problem.read_gsm8k(publisher_dir / "gsm8k/train.jsonl", "train"))
  assert len(problems) == 30 and not malformed
  assert problems[3] == Problem("gsm8k/train/4", "gsm8k", "Ann has 3 hats and buys 3. How many (train)?",
                                "3+3 = 6 hats.\n#### 6", "6")
  noted = next(problem.read_gsm8k(publisher_dir / "gsm8k/train.jsonl", "train", strip_notes=False))
  assert noted.solution == "0+0 = <<0+0=0>>0 hats.\n#### 0"


def test_math_layout_as_folder_and_archives(publisher_dir, tmp_path):
  rows = list(problem.read_math(publisher_dir, "train"))
  assert _names(r for r in rows if isinstance(r, Problem)) == [
      f"math/train/{name}.json" for name in ("algebra/1", "algebra/2", "algebra/10", "number_theory/3",
                                             "number_theory/4", "number_theory/5")]
  assert rows[2].answer == "100" and rows[2].solution == r"It is $\boxed{100}$."
  assert list(problem.read_math(publisher_dir / "MATH", "train")) == rows
  for name, mode in (("MATH.tar", "w"), ("MATH.tar.gz", "w:gz")):
    (tmp_path / name).mkdir()
    with tarfile.open(tmp_path / name / name, mode) as archive:
      archive.add(publisher_dir / "MATH", "MATH")
    read = list(problem.read_math(tmp_path / name, "train"))
    assert [r for r in read if isinstance(r, Problem)] == [r for r in rows if isinstance(r, Problem)]


def test_empty_box_is_refused_unless_known(publisher_dir):
  with pytest.raises(UserError, match=r"1 of 7 rows .* row train/number_theory/7115.json, field answer: .* empty"):
    problem.sift(problem.read_math(publisher_dir, "train"))
  problems, malformed = problem.sift(problem.read_math(publisher_dir, "train"), known=problem.EMPTY_BOXES)
  assert len(problems) == 6 and _rows(malformed) == [("train/number_theory/7115.json", "answer")]


def test_prm800k_split(publisher_dir):
  path = publisher_dir / "prm800k/math_splits/test.jsonl"
  test, _ = problem.sift(problem.read_prm800k(publisher_dir, path, "test"))
  train, malformed = problem.sift(problem.read_prm800k(publisher_dir, path, "train"), known=problem.EMPTY_BOXES)
  assert _names(test) == ["math/test/algebra/4.json", "math/test/algebra/2.json"]
  assert len(train) + len(malformed) == 10 and not set(_names(test)) & set(_names(train))
  assert test[0].answer == "16"


def test_prm800k_refuses_what_could_leak(publisher_dir, tmp_path):
  path = tmp_path / "test.jsonl"
  path.write_text('{"unique_id": "test/algebra/99.json", "problem": "?"}\n'
                  '{"unique_id": "test/algebra/1.json", "problem": "another"}\nbroken\n')
  rows = problem.read_prm800k(publisher_dir, path, "train")
  bad = [row for row in rows if isinstance(row, Malformed) and row.file == str(path)]
  assert _rows(bad) == [("1", "unique_id"), ("2", "problem"), ("3", "")]


def _rows(malformed):
  return [(bad.row, bad.field) for bad in malformed]


_GOOD = b'{"question": "1+1?", "answer": "2"}'


@pytest.mark.parametrize("line, field, reason", [
    (b'{"question": "1+1?", "answer": ', "", "broken JSON"),
    (b'{"question": "1+1?", "answer": NaN}', "answer", "missing"),
    (b'{"question": "1+1?", "answer": Infinity}', "", "broken JSON"),
    (b"[" * 100_000, "", "broken JSON"),
    (b'["1+1?", "2"]', "", "not a JSON object"),
    (b'{"answer": "2"}', "question", "missing"),
    (b'{"question": null, "answer": "2"}', "question", "missing"),
    (b'{"question": "1+1?", "answer": "2", "solution": ["1", " "]}', "solution", "step 2 is empty"),
    (b'{"question": "1+1?", "answer": "2", "solution": [["1"]]}', "solution", "step 1 is not a string"),
    (b'{"question": "1+1?", "answer": "2", "solution": {"1": 2}}', "solution", "not a string"),
    (b'{"question": " \\n", "answer": "2"}', "question", "empty"),
    (b'{"question": 7, "answer": "2"}', "question", "not a string"),
    (b'{"question": "1+1?"}', "answer", "missing"),
    (b'{"question": "1+1?", "answer": ""}', "answer", "empty"),
    (b'{"question": "1+1?", "answer": []}', "answer", "empty"),
    (b'{"question": "1+1?", "answer": ["2", true]}', "answer", "answer 2 is not a string"),
    (b'{"question": "1+1?", "answer": {"a": "2"}}', "answer", "not a string"),
    (b'{"question": "1+1?", "answer": true}', "answer", "not a string"),
    (b'{"question": "1+1?", "answer": " Proof. "}', "answer", "'Proof.' is no answer"),
    (b'{"question": "1+1?", "answer": "It is 2.\\n#### 2"}', "answer", "holds a solution (####), no answer: problems.columns.solution=answer takes"),
    ('{"question": "Größe?", "answer": "2"}'.encode("latin-1"), "", "not UTF-8 at byte 16"),
    (b'{"question": "\\ud800?", "answer": "2"}', "question", "half a surrogate pair"),
    (b'{"question": "1+1?", "answer": "2", "id": "mine/1"}', "id", "mine/1 is in row 1 already"),
])
def test_malformed_rows_are_reported_and_counted(tmp_path, line, field, reason):
  path = tmp_path / "mine.jsonl"
  path.write_bytes(_GOOD + b"\n\n" + line + b"\n" + _GOOD)
  problems, malformed = problem.sift(door.read(str(path), "test"), max_malformed=1)
  assert _names(problems) == ["mine/1", "mine/4"]
  assert [(bad.file, bad.row, bad.field) for bad in malformed] == [(str(path), "3", field)]
  assert malformed[0].reason.startswith(reason)
  with pytest.raises(UserError) as error:
    problem.sift(door.read(str(path), "test"))
  assert f"1 of 3 rows are malformed, more than max_malformed = 0: {path} row 3" in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer, reason", [("two", "no ####"), ("two\n#### ", "nothing after ####")])
def test_gsm8k_answers(tmp_path, answer, reason):
  path = tmp_path / "train.jsonl"
  path.write_text(json.dumps({"question": "1+1?", "answer": "#### 3\nno\n#### 2"}))
  assert next(problem.read_gsm8k(path, "train")).answer == "2"
  path.write_text(json.dumps({"question": "1+1?", "answer": answer}))
  assert list(problem.read_gsm8k(path, "train")) == [Malformed(str(path), "1", "answer", reason)]


def test_math_rows_that_are_broken(tmp_path):
  folder = tmp_path / "MATH/train/algebra"
  folder.mkdir(parents=True)
  (folder / "1.json").write_text('{"problem": "?", "solution": "none"}')
  (folder / "2.json").write_text('{"problem": "?"}')
  (folder / "3.json").write_text("{")
  (folder / "4.json").write_text('{"problem": "", "solution": "$\\\\boxed{1}$"}')
  assert _rows(problem.read_math(tmp_path, "train")) == [
      ("train/algebra/1.json", "answer"), ("train/algebra/2.json", "solution"), ("train/algebra/3.json", ""),
      ("train/algebra/4.json", "problem")]


def test_a_name_twice_in_an_archive(tmp_path):
  content = b'{"problem": "?", "solution": "$\\\\boxed{1}$"}'
  with tarfile.open(tmp_path / "MATH.tar", "w") as archive:
    for _ in range(2):
      member = tarfile.TarInfo("MATH/train/algebra/1.json")
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  good, bad = problem.read_math(tmp_path, "train")
  assert isinstance(good, Problem) and bad.field == "id"
  with tarfile.open(tmp_path / "MATH.tar", "a") as archive:
    member.name = "MATH/test/algebra/1.json"
    archive.addfile(member, io.BytesIO(content))
  (tmp_path / "test.jsonl").write_text('{"unique_id": "test/algebra/1.json", "problem": "?"}')
  assert list(problem.read_prm800k(tmp_path, tmp_path / "test.jsonl", "train")) == [bad, good]


def test_jsonl_of_ones_own(tmp_path):
  path = tmp_path / "mine.jsonl.gz"
  path.write_bytes(gzip.compress("\ufeff".encode() + b'{"question": "1+1?", "answer": 2.50, "solution": null}\n'
                                 b'{"question": "?", "answer": "3", "id": 7, "dataset": "GSM8K", "solution": "s"}\n'
                                 b'{"question": "!", "answer": "4", "dataset": "chess"}\n'))
  assert list(door.read(str(path), "test")) == [Problem("mine/1", "math", "1+1?", "", "2.50"),
                                                     Problem("7", "gsm8k", "?", "s", "3"), Problem("mine/3", "math", "!", "", "4")]


def test_files_that_cannot_be_read(tmp_path):
  whole = gzip.compress(_GOOD * 1000)
  (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
  (tmp_path / "none.jsonl.gz").write_bytes(_GOOD)
  (tmp_path / "empty.jsonl").write_bytes(b"\n")
  (tmp_path / "MATH.tar.gz").write_bytes(b"no archive")
  for rows in (door.read(str(tmp_path / "absent.jsonl"), "test"), door.read(str(tmp_path / "cut.jsonl.gz"), "test"),
               door.read(str(tmp_path / "none.jsonl.gz"), "test"), door.read(str(tmp_path / "empty.jsonl"), "test"),
               problem.read_math(tmp_path, "train"), problem.read_math(tmp_path / "absent", "train")):
    with pytest.raises(UserError):
      problem.sift(rows)


def test_real_counts(data_dir):
  for split, gsm8k, math in (("train", 7_473, 7_500), ("test", 1_319, 5_000)):
    problems, malformed = problem.sift(problem.read_gsm8k(data_dir / f"gsm8k/{split}.jsonl", split))
    assert len(problems) == gsm8k and not malformed
    assert not any("<<" in p.solution or not p.solution.endswith(f"#### {p.answer}") for p in problems)
    problems, malformed = problem.sift(problem.read_math(data_dir, split), known=problem.EMPTY_BOXES)
    assert {bad.row for bad in malformed} == (problem.EMPTY_BOXES if split == "train" else set())
    assert len(problems) + len(malformed) == math


def test_real_prm800k_split_is_the_published_one(data_dir):
  folder = data_dir / "prm800k/math_splits"
  train, malformed = problem.sift(problem.read_prm800k(data_dir, folder / "test.jsonl", "train"),
                                  known=problem.EMPTY_BOXES)
  ids = {json.loads(line)["id"] for line in (folder / "train_ids.jsonl").read_text().splitlines()}
  assert len(ids) == 12_000 and {bad.row for bad in malformed} == problem.EMPTY_BOXES
  assert {p.id.removeprefix("math/") for p in train} | problem.EMPTY_BOXES == ids
  published = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
  test = list(problem.read_prm800k(data_dir, folder / "test.jsonl", "test"))
  other = {row.id: row.answer for row, line in zip(test, published, strict=True) if row.answer != line["answer"]}
  # Published is the last box; this solution boxes one number in two spellings, joined by 'or'.
  assert len(test) == 500 and list(other) == ["math/test/number_theory/459.json"] and "or" in other[list(other)[0]]


def test_real_evaluation_sets(data_dir):
  for name, count in (("aime24", 30), ("amc23", 40)):
    assert len(problem.sift(door.read(str(data_dir / f"eval_sets/{name}.jsonl.gz"), "test"))[0]) == count


@pytest.mark.parametrize("module", ["problem", "vocabulary", "steps", "arithmetic"])
def test_no_tensorflow(module):
  code = (f"import pav_jax.problems.{module}, sys; "
          "sys.exit(bool({'tensorflow', 'seqio', 'tensorflow_datasets', 'jax'} & set(sys.modules)))")
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("rule", steps.RULES)
def test_given_steps_are_steps_under_every_rule(tmp_path, rule):
  given = ["Let $x = 1$.", "Then\n$2x = 2$.", "\\begin{align}\nx\n\\end{align}\n", "It is 2."]
  path = tmp_path / "mine.jsonl"
  path.write_text(json.dumps({"question": "2x?", "answer": "2", "solution": given}) + "\n")
  solution = next(door.read(str(path), "test")).solution
  characters = ["", *sorted(set(solution))]
  found = steps.split([characters.index(c) for c in solution], steps.rule_of(rule, characters, 0))
  texts = ["".join(characters[i] for i in step) for step in found]
  # What a rule finds within them is more steps; none goes across.
  ends = np.cumsum([len(step.rstrip("\n")) + 2 for step in given])[:-1]
  assert set(ends) <= {len("".join(texts[:n])) + extra for n in range(len(texts)) for extra in (0, 1)}
  if rule == "blank":
    assert [text.strip("\n") for text in texts] == [step.strip("\n") for step in given]
  assert len(texts) == {"newline": 7, "blank": 4, "outside": 5}[rule]
