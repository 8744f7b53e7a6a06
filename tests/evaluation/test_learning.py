"""What is read off RL's curves, by hand."""

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.evaluation import learning


def test_a_curve_adds_up_what_was_spent_and_means_what_was_drawn_since():
  row = lambda step, flops, accuracy, **more: {"step": step, "flops": flops, "accuracy": accuracy} | more
  rows = [row(1, 10.0, 0.25, reward=0.1), row(2, 20.0, 0.75, reward=0.3), {"step": 2, "valid_accuracy": 0.5, "valid_greedy": 0.6},
          row(3, 5.0, 1.0, reward=-0.2), {"step": 3, "valid_accuracy": 0.7, "valid_greedy": 0.8}]
  first, second = learning.curve(rows, per_step=4)
  assert first == {"samples": 8, "flops": 30.0, "accuracy": 0.5, "greedy": 0.6, "outcome": 0.5, "process": pytest.approx(0.2)}
  assert second == {"samples": 12, "flops": 35.0, "accuracy": 0.7, "greedy": 0.8, "outcome": 1.0, "process": -0.2}
  assert learning.curve([row(1, 1.0, 0.0), {"step": 1, "valid_accuracy": 0.0, "valid_greedy": 0.0}], 4)[0]["process"] == 0.0


def test_how_many_times_sooner():
  """Where the second is at best (.6 at 30 samples) the first is at 10; one that is never there has no number."""
  line = lambda *accuracies: [{"samples": 10 * (i + 1), "accuracy": x} for i, x in enumerate(accuracies)]
  never, second = line(0.1, 0.2, 0.3), line(0.1, 0.2, 0.6)
  found = learning.sooner([line(0.7, 0.1, 0.2), never, line(0.2, 0.6, 0.1)], [second] * 3)
  assert found == {"times_fewer_samples": [3.0, None, 1.5], "reached": 2, "of": 3, "median": 1.5}
  assert learning.sooner([line(0.7), never], [second] * 2)["median"] is None


def test_what_varies_decides_the_interval():
  """Two seeds on two problems: Student's t over the seeds' means; one seed: over the problems."""
  right = {"a/0": np.array([[1, 1], [0, 0]], bool), "a/1": np.array([[1, 1], [1, 0]], bool), "sft": np.zeros((2, 2), bool)}
  greedy = {name: x[:, 0] for name, x in right.items()}
  found = learning.standing(right, greedy, ["a/0", "a/1"], ["sft"], 200)
  assert found["varies"] == "training seeds" and found["by_seed"] == [0.5, 0.75]
  assert found["accuracy"] == pytest.approx((0.625, 0.625 - 12.706 * 0.125, 0.625 + 12.706 * 0.125), abs=1e-3)
  one = learning.standing(right, greedy, ["a/0"], ["sft"], 200)
  assert one["varies"] == "problems" and one["accuracy"] == (0.5, 0.0, 1.0)
  assert learning.difference(right, ["a/0", "a/1"], ["sft", "sft"], 200) == pytest.approx(found["accuracy"])


def test_differences_of_pass_at_n_are_paired():
  """Of four responses to each problem 2 and 0, 4 and 1 are right in two seeds, of the other policy 1 and 0 in both. At 2 that is
  5/6 and 0, 1 and 1/2 against 1/2 and 0: by seed 1/6 and 1/2."""
  right = lambda *counts: np.arange(4) < np.array(counts)[:, None]
  policies = {"a/0": right(2, 0), "a/1": right(4, 1), "sft": right(1, 0)}
  rows = learning.pass_differences(policies, ["a/0", "a/1"], ["sft", "sft"], 50)
  assert [row["n"] for row in rows] == [1, 2, 4]
  half = 12.706 / 6  # t(.975, 1) times the deviation sqrt(2) / 6 over sqrt(2)
  assert (rows[1]["difference"], rows[1]["difference_low"], rows[1]["difference_high"]) == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half), abs=1e-3)
  assert rows[2]["difference"] == pytest.approx((0 + 0.5) / 2)


def test_shares_of_clipped_updates_and_validation_accuracies():
  rows = [{"step": 1, "norm_clipped": 1.0}, {"step": 1, "valid_accuracy": 0.5}, {"step": 2, "norm_clipped": 0.5}]
  assert learning.norm_clipped([rows, rows[:1]]) == pytest.approx(2.5 / 3)
  line = lambda *accuracies: [{"accuracy": x} for x in accuracies]
  assert learning.on_validation([line(0.25, 0.75), line(0.5, 0.5)]) == {"last": [0.75, 0.5], "mean": [0.5, 0.5]}


def test_every_arm_is_set_against_one_that_was_trained():
  right = {"a/0": np.array([[1, 1], [1, 0]], bool), "outcome/0": np.array([[1, 0], [0, 0]], bool)}
  arms, curves = {"a": ["a/0"], "outcome": ["outcome/0"]}, {"a/0": [{"samples": 10, "accuracy": 0.5}], "outcome/0": [{"samples": 30, "accuracy": 0.25}]}
  assert learning.differences(right, arms, "outcome", 50)["a"][0] == 0.5 and learning.differences(right, arms, "outcome_critic", 50) == {}
  assert learning.paces(curves, arms, "outcome")["a"]["median"] == 3.0 and learning.paces(curves, arms, "outcome_critic") == {}


