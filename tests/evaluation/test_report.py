"""The last stage on a hand-made run: what it writes, what it refuses, and hostile text."""

import html.parser
import json
import re

import jax
import ml_collections
import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.evaluation import diagnostics
from pav_jax.evaluation import figures
from pav_jax.evaluation import page
from pav_jax.evaluation import report as report_lib
from pav_jax.training.run import Run

from test_tables import beam_records
from test_tables import sample_records

HOSTILE = '</pre></code><script>alert("x")</script><img src=https://evil.example/x onerror=a()>\u202e\ud800\x00&lt;'


def diagnosis():
  """What diagnostics says, with a model's text in every place that has one."""
  return {
      "calibration": {"q": {"error": 0.1, "bins": [
          {"low": 0.0, "high": 0.5, "predicted": 0.25, "observed": 0.3, "count": 3}]}},
      "step_auc": {"all": 0.75, "within": float("nan")}, "unheard of": 7, HOSTILE: {"x": HOSTILE},
      "examples": [{"question": HOSTILE, "response_lines": [HOSTILE, "fine"], "q": [0.2, 0.5, 0.1],
                    "advantage": [0.3, -0.4], "exact": [None, None, None], "outcome": False}]}


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A finished run of every stage, of two problems."""
  monkeypatch.setattr(diagnostics, "diagnose", lambda run: diagnosis())
  monkeypatch.setattr("sys.argv", ["main.py", "--workdir=w", "--config.stage=report", "--config.name=<b>"])
  config = ml_collections.ConfigDict({
      "seed": 3, "name": HOSTILE, "sft": {"num_steps": 5}, "search": {"split": "test"},
      "verifier": {"kinds": ("q",)}, "report": {"bootstrap_draws": 50}})
  this = Run(config, tmp_path, jax.make_mesh((jax.device_count(),), ("data",)))
  shards = {"rollouts": ({"x_b": np.zeros(2)}, {"responses": 2, "truncated": 1}),
            "search/samples": (sample_records(), {}), "search/beams": (beam_records(), {"unanswered": 0})}
  earlier = []
  for name in ("problems/train", "problems/validation", "problems/test", "sft", "rollouts", "values", "verifier",
               "search/samples", "search/beams"):
    folder, _ = this.start(name, sections=["sft"], inputs=earlier[-1:])
    if name in shards:
      folder.write_shard(0, *shards[name])
    folder.finish(int(name in shards), {"q": {"loss": 0.5}} if name == "verifier" else {"loss": 0.25})
    earlier.append(name)
  (tmp_path / "sft" / "curves.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": "nan"}\n')
  return this


class Tags(html.parser.HTMLParser):
  """Every tag with its attributes, as a browser would find them; what is open at the end."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open = [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta",):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_the_page_is_whole_and_hostile_text_is_text(run, capsys):
  report_lib.run_stage(run)
  text = (run.root / "report" / "index.html").read_text(encoding="utf-8")
  found = Tags(text)
  assert not found.open
  names = {tag for tag, _ in found.tags}
  assert {"svg", "table", "details"} <= names and not names & {"script", "img", "link", "iframe", "a"}
  for tag, attributes in found.tags:
    assert not any(a.startswith("on") or a in ("src", "href", "action") for a in attributes), (tag, attributes)
    assert attributes.get("xlink:href", "#").startswith("#")
  assert "@import" not in text and not re.search(r"url\((?!#)", text)
  assert "&lt;script&gt;" in text and "\\u202e" in text and "\u202e" not in text
  assert "unheard of" in text and "sft/manifest.json" in text and run.folder("sft").digest()[:12] in text
  out = capsys.readouterr().out
  assert "PAV beam" in out and out.rstrip().endswith("report/index.html")


