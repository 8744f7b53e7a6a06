"""What happens to files: found, named in one line with exit status 2, and nothing finished is lost by it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training import records
from tests.test_pipeline import miniature
from tests.training.test_files import HOLD

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
TINY = "from math import inf\n\nfrom ml_collections import config_dict\n\ndef get_config():\n  return config_dict.ConfigDict({})\n"


@pytest.fixture
def run(done, tmp_path):
  """A copy of the finished run, the values still to be made."""
  shutil.copytree(done, tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "values")
  return tmp_path / "run"


def _flip(path: pathlib.Path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(content)


def _truncate(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[:-20])


def _of_the_future(path: pathlib.Path):
  files.write_json(files.path(path), files.read_json(files.path(path)) | {"format": records.FORMAT + 1})


@pytest.mark.parametrize("name, harm, told", [
    ("rollouts/00000.npz", _flip, "rollouts/00000.npz is damaged: its checksum is not the manifest's; to make it again remove"),
    ("rollouts/00000.npz", _truncate, "rollouts/00000.npz is damaged"),
    ("rollouts/00001.npz", os.unlink, "rollouts/00001.npz is missing"),
    ("rollouts/manifest.json", _flip, "rollouts/manifest.json is damaged"),
    ("rollouts/manifest.json", _truncate, "rollouts/manifest.json is damaged"),
    ("rollouts/manifest.json", _of_the_future, "rollouts/manifest.json has format 2: a later version of pav_jax wrote it"),
    ("rollouts/manifest.json", os.unlink, "rollouts is unfinished: run the stage that makes it first"),
    ("problems/train/vocabulary.model", _flip, "problems/train/vocabulary.model"),
    ("problems/train/vocabulary.model", os.unlink, "vocabulary.model cannot be read: No such file"),
    ("sft/best", shutil.rmtree, "sft/best: no such folder"),
])
def test_what_was_made_and_is_harmed_is_told_and_kept(run, name, harm, told):
  before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
  harm(run / name)
  with pytest.raises(UserError) as raised:
    main.run(miniature(stage="values"), run)
  assert told in str(raised.value) and "\n" not in str(raised.value)
  assert all(p.read_bytes() == content for p, content in before.items() if not p.is_relative_to(run / name))


def test_a_harmed_shard_is_made_again_as_it_was(run, done):
  _flip(run / "rollouts" / "00000.npz")
  for name in ("manifest.json", "00000.json", "00000.npz"):  # as the message says
    (run / "rollouts" / name).unlink()
  main.run(miniature(stage="rollouts"), run)
  for name in ("manifest.json", "00000.json", "00000.npz"):
    assert (run / "rollouts" / name).read_bytes() == (done / "rollouts" / name).read_bytes()


def test_a_plan_that_is_torn_is_told(run):
  (run / "values").mkdir()
  (run / "values" / "plan.json").write_text('{"stage": "val')
  with pytest.raises(UserError, match="values/plan.json is damaged: "):
    main.run(miniature(stage="values"), run)


def test_a_bit_that_flips_in_a_checkpoint_is_told(run):
  [step] = (run / "sft" / "best").iterdir()
  data = max((p for p in (step / "params").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  _flip(data)
  with pytest.raises(UserError, match="checkpoint .*/sft/best/.* is damaged: ") as raised:
    main.run(miniature(stage="values"), run)
  assert "\n" not in str(raised.value)


def _command(tmp_path, run, *arguments):
  (tmp_path / "tiny.py").write_text(TINY.format(miniature().to_dict()))
  return [sys.executable, "-m", "pav_jax.main", f"--config={tmp_path / 'tiny.py'}", f"--workdir={run}", *arguments]


def test_a_second_run_in_a_workdir_is_told_of_the_first(run, tmp_path):
  with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
    assert other.stdout.readline() == b"held\n"
    done = subprocess.run(_command(tmp_path, run, "--config.stage=values"), cwd=ROOT, capture_output=True, text=True, timeout=300)
    other.kill()
  assert done.returncode == 2 and not (run / "values").exists()
  assert done.stderr.splitlines()[-1].startswith(f"error: --workdir {run}: another run is in it (process {other.pid} on ")
  assert "Traceback" not in done.stderr


# In a mount namespace of its own: a small disk, the run on it, room for LEFT KiB; the command; then room for all, and the command again.
ON_A_DISK = """
set -e
mount -t tmpfs -o size=64m tmpfs "$PLACE"
cp -r "$RUN" "$PLACE/run"
if [ -n "$LEFT" ]; then
  free=$(df -k --output=avail "$PLACE" | tail -1)
  head -c $(( (free - LEFT) * 1024 )) /dev/zero > "$PLACE/filler"
