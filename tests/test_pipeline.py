"""The whole path on problems of two lines: every stage, its hand-over, restarts, refusals."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from configs import smoke
from pav_jax import configuration
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.problems import vocabulary
from pav_jax.training import files
from pav_jax.training import records
from pav_jax.verifiers import targets

pytestmark = pytest.mark.slow

# One of each way to train and to read: `hard` and `drop` go as `q` does, `effective` as `relative` (tests/verifiers/test_label_kinds.py).
KINDS = ("orm", "q", "advantage", "relative", "implicit")
STAGES = ("problems/train", "problems/validation", "problems/test", "sft", "rollouts", "values", "verifier",
          "search/samples", "search/beams")


def miniature(**changes):
  """Every stage at its smallest; nothing is learned."""
  config = default.get_config()
  tiny = {"num_steps": 4, "batch_size": 4, "eval_every": 2, "save_every": 2, "log_every": 1, "warmup_steps": 1}
  for section in (config.sft, *(config.verifier[name] for name in dict.fromkeys(map(targets.section_of, KINDS)))):
    section.update(tiny)
  config.update_from_flattened_dict({
      "arithmetic.dials.min_length": 1, "arithmetic.dials.max_length": 2, "arithmetic.train_size": 40,
      "arithmetic.validation_size": 8, "arithmetic.test_size": 6, "vocabulary.size": 320,
      "problems.problems_per_shard": 16, "problems.max_prompt": 128, "problems.max_solution": 128, "rollouts.num_problems": 8, "rollouts.max_new": 12, "rollouts.rows": 8,
      "rollouts.problems_per_shard": 4, "monte_carlo.n_mc": 4, "monte_carlo.max_steps": 4, "monte_carlo.rows": 8,
      "monte_carlo.responses_per_shard": 4, "verifier.kinds": KINDS, "verifier.valid_fraction": 0.25, "search.num_problems": 4,
      "search.num_seeds": 1, "search.max_n": 4, "search.widths": (1, 2), "search.rows": 12,
      "search.max_rounds": 3, "search.arms": ("q_beam", "pav_beam", "pav_beam@advantage"), "evaluate.num_problems": 4, "evaluate.n": 2,
      "evaluate.rows": 8, "report.bootstrap_draws": 50, **changes})
  config.lock()
  return config


def test_every_stage_leaves_a_manifest_that_checks_out(done):
  for name in STAGES:
    folder = records.Folder(done / name)
    manifest = folder.manifest()
    assert {"stage", "config", "inputs", "counts", "versions", "shards"} <= manifest.keys()
    for source, digest in manifest["inputs"].items():
      assert records.Folder(done / source).digest() == digest
    if manifest["shards"]:
      rows = {len(x) for x in folder.read().values()}
      assert rows == {sum(shard["rows"] for shard in manifest["shards"])}


def test_the_report_has_a_row_per_method_and_n(done):
  report = json.loads((done / "report" / "report.json").read_text())
  rows = {(row["method"], row["n"]): row for row in report["search"]}
  for method, ns in (("pass_at_n", (1, 2, 4)), ("majority", (1, 2, 4)), ("orm_best_of_n", (1, 2, 4)),
                     ("q_beam", (1, 2)), ("pav_beam", (1, 2)), ("pav_beam@advantage", (1, 2))):
    for n in ns:
      row = rows[method, n]
      assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
      assert row["tokens"] > 0 and row["flops"] > 0
  assert rows["orm_best_of_n", 2]["flops"] > rows["majority", 2]["flops"] > rows["majority", 1]["flops"]
  assert (done / "report" / "index.html").read_text().startswith("<!doctype html>")


def test_a_second_run_skips_what_is_done(done):
  before = {name: (done / name / "manifest.json").stat().st_mtime_ns for name in STAGES}
  main.run(miniature(), done)
  assert before == {name: (done / name / "manifest.json").stat().st_mtime_ns for name in STAGES}


def test_another_config_is_refused_by_name(done):
  with pytest.raises(UserError, match="peak_lr was 0.003, now 0.01"):
    main.run(miniature(**{"sft.peak_lr": 0.01}), done)


def test_a_lost_shard_is_made_again_alike(done, tmp_path):
  """Values cut off in the middle: only what is missing is made, and it is the same."""
  folder = records.Folder(done / "values")
  before = folder.read()
  for name in ("manifest.json", "00001.json", "00001.npz"):
    (folder.path / name).unlink()
  kept = (done / "values" / "00000.npz").stat().st_mtime_ns
  main.run(miniature(stage="values"), done)
  after = folder.read()
  assert (done / "values" / "00000.npz").stat().st_mtime_ns == kept
  for name, x in before.items():
    np.testing.assert_array_equal(after[name], x)


@pytest.mark.parametrize("strategy", ["adaptive", "first_pit"])
def test_other_ways_to_spend_continuations(done, tmp_path, strategy):
  """The stage by itself on the same seeds; its counts say what was spent, and a lost shard is made again alike."""
  for name in ("problems", "sft", "rollouts"):
    shutil.copytree(done / name, tmp_path / name)
  config = miniature(stage="values", **{"monte_carlo.strategy": strategy, "monte_carlo.reuse": True})
  main.run(config, tmp_path)
  folder = records.Folder(tmp_path / "values")
  values, counts = folder.read(), folder.manifest()["counts"]
  assert counts["rounds"] >= 2 and counts["continuations"] > 0 and ("probes" in counts) == (strategy == "first_pit")
  assert (values["successes_bz"] <= values["continuations_bz"]).all()
  for name in ("manifest.json", "00001.json", "00001.npz"):
    (folder.path / name).unlink()
  main.run(config, tmp_path)
  for name, x in folder.read().items():
    np.testing.assert_array_equal(x, values[name])
  if strategy == "adaptive":  # which the labels themselves say, though the config does not
    with pytest.raises(UserError, match="without bias from monte_carlo.strategy=adaptive"):
      main.run(miniature(stage="verifier", **{"verifier.kinds": ("orm", "q", "advantage")}), tmp_path)


def test_any_checkpoint_is_evaluated_by_path(done, tmp_path, capsys):
  main.run(miniature(stage="evaluate", **{"evaluate.checkpoint": str(done / "sft" / "best")}), tmp_path)
  figures = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert figures["problems"] == 4 and 0 <= figures["low"] <= figures["accuracy"] <= figures["high"] <= 1


def test_evaluate_says_one_line_of_json_and_libraries_say_nothing(done, tmp_path):
  """From problems on, so that every library has had its say."""
  changes = dict(configuration.leaves(miniature()))
  (tmp_path / "own.py").write_text("from configs import default\ninf = float('inf')\ndef get_config():\n  config = default.get_config()\n"
                                   f"  config.update_from_flattened_dict({changes!r})\n  return config\n")
  command = [sys.executable, "-m", "pav_jax.main", f"--config={tmp_path}/own.py", "--config.stage=evaluate",
             f"--config.evaluate.checkpoint={done}/sft/best", f"--workdir={tmp_path}/run"]
  environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "JAX_"))} | {"PYTHONPATH": os.getcwd()}
  for strict, status in (([], 0), (["--strict"], 2)):
    ran = subprocess.run([*command, *strict], capture_output=True, text=True, timeout=300, env=environment)
    assert ran.returncode == status, ran.stderr
    [line] = ran.stdout.splitlines()
    assert json.loads(line)["problems"] == 4
    # What a bar or a line of ours begins with.
    said = [line for line in ran.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert not [line for line in said if not line.startswith(("problems ", "evaluate", "error: evaluate: "))]
    assert sum("none of 8 responses is correct" in line for line in said) == 1


def test_useless_work_is_told_and_with_strict_an_error(done, capsys):
  """A policy of four steps: its finished folders stay, and are doubted again when the pipeline comes by."""
  main.run(miniature(), done)
  said = capsys.readouterr().err.splitlines()
  assert [line for line in said if line.startswith("rollouts: none of 16 responses is correct")]
  assert [line for line in said if re.fullmatch(r"values: all \d+ labels are 0: a verifier can learn nothing from them", line)]
  assert [line for line in said if re.fullmatch(r"verifier: q: all \d+ labels are 0: there is nothing to tell apart", line)]
  for stage in ("rollouts", "values", "verifier"):
    with pytest.raises(UserError, match=rf"^{stage}: .* \(--strict\); {done}/{stage} is finished and stays") as caught:
      main.run(miniature(stage=stage), done, strict=True)
    assert "\n" not in str(caught.value) and records.Folder(done / stage).done


def test_a_verifier_of_one_class_is_an_error_before_it_is_trained(done, tmp_path):
  for name in ("problems", "sft", "rollouts", "values"):
    shutil.copytree(done / name, tmp_path / name)
  with pytest.raises(UserError, match=rf"^verifier: orm: all \d+ labels are 0: .* {tmp_path}/verifier is not finished"):
    main.run(miniature(stage="verifier"), tmp_path, strict=True)
  assert [path.name for path in (tmp_path / "verifier").iterdir()] == ["plan.json"]


def test_any_verifier_is_evaluated_by_path(done, tmp_path, capsys):
  policy = {"evaluate.checkpoint": str(done / "sft" / "best")}
  for kind in KINDS:
    verifier = str(done / "verifier" / kind / "best")
    main.run(miniature(stage="evaluate", **policy, **{"evaluate.verifier": verifier, "evaluate.kind": kind}), tmp_path)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["verifier"], figures["kind"]) == (verifier, kind)
    assert set(figures["calibration"]) == ({kind} if kind not in ("advantage", *targets.VERDICTS) else set())
    assert any(kind in name for name in figures["step_auc"]) == (kind != "orm")
  other = {"evaluate.verifier": str(done / "verifier/orm/best"), "evaluate.kind": "q"}
  with pytest.raises(UserError, match=f"config.evaluate.kind=q: config.evaluate.verifier '{done}/verifier/orm/best' is a verifier of kind orm, and a verifier of kind q is needed"):
    main.run(miniature(stage="evaluate", **policy, **other), tmp_path)
  with pytest.raises(UserError, match="sft/best' is a policy, and a verifier of kind hard is needed"):
    main.run(miniature(stage="evaluate", **policy, **other | {"evaluate.verifier": str(done / "sft/best"), "evaluate.kind": "hard"}), tmp_path)
  with pytest.raises(UserError, match="'prm' is none of orm, q, advantage"):
    main.run(miniature(stage="evaluate", **policy, **{"evaluate.kind": "prm"}), tmp_path)


SEARCH = {"stage": "search", "search.num_problems": 2, "search.arms": ("q_beam", "pav_beam")}
PROVER = {"search.arms": ("q_beam", "pav_beam@prover")}


@pytest.mark.parametrize("kind, changes", [
    ("relative", {"search.alpha": 0.0, "search.widths": (2,)}), ("implicit", {"search.widths": ()})])
def test_a_search_by_another_kind(done, tmp_path, kind, changes):
  """Its samples are reranked by that verifier; a report can be made of it."""
  for name in ("problems", "sft", "rollouts", "values", "verifier"):
    shutil.copytree(done / name, tmp_path / name)
  changes = SEARCH | {"search.verifier": kind, **changes}
  main.run(miniature(**changes), tmp_path)
  samples = records.Folder(tmp_path / "search/samples").read()
  q_pn, own = samples["q_pn"], records.Folder(done / "search/samples").read()["q_pn"][:2]
  assert np.abs(q_pn - own).max() > 1e-3
  if kind == "relative":
    np.testing.assert_array_equal(samples["pav_last_pn"], q_pn)
    assert (samples["pav_min_pn"] <= samples["pav_mean_pn"]).all() and (samples["pav_min_pn"] >= 0).all()
  if kind == "implicit":
    assert not records.Folder(tmp_path / "search/beams").read() and (samples["pav_min_pn"] <= samples["pav_last_pn"]).all()
  main.run(miniature(**changes | {"stage": "report"}), tmp_path)
  rows = {row["method"] for row in json.loads((tmp_path / "report/report.json").read_text())["search"]}
  assert "q_best_of_n" in rows and ("q_beam" in rows) == (kind != "implicit")


@pytest.mark.parametrize("changes, said", [
    ({"search.verifier": "relative"}, "config.search.arms: config.search.verifier 'relative' is a verifier of kind relative, a verdict on the last step"),
    ({"search.verifier": "DONE/verifier/relative/best"}, "relative/best' is a verifier of kind relative, a verdict on the last step"),
    ({"search.verifier": "implicit"}, "config.search.widths (1, 2): none, as --config.search.widths=,: config.search.verifier 'implicit' is a verifier of kind implicit: two language"),
    ({"search.verifier": "DONE/sft/best"}, "sft/best' is a policy, and a verifier of kind q, hard, drop, relative, effective or implicit is needed"),
    ({"search.verifier": "hard", "verifier.kinds": ("orm", "q")}, "config.search.verifier 'hard' is the run's own verifier of kind 'hard', which config.verifier.kinds"),
    (PROVER | {"search.provers.prover": "DONE/verifier/relative/best"}, "config.search.provers.prover 'DONE/verifier/relative/best' is a verifier of kind relative, and a verifier of kind q, hard, drop or advantage is needed"),
    (PROVER | {"search.provers.prover": "DONE/sft/best"}, "sft/best' is a policy, and a verifier of kind q, hard, drop or advantage is needed"),
    ({"stage": "rl", "rl.verifier": "DONE/sft/best"}, "config.rl.verifier 'DONE/sft/best' is a policy, and a verifier of kind q, hard, drop, relative or effective is needed"),
    ({"stage": "rl", "rl.verifier": "implicit"}, "config.rl.verifier 'implicit' is a verifier of kind implicit, and a verifier of kind q, hard"),
    ({"stage": "rl", "rl.verifier": "relative"}, "config.rl: arm progress with rl.verifier of kind relative: a verdict on a step is no value"),
    ({"stage": "rl", "rl.verifier": "hard", "rl.critic": True, "verifier.kinds": ("q", "hard")}, "config.rl: arm progress with rl.verifier of kind hard: rl.critic takes Q^pi at every token"),
    ({"stage": "rl", "rl.verifier": "drop", "rl.arms": ("outcome_critic",), "verifier.kinds": ("q", "drop")}, "config.rl: arm outcome_critic with rl.verifier of kind drop: rl.critic")])
def test_what_a_kind_does_not_say_is_not_asked_of_it(done, changes, said):
  changes = {key: x.replace("DONE", str(done)) if isinstance(x, str) else x for key, x in (SEARCH | changes).items()}
  config = miniature(**changes)
  with pytest.raises(UserError) as caught:
    main._check_stages(main._modules(config), config, files.path(done))
  assert said.replace("DONE", str(done)) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [
    {"rl.verifier": "hard", "verifier.kinds": ("hard",)},
    {"rl.verifier": "relative", "rl.reward": "value", "rl.prover": "q", "rl.arms": ("progress",)},
    {"rl.verifier": "relative", "rl.arms": ("outcome", "vine", "oracle")}])
def test_what_it_says_may_be_asked(done, changes):
  config = miniature(stage="rl", **changes)
  main._check_stages(main._modules(config), config, files.path(done))


def test_malformed_rows_are_counted_in_the_manifest(tmp_path):
  rows = [json.dumps({"question": f"{n} + 1?", "answer": str(n + 1), "solution": f"#### {n + 1}"}) for n in range(20)]
  (tmp_path / "own.jsonl").write_text("\n".join([*rows[:7], "{broken", *rows[7:], '{"question": "2 + 2?"}']) + "\n")
  config = miniature(stage="problems", **{f"problems.{s}": str(tmp_path / "own.jsonl") for s in ("test",)},
                     **{"problems.max_malformed": 2})
  main.run(config, tmp_path / "run")
  counts = records.Folder(tmp_path / "run" / "problems" / "test").manifest()["counts"]
  assert (counts["malformed"], counts["problems"]) == (2, 20)
  assert records.Folder(tmp_path / "run" / "problems" / "train").manifest()["counts"]["malformed"] == 0


def test_a_flag_that_is_corrected_is_not_refused(tmp_path):
  """Nothing was made but plans and a vocabulary, which is the new plan's then; what was made binds."""
  with pytest.raises(UserError, match="longer than problems.max_prompt = 8"):
    main.run(miniature(stage="problems", **{"problems.max_prompt": 8, "vocabulary.size": 310}), tmp_path)
  main.run(miniature(stage="problems"), tmp_path)
  assert {vocabulary.load(path).size for path in tmp_path.glob("problems/**/vocabulary.model")} == {320}
  with pytest.raises(UserError, match="vocabulary.size was 320, now 310; remove that folder"):
    main.run(miniature(stage="problems", **{"vocabulary.size": 310}), tmp_path)


def test_a_checkpoint_of_another_vocabulary_is_refused(done, tmp_path):
  changes = {"evaluate.checkpoint": str(done / "sft" / "best"), "vocabulary.size": 330}
  with pytest.raises(UserError, match="another vocabulary"):
    main.run(miniature(stage="evaluate", **changes), tmp_path)


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_real_problems_go_the_same_way(task, data_dir, tmp_path):
  config = smoke.get_config(task)
  config.problems.manual_dir = str(data_dir)
  config.lock()
  main.run(config, tmp_path)
  report = json.loads((tmp_path / "report" / "report.json").read_text())
  assert {row["method"] for row in report["search"]} >= {"orm_best_of_n", "pav_beam"}
  assert pathlib.Path(tmp_path / "report" / "index.html").exists()
