"""The command that grades a file, beside others and beside a user who is in a hurry."""

import json
import os
import signal
import subprocess
import sys

import pytest

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


def test_no_such_file(tmp_path, capsys):
  for path, said in ((tmp_path / "nosuch", f"there is no file {tmp_path}/nosuch"), (tmp_path, f"{tmp_path} is no file but a folder")):
    assert grade.main([str(path)]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_interrupted_in_its_work(tmp_path, monkeypatch, capsys):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(ROW) + "\n")
  monkeypatch.setattr(grading.Grader, "grade", lambda *_: os.kill(os.getpid(), signal.SIGINT))
  assert grade.main([str(path)]) == 130
  assert capsys.readouterr().err.endswith(f"interrupted: {tmp_path}/rows.graded.jsonl was not written; grading begins anew\n")
  assert not (tmp_path / "rows.graded.jsonl").exists()


# Ctrl-C while a package is looked for that all of these import.
HURRY = """
import os, runpy, signal, sys
class Finder:
  def find_spec(self, name, *_):
    if name == "tqdm":
      os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("start", [
    *(f"runpy.run_module('pav_jax.{word}', run_name='__main__')" for word in ("score", "grade")),
    *(f"from pav_jax import console; console.main(['{word}'])" for word in ("score", "grade"))])
def test_interrupted_in_its_imports(start):
  ended = subprocess.run([sys.executable, "-c", HURRY + start], capture_output=True, text=True, check=False)
  assert (ended.returncode, ended.stderr) == (130, "\ninterrupted: nothing had begun\n")