else
  mount -o remount,ro "$PLACE"
fi
status=0; "$@" 2> "$OUT/said" || status=$?
echo $status > "$OUT/status"
mount -o remount,rw "$PLACE"
cp -r "$PLACE/run" "$OUT/between"
rm -f "$PLACE/filler"
"$@"
cp -r "$PLACE/run" "$OUT/after"
"""


@pytest.fixture
def on_a_disk(tmp_path):
  """on_a_disk(run, left, *arguments) -> (exit status, stderr) of the command on a disk with room for so many KiB; None: read-only."""
  place, out = tmp_path / "disk", tmp_path / "out"
  place.mkdir()
  out.mkdir()
  if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
    pytest.skip("this machine lets nobody mount a small disk")
  def act(run, left, *arguments):
    # Compiled as here, or the last bits differ.
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.read("jax_disable_most_optimizations")),
        "PLACE": str(place), "RUN": str(run), "OUT": str(out), "LEFT": "" if left is None else str(left)}
    subprocess.run(["unshare", "-rm", "bash", "-c", ON_A_DISK, "bash", *_command(tmp_path, place / "run", *arguments)], cwd=ROOT,
                   env=environment, check=True, timeout=600)
    return int((out / "status").read_text()), (out / "said").read_text()
  return act


def _alike(one, other):
  mine, theirs = records.Folder(one), records.Folder(other)
  assert mine.manifest()["counts"] == theirs.manifest()["counts"]
  for name, x in mine.read().items():
    np.testing.assert_array_equal(x, theirs.read()[name])


def _told(said, *words):
  assert "Traceback" not in said, said
  [line] = [line for line in said.splitlines() if line.startswith("error: ")]
  assert said.splitlines()[-1] == line and all(word in line for word in words), said


def test_records_on_a_full_disk(run, done, on_a_disk, tmp_path):
  (run / "values").mkdir()
  for name in ("plan.json", "00000.npz", "00000.json"):
    shutil.copy2(done / "values" / name, run / "values")
  status, said = on_a_disk(run, 0, "--config.stage=values")
  _told(said, "values/00001.npz cannot be written: No space left on device")
  assert status == 2
  kept = {p.name: p.read_bytes() for p in (run / "values").iterdir()}
  assert {p.name: p.read_bytes() for p in (tmp_path / "out/between/values").iterdir()} == kept
  _alike(tmp_path / "out/after/values", done / "values")
  assert all((tmp_path / "out/after/values" / name).read_bytes() == content for name, content in kept.items())


@pytest.mark.parametrize("share", [0.3, 1.5])
def test_checkpoints_on_a_full_disk(run, done, on_a_disk, tmp_path, share):
  """The disk is full while the first checkpoint, or a later one, is written: in the background."""
  size = sum(-(-p.stat().st_size // 4096) * 4 for p in (done / "sft" / "best").rglob("*") if p.is_file())
  shutil.rmtree(run / "sft")
  status, said = on_a_disk(run, int(size * share), "--config.stage=sft")
  assert status == 2
  _told(said, "/sft", "cannot be written", "o space left on device")
  after, whole = tmp_path / "out/after/sft", done / "sft"
  assert metrics.read_curves(after / "curves.jsonl") == metrics.read_curves(whole / "curves.jsonl")
  assert json.loads((after / "manifest.json").read_text())["facts"] == json.loads((whole / "manifest.json").read_text())["facts"]


def test_a_read_only_workdir(run, done, on_a_disk, tmp_path):
  status, said = on_a_disk(run, None, "--config.stage=values")
  assert status == 2
  _told(said, "cannot be written: Read-only file system")
  _alike(tmp_path / "out/after/values", done / "values")
