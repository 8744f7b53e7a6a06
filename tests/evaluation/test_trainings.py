"""Several trainings in one table: goldens by hand, the law of equal compute over mean FLOPs, what is refused."""

import json

import numpy as np
import pytest

from pav_jax import trainings as command
from pav_jax.errors import UserError
from pav_jax.evaluation import tables
from pav_jax.evaluation import trainings
from pav_jax.training import records
from tests.evaluation import test_tables

COSTS = ("prompt_p", "generated_p", "scored_p", "policy_flops_p", "verifier_flops_p")


def beams(right, costs, arms=("q_beam", "pav_beam@good"), widths=(2, 4)):
  """right: arm -> width -> share of ten problems; costs: arm -> FLOPs a unit of width."""
  rows = [(arm, width, i < round(10 * right[arm][width]), costs[arm] * width) for arm in arms for width in widths for i in range(10)]
  method, width, is_right, flops = (np.array(x) for x in zip(*rows))
  nothing = np.zeros(len(flops))
  return {"method_p": method, "width_p": width, "seed_p": nothing, "right_p": is_right, "passed_p": is_right,
          **dict.fromkeys(COSTS, nothing), "policy_flops_p": flops}


@pytest.fixture
def searches():
  """Three trainings. The Q beam has .2 at both widths, the other .3, .4, .5 at 2 and .2 at 4, for 1.5 times the FLOPs."""
  return [tables.Search(test_tables.sample_records(), beams(
      {"q_beam": {2: .2, 4: .2}, "pav_beam@good": {2: x, 4: .2}}, {"q_beam": 2.0, "pav_beam@good": 3.0}), draws=1) for x in (.3, .4, .5)]


def test_a_row_has_students_interval_over_trainings(searches):
  row = trainings.row(searches, "pav_beam@good", 2, [100, 300, 200])
  # Deviation .1, three trainings: 4.3027 * .1 / sqrt(3).
  assert (row["accuracy"], row["low"], row["high"]) == pytest.approx((.4, .4 - .24841, .4 + .24841), abs=1e-4)
  assert row["by_training"] == [.3, .4, .5] and row["flops"] == 6 and row["label_tokens"] == 200
  assert trainings.row(searches, "q_beam", 2, [None, 300, 200])["label_tokens"] is None


def test_differences_are_paired_and_the_other_never_has_less(searches):
  found = trainings.compare(searches)["differences"]
  of = {(d["by"], d["width"], d["other"]): d for d in found}
  equal = of["flops", 2, "q_beam"]  # 6 FLOPs: the Q beam of 2 has 4, that of 4 has 8
  assert equal["n"] == 4 and equal["ratio"] == pytest.approx(8 / 6) and equal["by_training"] == pytest.approx([.1, .2, .3])
  assert of["n", 2, "q_beam"]["n"] == 2 and of["n", 2, "q_beam"]["ratio"] == pytest.approx(4 / 6)
  # At its best for at most 12 FLOPs the Q beam has .2 at either width: the first of equals.
  assert of["best", 4, "q_beam"]["n"] == 2 and of["best", 2, "q_beam"]["n"] == 2
  assert ("flops", 4, "q_beam") not in of  # 12 FLOPs: no Q beam that was run has as many
  assert {d["method"] for d in found} == {"pav_beam@good"}


def test_of_independent_samples_it_is_the_smallest_n(searches):
  # A sample of the policy: 8 FLOPs, its prompt 20; the ORM's 4 and 10. Six FLOPs are less than one of them.
  assert trainings.rival(searches, ("pav_beam@good", 2), "orm_best_of_n", "flops") == 1


@pytest.mark.parametrize("method, is_one", [
    ("pav_beam", True), ("pav_beam@good", True), ("prover_a_beam@good", True), ("particles_progress@good", True), ("q_beam", False),
    ("prover_q_beam@good", False), ("pav_beam@exact", False), ("pav_beam@good_pass", False), ("pav_beam@good_by_effective", False),
    ("random_beam@good", False), ("orm_best_of_n", False)])
def test_who_ranks_by_progress(method, is_one):
  assert trainings.is_progress(method) == is_one


def test_one_training_or_another_search_is_refused(searches):
  with pytest.raises(UserError, match="two run directories at least"):
    trainings.compare(searches[:1])
  other = tables.Search(test_tables.sample_records(), beams({"q_beam": {2: .2}, "pav_beam@good": {2: .3}},
                                                            {"q_beam": 2.0, "pav_beam@good": 3.0}, widths=(2,)), draws=1)
  with pytest.raises(UserError, match="not every run has searched pav_beam@good at width 4"):
    trainings.compare([searches[0], other])


def run(path, seed, share, alpha=0.5):
  """A run directory with as much as the command reads."""
  config = {"seed": seed, "search": {"alpha": alpha, "provers": {"good": f"{path}/good"}, "verifier": f"{path}/q"}}
  for name, arrays in (("problems/train", {"x_p": np.zeros(1)}), ("search/samples", test_tables.sample_records()),
                       ("search/beams", beams({"q_beam": {2: .2, 4: .2}, "pav_beam@good": {2: share, 4: .2}},
                                              {"q_beam": 2.0, "pav_beam@good": 3.0}))):
    folder = records.Folder(path / name, alone=True)
    problems = {"seed": seed, "arithmetic": {"train_seed": 10 + seed, "dials": {"noise": .1}}}
    folder.start(name, problems if name == "problems/train" else config, {})
    folder.write_shard(0, arrays, {})
    folder.finish(1, {"label tokens": {"q": {"a": 5}, "good": {"b": 7}}})
  return str(path)


def test_the_command(tmp_path, capsys):
  paths = [run(tmp_path / f"run{seed}", seed, share) for seed, share in enumerate((.3, .5))]
  assert command.main([*paths, f"--output={tmp_path / 'out.json'}"]) == 0
  found = json.loads((tmp_path / "out.json").read_text())
  rows = {(r["method"], r["n"]): r for r in found["rows"]}
  assert rows["pav_beam@good", 2]["by_training"] == [.3, .5] and rows["pav_beam@good", 2]["label_tokens"] == 12
  assert rows["q_beam", 2]["label_tokens"] == 5
  for n, training in enumerate(found["trainings"]):
    assert training["config"] == {"seed": n, "arithmetic": {"train_seed": 10 + n, "dials": {"noise": .1}}}
    assert training["minutes"] == {"problems/train": 0.0, "search/samples": 0.0, "search/beams": 0.0}
  assert [(t["seed"], t["data seeds"]["train_seed"]) for t in found["trainings"]] == [(0, 10), (1, 11)] and found["search"] == {"alpha": .5}
  assert "PAV beam (good) of 2" in capsys.readouterr().out


def test_runs_of_other_settings_are_refused(tmp_path, capsys):
  paths = [run(tmp_path / "a", 0, .3), run(tmp_path / "b", 1, .3, alpha=2.0)]
  assert command.main([*paths, f"--output={tmp_path / 'out.json'}"]) == 2
  assert capsys.readouterr().err == f"error: {paths[1]}: search.alpha is 2.0, in {paths[0]} 0.5\n"
  assert command.main([paths[0], paths[0], f"--output={tmp_path / 'out.json'}"]) == 2
  assert "one training twice" in capsys.readouterr().err
  assert command.main([paths[0], str(tmp_path / "none"), f"--output={tmp_path / 'out.json'}"]) == 2
  assert "is not finished" in capsys.readouterr().err
