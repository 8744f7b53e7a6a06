"""A prover that is made anew: resumed equals uninterrupted with it, what it learns is the verifier stage's, and all of it is counted."""

import shutil
import types

import jax
import numpy as np
import pytest

import fakes
from configs import default
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.policy import arms
from pav_jax.policy import renewal
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import records
from pav_jax.values import monte_carlo
from pav_jax.verifiers import targets
from pav_jax.verifiers import taught
from pav_jax.verifiers import train
from tests.policy.test_arms import _curves
from tests.policy.test_arms import _tree
from tests.policy.test_arms import before  # noqa: F401: a fixture
from tests.policy.test_arms import killed_and_started_again
from tests.policy.test_arms import rl
from tests.policy.test_arms import root  # noqa: F401: a fixture

RENEWED = {"arms": ("renewed",), "renew_every": 2, "renew_steps": 3, "renew_problems": 4, "watch_prover": 3}


@pytest.mark.slow
def test_killed_and_started_again_the_prover_is_the_same_bit_for_bit(root, tmp_path, monkeypatch):  # noqa: F811
  shutil.copytree(root, tmp_path / "other")
  changes = {"init_from": str(root / "sft" / "best"), "critic": True, "num_steps": 5, "eval_every": 1, **RENEWED}
  rl(root, **changes)
  killed_and_started_again(renewal.Trainer, monkeypatch, tmp_path / "other", changes)  # from before the first renewal
  here, there = root / "rl" / "renewed" / "0", tmp_path / "other" / "rl" / "renewed" / "0"
  one, two = _tree(here), _tree(there)
  assert one.keys() == two.keys() and any("verifier" in name for name in one)
  for name in one:
    np.testing.assert_array_equal(one[name], two[name], err_msg=name)
  assert _curves(here) == _curves(there)
  # It is made anew before iterations 2 and 4, whose rows are steps 3 and 5; that costs, and the prover is another one.
  told = {row["step"]: row for row in _curves(here) if "kl" in row}
  assert [n for n, row in told.items() if "renewal_responses" in row] == [3, 5]
  assert told[3]["renewal_responses"] == 4 * 2 and told[3]["flops"] > 2 * told[2]["flops"]
  assert all(0 < row["valid_tree_share"] < 1 for row in _curves(here) if "valid_accuracy" in row)
  # The best, none of them right, is that of step 1, before a renewal: its verifier is the stage's, which stays as it was.
  [(_, stage)] = [(name, x) for name, x in _leaves(root / "verifier" / "q" / "best") if "embedding" in name]
  of_state = {which: next(x for name, x in one.items() if name.startswith(f"{which} rest") and "verifier" in name and "embedding" in name)
              for which in ("best", "latest")}
  np.testing.assert_array_equal(of_state["best"], stage)
  assert np.abs(of_state["latest"] - stage).max() > 1e-4


def _leaves(path):
  vocabulary = prepared.vocabulary(records.Folder(path.parents[2] / "problems" / "train"))
  arch, params = architecture.restore(str(path), default.get_config().verifier.model, vocabulary, mesh_lib.make_mesh(data=-1, fsdp=1, model=1))
  return [(jax.tree_util.keystr(name), np.asarray(x)) for name, x in jax.tree_util.tree_leaves_with_path(params)]


def _labelled():
  """Two responses of two steps, three tokens each, and their labels."""
  problems = prepared.Problems(*[None] * 4, np.array([[2, 6, 0], [2, 7, 7]], np.int32), np.array([2, 3]), None, None)
  rollouts = collect.Rollouts(np.array([0, 1]), np.zeros(2), np.array([[6, 5, 9, 1, 0], [7, 5, 10, 1, 0]], np.int32), np.array([4, 4]), None,
                              np.ones(2, bool), np.array([0, 1], np.int8))
  end_bz = np.array([[-1, 1, 3]] * 2, np.int32)
  return problems, rollouts, monte_carlo.Values(end_bz, np.array([[1, 2, 1], [0, 1, 0]]), np.array([[4, 4, 1], [4, 4, 1]]))


def test_it_learns_what_the_verifier_stage_learns():
  """The same rows, targets and weights, in one width; the loss with the balance's shift as an array is that with it as a number."""
  problems, rollouts, values = _labelled()
  section = default.get_config().verifier
  found = renewal.taught(section, problems, rollouts, values)
  assert found.rows.token_bt.shape == found.rows.text_weight_bt.shape == (2, 8)
  own = taught.own("q", section, problems, rollouts, values)
  balanced = targets.balance(own.target_bz, own.count_bz, section.balance)
  wanted = train.value_rows(own, balanced.target_bz, balanced.weight_bz)
  for mine, theirs in zip(found.rows, wanted):
    np.testing.assert_array_equal(mine[:, :theirs.shape[1]], theirs)
  assert balanced.shift and (found.shift_b == np.float32(balanced.shift)).all()
  # A row of zeros behind the response is read by nobody.
  params = fakes.random_chain(0)
  shifted = train.value_loss(fakes.CHAIN, 0.2, balanced.shift)(params, wanted, None)
  ours = train.value_loss(fakes.CHAIN, 0.2, found.shift_b[0])(params, jax.tree.map(jax.numpy.asarray, found.rows), None)
  np.testing.assert_allclose(ours[0], shifted[0], rtol=1e-6)


def test_what_a_renewal_costs_by_hand():
  """CHAIN's FLOPs: 3 a token, the square of a position, 7 a token whose logits are computed."""
  problems, rollouts, _ = _labelled()
  config = default.get_config()
  config.rl.renew_steps, config.verifier.q.batch_size, config.verifier.text_weight = 10, 4, 0.1
  arena = types.SimpleNamespace(knobs=config.rl, config=config, problems=problems)
  player = types.SimpleNamespace(network=fakes.CHAIN)
  flops = lambda start, stop, logits=0: 3 * (stop - start) + stop**2 - start**2 + 7 * logits
  prompts = flops(0, 1) + flops(0, 2)
  drawn = flops(1, 5, 4) + flops(2, 6, 4)
  read = flops(0, 6) + flops(0, 7)
  row = (flops(0, 6, 4) + flops(0, 7, 4)) / 2
  assert renewal.cost(arena, player, player, np.arange(2), rollouts, 20) == prompts + drawn + read + 20 * drawn / 8 + 3 * row * 4 * 10


@pytest.mark.parametrize("changes, said", [
    ({"renew_every": 0}, "rl.renew_every 0 is less than 1"), ({"renew_lr": 0.0}, "renew_lr 0.0 is not above 0"),
    ({"arms": ("renewed",), "prover": "monte_carlo"}, "the arm renewed makes a verifier anew"), ({"watch_prover": -1}, "watch_prover -1 is less than 0")])
def test_mistakes_are_told_before_anything_begins(changes, said):
  config = default.get_config()
  config.rl.update(changes)
  with pytest.raises(UserError) as told:
    arms.check(config)
  assert said in str(told.value) and "\n" not in str(told.value)
