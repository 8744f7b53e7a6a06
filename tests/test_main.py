"""Every mistake on the command line is answered with one line and a non-zero exit."""

import pathlib
import re
import signal
import subprocess
import sys

import pytest

from configs import default
from pav_jax import configuration
from pav_jax import main
from pav_jax import usage
from pav_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
QUICK = "--config=configs/quickstart.py"


def command(*arguments, cwd=ROOT):
  return subprocess.run([sys.executable, "-m", "pav_jax.main", *arguments], cwd=cwd, capture_output=True, text=True,
                        timeout=120)


@pytest.mark.parametrize("arguments, said", [
    ([QUICK, "--config.sft.nosuch=3"], "no key sft.nosuch"),
    ([QUICK, "--config.nosuch.steps=3"], "no key nosuch.steps"),
    ([QUICK, "--config.search.alfa=0.3"], "no key search.alfa; did you mean --config.search.alpha?"),
    ([QUICK, "--config.lookahead_temperature=x"], "did you mean --config.search.lookahead_temperature?"),
    ([QUICK, "--config.sft.steps=3"], "did you mean --config.sft.num_steps?"),
    ([QUICK, '--config.vocabulary={"size":400}'], "--config.vocabulary is a section: give its keys one by one, as --config.vocabulary.path="),
    ([QUICK, "--config.arithmetic=3"], "--config.arithmetic is a section: give its keys one by one, as --config.arithmetic.dials."),
    ([QUICK, "--config.sft.num_steps=abc"], "num_steps=abc"),
    ([QUICK, "--config.verifier.own_outcomes=maybe"], "own_outcomes=maybe"),
    ([QUICK, "--config.search.widths=1,x"], "--config.search.widths"),
    ([QUICK, "--config.search.widths[0]=4"], "a tuple is given whole, as --config.search.widths=2,4"),
    (["--config", "configs/nosuch.py"], "no file configs/nosuch.py"),
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
    ([QUICK, "--mode=compile", "--topology=v5e:4x4", "--check"], "--check is for runs"),
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
    ({"seed": -1}, "config.seed -1 is less than 0"),
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


def test_help_says_what_there_is():
  """Stages and keys, with the values of the config that is named; no JAX is needed for it."""
  done = command("--help", "--config=configs/smoke.py:math")
  assert done.returncode == 0 and not done.stderr
  for name in ("pipeline", *main.STAGES, *main.ALONE):
    assert f"\n  {name:<10}" in done.stdout
  shown = done.stdout[done.stdout.index("keys of configs/smoke.py:math"):]
  for key, _ in configuration.leaves(default.get_config()):
    assert f" {key.rpartition('.')[2]}=" in shown, key
  assert "max_solution=192" in shown.split() and max(map(len, done.stdout.splitlines())) <= 130
  assert usage.STAGES.keys() == {"pipeline", *main.STAGES, *main.ALONE}


def test_without_arguments_a_screen():
  done = command()
  assert done.returncode == 2 and not done.stdout and "usage: python -m pav_jax.main --config=FILE" in done.stderr
  assert len(done.stderr.splitlines()) <= 24


@pytest.mark.parametrize("change, said", [
    ("config.search.alfa = 0.3", "config.search.alfa is no key of a config; did you mean config.search.alpha?"),
    ("config.serch = config.search", "config.serch is no key of a config; did you mean config.search?"),
    ("del config['search']", "config.search is missing: begin with get_config() of configs/default.py"),
    ("del config.search['alpha']", "config.search.alpha is missing"),
    ("config.search = {'alpha': 0.3}", "config.search.arms is missing"),
    ("config.search.provers = {'weak': 3}", "config.search.provers.weak is of type int, not str"),
    ("del config['search']; config.search = 3", "config.search is of type int, not section"),
    ("del config['seed']; config.seed = 0.5", "config.seed is of type float, not int"),
    ("del config.search['widths']; config.search.widths = [2, 4]", "config.search.widths is of type list, not tuple"),
    ("config.search.widths = ('2', '4')", "config.search.widths ('2', '4') is not a tuple of int"),
    ("1 / 0", "ZeroDivisionError: division by zero"),
    ("config = dict(config)", "get_config gives a dict, not a ConfigDict"),
    ("config.figure = 'mapp'", "config.figure 'mapp' is none of best_of_k, decline"),
    ("config.figure = 'map'", "config.arithmetic is no key of a config"),
])
def test_a_mistake_in_a_config_file_is_one_line(tmp_path, change, said):
  path = tmp_path / "own.py"
  path.write_text(f"from configs import default\ndef get_config():\n  config = default.get_config()\n  {change}\n  return config\n")
  with pytest.raises(UserError, match=re.escape(said)) as caught:
    configuration.load(str(path))
  assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_config_file_names_its_provers_itself(tmp_path):
  path = tmp_path / "own.py"
  path.write_text("from configs import default\ndef get_config():\n  config = default.get_config()\n"
                  "  config.search.provers = dict(weak='a', strong='b')\n  return config\n")
  assert configuration.load(str(path)).search.provers.to_dict() == {"weak": "a", "strong": "b"}


def test_every_config_passes():
  for path in sorted(ROOT.glob("configs/**/*.py")):
    if path.name not in ("__init__.py", "base.py"):
      which = {"smoke.py": ":math", "rare.py": ":rare", "provers.py": ":weak", "spending.py": ":pit"}.get(path.name, "")
      configuration.load(path.as_posix() + which)


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


@pytest.mark.parametrize("module", ["absl.logging", "ml_collections.config_flags", "jax._src.core", "orbax.checkpoint", "optax", "pav_jax.evaluation.tables"])
def test_ctrl_c_at_start_up_is_one_line(tmp_path, module):
  """When that module has been imported; SIGINT is heard, as at a terminal, whoever runs the tests."""
  heard = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
  running = subprocess.Popen(
      [sys.executable, "-c", heard, sys.executable, "-X", "importtime", "-m", "pav_jax.main", QUICK, f"--workdir={tmp_path}"], cwd=ROOT,
      stderr=subprocess.PIPE, text=True)
  next(line for line in running.stderr if line.split("|")[-1].strip() == module)
  running.send_signal(signal.SIGINT)
  said = [line for line in running.communicate(timeout=120)[1].splitlines() if line and not line.startswith("import time:")]
  assert running.returncode == 130 and len(said) == 1 and said[0].startswith("interrupted: "), said
