"""RL as a stage, on problems of two lines: resumed equals uninterrupted, hacking is flagged, mistakes are told."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs.paper import gemma2_2b_math as paper
from pav_jax import main
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.policy import arms
from pav_jax.policy import credit
from pav_jax.policy import reading
from pav_jax.policy import reinforce
from pav_jax.policy import rft
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import files
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import records
from pav_jax.training.checkpoint import Checkpoints
from tests.test_pipeline import miniature

pytestmark = pytest.mark.slow

TINY = {"num_steps": 4, "batch_size": 2, "warmup_steps": 1, "eval_every": 2, "save_every": 2, "group": 2, "rows": 4, "share": 2,
        "eval_problems": 4, "eval_n": 2, "test_problems": 3, "eval_samples": 2, "value_warmup": 2, "n_mc": 1, "arms": ("progress",),
        "baseline": "leave_one_out", "watch.responses": 16}


def rl(root, **changes):
  config = miniature(**{"stage": "rl", "rl.init_from": str(root / "sft" / "best"),
                        **{f"rl.{name}": x for name, x in (TINY | changes).items()}})
  main.run(config, root)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
  """A run up to its verifiers, its own checkpoints named by path."""
  path = tmp_path_factory.mktemp("run")
  for stage in ("problems", "sft", "rollouts", "values", "verifier"):
    main.run(miniature(**{"stage": stage, "verifier.kinds": ("q",)}), path)
  return path


@pytest.fixture
def root(before, tmp_path):
  shutil.copytree(before, tmp_path / "run")
  return tmp_path / "run"


def _tree(path):
  """Every array of the newest and best checkpoints, raw."""
  import orbax.checkpoint as ocp
  found = {}
  for which in ("latest", "best"):
    checkpoints = Checkpoints(path / which)
    step = checkpoints.latest()
    checkpoints.close()
    for item in ("params", "rest"):
      with ocp.StandardCheckpointer() as reader:
        tree = reader.restore(path / which / str(step) / item)
      found |= {f"{which} {item} {jax.tree_util.keystr(p)}": np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(tree)}
  return found


def _curves(path):
  rows = [json.loads(line) for line in (path / "curves.jsonl").read_text().splitlines()]
  return [{name: x for name, x in row.items() if not name.endswith("_s")} for row in rows]


def killed_and_started_again(trainer, monkeypatch, workdir, changes):
  """The stage, killed in its iteration 3 (the state is then that of 2), and started again."""
  step = trainer.step
  def killed(self, state, problem_p, key):
    if int(state.step) == 3:
      raise KeyboardInterrupt
    return step(self, state, problem_p, key)
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(trainer, "step", killed)
    rl(workdir, **changes)
  rl(workdir, **changes)


def test_killed_and_started_again_it_gives_the_same_bit_for_bit(root, tmp_path, monkeypatch):
  shutil.copytree(root, tmp_path / "other")
  # One checkpoint for both: its path is part of the plan.
  start = str(root / "sft" / "best")
  # Alarms of the third iteration, of the last three: the kill comes after it, the restart before it.
  changes = {"init_from": start, "baseline": "value", "watch.responses": 12, "watch.share": -1.0}
  rl(root, **changes)
  killed_and_started_again(reinforce.Trainer, monkeypatch, tmp_path / "other", changes)
  one, two = _tree(root / "rl" / "progress" / "0"), _tree(tmp_path / "other" / "rl" / "progress" / "0")
  assert one.keys() == two.keys() and any("value" in name for name in one)
  for name in one:
    np.testing.assert_array_equal(one[name], two[name], err_msg=name)
  assert _curves(root / "rl" / "progress" / "0") == _curves(tmp_path / "other" / "rl" / "progress" / "0")
  told = (root / "rl" / "progress" / "0" / "alarms.jsonl").read_text()
  assert told == (tmp_path / "other" / "rl" / "progress" / "0" / "alarms.jsonl").read_text()
  assert {json.loads(line)["step"] for line in told.splitlines()} == {2}
  for x, y in zip(records.Folder(root / "rl").read().values(), records.Folder(tmp_path / "other" / "rl").read().values()):
    np.testing.assert_array_equal(x, y)


NEIGHBOURS = ("reinforce", "grpo", "min_form", "first_error", "implicit", "answer_probability", "uncertain")


def test_neighbours_killed_after_an_iteration_go_on_to_the_bit(root, tmp_path, monkeypatch):
  """Two iterations in one go, and with a kill of every arm between them; a reward model is saved and pays nothing at first."""
  shutil.copytree(root, tmp_path / "other")
  changes = {"init_from": str(root / "sft" / "best"), "arms": NEIGHBOURS, "num_steps": 2, "warmup_steps": 0, "eval_every": 1,
             "save_every": 1}
  rl(root, **changes)
  step, train_arm, killed = reinforce.Trainer.step, arms.train_arm, []
  def once(self, state, problem_p, key):
    if int(state.step) == 1 and (len(killed) == 0 or killed[-1] is not self._arena):
      killed.append(self._arena)
      raise KeyboardInterrupt
    return step(self, state, problem_p, key)
  def again(*args):
    with pytest.raises(KeyboardInterrupt):
      train_arm(*args)
    return train_arm(*args)
  monkeypatch.setattr(reinforce.Trainer, "step", once)
  monkeypatch.setattr(arms, "train_arm", again)
  rl(tmp_path / "other", **changes)
  assert len(killed) == len(NEIGHBOURS)
  for arm in NEIGHBOURS:
    folders = [path / "rl" / arm / "0" for path in (root, tmp_path / "other")]
    one, two = map(_tree, folders)
    assert one.keys() == two.keys() and any("reward_model" in name for name in one) == (arm == "implicit")
    for name in one:
      np.testing.assert_array_equal(one[name], two[name], err_msg=f"{arm} {name}")
    assert _curves(folders[0]) == _curves(folders[1])
    told = [row for row in _curves(folders[0]) if "kl" in row]
    assert [row["step"] for row in told] == [1, 2] and ("reward" in told[0]) == (arm not in ("reinforce", "grpo"))
    if arm == "implicit":
      assert told[0]["reward"] == 0 and told[0]["reward_model_loss"] == pytest.approx(np.log(2), rel=1e-5)
      assert told[1]["reward"] != 0 and told[1]["reward_model_loss"] != told[0]["reward_model_loss"]
    if arm == "answer_probability":
      assert 0 < told[0]["answer_flops"] < told[0]["flops"]


@pytest.mark.parametrize("changes", [
    {"arms": ("outcome", "random", "oracle"), "kl_as": "penalty", "entropy": 0.01},
    {"arms": ("vine",), "baseline": "group", "updates": 2, "clip_ratio": 0.2, "microbatches": 2}, {"arms": ("progress", "outcome_critic"), "critic": True, "baseline": "value"}])
def test_arms_and_options_leave_curves_and_test_records(root, changes):
  rl(root, **changes)
  folder = records.Folder(root / "rl")
  arrays, policies = folder.read(), folder.manifest()["facts"]["policies"]
  assert policies == ["sft", "start", *(f"{arm}/0" for arm in changes["arms"])]
  assert arrays["right_pn"].shape == (3 * len(policies), 2)
  for arm in changes["arms"]:
    rows = _curves(root / "rl" / arm / "0")
    assert [row["step"] for row in rows if "valid_accuracy" in row] == [2, 4]
    told = [row for row in rows if "kl" in row]
    assert [row["step"] for row in told] == [1, 2, 3, 4] and all(row["parity"] < 1e-4 and row["flops"] > 0 for row in told)
    assert ("reward" in told[0]) == (not arm.startswith("outcome"))


@pytest.mark.parametrize("changes, said", [
    ({"arms": ("progress", "wrong")}, "rl.arms: 'wrong' is none of outcome"),
    ({"baseline": "wrong"}, "rl.baseline 'wrong' is none of value"),
    ({"lr_factor.progress": 0.0}, "rl.lr_factor.progress is 0.0, not above 0"),
    ({"kl_factor.progress": -1.0}, "rl.kl_factor.progress is -1.0"),
    ({"arms": ("grpo",), "baseline": "none", "group": 1}, "rl: arm grpo sets a problem's responses against one another"),
    ({"reward": "implicit", "baseline": "none", "group": 1}, "rl: arm progress sets a problem's responses against one another"),
    ({"certain": 1.5}, "config.rl.certain 1.5 is more than 1"),
    ({"log_every": 2}, "rl.log_every is 2"),
    ({"group": 0}, "rl.group 0 is less than 1"),
    ({"updates": 2}, "rl.updates > 1 without rl.clip_ratio"),
    ({"microbatches": 3}, "3 micro-batches"),
    ({"baseline": "leave_one_out", "group": 1}, "rl.group of at least 2"),
    ({"parity_tolerance": -1.0}, "log-probabilities of sampler and training differ"),
    ({"init_from": ""}, "rl.init_from"),
    ({"arms": ("wrong@prover",)}, "rl.arms: 'wrong' is none of outcome"),
    ({"arms": ("outcome@prover",)}, "rl.arms 'outcome@prover': outcome is paid nothing that a prover's verifier says"),
    ({"arms": ("oracle@prover",)}, "rl.arms 'oracle@prover': oracle is paid nothing that a prover's verifier says"),
    ({"arms": ("self@prover",)}, "rl.arms 'self@prover': the prover of self is the policy itself"),
    ({"arms": ("progress@",)}, "rl.arms 'progress@': no prover '' among config.rl.provers: prover"),
    ({"arms": ("progress@other",)}, "rl.arms 'progress@other': no prover 'other' among config.rl.provers: prover"),
    ({"arms": ("progress@prover",)}, "config.rl.provers.prover is empty: the path of a verifier"),
    ({"arms": ("progress@prover",), "provers.prover": "/nowhere"}, "config.rl.provers.prover: checkpoint /nowhere: no such folder"),
    ({"verifier": "/nowhere"}, "checkpoint /nowhere: no such folder")])
def test_mistakes_are_told_in_a_line(root, changes, said):
  with pytest.raises(UserError) as told:
    rl(root, **changes)
  assert said in str(told.value) and "\n" not in str(told.value)


def test_a_prover_that_is_a_policy_is_told(root):
  with pytest.raises(UserError, match="config.rl.provers.prover .* is a policy, and a verifier of kind q"):
    rl(root, arms=("progress@prover",), **{"provers.prover": str(root / "sft" / "best")})


def test_an_own_prover_pays_and_is_paid_for(root):
  """The run's own verifier as a prover by name is mu = pi: `self` to the last digits, one reading of it dearer with the critic, none without."""
  own = {"provers.prover": str(root / "verifier" / "q" / "best"), "num_steps": 2, "arms": ("self", "progress@prover")}
  for critic in (True, False):
    rl(root, critic=critic, **own)
    both = [_curves(root / "rl" / arm / "0") for arm in own["arms"]]
    for mine, theirs in zip(*both):
      assert (theirs.get("flops", 1) > mine.get("flops", 0)) if critic else theirs.get("flops") == mine.get("flops")
      for name in set(mine) - {"flops"}:
        assert theirs[name] == pytest.approx(mine[name], rel=1e-4, abs=1e-5), name
    shutil.rmtree(root / "rl")


