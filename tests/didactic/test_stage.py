"""Every figure from its config to its drawing in miniature; every knob is read; what is done is not done again."""

import importlib
import json
import pathlib
import xml.etree.ElementTree

import pytest

from pav_jax import main
from pav_jax.didactic import learning
from pav_jax.didactic import numbers
from pav_jax.didactic import stage
from pav_jax.didactic import verdicts
from pav_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
WORLD = {"world.length": 5, "world.vocabulary": 5, "world.planted": (0, 1)}
LEARN = WORLD | {
    "seeds": 2, "policy.width": 16, "policy.layers": 2, "sft.iterations": 4, "sft.batch_size": 8, "rl.batch_size": 8,
    "rl.chunk": 4, "rl.iterations": 8}
TINY = {
    "fig3a": LEARN | {"arms": ("effective/adam", "outcome/adam", "weighed/adam"), "cut": 4},
    "fig3b": LEARN | {"gammas": (2.0, 8.0), "optimizers": ("adam",)},
    "fig3c": LEARN | {"samples": 512, "ns": (1, 4)},
    "decline": LEARN | {"gammas": (2.0, 8.0), "cases": ("exact", "learned 100", "rollouts 1", "EOS goes on")},
    "search": WORLD | {"widths": (1, 2), "gammas": (2.0, 50.0), "alphas": (0.0, 1.0), "runs": 50, "rollouts": (0, 2)},
    "theorem": {"draws": 50, "points": 20}, "best_of_k": {"draws": 50}, "proposition": {"draws": 2000},
    "map": {"draws": 200, "points": 50}}


def _config(name, **changes):
  config = importlib.import_module(f"configs.didactic.{name}").get_config()
  config.update_from_flattened_dict(TINY[name] | changes)
  config.lock()
  return config


class _Watched:
  """A config that says which of its leaves were asked for."""

  def __init__(self, section, seen, path=()):
    self._parts = section, seen, path

  def __getattr__(self, name):
    return self[name]

  def __getitem__(self, name):
    section, seen, path = self._parts
    value = section[name]
    if hasattr(value, "items"):
      return _Watched(value, seen, (*path, name))
    seen.add((*path, name))
    return value

  def __contains__(self, name):
    return name in self._parts[0]

  def __iter__(self):
    return iter(self._parts[0])

  def keys(self):
    return self._parts[0].keys()

  def to_dict(self):
    # Handed on whole as keywords: Python itself refuses one that no parameter takes.
    return {k: v.to_dict() if isinstance(v, _Watched) else v for k in self for v in [self[k]]}


def _leaves(section, path=()):
  for key, value in section.items():
    yield from _leaves(value, (*path, key)) if hasattr(value, "items") else [(*path, key)]


@pytest.mark.parametrize("name", TINY)
def test_a_figure_from_its_config_to_its_drawing(name, tmp_path):
  config, seen = _config(name), set()
  results = stage.FIGURES[name][0](_Watched(config, seen), learning.Kept(tmp_path / "rows.jsonl"))
  unread = set(_leaves(config)) - seen - {(k,) for k in ("stage", "figure", "again")} - {
      ("mesh", a) for a in ("data", "fsdp", "model")}
  assert not unread, unread
  drawing = stage.FIGURES[name][1](json.loads(json.dumps(results)))
  xml.etree.ElementTree.fromstring(drawing)
  assert drawing == stage.FIGURES[name][1](json.loads(json.dumps(results))) and "$" not in drawing
  assert any("[" in line for line in numbers.lines(name, results))
  assert verdicts.claims(name, results)


def test_every_config_has_a_figure_and_a_command():
  for name in stage.FIGURES:
    text = (ROOT / f"configs/didactic/{name}.py").read_text()
    assert f"--config=configs/didactic/{name}.py --workdir=" in text
    config = importlib.import_module(f"configs.didactic.{name}").get_config()
    assert config.figure == name and [n for n in stage.FIGURES if stage.FIGURES[n][2] in config] == [name]
  assert TINY.keys() == stage.FIGURES.keys()


def test_an_interrupted_figure_goes_on_after_its_last_arm(tmp_path):
  path, made = tmp_path / "rows.jsonl", []
  def make(gamma):
    made.append(gamma)
    return {"mean": 10 * gamma}
  first = learning.Kept(path)
  first.row(make, gamma=1.0)
  first.row(make, gamma=2.0)
  path.write_text(path.read_text()[:-5])
  again = learning.Kept(path)
  assert [again.row(make, gamma=g)["mean"] for g in (1.0, 2.0)] == [10.0, 20.0]
  assert made == [1.0, 2.0, 2.0] and path.read_text().count("\n") == 2


def test_done_is_not_done_again(tmp_path, monkeypatch):
  main.run(_config("map"), tmp_path)
  manifest, drawing = tmp_path / "map/manifest.json", tmp_path / "map/map.svg"
  written = manifest.stat().st_mtime_ns
  drawing.unlink()
  main.run(_config("map"), tmp_path)
  assert manifest.stat().st_mtime_ns == written and drawing.exists()
  facts = json.loads(manifest.read_text())
  assert facts["config"]["draws"] == 200 and facts["config"]["seed"] == 0 and "jax" in facts["versions"]
  with pytest.raises(UserError, match="seed was 0, now 1"):
    main.run(_config("map", seed=1), tmp_path)
  main.run(_config("map", seed=1, again=True), tmp_path)
  assert json.loads(manifest.read_text())["config"]["seed"] == 1


@pytest.mark.parametrize("figure, changes, said", [
    ("decline", {"figure": "nosuch"}, "none of fig3a"),
    ("decline", {"figure": "map"}, "config.figure 'map' is not this config's"),
    ("decline", {"cases": ("exact", "learned")}, "'learned' is none of exact"),
    ("decline", {"cases": ("rollouts 0.5",)}, "'rollouts 0.5' is none of exact"),
    ("decline", {"cases": ("rollouts many",)}, "'rollouts many' is none of exact"),
    ("decline", {"optimizer": "nosuch"}, "config.optimizer: optimizer 'nosuch' is none of adam, sgd, unit"),
    ("decline", {"gammas": (-1.0,)}, "config.gammas: -1.0 is not positive"),
    ("decline", {"gammas": ()}, "config.gammas is empty"),
    ("decline", {"world.planted": (99,)}, "planted"),
    ("fig3a", {"rl.target": 3.0}, "config.rl.target: 3.0 is not below 1"),
    ("fig3a", {"arms": ("nosuch/adam",)}, "config.arms: 'nosuch/adam'"),
    ("fig3a", {"arms": ("outcome/nosuch",)}, "config.arms: optimizer 'nosuch'"),
    ("fig3b", {"optimizers": ("adam", "nosuch")}, "config.optimizers: optimizer 'nosuch'"),
    ("fig3b", {"seeds": 0}, "config.seeds: 0 is not positive"),
    ("fig3c", {"samples": 100}, "config.samples 100"),
    ("search", {"rollouts": (-1,)}, "config.rollouts: -1"),
    ("theorem", {"tree.branching": 1}, "config.tree.branching 1"),
    ("map", {"tree.sparsity": 0.99}, "all leaves are alike")])
def test_a_mistake_is_one_line(figure, changes, said, tmp_path):
  with pytest.raises(UserError, match=said) as caught:
    main.run(_config(figure, **changes), tmp_path)
  assert "\n" not in str(caught.value)
