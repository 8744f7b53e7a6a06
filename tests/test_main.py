"""Every mistake on the command line is answered with one line and a non-zero exit."""

import pathlib
import subprocess
import sys

import pytest

from configs import default
from pav_jax import main
from pav_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
QUICK = "--config=configs/quickstart.py"


def command(*arguments, cwd=ROOT):
  return subprocess.run([sys.executable, "-m", "pav_jax.main", *arguments], cwd=cwd, capture_output=True, text=True,
                        timeout=120)


@pytest.mark.parametrize("arguments, said", [
    ([QUICK, "--config.sft.nosuch=3"], "nosuch"),
    ([QUICK, "--config.nosuch.steps=3"], "nosuch"),
    ([QUICK, "--config.sft.num_steps=abc"], "num_steps=abc"),
    ([QUICK, "--config.verifier.own_outcomes=maybe"], "own_outcomes=maybe"),
    ([QUICK, "--config.search.widths=1,x"], "--config.search.widths"),
    ([QUICK, "--config.stage=nosuch"], "none of pipeline"),
    (["--config=configs/nosuch.py"], "no file configs/nosuch.py"),
    (["--config=configs/smoke.py:nosuch"], "one of gsm8k, math"),
    (["--config=configs/smoke.py"], "get_config"),
    ([], "--config"),
    (["--config=configs/paper/gemma2_2b_math.py"], "--config.policy.init_from=... is missing"),
    ([QUICK, "--mode=compile"], "--mode=compile and --topology"),
    ([QUICK, "--topology=v5e:4x4"], "--mode=compile and --topology"),
    ([QUICK, "--mode=compile", "--topology=v3:4x4"], "v4, v5e, v5p"),
    ([QUICK, "--mode=compile", "--topology=v5e:4x4", "--config.stage=problems"], "no program"),
    ([QUICK, "more"], "'more' is not a flag"),
    ([QUICK, "--nosuch=1"], "nosuch"),
    ([QUICK, "--config.stage=sft"], "problems/train is not there"),
])
def test_a_mistake_is_one_line(tmp_path, arguments, said):
  done = command(*arguments, f"--workdir={tmp_path}")
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert done.returncode == 2, done.stderr
  assert "Traceback" not in done.stderr
  assert len(lines) == 1 and said in lines[0], done.stderr


@pytest.mark.parametrize("changes, said", [
    ({"mesh.fsdp": 3, "stage": "sft"}, "devices"),
    ({"stage": "report"}, "not finished"),
    ({"stage": "evaluate"}, "evaluate.checkpoint is missing"),
    ({"stage": "problems", "arithmetic.dials.noise": 2.0}, "arithmetic.noise"),
    ({"stage": "problems", "problems.prompt": "x"}, "prompt"),
    ({"stage": "problems", "problems.train": "nosuch"}, "nosuch"),
    ({"stage": "problems", "vocabulary.path": "nosuch.model"}, "nosuch.model"),
])
def test_a_stage_says_what_is_wrong(tmp_path, changes, said):
  config = default.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=said) as caught:
    main.run(config, tmp_path)
  assert "\n" not in str(caught.value)


def test_no_workdir():
  done = command(QUICK)
  assert done.returncode == 2 and done.stderr == "error: command line: --workdir=... is missing\n"


def test_a_workdir_that_cannot_be(tmp_path):
  (tmp_path / "file").write_text("")
  done = command(QUICK, f"--workdir={tmp_path / 'file' / 'run'}")
  assert done.returncode == 2 and "Not a directory" in done.stderr and "Traceback" not in done.stderr


def test_tuples_are_read_in_every_spelling():
  code = ("import sys; from pav_jax import main; config, _ = main.parse(sys.argv); "
          "print(config.search.widths, config.verifier.kinds, config.search.alpha)")
  done = subprocess.run(
      [sys.executable, "-c", code, QUICK, "--workdir=x", "--config.search.widths=2,4", "--config.verifier.kinds=q,orm",
       "--config.search.alpha=1"], cwd=ROOT, capture_output=True, text=True, timeout=120)
  assert done.stdout == "(2, 4) ('q', 'orm') 1.0\n", done.stderr


def test_configs_load_from_any_folder(tmp_path):
  done = command(f"--config={ROOT}/configs/quickstart.py", "--config.stage=sft", f"--workdir={tmp_path}", cwd=tmp_path)
  assert "problems/train is not there" in done.stderr