def test_an_arm_with_a_prover_has_the_arms_rate_or_its_own():
  config = miniature(**{"rl.lr_factor.progress": 2.0, "rl.peak_lr": 1e-3})
  assert arms.knobs_of(config.rl, "progress@prover").peak_lr == pytest.approx(2e-3)
  with config.unlocked():
    config.rl.lr_factor["progress@prover"], config.rl.kl_factor["progress@prover"] = 3.0, 0.5
  of_arm = arms.knobs_of(config.rl, "progress@prover")
  assert of_arm.peak_lr == pytest.approx(3e-3) and of_arm.kl == pytest.approx(config.rl.kl / 2)
  assert arms.knobs_of(config.rl, "progress").peak_lr == pytest.approx(2e-3)
  with config.unlocked():
    config.rl.kl_factor["progress@provers"] = 1.0
  with pytest.raises(UserError, match="rl.kl_factor.progress@provers: no prover 'provers' among config.rl.provers: prover"):
    arms.check(config)


def _rewrite(path, change):
  """Changes what a checkpoint says of itself."""
  [meta] = path.glob("*/meta/metadata")
  said = files.opened(json.loads(meta.read_text()), meta)
  change(said)
  meta.write_text(json.dumps(files.sealed(said)))


def test_checkpoints_of_another_vocabulary_or_shape_are_told_in_a_line(root):
  for path, change, said in (
      (root / "verifier" / "q" / "best", lambda meta: meta.update(vocabulary="f" * 64), "trained with another vocabulary"),
      (root / "sft" / "best", lambda meta: meta["model"].update(ffn_width=meta["model"]["ffn_width"] + 8), "ffn")):
    shutil.copytree(path, root / "kept")
    _rewrite(path, change)
    with pytest.raises(UserError) as told:
      rl(root)
    assert said in str(told.value) and "\n" not in str(told.value)
    shutil.rmtree(path)
    (root / "kept").rename(path)