def _trained(right: float, sooner: int, seeds=(7,)) -> learning.Learned:
  """A training whose arm `progress` ends with that share of four responses right, and was where `outcome` ends after so many samples."""
  responses = lambda share: np.array([[i < 4 * share for i in range(4)], [False] * 4])
  line = lambda *points: [{"samples": n, "accuracy": x} for n, x in points]
  policies = {"sft": responses(0), "start": responses(0)} | {f"progress/{seed}": responses(right) for seed in seeds} | {
      f"outcome/{seed}": responses(.25) for seed in seeds}
  arms = {arm: [f"{arm}/{seed}" for seed in seeds] for arm in ("progress", "outcome")}
  made = [member for members in arms.values() for member in members]
  curves = {m: line((sooner, .5), (60, .9)) if m.startswith("progress") else line((30, .1), (60, .5)) for m in made}
  return learning.Learned(policies, {name: x[:, 0] for name, x in policies.items()}, {m: [{"norm_clipped": 0.0}] for m in made}, curves, arms,
                          {"sft": ["sft"], "start": ["start"]}, dict.fromkeys(made, "start"))


def test_trainings_together_vary_by_training():
  """Shares .25, .5, .75 of one of two problems: .125, .25, .375, so .25, Student's t 4.3027 * .125 / sqrt(3); 60 samples against 15, 20, 30."""
  joined = learning.together([_trained(.25, 15), _trained(.5, 20, seeds=(8,)), _trained(.75, 30)])
  assert joined.arms == {"progress": ["progress/0", "progress/1", "progress/2"], "outcome": ["outcome/0", "outcome/1", "outcome/2"]}
  found = learning.compare(joined._replace(rows={m: [{"norm_clipped": 0.0, "update_s": 1, "rollout_s": 2, "score_s": 3}] for m in joined.rows}), draws=1)
  assert found["policies"]["progress"]["accuracy"] == pytest.approx((.25, .25 - .31052, .25 + .31052), abs=1e-4)
  assert found["policies"]["progress"]["by_seed"] == [.125, .25, .375]
  assert found["differences"]["progress"][0] == pytest.approx(.125) and found["over_start"]["outcome"] == pytest.approx((.125,) * 3)
  assert found["sooner"]["progress"] == {"times_fewer_samples": [4.0, 3.0, 2.0], "reached": 3, "of": 3, "median": 3.0}
  assert found["policies"]["progress"]["sft_never_solved"] == 2 and found["policies"]["progress"]["newly_solved"] == 1


def test_the_sentence_says_what_the_interval_allows():
  report = {"config": {"critic": True}, "trainings": [], "policies": {"progress@good": {"accuracy": (.8, .7, .9), "varies": "training seeds"}, "outcome": {"accuracy": (.5, .4, .6)},
                         "outcome_critic": {"accuracy": (.6, .5, .7)}},
            "differences": {"progress@good": (.3, .2, .4), "outcome_critic": (.1, 0, .2)}, "over_critic": {"progress@good": (.2, -.1, .5)},
            "sooner": {"progress@good": {"median": 3.25, "reached": 3, "of": 3}},
            "sooner_than_critic": {"progress@good": {"median": None, "reached": 1, "of": 3}}}
  [said] = learning.sentences(report)
  assert said == ("Progress is open (progress@good): 0.800 against 0.600 of outcome_critic, which has the verifier as critic, too: "
                  "+20.0 points [-10.0, +50.0] over trainings; seldom as good within the run (1 of 3).")
  [said] = learning.sentences(report | {"over_critic": {}})
  assert said == ("Progress pays (progress@good): 0.800 against 0.500 of outcome: +30.0 points [+20.0, +40.0] over trainings; "
                  "as good after 3.2 times fewer responses (3 of 3).")
  assert learning.sentences(report | {"config": {"critic": False}}) == [said]
  del report["trainings"]
  [one] = learning.sentences(report | {"over_critic": {}, "seeds": [0]})
  assert one == said.replace("over trainings", "over problems; one seed of RL on this one training")
  report["trainings"] = []
  [said] = learning.sentences(report | {"over_critic": {"progress@good": (-.2, -.3, -.1)}})
  assert said.startswith("Progress costs")
  assert learning.sentences(report | {"differences": {}, "over_critic": {}}) == []


def test_trainings_that_do_not_go_together_are_told():
  with pytest.raises(UserError, match="training 1 has several seeds of RL"):
    learning.together([_trained(.5, 20), _trained(.5, 20, seeds=(7, 8))])
  other = _trained(.5, 20)
  with pytest.raises(UserError, match="training 1 has progress, sft, start, the first progress, outcome, sft, start"):
    learning.together([_trained(.5, 20), other._replace(arms={"progress": other.arms["progress"]})])
