"""The one command: each word reaches its module, with the rest of the line."""

import importlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import types

import pytest

from pav_jax import configuration
from pav_jax import console

ROOT = pathlib.Path(__file__).parents[1]


def command(*arguments, cwd):
  return subprocess.run([sys.executable, "-m", "pav_jax", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("word", console.COMMANDS)
def test_a_word_hands_the_rest_to_its_module(word, monkeypatch):
  asked = []
  fake = types.SimpleNamespace(main=lambda arguments: asked.append(arguments) or 7)
  monkeypatch.setattr(importlib, "import_module", lambda name: fake if name == console.COMMANDS[word][0] else 1 / 0)
  assert console.main([word, "FILE", "--alpha=0.5", "score"]) == 7
  assert asked == [["FILE", "--alpha=0.5", "score"]]
  monkeypatch.setattr(sys, "argv", ["pav_jax", word])
  assert console.main() == 7 and asked[1] == []


@pytest.mark.parametrize("arguments, said", [
    (["run", "--config=quickstart", "--config.search.alfa=1", "--workdir=x"], "quickstart has no key search.alfa"),
    (["check", "--config=quickstart", "--config.evaluate.checkpoint=nosuch", "--config.stage=evaluate"], "evaluate.checkpoint"),
    (["compile", "--config=quickstart"], "--mode=compile and --topology"),
    (["run", "--config", "nosuch", "--workdir=x"], "no file nosuch"),
    (["score", "nosuch.jsonl", "--verifier=nosuch"], "there is no file nosuch.jsonl"),
    (["grade", "nosuch.jsonl"], "nosuch.jsonl"), (["nosuch"], "'nosuch' is no command"), ([], "usage: pav_jax COMMAND")])
def test_a_mistake_in_any_of_them_has_status_2(arguments, said, tmp_path):
  """From a folder where no configs/ is at hand."""
  done = command(*arguments, cwd=tmp_path)
  assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_help_names_every_word(tmp_path):
  done = command("--help", cwd=tmp_path)
  assert done.returncode == 0 and re.findall(r"^  (\w+)", done.stdout, re.M) == [
      "run", "check", "compile", "score", "judge", "grade", "trainings", "publish", "export"]


@pytest.mark.parametrize("module, arguments", [
    ("pav_jax", ["--help"]), ("pav_jax", ["run", "--help"]), ("pav_jax.grade", ["--help"])])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(module, arguments, unbuffered, tmp_path):
  """As `| head` leaves it."""
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120,
                        env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
  os.close(write)
  # argparse itself passes over what it cannot write.
  assert done.stderr == "" and done.returncode in ((128 + signal.SIGPIPE,) if not unbuffered else (128 + signal.SIGPIPE, 0)), done


def test_every_command_by_its_own_name_is_as_quiet():
  for module, _ in [*console.COMMANDS.values(), ("pav_jax.main", "")]:
    assert "console.quietly(main)" in (ROOT / f"{module.replace('.', '/')}.py").read_text().partition('if __name__ == "__main__":\n')[2][-400:], module


def test_a_checked_run_is_well_from_anywhere(tmp_path):
  done = command("check", "--config=quickstart", "--config.stage=problems", cwd=tmp_path)
  assert done.returncode == 0 and "all is well" in done.stdout, done.stderr


def test_the_package_installs_the_command(monkeypatch):
  said = {}
  monkeypatch.setattr("setuptools.setup", lambda **facts: said.update(facts))
  monkeypatch.chdir(ROOT)
  spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
  spec.loader.exec_module(importlib.util.module_from_spec(spec))
  name, _, target = said["entry_points"]["console_scripts"][0].partition(" = ")
  module, _, function = target.partition(":")
  assert name == "pav_jax" and getattr(importlib.import_module(module), function) is console.main


def test_what_is_installed_finds_its_configs_by_name_and_leaves_the_name_to_others(tmp_path):
  """What a wheel has in it, with a user's own package configs beside the run, which is not asked for `configs.default`."""
  subprocess.run([sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "built")], cwd=ROOT, check=True,
                 capture_output=True, timeout=120)
  installed, home = tmp_path / "built/lib", tmp_path / "home"
  assert [path.name for path in installed.iterdir()] == ["pav_jax"]
  (home / "configs").mkdir(parents=True)
  (home / "configs/__init__.py").write_text("MINE = True\n")
  (tmp_path / "bare").mkdir()
  own = "from configs import default\ndef get_config():\n  config = default.get_config()\n  config.seed = 7\n  return config\n"
  (tmp_path / "bare/own.py").write_text(own)
  script = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]  # the checkout's
from pav_jax import configuration
for name in sys.argv[1:]:
  print(configuration.load(name).to_dict().get("seed", "figure"), configuration.named(name))
try:
  import configs
  print("configs", getattr(configs, "MINE", False))
except ImportError:
  print("no configs")
"""
  names = ["quickstart", "configs/quickstart.py", "rare:good", "paper/gemma2_2b_math", "didactic/map"]
  for folder, more, last in ((home, [], "configs True"), (tmp_path / "bare", ["own.py"], "no configs")):
    done = subprocess.run([sys.executable, "-c", script, *names, *more], cwd=folder, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(installed), "PYTHONNOUSERSITE": "1"})
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and all(str(installed / "pav_jax/configs") in line for line in lines[:len(names)]), done
    assert lines[len(names):] == [*(["7 own.py"] if more else []), last]


def test_configs_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  own = str(ROOT / "configs/quickstart.py")
  for name in ("quickstart", "configs/quickstart.py", own):
    assert configuration.named(name) == own
    for argv in (["x", f"--config={name}", "--workdir=quickstart"], ["x", "--config", name, "--workdir", "quickstart"]):
      assert own in "\n".join(configuration.with_file(argv)) and configuration.with_file(argv)[-1] == argv[-1]
  assert configuration.named("smoke:gsm8k") == str(ROOT / "configs/smoke.py:gsm8k")
  assert configuration.named("didactic/theorem") == str(ROOT / "configs/didactic/theorem.py")
  assert configuration.named("nosuch") == "nosuch" and configuration.named("") == ""
  (tmp_path / "quickstart").write_text("")  # a file of one's own comes first
  assert configuration.named("quickstart") == "quickstart"
