"""Verifiers that learn from labels of others, alone and beside ours: the rows, and rules that were planted."""

import json
import types

import numpy as np
import pytest

from configs import default
from pav_jax import export
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.problems import given
from pav_jax.problems import home as home_lib
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import records
from pav_jax.values import imported
from pav_jax.values import monte_carlo
from pav_jax.verifiers import given as given_values
from pav_jax.verifiers import taught
from pav_jax.verifiers import train
from tests import labelled
from tests import made

NAN = np.nan
# One response of three steps to problem 1, of whose 4 continuations 1 and 3 were right; of another only the outcome is known.
ROLLOUTS = collect.Rollouts(np.array([1, 1]), np.array([0, 1]), np.array([[5, 6, 7], [8, 9, 0]]), np.array([3, 2]), np.zeros((2, 3)),
                            np.array([True, True]), np.array([1, 0], np.int8))
VALUES = monte_carlo.Values(np.array([[-1, 0, 2], [-1, 0, 1]]), np.array([[1, 3, 1], [0, 0, 0]]), np.array([[4, 4, 1], [0, 0, 1]]))
PROBLEMS = prepared.Problems(*[np.array(["", ""])] * 4, np.array([[2, 5, 0], [2, 6, 7]], np.int32), np.array([2, 3]), None, None)
IMPORTED = imported.Imported(
    np.array([0, 1, 0]), np.array([[2, 9], [2, 5], [2, 9]], np.int32), np.array([2, 2, 2]), np.array([[5, 6, 7, 8]] * 3, np.int32),
    np.array([4, 4, 2]), np.array([[-1, 1, 2, 3], [-1, 3, -2, -2], [-1, 1, -2, -2]]),
    np.array([[NAN, 1, 0.3, NAN], [NAN, 0, NAN, NAN], [NAN, NAN, NAN, NAN]]), np.array([[0, 1, 5, 0], [0, 1, 0, 0], [0, 0, 0, 0]]))


def knobs(**changes):
  config = default.get_config()
  config.update_from_flattened_dict({f"verifier.{name}": value for name, value in changes.items()})
  return config.verifier


def test_both_side_by_side():
  """  row       ours: 0 1   theirs: 2 3 4
       problem         0 0           1 2 1   the same prompt, the same problem; whatever its number was
       labels          3 3           2 1 0   with own outcomes
       used            x x           x x -   """
  found = taught.joined([taught.own("q", knobs(), PROBLEMS, ROLLOUTS, VALUES), taught.others("q", knobs(), IMPORTED)])
  np.testing.assert_array_equal(found.problem_b, [0, 0, 1, 2, 1])
  np.testing.assert_array_equal(found.prompt_bt, [[2, 6, 7]] * 2 + [[2, 9, 0], [2, 5, 0], [2, 9, 0]])
  np.testing.assert_array_equal(found.token_bt[1:3], [[8, 9, 0, 0], [5, 6, 7, 8]])
  np.testing.assert_array_equal(found.end_bz[[0, 2]], [[-1, 0, 2, -2], [-1, 1, 2, 3]])
  np.testing.assert_array_equal(found.target_bz, [[2 / 5, 4 / 5, 1, NAN], [0, 0, 0, NAN], *IMPORTED.q_bz])
  np.testing.assert_array_equal(found.count_bz, [[5, 5, 1, 0], [1, 1, 1, 0], *IMPORTED.count_bz])
  np.testing.assert_array_equal(found.labels_b, [3, 3, 2, 1, 0])
  np.testing.assert_array_equal(found.useful_b, [True, True, True, True, False])


def test_the_same_prompt_of_both_is_one_problem():
  theirs = IMPORTED._replace(prompt_bt=np.array([[2, 9, 0], [2, 6, 7], [2, 9, 0]], np.int32), prompt_length_b=np.array([2, 3, 2]))
  found = taught.joined([taught.own("q", knobs(), PROBLEMS, ROLLOUTS, VALUES), taught.others("q", knobs(), theirs)])
  np.testing.assert_array_equal(found.problem_b, [0, 0, 1, 0, 1])


