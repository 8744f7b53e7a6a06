"""Files are whole or not there, and what a disk or another run stands in the way of is told in a line."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training import records

PLAN = ("rollouts", {"seed": 0}, {"sft": "abc"})


def _full(path: pathlib.Path):
  """What is written under this name meets a full disk."""
  path.symlink_to("/dev/full")


def test_a_path_is_absolute_or_a_url(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", "/home/x")
  assert [str(files.path(x)) for x in ("runs/a", "/runs/../a", "~/a", "gs://bucket/a")] == [
      f"{tmp_path}/runs/a", "/a", "/home/x/a", "gs://bucket/a"]
  assert str(files.path("gs://bucket/a") / "b" / "c") == "gs://bucket/a/b/c"
  assert files.is_remote(files.path("gs://bucket/a")) and not files.is_remote(files.path("a"))


@pytest.mark.parametrize("spec, told", [
    ("gcs://bucket/a", "gcs://bucket/a: gcs:// is none of gs://, s3://, az://, hf://, nor a local path"),
    ("s3://bucket/a", "s3://bucket/a: s3:// needs the package s3fs")])
def test_a_url_that_nothing_reaches_is_told(spec, told):
  with pytest.raises(UserError) as raised:
    files.path(spec)
  assert str(raised.value) == told


@pytest.mark.parametrize("before", [None, "old"])
def test_a_full_disk_leaves_what_was_there(tmp_path, before):
  path = files.path(tmp_path / "a.json")
  if before:
    files.write(path, before)
  _full(tmp_path / "a.json.partial")
  with pytest.raises(UserError, match="a.json cannot be written: No space left on device"):
    files.write(path, "new")
  assert (path.read_text() if before else path.exists()) == (before or False)
  assert sorted(os.listdir(tmp_path)) == ["a.json"] * bool(before)
  files.write(path, "new")  # there is room again
  assert path.read_text() == "new"


def test_a_file_where_a_folder_must_be_is_told(tmp_path):
  (tmp_path / "run").write_text("")
  for act in (lambda p: files.write(p, "x"), lambda p: files.append(p, "x"), lambda p: files.folder(p)):
    with pytest.raises(UserError, match="run.* cannot be made a folder: "):
      act(files.path(tmp_path / "run" / "a" / "b"))
  with pytest.raises(UserError, match="nowhere cannot be read: No such file or directory"):
    files.read(files.path(tmp_path / "nowhere"))


def test_records_on_a_full_disk_go_on_when_there_is_room(tmp_path):
  folder = records.Folder(tmp_path / "x")
  folder.start(*PLAN)
  folder.write_shard(0, {"a_b": np.array([1, 2])}, {})
  for name in ("00001.npz", "00001.json", "manifest.json"):
    _full(tmp_path / "x" / f"{name}.partial")
    with pytest.raises(UserError, match=f"{name} cannot be written: No space left on device"):
      folder.write_shard(1, {"a_b": np.array([3])}, {})
      folder.finish(2)
    assert not folder.done and folder.has_shard(0)
  again = records.Folder(tmp_path / "x")
  assert not again.start(*PLAN) and again.has_shard(1)
  again.finish(2)
  assert again.read()["a_b"].tolist() == [1, 2, 3]


def test_curves_on_a_full_disk_are_told(tmp_path):
  _full(tmp_path / "curves.jsonl.partial")
  (tmp_path / "curves.jsonl").write_text('{"step": 1}\n{"step": 2')
  with pytest.raises(UserError, match="curves.jsonl cannot be written: No space left on device"):
    metrics.Curves(tmp_path / "curves.jsonl", 1)
  assert metrics.read_curves(tmp_path / "curves.jsonl") == [{"step": 1}]
  curves = metrics.Curves(tmp_path / "curves.jsonl", 1)
  curves.write(2, loss=0.5)
  assert (tmp_path / "curves.jsonl").read_text() == '{"step": 1}\n{"step": 2, "loss": 0.5}\n'
  (tmp_path / "curves.jsonl").unlink()
  _full(tmp_path / "curves.jsonl")
  with pytest.raises(UserError, match="curves.jsonl cannot be written: No space left on device"):
    curves.write(3, loss=0.4)


def test_a_row_that_is_none_is_told(tmp_path):
  for line in ("[1]", '{"stop": 2}', "{", "\0\0"):
    (tmp_path / "curves.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match="curves.jsonl is damaged: line 2 is no row with 'step'"):
      metrics.read_curves(tmp_path / "curves.jsonl")


def test_any_bit_of_a_json_file_that_flips_is_told(tmp_path):
  path, value = files.path(tmp_path / "a.json"), {"seed": 10, "arms": ["q", 1.5], "nested": {"x": None}}
  files.write_json(path, value)
  content = path.read_bytes()
  assert files.read_json(path) == value
  for i in range(len(content)):
    for bit in range(8):
      path.write_bytes(content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1:])
      try:
        # White space may become other white space; the name of the checksum another key.
        assert {k: x for k, x in files.read_json(path).items() if k in value} == value
      except UserError as error:
        assert "is damaged" in str(error) and "\n" not in str(error)
  for end in range(len(content) - 1):
    path.write_bytes(content[:end])
    with pytest.raises(UserError, match="is damaged"):
      files.read_json(path)


def test_json_of_an_earlier_version_has_no_checksum(tmp_path):
  (tmp_path / "a.json").write_text(json.dumps({"seed": 1}))
  assert files.read_json(files.path(tmp_path / "a.json")) == {"seed": 1}
  (tmp_path / "a.json").write_text("[]")
  with pytest.raises(UserError, match="is damaged: it holds no JSON object"):
    files.read_json(files.path(tmp_path / "a.json"))


HOLD = """
import sys
from pav_jax.training import files
with files.lock(files.path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


def test_a_second_run_is_told_of_the_first_until_it_is_gone(tmp_path):
  other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert other.stdout.readline() == "held\n"
  with pytest.raises(UserError, match=f"another run is in it .process {other.pid} on .* since .* UTC.; wait for it"):
    with files.lock(files.path(tmp_path)):
      pass
  other.send_signal(signal.SIGKILL)
  other.communicate()
  with files.lock(files.path(tmp_path)):
    assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
  with files.lock(files.path(tmp_path)):  # let go at the block's end
    pass


def test_a_disk_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
  def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")
  monkeypatch.setattr("fcntl.flock", none)
  with files.lock(files.path(tmp_path)):
    pass
  assert capsys.readouterr().err == (f"{tmp_path}/.lock cannot be locked (No locks available): "
                                     "a second run in this workdir would not be noticed\n")


def test_a_lock_that_cannot_be_written_is_told(tmp_path):
  (tmp_path / ".lock").mkdir()
  with pytest.raises(UserError, match=".lock cannot be written: Is a directory"):
    with files.lock(files.path(tmp_path)):
      pass
