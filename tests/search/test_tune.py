"""The stage that tries settings: what is tried, chosen, kept when it is cut off, and taken by the search."""

import json
import types

import numpy as np
import pytest

from configs import default
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.search import arms
from pav_jax.search import labels
from pav_jax.search import players as players_lib
from pav_jax.search import tune
from pav_jax.training import records
from pav_jax.training.run import Run

ARMS = ("q_beam", "pav_beam@strong", "particles", "q_lookahead")


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run whose searches are right on as many of 8 problems as their knob's setting says (.25 one, more from there on)."""
  config = default.get_config()
  config.search.update(dict(arms=ARMS, num_seeds=2, provers=dict(strong="somewhere")))
  this = Run(config, tmp_path, None)
  for name in ("problems/validation", "sft", "verifier"):
    this.folder(name).start(name, {}, {})
    this.folder(name).finish(0)
  asked = []
  def searched(run, players, grader, arm, settings, width, seed, bar):
    knob = arms.parsed(arm)[0].knob
    asked.append((arm, settings[knob], width, seed))
    right = min(8, int(4 * settings[knob])) if knob != "lookahead" else 3  # of equals the cheapest
    whole = lambda x: np.full(8, x)
    return {"method_p": whole(arm), "setting_p": whole(float(settings[knob])), "places_p": whole(2), "right_p": np.arange(8) < right,
            "policy_flops_p": whole(10.0 - settings["lookahead"]), "verifier_flops_p": whole(1.0)}, {"searches": 8}
  monkeypatch.setattr(players_lib, "searched", searched)
  monkeypatch.setattr(players_lib, "Players", lambda run, split, count: types.SimpleNamespace(
      problems=types.SimpleNamespace(id_p=np.arange(8)), split=split))
  return this, asked


def test_every_arm_has_as_many_settings_and_the_best_is_chosen(run):
  this, asked = run
  tune.run_stage(this)
  assert {arm: sum(a == arm for a, *_ in asked) for arm in ARMS} == dict.fromkeys(ARMS, 4 * 2)
  assert {width for _, _, width, _ in asked} == {4} and all(type(x) is int for arm, x, *_ in asked if arm in ("q_beam", "q_lookahead"))
  found = json.loads((this.root / "search/tuning/tuning.json").read_text())
  # All of q_beam's settings are right on all problems and cost the same: the first.
  assert found["chosen"] == {"q_beam": 2, "pav_beam@strong": 4.0, "particles": 3.0, "q_lookahead": 4}
  row = next(r for r in found["results"] if (r["arm"], r["setting"]) == ("pav_beam@strong", 1.0))
  assert row == {"arm": "pav_beam@strong", "knob": "alpha", "setting": 1.0, "places": 2, "accuracy": 0.5, "flops": 11.0, "searches": 16}
  before = len(asked)
  tune.run_stage(this)
  assert len(asked) == before  # it was finished


def test_it_goes_on_where_it_was_cut_off(run, monkeypatch):
  this, asked = run
  whole, left = players_lib.searched, iter(range(5))
  def cut(*arguments):
    if next(left, None) is None:
      raise KeyboardInterrupt
    return whole(*arguments)
  with monkeypatch.context() as context:
    context.setattr(players_lib, "searched", cut)
    with pytest.raises(KeyboardInterrupt):
      tune.run_stage(this)
  assert len(asked) == 5
  tune.run_stage(this)
  assert len(asked) == len(set(asked)) == 32


def test_the_search_takes_what_was_chosen(run):
  this, _ = run
  assert tune.chosen(this) == {}
  this.config.search.tuned = True
  with pytest.raises(UserError, match="search/tuning is not there: run the stage that makes it first"):
    tune.chosen(this)
  tune.run_stage(this)
  tuned = tune.chosen(this)
  assert arms.settings_of("pav_beam@strong", this.config.search, tuned["pav_beam@strong"])["alpha"] == 4.0
  assert arms.settings_of("q_beam", this.config.search, tuned["q_beam"])["candidates"] == 2
  this.config.search.arms = ("q_beam", "constant_beam")
  with pytest.raises(UserError, match="search/tuning has no constant_beam: remove it, and run stage tune again"):
    tune.chosen(this)


def test_the_pipeline_tunes_where_the_search_is_tuned():
  config = default.get_config()
  names = lambda: [module.__name__ for module in main._modules(config)]
  assert "pav_jax.search.tune" not in names()
  config.search.tuned = True
  at = names().index("pav_jax.search.tune")
  assert names()[at + 1] == "pav_jax.search.compare"


def test_tokens_behind_a_verifier_are_those_of_the_run_in_whose_folder_it_lies(tmp_path):
  for name, tokens in (("mu/rollouts", 7), ("mu/values", 30), ("rollouts", 100)):
    folder = records.Folder(tmp_path / name)
    folder.start(name, {}, {})
    folder.write_shard(0, {"x_b": np.zeros(1)}, {"tokens": tokens})
    folder.finish(1)
  path = lambda *names: str(tmp_path.joinpath(*names))
  mu = labels.behind(path("mu", "verifier/q/best"), "q")
  assert mu == {path("mu", "rollouts"): 7, path("mu", "values"): 30}
  assert labels.behind(path("mu", "verifier/orm/best"), "orm") == {path("mu", "rollouts"): 7}
  assert labels.behind(path("verifier/q/best"), "q") is None  # its values are not there
  assert labels.behind("/nowhere/verifier/q/best", "q") is None
  of = {"q": mu, "again": mu, "strong": {"elsewhere": 5}, "lost": None}
  assert [labels.together(of, names) for names in ([], ["q"], ["q", "again", "strong"], ["q", "lost"], ["nobody"])] == [0, 37, 42, None, None]
