"""The last stage: one page with every figure of the run, and the same as JSON.

  1. Read the manifests of all stages; each must have been made under this
     config and from the folders that are there now.
  2. Rows, comparisons and verdicts from the records of the search stage alone.
  3. Diagnostics of the values, on responses drawn for them.
  4. Write report/report.json and report/index.html; print the short table.

It always runs: it costs little, and a page must not be older than its numbers.
"""

import datetime
import json
import math
import os
import pathlib
import platform
import shlex
import sys
import time

from etils import epath

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.evaluation import diagnostics
from pav_jax.evaluation import figures
from pav_jax.evaluation import page
from pav_jax.evaluation import provers
from pav_jax.evaluation import tables
from pav_jax.evaluation import verdicts
from pav_jax.problems import prepare
from pav_jax.search import tune
from pav_jax.training import files
from pav_jax.training import hosts
from pav_jax.training import metrics
from pav_jax.training import records
from pav_jax.training.run import Run


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section report."""
  errors.at_least(1, config.report, "config.report", "responses", "bootstrap_draws", "calibration_bins")
  if config.report.tree_problems:
    prepare.check_count(config, root, "config.report", "tree_problems", config.search.split)
  provers.check(config)


def run_stage(run: Run):
  """report: everything -> report/index.html, report/report.json."""
  start = time.monotonic()
  stages = read_stages(run)
  search = tables.Search(run.folder("search/samples").read(), run.folder("search/beams").read(),
                         run.config.report.bootstrap_draws, run.folder("search/beams").manifest()["facts"].get("label tokens"))
  report = {
      "command": command(), "split": run.config.search.split, "seed": run.config.seed,
      "verdicts": verdicts.sentences(search),
      "search": search.rows(), "equal_n": search.comparisons("n"), "equal_flops": search.comparisons("flops"),
      "equal_tokens": search.comparisons("tokens"), "arms": search.against_arms(),
      "tuning": tune.summary(run.folder("search/tuning").read()) if "search/tuning" in stages else [], "pav_as_orm": search.readings(), "diagnostics": diagnostics.diagnose(run), "stages": stages,
      "versions": records.versions(), "config": json.loads(json.dumps(run.config.to_dict()))}
  points = provers.points(report, run.config.search.split)
  if points:
    report["verdicts"] = {**report["verdicts"], "What theory says of it": [provers.sentence(point) for point in points]}
  report["machine"] = machine(run) | {"seconds for this page": round(time.monotonic() - start, 1)}
  report = finite(report)
  if not hosts.first():
    return
  written = write(run.root / "report", report, draw(report, curves(run)))
  print(short_table(report))
  for sentences in report["verdicts"].values():
    print("\n".join(["", *sentences]))
  print(f"\n{written}")


def read_stages(run: Run) -> dict[str, dict]:
  """Folder -> manifest's path, digest, counts, facts, versions, time, and the command that made it.

  Raises UserError for a stage that is missing, or made otherwise than the
  config and the folders say.
  """
  splits = dict.fromkeys(("train", "validation", run.config.search.split))
  tuned = run.folder("search/beams").done and "search/tuning" in run.folder("search/beams").manifest()["inputs"]
  names = [*(f"problems/{s}" for s in splits), "sft", "rollouts", "values", "verifier", *["search/tuning"] * tuned, "search/samples",
           "search/beams"]
  found = {}
  for name in names:
    folder, stage = run.folder(name), name.split("/")[0]
    if not folder.done:
      raise UserError(f"report: stage {stage!r} is not finished, {folder.path} has no manifest: run it first")
    manifest = folder.manifest()
    sections = [key for key in manifest["config"] if key != "seed"]
    try:
      run.start(name, sections=sections, inputs=list(manifest["inputs"]))
    except KeyError as error:
      raise UserError(f"report: {folder.path} was made with a config that has a section this one lacks: "
                      f"{', '.join(sections)}") from error
    path = folder.path / "manifest.json"
    ended = files.modified(path)
    found[name] = {
        "manifest": f"{name}/manifest.json", "sha256": folder.digest(), "stage": stage, "command": command(stage),
        **{k: manifest[k] for k in ("counts", "facts", "versions", "inputs")},
        "rows": sum(s["rows"] for s in manifest["shards"]),
        "finished": datetime.datetime.fromtimestamp(ended, datetime.UTC).isoformat(" ", "seconds")[:19],
        "seconds": folder.seconds}
  return found


def command(stage: str | None = None) -> str:
  """The command line that runs this, or only one stage of it."""
  arguments = sys.argv[1:]
  if stage:
    arguments = [a for a in arguments if not a.startswith("--config.stage")] + [f"--config.stage={stage}"]
  return shlex.join(["python", "-m", "pav_jax.main", *arguments])


def hardware() -> dict:
  """What the operating system tells of this machine."""
  info = pathlib.Path("/proc/cpuinfo")
  models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
            if line.startswith("model name")] if info.exists() else []
  return {"platform": platform.platform(), "processor": models[0] if models else platform.machine(), "CPUs": os.cpu_count()}


def machine(run: Run) -> dict:
  """The hardware, and what jax has of it."""
  devices = [f"{d.platform} {d.device_kind}" for d in run.mesh.devices.flat]
  return hardware() | {
      "devices of jax": ", ".join(f"{devices.count(d)} x {d}" for d in dict.fromkeys(devices)),
      "mesh": ", ".join(f"{k} {v}" for k, v in run.mesh.shape.items())}


def curves(run: Run) -> dict[str, list[dict]]:
  """Network -> rows of its training curve, those that were trained here."""
  verifier = run.folder("verifier").path
  paths = {"sft": run.folder("sft").path} | {
      f"verifier {kind}": verifier / kind for kind in ("base", *run.config.verifier.kinds)}
  found = {name: metrics.read_curves(path / "curves.jsonl") for name, path in paths.items()}
  return {name: rows for name, rows in found.items() if rows}


def draw(report: dict, curves_of: dict[str, list[dict]]) -> dict[str, str]:
  """All figures, by name."""
  lines = [row for row in report["search"] if not tables.is_choice(row["method"])]
  found = {x: figures.accuracy_figure(lines, x) for x in ("n", "flops")}
  if curves_of:
    found["curves"] = figures.curves_figure(curves_of)
  if report["diagnostics"].get("calibration"):
    found["reliability"] = figures.reliability_figure(report["diagnostics"]["calibration"])
  if report["diagnostics"].get("provers"):
    found["provers"] = figures.provers_figure(report["diagnostics"]["provers"]["rows"])
  return found


def write(path: epath.Path, report: dict, drawn: dict[str, str]) -> epath.Path:
  """The page, its figures and the JSON, each whole or not at all; returns the page's path."""
  text = {"index.html": page.render(report, drawn)}
  listed = {**report, "verdicts": [s for sentences in report["verdicts"].values() for s in sentences]}
  text |= {f"{name}.svg": svg for name, svg in drawn.items()}
  text["report.json"] = json.dumps(listed, indent=1, allow_nan=False) + "\n"
  for name, content in text.items():
    files.write(path / name, content)
  return path / "index.html"


