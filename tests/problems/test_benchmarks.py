"""Public benchmarks' files in every packing, liberal where it does no harm, and each malformed row named."""

import gzip
import json

import pytest

from pav_jax.errors import UserError
from pav_jax.problems import benchmarks

PROCESS = {"id": "gsm8k-0", "generator": "someone", "problem": "Ann has 2 figs and eats 1. How many?", "steps": ["She had 2.", "Now 3."],
           "final_answer_correct": False, "label": 1}
PRM = {"original_question": "What is 1 + 1?", "modified_question": "What is 1 + 2?", "original_process": ["It is 2."],
       "modified_process": ["Add.", "It is 4.", "So 4."], "modified_steps": [2, 3], "error_steps": [2, 3], "reason": "4 is not 3",
       "idx": "circular_x_0", "classification": "circular"}
MR = {"uuid": "u", "question": "What is 2 x 3?", "model_output_steps": ["2 + 2 = 4.", "4 + 2 = 6."], "model_output_answer_correctness": "correct",
      "model_output_solution_correctness": "wrong", "model_output_solution_first_error_step": 1, "question_type": "original"}


def _write(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
  return str(path)


@pytest.mark.parametrize("pack", ["lines", "array", "gzip", "bom", "parquet"])
def test_every_packing_gives_the_same_cases(tmp_path, pack):
  rows = [PROCESS, PROCESS | {"id": "olympiadbench-7", "label": -1, "final_answer_correct": True}]
  path = tmp_path / {"gzip": "x.json.gz", "parquet": "x.parquet", "bom": "x.jsonl"}.get(pack, "x.json")
  text = "".join(json.dumps(row) + "\n\n" for row in rows)
  if pack == "array":
    path.write_text("\n " + json.dumps(rows, indent=1))
  elif pack == "parquet":
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  else:
    path.write_bytes({"lines": text.encode(), "gzip": gzip.compress(text.encode()), "bom": b"\xef\xbb\xbf" + text.encode()}[pack])
  found = benchmarks.read(str(path))
  assert not found.malformed
  first, second = found.cases
  assert first == benchmarks.Case(str(path), 1, "ProcessBench", "gsm8k", "gsm8k-0", PROCESS["problem"], ("She had 2.", "Now 3."), 1,
                                  answer_right=False)
  assert (second.subset, second.first_wrong, second.answer_right, second.row) == ("olympiadbench", -1, True, 3 if pack in ("lines", "gzip", "bom") else 2)


def test_prmbench_counts_steps_from_1_and_the_first_of_a_repeated_item_is_taken(tmp_path):
  path = _write(tmp_path / "p.jsonl", [
      PRM, PRM | {"error_steps": []}, PRM | {"idx": "circular_x_1", "error_steps": [3.0, "1", 9, 0]},
      PRM | {"idx": "deception_x_0", "classification": None, "error_steps": [1], "modified_question": ""},
      PRM | {"idx": "m", "classification": "multi_solutions", "error_steps": []}])
  found = benchmarks.read(path)
  assert [(c.subset, c.first_wrong, c.wrong) for c in found.cases] == [
      ("circular", 1, (1, 2)), ("circular", 0, (0, 2)), ("deception", 0, (0,)), ("multi_solutions", -1, ())]
  assert (found.repeated, found.beyond, found.malformed) == (1, 2, [])
  assert [c.question for c in found.cases[:3]] == ["What is 1 + 2?"] * 2 + ["What is 1 + 1?"]


def test_mr_counts_from_1_and_joins_the_lines_of_a_step(tmp_path):
  nested = {k: v for k, v in MR.items() if k != "model_output_steps"} | {"model_output_step_format": [["1. Write:", "$a$"], ["2. So."]]}
  path = _write(tmp_path / "mr-math.v2.json", [
      MR, nested | {"model_output_solution_first_error_step": "Step 2"}, MR | {"model_output_solution_first_error_step": 2.0},
      MR | {"model_output_solution_correctness": "Correct", "model_output_solution_first_error_step": "N/A"},
      MR | {"model_output_solution_correctness": "correct", "model_output_solution_first_error_step": None}])
  found = benchmarks.read(path)
  assert not found.malformed and {(c.benchmark, c.subset, c.answer_right) for c in found.cases} == {("MR", "mr-math", True)}
  assert [c.first_wrong for c in found.cases] == [0, 1, 1, -1, -1]
  assert found.cases[1].steps == ("1. Write:\n$a$", "2. So.")
  redundant = {"id": 0, "question": "q", "model_output_step_format": [["a"], ["b"], ["c"]], "rating": [1, 0, 1]}
  found = benchmarks.read(_write(tmp_path / "r.json", [redundant, redundant | {"id": 1, "rating": [1, 1, 1]}]))
  assert [(c.benchmark, c.id, c.first_wrong) for c in found.cases] == [("MR redundant", "0", 1), ("MR redundant", "1", -1)]


@pytest.mark.parametrize("good, change, field, reason", [
    (PROCESS, {"label": 2}, "label", "2 is no step of 2, nor -1"),
    (PROCESS, {"label": -2}, "label", "-2 is no whole number|-2 is no step"),
    (PROCESS, {"label": 1.5}, "label", "1.5 is no whole number"),
    (PROCESS, {"label": True}, "label", "True is no whole number"),
    (PROCESS, {"label": None}, "label", "missing"),
    (PROCESS, {"label": 10**400}, "label", "is no whole number"),
    (PROCESS, {"steps": []}, "steps", "empty"),
    (PROCESS, {"steps": "She had 2."}, "steps", "not a list but str"),
    (PROCESS, {"steps": ["a", None]}, "steps", "missing"),
    (PROCESS, {"steps": ["a", 3]}, "steps", "not a string but a number"),
    (PROCESS, {"steps": ["a", "\ud800"]}, "steps", "half a surrogate pair"),
    (PROCESS, {"problem": 3}, "problem", "not a string but a number"),
    (PROCESS, {"final_answer_correct": "so so"}, "final_answer_correct", "neither true nor false"),
    (PRM, {"error_steps": "2, 3"}, "error_steps", "not a list but str"),
    (PRM, {"error_steps": [{}]}, "error_steps", "no whole number"),
    (PRM, {"classification": "other"}, "classification", "'other' is none of redundency, circular"),
    (PRM, {"classification": None, "idx": "x"}, "classification", "missing"),
    (PRM, {"modified_process": {"a": 1}}, "modified_process", "not a list but dict"),
    (MR, {"model_output_solution_correctness": "maybe"}, "model_output_solution_correctness", "neither correct nor wrong"),
    (MR, {"model_output_solution_first_error_step": "N/A"}, "model_output_solution_first_error_step", "missing in a wrong solution"),
    (MR, {"model_output_solution_first_error_step": 3}, "model_output_solution_first_error_step", "3 is no step of 2, counted from 1"),
    (MR, {"model_output_solution_first_error_step": 0}, "model_output_solution_first_error_step", "0 is no step of 2"),
    (MR, {"model_output_solution_correctness": "correct"}, "model_output_solution_first_error_step", "1 in a correct solution"),
    (MR, {"model_output_steps": [[], ["a"]]}, "model_output_steps", "step 0 has no line"),
    ({"question": "q", "model_output_steps": ["a"], "rating": [1]}, {"rating": [1, 1]}, "rating", "not a list of 1"),
])
def test_a_malformed_row_is_named_with_its_field(tmp_path, good, change, field, reason):
  found = benchmarks.read(_write(tmp_path / "x.jsonl", [good, good | {"id": "y-1", "idx": "circular_y", **change}]))
  assert len(found.cases) == 1
  bad, = found.malformed
  assert (bad.row, bad.field) == ("2", field) and any(x in bad.reason for x in reason.split("|"))


def test_rows_that_are_no_objects_are_named(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_bytes(json.dumps(PROCESS).encode() + b"\n{\n[1]\n\xff\n" + b'{"problem": ' + b"[" * 200_000 + b"\n")
  found = benchmarks.read(str(path))
  assert [bad.row for bad in found.malformed] == ["2", "3", "4", "5"] and len(found.cases) == 1
  assert "broken JSON" in found.malformed[0].reason and "not UTF-8" in found.malformed[2].reason


@pytest.mark.parametrize("content, said", [
    (b"", "holds no row"), (b"[{]", "broken JSON"),
    (b'{"prompt": 1, "completions": 2}\n', "no row has the fields of .* the first has 'prompt', 'completions'"),
    (json.dumps(PROCESS | {"label": 9}).encode(), "no row of 1 is a case of ProcessBench: .* row 1, field label"),
])
def test_a_file_without_cases_is_refused(tmp_path, content, said):
  path = tmp_path / "x.json"
  path.write_bytes(content)
  with pytest.raises(UserError, match=said):
    benchmarks.read(str(path))


@pytest.mark.parametrize("name, said", [("absent.json", "there is no file"), ("x.txt", "ends in"), ("x.jsonl.gz", "is damaged"), ("x.parquet", "is damaged")])
def test_a_file_that_is_none_is_refused(tmp_path, name, said):
  if name != "absent.json":
    (tmp_path / name).write_bytes(gzip.compress(b"x" * 1000)[:20])
  with pytest.raises(UserError, match=said):
    benchmarks.read(str(tmp_path / name))