def test_seed_responses_without_a_right_one_are_told_in_a_line(root):
  """An empty shard of rollouts, and one of wrong responses, leave RFT nothing to imitate."""
  problems = prepared.read(records.Folder(root / "problems" / "train"))
  rollouts = collect.Rollouts(**records.Folder(root / "rollouts").read())
  for row_b in (np.zeros(0, int), np.flatnonzero(rollouts.verdict_b != grading.Verdict.CORRECT)[:3]):
    some = collect.Rollouts(*(x[row_b] for x in rollouts))
    with pytest.raises(UserError, match=f"none of {len(row_b)} seed responses is right"):
      rft.correct_rows(problems, some)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(root, monkeypatch):
  read = reading.read
  def poisoned(arena, players, params, learnt, rollouts, n):
    seen = read(arena, players, params, learnt, rollouts, n)
    return seen._replace(reward_bt=seen.reward_bt * np.nan) if n == 3 else seen
  monkeypatch.setattr(reading, "read", poisoned)
  with pytest.raises(UserError, match="at step 4, batch 3; the last good checkpoint is 2"):
    rl(root)


def test_a_verifier_that_loves_one_line_is_flagged(root, monkeypatch, capsys):
  """The exploit: every step that begins with the commonest first token is worth much, whatever it does."""
  loved = []
  read = reading.read
  def smitten(arena, players, params, learnt, rollouts, n):
    seen = read(arena, players, params, learnt, rollouts, n)
    if not loved:
      loved.append(np.bincount(rollouts.token_bt[:, 0]).argmax())
    paid_bt = (seen.token_bt[:, 1:] == loved[0]) * seen.mask_bt
    return seen._replace(reward_bt=5 * paid_bt)
  monkeypatch.setattr(reading, "read", smitten)
  rl(root, num_steps=50, eval_every=50, save_every=50, peak_lr=1e-2, group=8, rows=16, share=8)
  told = [json.loads(line) for line in (root / "rl" / "progress" / "0" / "alarms.jsonl").read_text().splitlines()]
  assert told and any(row["alarm"].split()[0] in ("repeated", "commonest") for row in told), told
  assert "rl progress/0: iteration" in capsys.readouterr().err