def test_the_first_wrong_steps_have_a_table(run, monkeypatch):
  three = {m: {"value": 0.5, "low": 0.25, "high": float("nan")} for m in ("acc_erroneous", "acc_correct", "f1")}
  found = {"right answer, wrong step": 3, "rows": [{"values": HOSTILE, "reading": "q", "tau": 0.25, "cases": 8, "erroneous": 5, **three}]}
  monkeypatch.setattr(diagnostics, "diagnose", lambda run: diagnosis() | {"first_wrong": found})
  report_lib.run_stage(run)
  text = (run.root / "report" / "index.html").read_text(encoding="utf-8")
  names = {tag for tag, _ in Tags(text).tags}
  assert "The first wrong step" in text and "a wrong step: 3." in text and "[0.25, –]" in text and "Q &lt; τ" in text
  assert "script" not in names and not Tags(text).open


def test_the_json_holds_the_same_rows(run):
  report_lib.run_stage(run)
  found = json.loads((run.root / "report" / "report.json").read_text())
  rows = {(r["method"], r["n"]): r for r in found["search"]}
  assert rows["pav_beam", 2]["accuracy"] == 1.0 and rows["orm_best_of_n", 4]["accuracy"] == 0.5
  assert found["diagnostics"]["step_auc"] == {"all": 0.75, "within": None}
  assert all(isinstance(s, str) for s in found["verdicts"]) and found["config"]["seed"] == 3
  assert found["stages"]["rollouts"]["counts"] == {"responses": 2, "truncated": 1}
  assert found["command"] == "python -m pav_jax.main --workdir=w --config.stage=report '--config.name=<b>'"
  again = found["stages"]["sft"]["command"]
  assert again == "python -m pav_jax.main --workdir=w '--config.name=<b>' --config.stage=sft"


def test_it_always_runs_again(run):
  report_lib.run_stage(run)
  path = run.root / "report" / "index.html"
  path.write_text("old")
  report_lib.run_stage(run)
  assert path.read_text() != "old"


@pytest.mark.parametrize("name", ["sft", "search/beams"])
def test_a_missing_stage_is_named(run, name):
  (run.folder(name).path / "manifest.json").unlink()
  with pytest.raises(UserError, match=f"stage '{name.split('/')[0]}' is not finished"):
    report_lib.run_stage(run)
  assert not (run.root / "report").exists()


def test_another_config_and_a_stale_folder_are_refused(run):
  run.config.sft.num_steps = 6
  with pytest.raises(UserError, match=r"config\.sft\.num_steps was 5, now 6"):
    report_lib.run_stage(run)
  run.config.sft.num_steps = 5
  run.folder("values").finish(0, {"loss": 9.0})
  with pytest.raises(UserError, match="verifier holds work made otherwise: inputs.values"):
    report_lib.run_stage(run)


def test_without_diagnostics_and_curves_there_is_still_a_page(run, monkeypatch):
  monkeypatch.setattr(diagnostics, "diagnose", lambda run: {})
  (run.root / "sft" / "curves.jsonl").unlink()
  report_lib.run_stage(run)
  assert "reliability" not in (run.root / "report" / "index.html").read_text()


def test_figures_are_the_same_bytes_for_the_same_rows():
  rows = [{"method": m, "n": n, "accuracy": 0.1 * n, "low": 0.0, "high": 0.5, "flops": 1e6 * n}
          for m in ("majority", "pav_beam_q") for n in (1, 2, 4)]
  for x in ("n", "flops"):
    assert figures.accuracy_figure(rows, x) == figures.accuracy_figure(rows, x)
  assert "PAV beam (q)" in figures.accuracy_figure(rows, "n")
  assert "://" not in figures.accuracy_figure(rows, "flops") and "$" not in figures.accuracy_figure(rows, "flops")


def test_text_shows_what_it_escapes():
  assert page.text("a<b>&\"\x1b\u2066\n") == "a&lt;b&gt;&amp;&quot;\\u001b\\u2066\n"
  assert page.text(page.Markup("<b>")) == "<b>"
