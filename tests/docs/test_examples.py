"""The Python on the pages runs as it stands there."""

import re
import shutil
import subprocess
import sys

import pytest

from docs import pages

EXAMPLES = re.compile(r"^```python\n(.*?)^```$", re.S | re.M)


def blocks(page: str) -> list[str]:
  return EXAMPLES.findall(page)


PAGES = [page for page in pages.pages().values() if blocks(page.read_text(encoding="utf-8"))]


def test_there_are_some():
  assert pages.ROOT / "docs/how-to/library.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_a_page_runs(page, made, tmp_path, capsys, monkeypatch):
  """One after another in one namespace, on networks that have learnt nothing, where the page says that they lie."""
  shutil.copytree(made, tmp_path / "runs/quickstart")
  shutil.copytree(made, tmp_path / "runs/prover")
  monkeypatch.chdir(tmp_path)
  namespace, text = {}, page.read_text(encoding="utf-8")
  for found in EXAMPLES.finditer(text):
    line = text.count("\n", 0, found.start(1))
    exec(compile("\n" * line + found[1], str(page), "exec"), namespace)  # an error names the page's own line
  assert "print" not in text or capsys.readouterr().out


def test_importing_it_imports_nothing():
  said = subprocess.run(
      [sys.executable, "-c", "import sys, pav_jax; print('jax' in sys.modules, sorted(pav_jax.__all__), set(pav_jax.__all__) <= set(dir(pav_jax)))"],
      capture_output=True, text=True, check=True, cwd=pages.ROOT).stdout
  assert said == "False ['beam_search', 'grade_answers', 'load', 'sample', 'score_steps'] True\n"


def test_a_name_that_is_none():
  import pav_jax
  with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
    pav_jax.nosuch
  with pytest.raises(ImportError):
    from pav_jax import nosuch


def test_the_page_names_all_that_is_exported():
  import pav_jax
  text = (pages.ROOT / "docs/how-to/library.md").read_text(encoding="utf-8")
  assert set(re.findall(r"^### `(\w+)\(", text, re.M)) == set(pav_jax.__all__)