def test_an_arm_has_its_own_rate_kl_and_baseline():
  knobs = miniature(**{"rl.peak_lr": 0.5, "rl.lr_factor.progress": 3.0, "rl.kl": 0.25, "rl.kl_factor.progress": 2.0, "rl.critic": True,
                       "rl.baseline": "group"}).rl
  mine, outcome = arms.knobs_of(knobs, "progress"), arms.knobs_of(knobs, "outcome")
  assert (mine.peak_lr, mine.kl, mine.baseline, mine.alpha) == (1.5, 0.5, "critic", knobs.alpha)
  assert (outcome.peak_lr, outcome.kl, outcome.baseline, outcome.alpha) == (0.5, 0.25, "group", 0.0)


def test_the_value_function_begins_at_nothing_and_learns_while_the_policy_waits(root):
  """The rate's warm-up is all of the run but its end: the value function's first steps take no notice of it."""
  rl(root, baseline="value", warmup_steps=3, value_warmup=30, value_lr=3e-3)
  first, second, *_ = [row for row in _curves(root / "rl" / "progress" / "0") if "kl" in row]
  assert 0 < first["value_warmup_last"] < 0.5 * first["value_warmup_first"] and "value_warmup_first" not in second


def test_the_policy_waits_for_the_value_function_to_the_bit(root):
  """The best is that of the first evaluation, after its iteration: nothing here learns to solve anything."""
  rl(root, baseline="value", num_steps=2, eval_every=1, updates=2, clip_ratio=0.2, kl=1.0)
  assert [row["valid_accuracy"] for row in _curves(root / "rl" / "progress" / "0") if "valid_accuracy" in row] == [0.0, 0.0]
  policy = lambda path: {name: x for name, x in _tree(path).items() if name.startswith("best params")}
  before, after = policy(root / "sft"), policy(root / "rl" / "progress" / "0")
  assert before.keys() == after.keys()
  for name, x in before.items():
    np.testing.assert_array_equal(x, after[name], err_msg=name)