def finite(value):
  """The same JSON value with None for numbers that are not finite, which JSON lacks."""
  if isinstance(value, dict):
    return {str(k): finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def short_table(report: dict) -> str:
  """Per beam and width two lines, at equal N and at equal FLOPs, in columns."""
  methods = ("pass_at_n", "majority", "orm_best_of_n", "q_beam")
  lines = []
  for beam in dict.fromkeys(r["beam"] for r in report["equal_n"]):
    names = [tables.name_of(m) for m in (*methods, beam)]
    lines += ["", f"{'width':<6}{'equal':<7}" + "".join(f"{n:<28}" for n in names)]
    for width in dict.fromkeys(r["width"] for r in report["equal_n"] if r["beam"] == beam):
      for by in ("n", "flops"):
        found = {r["method"]: r for r in report[f"equal_{by}"] if (r["beam"], r["width"]) == (beam, width)}
        cells = [_short(found.get(m)) for m in (*methods, beam)]
        lines.append(f"{width:<6}{'N' if by == 'n' else 'FLOPs':<7}" + "".join(f"{c:<28}" for c in cells).rstrip())
  return "\n".join(lines)


def _short(row: dict | None) -> str:
  if row is None:
    return "-"
  return f"{verdicts.accuracy(row)} ({row['n']})" if row["reached"] else f"- (needs {row['n']})"