def test_ours_alone_are_as_they_were():
  found = taught.joined([taught.own("orm", knobs(), PROBLEMS, ROLLOUTS, VALUES)])
  np.testing.assert_array_equal(found.problem_b, [1, 1])
  np.testing.assert_array_equal(found.target_bz, [[1, 1, 1], [0, 0, 0]])
  found = taught.own("q", knobs(own_outcomes=False), PROBLEMS, ROLLOUTS, VALUES)
  np.testing.assert_array_equal(found.useful_b, [True, False])


@pytest.mark.parametrize("changes, said", [
    ({"labels": "imported"}, "neither an outcome for 'orm'"), ({"labels": "imported", "kinds": ("q", "advantage")}, "nor a policy for 'advantage'"),
    ({"labels": "imported", "kinds": ("q",), "every_token": True}, "verifier.every_token: with verifier.labels=imported"),
    ({"labels": "both", "every_token": True}, "verifier.every_token: with verifier.labels=both"),
    ({"labels": "theirs"}, "config.verifier.labels 'theirs' is none of monte_carlo, imported, both")])
def test_what_labels_of_others_do_not_teach(changes, said):
  config = default.get_config()
  config.update_from_flattened_dict({f"verifier.{name}": value for name, value in changes.items()})
  with pytest.raises(UserError, match=said):
    train.check(config)


@pytest.mark.parametrize("changes", [
    {"verifier.labels": "imported", "verifier.kinds": ("q",), "monte_carlo.checkpoint": "mu", "monte_carlo.strategy": "adaptive"},
    {"verifier.labels": "both"}, {"verifier.labels": "both", "verifier.kinds": ("q", "advantage"), "monte_carlo.n_mc": 4}])
def test_what_they_do_teach(changes):
  """Ours are not asked where only others teach."""
  config = default.get_config()
  config.update_from_flattened_dict(changes)
  train.check(config)


# What each step says: a label of 1, 0 or a fraction.
SAYS = {"+": 1.0, "*": 0.0, "Bob": 0.25}


def config_of(**changes):
  config = default.get_config()
  config.update_from_flattened_dict({
      "stage": "verifier", "verifier.kinds": ("q",), "verifier.init_from": "", "verifier.model.vocab_size": 400,
      "verifier.valid_fraction": 0.1, "verifier.text_weight": 0.0, "verifier.balance": "none", "verifier.q.num_steps": 90, "verifier.q.batch_size": 32,
      "verifier.q.peak_lr": 5e-3, "verifier.q.warmup_steps": 5, "verifier.q.eval_every": 30, "verifier.q.save_every": 90, **changes})
  return config


def scores(root, steps):
  """What the verifier in the run says of each step, as the only one of a new question."""
  train_folder = records.Folder(root / "problems/train")
  vocabulary = prepared.vocabulary(train_folder)
  config = config_of()
  arch, params = architecture.restore(str(root / "verifier/q/best"), config.verifier.model, vocabulary, mesh_lib.make_mesh(**config.mesh))
  prompt_t = home_lib.Home(vocabulary, made.PROMPT, "newline").prompt_t("Ann has 39 mod 40")
  found = given_values.values(arch, params, [prompt_t] * len(steps),
                              [given.tokens([step], vocabulary, separator="\n", ended=False) for step in steps], rows=8)
  return np.array([value_z[1] for value_z in found])


def rows_of(words, count=120):
  """TRL's rows, the label of each step what its word says."""
  rng = np.random.default_rng(0)
  for n in range(count):
    chosen = [str(word) for word in rng.choice(words, 3)]
    yield {"prompt": f"Ann has {n % 40} mod {n % 7}", "completions": [f"{word} {rng.integers(40)}" for word in chosen],
           "labels": [SAYS[word] for word in chosen], "ended": False}


def teach(path, tmp_path, **changes):
  file = tmp_path / "labels.jsonl"
  file.write_text("".join(json.dumps(row) + "\n" for row in rows_of(changes.pop("words", list(SAYS)))))
  main.run(config_of(stage="labels", **{"labels.files": str(file)}), path)
  main.run(config_of(**changes), path)