def test_rates_warm_up_over_iterations_and_the_value_functions_not_at_all():
  """As the paper's config has it: the policy's rate is at its peak after `warmup_steps` iterations of `updates` steps each."""
  from tests import fakes  # only here: it computes, and test_hosts takes TINY from this file into processes that have not joined yet
  knobs = paper.get_config().rl
  knobs.unlock()
  knobs.update(dict(num_steps=40, warmup_steps=10, updates=4, clip_ratio=0.2))
  learners = arms.learners_of(knobs, fakes.GEMMA, mesh_lib.make_mesh(data=-1, fsdp=1, model=1), peak_lr=1e-3, kl=0.0, beside=("value", "reward_model"))
  moved = {}
  for name, count in (("policy", 160), ("value", 50), ("reward_model", 160)):
    tx, x, moved[name] = (learners.policy if name == "policy" else learners.beside[name]).tx, {"x": jax.numpy.zeros(())}, []
    state = tx.init(x)
    for _ in range(count):  # Adam moves by the rate where the gradient is always the same
      step, state = tx.update({"x": jax.numpy.ones(())}, state, x)
      moved[name].append(-float(step["x"]))
  assert np.argmax(moved["reward_model"]) == 40 and moved["reward_model"][40] == pytest.approx(knobs.implicit.lr, rel=1e-3)
  assert np.argmax(moved["policy"]) == 40 and moved["policy"][40] == pytest.approx(1e-3, rel=1e-3)
  assert sum(moved["value"]) == pytest.approx(50 * knobs.value_lr, rel=0.15) and moved["value"][0] > 0.99 * knobs.value_lr


def test_the_random_control_has_the_baseline_of_outcome_critic(root, monkeypatch):
  """What multiplies its gradient is outcome_critic's and what was dealt, nothing else: the true advantages' critic has no part in it."""
  seen, batch_of = {}, reinforce.batch_of
  def noted(read, knobs):
    batch = batch_of(read, knobs)
    dealt_bt = (read.reward_bt - (read.rollouts.verdict_b == grading.Verdict.CORRECT)[:, None]) * read.mask_bt
    seen.setdefault(knobs.prover + str(knobs.alpha), (batch.advantage_bt, dealt_bt))
    return batch
  monkeypatch.setattr(reinforce, "batch_of", noted)
  rl(root, arms=("outcome_critic", "random", "progress"), critic=True, alpha=3.0, num_steps=2, eval_every=2)
  (outcome_bt, nothing_bt), (random_bt, dealt_bt), (progress_bt, _) = (seen[name] for name in ("best_of_k0.0", "random3.0", "best_of_k3.0"))
  assert not nothing_bt.any() and dealt_bt.any() and np.abs(progress_bt - outcome_bt).max() > 1e-3
  np.testing.assert_allclose(random_bt, outcome_bt + dealt_bt, atol=1e-6)


def test_an_arm_without_what_sets_it_apart_is_the_arm_it_came_from():
  """alpha = 0 is plain outcome, whatever would be paid; certain = 1 is progress: what multiplies the gradient is the same."""
  rng, ones_bt = np.random.default_rng(0), np.ones((4, 5), np.float32)
  seen = reading.Read(None, None, np.zeros((4, 6), int), ones_bt, np.log(rng.random((4, 5))), 0 * ones_bt, 0 * ones_bt,
                      rng.random((4, 5)), 0 * ones_bt, {})
  knobs = lambda arm, **changes: arms.knobs_of(miniature(**{f"rl.{name}": x for name, x in changes.items()}).rl, arm)
  advantage = lambda knobs: reinforce.batch_of(seen, knobs).advantage_bt
  np.testing.assert_array_equal(advantage(knobs("uncertain", group=2, certain=1.0)), advantage(knobs("progress", group=2)))
  masked_bt, all_bt = advantage(knobs("uncertain", group=2, certain=0.5)), advantage(knobs("progress", group=2))
  np.testing.assert_array_equal(masked_bt, np.where(np.exp(seen.old_bt) <= 0.5, all_bt, 0))
  for reward in credit.REWARDS:
    silent = knobs("progress", alpha=0.0, reward=reward)
    assert reading.beside(silent) == () and not reading.asks_verifier(silent)
  assert reading.beside(knobs("implicit")) == ("reward_model",) and reading.beside(knobs("outcome", baseline="value")) == ("value",)
  asks = {arm for arm in arms.ARMS if reading.asks_verifier(knobs(arm))}
  assert asks == {"progress", "renewed", "outcome_critic", "self", "random", "shaping", "value", "min_form", "first_error", "uncertain"}


def test_updates_that_a_bound_has_cut_are_counted(root):
  rl(root, clip_norm=1e-9, num_steps=2)
  assert [row["norm_clipped"] for row in _curves(root / "rl" / "progress" / "0") if "kl" in row] == [1.0, 1.0]
