"""Files as people have them: every format gives the same problems, and a set in each public shape opens by its columns alone.

All text is ours; only the names of columns and the layouts are others'.
"""

import gzip
import json
import pathlib
import re
import subprocess
import sys

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from pav_jax.errors import UserError
from pav_jax.problems import problem as problem_lib
from pav_jax.problems import steps
from pav_jax.problems import vocabulary
from pav_jax.problems.files import door
from pav_jax.problems.files.columns import Columns
from pav_jax.problems.files.columns import plain
from pav_jax.problems.problem import Malformed
from pav_jax.problems.problem import Problem

ROWS = [{"question": f"What is {n} + {n}?", "answer": str(2 * n), "solution": f"It is {n} + {n} = {2 * n}."} for n in range(1, 6)]


def _jsonl(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _json(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(rows, indent=2))


def _parquet(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)


def _arrow(path, rows, *, new=pyarrow.ipc.new_stream):
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pyarrow.Table.from_pylist(rows)
  with new(str(path), table.schema) as writer:
    writer.write_table(table, max_chunksize=2)


def _saved(path, rows, files=2):
  """A folder as `save_to_disk` leaves it, with a cache beside the data."""
  size = -(-len(rows) // files)
  names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
  for i, name in enumerate(names):
    _arrow(path / name, rows[i * size:(i + 1) * size])
  _arrow(path / "cache-0123456789abcdef.arrow", rows[:1])
  (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": None}))
  (path / "dataset_info.json").write_text(json.dumps({"features": {}}))


def _read(path, split="test", columns=Columns(), family="math"):
  return list(door.read(str(path), split, columns, family))


def _texts(problems):
  return [(p.question, p.answer, p.solution) for p in problems]


@pytest.mark.parametrize("name, write", [
    ("own.jsonl", _jsonl), ("own.json", _json), ("own.json", _jsonl), ("own.parquet", _parquet), ("own.arrow", _arrow),
    ("own.arrow", lambda path, rows: _arrow(path, rows, new=pyarrow.ipc.new_file))])
def test_every_format_gives_the_same(tmp_path, name, write):
  write(tmp_path / name, ROWS)
  assert _read(tmp_path / name) == [Problem(f"own/{n}", "math", *(row[key] for key in ("question", "solution", "answer")))
                                    for n, row in enumerate(ROWS, 1)]
  assert door.count(str(tmp_path / name), "train") == 5 and door.files_of(str(tmp_path / name), "train")[1] is False


def test_saved_folders(tmp_path):
  """A set, and one with splits; caches beside the data are not data."""
  _saved(tmp_path / "one", ROWS)
  assert _texts(_read(tmp_path / "one")) == [(r["question"], r["answer"], r["solution"]) for r in ROWS]
  assert [p.id for p in _read(tmp_path / "one")] == [f"one/test/{n}" for n in range(1, 6)]
  assert door.files_of(f"{tmp_path}/one", "validation")[1] is False
  _saved(tmp_path / "all/train", ROWS[:4])
  _saved(tmp_path / "all/test", ROWS[4:], files=1)
  (tmp_path / "all/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
  assert [len(_read(tmp_path / "all", split)) for split in ("train", "validation", "test")] == [4, 4, 1]
  assert [door.files_of(f"{tmp_path}/all", split)[1] for split in ("train", "validation", "test")] == [False, False, True]
  (tmp_path / "one/data-00001-of-00002.arrow").unlink()
  with pytest.raises(UserError, match="state.json names data-00001-of-00002.arrow, which is not there"):
    _read(tmp_path / "one")


def test_snapshots_of_a_hub(tmp_path):
  snapshot = tmp_path / "snapshot"
  _parquet(snapshot / "data/train-00000-of-00002.parquet", ROWS[:2])
  _parquet(snapshot / "data/train-00001-of-00002.parquet", ROWS[2:4])
  _parquet(snapshot / "data/test-00000-of-00001.parquet", ROWS[4:])
  (snapshot / "README.md").write_text("train test")
  (snapshot / "set.py").write_text("raise SystemExit('code of a data set has run')")
  _json(snapshot / "dataset_infos.json", {})
  _jsonl(snapshot / ".cache/huggingface/train.jsonl", ROWS)
  assert [p.id for p in _read(snapshot, "train")] == [f"snapshot/train/{n}" for n in (1, 2, 3, 4)]
  assert _texts(_read(snapshot, "test")) == _texts(_read(snapshot / "data", "test"))
  _parquet(snapshot / "data/dev-00000-of-00001.parquet", ROWS[:1])
  assert len(_read(snapshot, "validation")) == 1 and door.files_of(f"{snapshot}/", "train")[1] is True
  _jsonl(tmp_path / "lines/test.jsonl", ROWS)
  assert len(_read(tmp_path / "lines")) == 5
  with pytest.raises(UserError, match="there is no train split; there are test"):
    _read(tmp_path / "lines", "train")
  _parquet(tmp_path / "two/main/train-0.parquet", ROWS)
  _parquet(tmp_path / "two/other/train-0.parquet", ROWS)
  with pytest.raises(UserError, match="train lies in several folders, main, other; name one of them"):
    _read(tmp_path / "two", "train")
  assert len(_read(tmp_path / "two/main", "train")) == 5
  _jsonl(tmp_path / "mixed/train.jsonl", ROWS)
  _parquet(tmp_path / "mixed/train.parquet", ROWS)
  with pytest.raises(UserError, match="train is there in several formats, .jsonl, .parquet; name one of the files"):
    _read(tmp_path / "mixed", "train")
  (tmp_path / "nothing").mkdir()
  with pytest.raises(UserError, match="no data in this folder"):
    _read(tmp_path / "nothing")


BOX = r"Half of it is left. So the sum is $\boxed{\frac{1}{2}}$."
MADE = {
    # NuminaMath-CoT: no column for the answer.
    "numina_cot": ([{"source": "synthetic_math", "problem": "What is 1 - 1/2?", "solution": BOX,
                     "messages": [{"content": "What is 1 - 1/2?", "role": "user"}]}], {"answer": ()}, "math", r"\frac{1}{2}"),
    "numina_1.5": ([{"problem": "What is 1 - 1/2?", "solution": BOX, "answer": r"\frac{1}{2}", "problem_type": "Algebra",
                     "question_type": "math-word-problem", "source": "olympiads", "synthetic": False}], {}, "math", r"\frac{1}{2}"),
    "open_math_instruct_2": ([{"problem": "What is 1 - 1/2?", "generated_solution": BOX, "expected_answer": r"\frac{1}{2}",
                               "problem_source": "augmented_math"}], {}, "math", r"\frac{1}{2}"),
    "meta_math": ([{"query": "What is 1 - 1/2?", "response": "Half of it is left.\nThe answer is: \\frac{1}{2}", "type": "MATH_Rephrased",
                    "original_question": "How much is 1 - 1/2?"}], {"answer": ()}, "math", r"\frac{1}{2}"),
    "math_500": ([{"problem": "What is 1 - 1/2?", "solution": BOX, "answer": r"\frac{1}{2}", "subject": "Algebra", "level": 1,
                   "unique_id": "test/algebra/7.json"}], {}, "math", r"\frac{1}{2}"),
    "minerva": ([{"problem": "What is 1 - 1/2?", "solution": BOX, "type": "Course", "idx": 0}], {"answer": ()}, "math", r"\frac{1}{2}"),
    "minerva_plain": ([{"question": "What is 1 - 1/2?", "answer": "0.5"}], {}, "math", "0.5"),
    "olympiad_bench": ([{"id": 1606, "question": "Solve $x^2 = 1/4$.", "solution": ["Take roots.\r\n\r\nThere are two."],
                         "final_answer": ["$\\frac{1}{2}$", "$-\\frac{1}{2}$"], "context": None, "modality": "Text-only",
                         "is_multiple_answer": True, "unit": None, "answer_type": "Numerical", "error": None, "subfield": "Algebra"}],
                       {}, "math", "$\\frac{1}{2}$, $-\\frac{1}{2}$"),
    "gsm8k": ([{"question": "Ann has 3 hats and buys 4. How many?", "answer": "She has 3+4=7.\n#### 7"}],
              {"solution": ("answer",)}, "gsm8k", "7"),
}


@pytest.mark.parametrize("write, ending", [(_jsonl, "jsonl"), (_json, "json"), (_parquet, "parquet")])
@pytest.mark.parametrize("shape", MADE)
def test_public_shapes_open_by_their_columns(tmp_path, shape, write, ending):
  rows, columns, family, answer = MADE[shape]
  write(tmp_path / f"set.{ending}", rows)
  [found] = _read(tmp_path / f"set.{ending}", columns=Columns(**columns), family=family)
  assert isinstance(found, Problem), found
  assert (found.dataset, found.answer) == (family, answer) and found.question and "\r" not in found.solution
  assert found.id == {"math_500": "test/algebra/7.json", "olympiad_bench": "1606"}.get(shape, "set/1")


def test_columns_by_name(tmp_path, capsys):
  _jsonl(tmp_path / "own.jsonl", [{"frage": "1+1?", "loesung": "Two.", "wert": 2, "quelle": "Book", "dataset": ["x"]}])
  columns = Columns(question=("q", "frage"), answer=("wert",), solution=("loesung",))
  assert _read(tmp_path / "own.jsonl", columns=columns) == [Problem("own/1", "math", "1+1?", "Two.", "2")]
  for wrong, said in (
      (Columns(), "no column question or problem or query; there are frage, loesung, wert, quelle, dataset: problems.columns.question=NAME"),
      (columns._replace(answer=("a",)), "no column a; there are .*: problems.columns.answer=NAME, or, to take what a solution states, the"),
      (columns._replace(answer=(), solution=("s",)), "no column s; there are")):
    with pytest.raises(UserError, match=said) as caught:
      _read(tmp_path / "own.jsonl", columns=wrong)
    assert "\n" not in str(caught.value)
  assert not capsys.readouterr().err
  [found] = _read(tmp_path / "own.jsonl", columns=columns._replace(solution=("s",)))  # which it need not have
  assert found.solution == "" and capsys.readouterr().err.startswith(f"{tmp_path}/own.jsonl: no column s; there are frage, ")
  # A column that other rows have is missing in one row alone.
  _jsonl(tmp_path / "some.jsonl", [ROWS[0], {"question": "1+1?"}])
  assert _read(tmp_path / "some.jsonl")[1] == Malformed(str(tmp_path / "some.jsonl"), "2", "answer", "missing")


@pytest.mark.parametrize("solution, family, answer", [
    (r"First \boxed{3}, so $\boxed{4}$.", "math", "4"), ("It is 4.\n#### 4", "gsm8k", "4"), ("The answer is: 4", "math", "4"),
    ("Hence we have $4$.", "math", None), ("There are 3 and 4.", "gsm8k", None), ("", "math", None)])
def test_an_answer_is_taken_from_where_it_is_marked(tmp_path, solution, family, answer):
  assert problem_lib.stated_answer(solution, family) == answer
  _jsonl(tmp_path / "own.jsonl", [{"question": "?", "solution": solution}])
  [found] = _read(tmp_path / "own.jsonl", columns=Columns(answer=()), family=family)
  assert getattr(found, "answer", None) == answer
  if not answer:
    assert found.field == "solution" and found.reason.startswith("marks no answer" if solution else "missing")


def test_sets_with_answers_and_without(tmp_path):
  """In one run: where an answer's column is the solution's, it is what that marks."""
  _jsonl(tmp_path / "own.jsonl", [{"query": "1+1?", "response": "The answer is: 2"}, {"query": "2+2?", "answer": "4"},
                                  {"query": "3+3?", "answer": "6", "response": "The answer is: 7"}])
  found = _read(tmp_path / "own.jsonl", columns=Columns(answer=("answer", "response")))
  assert [(p.answer, p.solution) for p in found] == [("2", "The answer is: 2"), ("4", ""), ("6", "The answer is: 7")]


def test_the_table_of_flags_is_what_is_tried_here():
  page = (pathlib.Path(__file__).parents[2] / "docs/how-to/problems.md").read_text()
  names = {"numina_cot": "NuminaMath-CoT", "numina_1.5": "NuminaMath-1.5", "open_math_instruct_2": "OpenMathInstruct-2", "meta_math": "MetaMath",
           "math_500": "MATH-500", "minerva": "Minerva", "gsm8k": "GSM8K from the hub"}
  for shape, name in names.items():
    [line] = [line for line in page.splitlines() if line.startswith("|") and name in line]
    _, columns, family, _ = MADE[shape]
    flags = [f"--config.problems.columns.{part}={','.join(names)}" for part, names in columns.items()]
    flags += [f"--config.problems.family={family}"] * (family != "math")
    assert re.findall(r"--config\S+?(?=[ `])", line.replace("--config.problems.max_malformed=300000", "")) == flags, name


@pytest.mark.parametrize("answer", ["proof", "Proof.", "notfound", "N/A", " n/a ", "$N/A$", "", "not found", "?"])
def test_placeholders_are_no_answers(tmp_path, answer):
  _jsonl(tmp_path / "own.jsonl", [{**ROWS[0], "answer": answer}])
  [found] = _read(tmp_path / "own.jsonl")
  assert isinstance(found, Malformed) and found.field == "answer"


def test_white_space_of_other_systems():
  assert plain("a\r\n\r\nb\rc\u2028d\x85e") == "a\n\nb\nc\nd\ne"
  assert plain("\xa0\u3000\nx\u2003y\tz\u200b") == "  \nx y\tz"


@pytest.mark.parametrize("rule", steps.RULES)
def test_a_line_that_looks_blank_is_no_step(tmp_path, rule):
  """Whatever makes it look so, and whatever format brings it; the last step is the end of the response."""
  pieces = vocabulary.train(["some words, and other words of one kind"] * 9, 290, tmp_path / "own.model")
  solution = "a\r\n\r\n \t\r\n\xa0\n\u200b\n\u3000\u2003\r\n\x0b\r\nb\r\n\r\n"
  for write, name in ((_jsonl, "a.jsonl"), (_json, "a.json"), (_parquet, "a.parquet"), (_arrow, "a.arrow")):
    for given, last in ((solution, [[]]), ([solution.partition("b")[0], "b\r\n\r\n"], [])):  # eos, after a finished line a step of its own
      write(tmp_path / name, [{**ROWS[0], "solution": given}])
      ids = [*pieces.encode(_read(tmp_path / name)[0].solution), pieces.eos_id]
      found = steps.split(ids, vocabulary.load(tmp_path / "own.model", rule).step_rule)
      assert [pieces.decode(step).split() for step in found] == [["a"], ["b"], *last]


def test_damaged_files_are_told(tmp_path):
  _parquet(tmp_path / "a.parquet", ROWS)
  content = (tmp_path / "a.parquet").read_bytes()
  _arrow(tmp_path / "a.arrow", ROWS)
  stream = (tmp_path / "a.arrow").read_bytes()
  for name, harmed in (("b.parquet", content[:-20]), ("c.parquet", b""), ("d.parquet", b"no table at all"), ("e.arrow", stream[:50]),
                       ("f.arrow", b""), ("g.arrow", b"ARROW1" + stream), ("h.json", b'[{"question": 1'), ("i.json.gz", gzip.compress(b"[")[:-3])):
    (tmp_path / name).write_bytes(harmed)
    with pytest.raises(UserError) as caught:
      _read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError):
      door.count(str(tmp_path / name), "test")
  with pytest.raises(UserError, match="there is no file"):
    _read(tmp_path / "nosuch.parquet")
  with pytest.raises(UserError, match="a file of problems ends in .jsonl"):
    (tmp_path / "x.csv").write_text("a,b")
    _read(tmp_path / "x.csv")


def test_a_row_that_is_no_utf_8_hides_no_other(tmp_path):
  bad = pyarrow.array([b"1+1?", b"\xff?", b"2+2?"]).cast(pyarrow.binary()).view(pyarrow.string())
  pyarrow.parquet.write_table(pyarrow.table({"question": bad, "answer": ["2", "3", "4"]}), tmp_path / "a.parquet")
  first, second, third = _read(tmp_path / "a.parquet")
  assert (first.answer, third.answer) == ("2", "4")
  assert second == Malformed(str(tmp_path / "a.parquet"), "2", "", "not UTF-8 at byte 0 of a text")


def test_types_of_tables(tmp_path):
  _parquet(tmp_path / "a.parquet", [{"question": "?", "answer": 2.5, "id": 7}, {"question": "!", "answer": None, "id": 8},
                                    {"question": "!", "answer": float("nan"), "id": 9}])
  first, *others = _read(tmp_path / "a.parquet")
  assert first == Problem("7", "math", "?", "", "2.5") and [bad.reason for bad in others] == ["missing", "missing"]
  _jsonl(tmp_path / "b.jsonl", [{"question": "?", "answer": [1, "2"]}, {"question": "?", "answer": "2", "id": "b/1"}])
  first, second = _read(tmp_path / "b.jsonl")
  assert first.answer == "1, 2" and second.reason == "b/1 is in row 1 already"


def test_without_pyarrow_other_formats_open(tmp_path):
  _jsonl(tmp_path / "a.jsonl", ROWS)
  _parquet(tmp_path / "a.parquet", ROWS)
  code = ("import sys, importlib.util; found = importlib.util.find_spec; "
          "importlib.util.find_spec = lambda name, *a: None if name == 'pyarrow' else found(name, *a); "
          "from pav_jax.problems.files import door; print(len(list(door.read(sys.argv[1] + '.jsonl', 'test')))); "
          "assert 'pyarrow' not in sys.modules; list(door.read(sys.argv[1] + '.parquet', 'test'))")
  done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True, timeout=60)
  assert done.stdout == "5\n" and "needs" not in done.stdout
  assert done.stderr.splitlines()[-1].endswith("tables are read by the package pyarrow, which is not installed (pip install pyarrow)")