def test_a_verifier_learns_the_labels_of_others(tmp_path):
  """Hard and soft ones: a fraction is learnt as that fraction, neither as 0 nor as 1."""
  root = labelled.problems(tmp_path / "run")
  teach(root, tmp_path, **{"verifier.labels": "imported"})
  found = {word: scores(root, [f"{word} {n}" for n in (3, 17, 38)]) for word in SAYS}
  for word, label in SAYS.items():
    np.testing.assert_allclose(found[word], label, atol=0.1, err_msg=word)
  manifest = records.Folder(root / "verifier").manifest()
  assert set(manifest["inputs"]) == {"problems/train", "problems/validation", "labels"}
  assert manifest["facts"]["q"]["labels"] + 3 * manifest["facts"]["q"]["valid_rows"] == 360


def monte_carlo_run(root):
  """Fills the run with seeds of one step and an end, of whose 4 continuations all were right behind `1:`, and none behind `2:`."""
  vocabulary = prepared.vocabulary(records.Folder(root / "problems/train"))
  rng, count = np.random.default_rng(1), 120
  right_b = rng.random(count) < 0.5
  responses = [given.tokens([f"{'1:' if right else '2:'} {rng.integers(40)}", "#### 7"], vocabulary, separator="\n") for right in right_b]
  width = max(len(x.token_t) for x in responses)
  length_b = np.array([len(x.token_t) for x in responses], np.int32)
  token_bt = np.array([np.pad(x.token_t, (0, width - len(x.token_t))) for x in responses], np.int32)
  zeros = np.zeros(token_bt.shape, np.float32)
  rollouts = collect.Rollouts(np.arange(count) % 3, np.arange(count) // 3, token_bt, length_b, zeros, np.full(count, True), right_b.astype(np.int8))
  end_bz = np.array([[-1, *x.end_s] for x in responses], np.int32)
  values = monte_carlo.Values(end_bz, np.stack([0 * right_b, 4 * right_b, right_b], axis=1).astype(np.int32), np.tile([0, 4, 1], (count, 1)))
  sections = default.get_config()
  for name, section, arrays in (("sft", "sft", None), ("rollouts", "rollouts", rollouts), ("values", "monte_carlo", values)):
    folder = records.Folder(root / name)
    folder.start(name, {section: sections[section].to_dict()}, {})
    if arrays is not None:
      folder.write_shard(0, arrays._asdict(), {})
    folder.finish(int(arrays is not None))


def test_our_labels_that_went_out_and_came_back_teach_the_same(tmp_path):
  """Row for row what a verifier learns from Monte Carlo, without own outcomes."""
  root = labelled.problems(tmp_path / "run")
  monte_carlo_run(root)
  assert export.main([str(root), f"--output={tmp_path}/out.jsonl"]) == 0
  main.run(config_of(stage="labels", **{"labels.files": f"{tmp_path}/out.jsonl"}), root)
  run = types.SimpleNamespace(folder=lambda name: records.Folder(root / name))
  problems, vocabulary = prepared.read(run.folder("problems/train")), prepared.vocabulary(run.folder("problems/train"))
  ours = taught.own("q", knobs(own_outcomes=False), problems, *monte_carlo.read(run))
  theirs = taught.others("q", knobs(), imported.read(run, vocabulary))
  for name in set(taught.Taught._fields) - {"prompt_bt", "token_bt"}:
    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
  rows = [train.value_rows(x, x.target_bz, x.count_bz) for x in (ours, theirs)]
  for x, y in zip(*rows):
    np.testing.assert_array_equal(x, y)


def test_a_verifier_learns_both(tmp_path):
  """What only ours say, and what only others say."""
  root = labelled.problems(tmp_path / "run")
  monte_carlo_run(root)
  teach(root, tmp_path, words=["+", "*"], **{"verifier.labels": "both", "verifier.own_outcomes": False})
  for word, label in {"1:": 1, "2:": 0, "+": 1, "*": 0}.items():
    np.testing.assert_allclose(scores(root, [f"{word} {n}" for n in (3, 17, 38)]), label, atol=0.15, err_msg=word)
  facts = records.Folder(root / "verifier").manifest()["facts"]["q"]
  assert facts["train_rows"] + facts["valid_rows"] == 240
