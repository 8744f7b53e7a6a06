"""The command that grades a file, beside others and beside a user who is in a hurry."""

import json
import os

from pav_jax import grade
from pav_jax.grading import grading

ROW = {"reference": "5", "response": "#### 5", "dataset": "arithmetic"}


def test_a_second_command_on_one_output_is_refused(tmp_path, monkeypatch, capsys):
  path = tmp_path / "rows.jsonl"
  path.write_text("".join(json.dumps({**ROW, "n": n}) + "\n" for n in range(5)))
  real, second = grading.Grader.grade, []
  def grades(*args):
    if not second:
      second.append(None)
      second[0] = grade.main([str(path)])
    return real(*args)
  monkeypatch.setattr(grading.Grader, "grade", grades)
  assert grade.main([str(path)]) == 0 and second == [2]
  assert f"another command is writing it (process {os.getpid()} on" in capsys.readouterr().err
  output = tmp_path / "rows.graded.jsonl"
  assert [json.loads(line)["n"] for line in output.read_text().splitlines()] == [0, 1, 2, 3, 4]
  assert {x.name for x in tmp_path.iterdir()} == {"rows.jsonl", "rows.graded.jsonl"}
