"""Implicit process rewards: the loss and the reading by hand, what the optimum says, what a checkpoint must find again."""

import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fakes
from fakes import A, B, BOS, C, EOS
import pav_jax
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models import network as network_lib
from pav_jax.problems.given import Given
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.verifiers import given
from pav_jax.verifiers import implicit
from tests import made as made_lib

ARCH = types.SimpleNamespace(network=fakes.GEMMA, config=types.SimpleNamespace(score_shift=0.0))


def test_the_loss_by_hand():
  """  token      bos  a | b   eos        bos  c | a   eos
       log RM/ref        ln 2  -ln 4           ln 3  0        beta = 1: r = -ln 2, ln 3
       chance            1/3                   3/4            right: 0, 1; weights 1, 2"""
  ref = {A: {B: 0.3, A: 0.7}, B: {EOS: 0.8, B: 0.2}, C: {A: 0.2, B: 0.8}, BOS: {A: 0.5, C: 0.5}}
  learnt = {A: {B: 0.6, EOS: 0.4}, B: {EOS: 0.2, B: 0.8}, C: {A: 0.6, B: 0.4}, BOS: {A: 0.9, C: 0.1}}
  token_bt = np.array([[BOS, A, B, EOS], [BOS, C, A, A]])
  learnt[A][A], ref[A][A] = 0.7, 0.7
  reference_bt = network_lib.token_log_probs(fakes.CHAIN, fakes.chain_params(ref), token_bt)
  # The chain's rows need not sum to 1: a log-softmax takes the sum off, so each is scaled to it here.
  total = lambda rows, last: np.log(sum(rows[last].values()))
  ratio = lambda last, token: (np.log(learnt[last][token]) - total(learnt, last)) - (np.log(ref[last][token]) - total(ref, last))
  reward = np.array([ratio(A, B) + ratio(B, EOS), ratio(C, A) + ratio(A, A)])
  batch = implicit.OutcomeBatch(token_bt, np.array([[0, 1, 1], [0, 1, 1]], np.float32), np.asarray(reference_bt), np.float32([0, 1]), np.float32([1, 2]))
  for beta in (1.0, 0.5):
    loss, weight, metrics = implicit.outcome_loss(fakes.CHAIN, beta)(fakes.chain_params(learnt), batch, None)
    chance = 1 / (1 + np.exp(-beta * reward))
    assert float(loss) == pytest.approx(-np.log(1 - chance[0]) - 2 * np.log(chance[1]), rel=1e-5)
    assert float(weight) == 3 and float(metrics["reward"][0]) == pytest.approx(beta * (reward[0] + 2 * reward[1]), rel=1e-5)
  first, _, _ = implicit.outcome_loss(fakes.CHAIN, 1.0)(fakes.chain_params(learnt), batch.masked(np.array([True, False])), None)
  assert float(first) == pytest.approx(-np.log(1 - 1 / (1 + np.exp(-reward[0]))), rel=1e-5)


ROWS = [np.array([BOS, A, B]), np.array([BOS, C]), np.array([BOS])]
GIVEN = [Given(np.array([A, C, B, EOS]), np.array([1, 3])), Given(np.array([B] * 40), np.array([0, 9, 39])), Given(np.array([C, EOS]), np.array([1]))]


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_value_is_the_cumulated_sum_of_the_response_s_own_tokens(rows):
  """Whatever the batch; the prompt's tokens are not in it, and what balanced training adds is taken off."""
  model, reference = fakes.gemma_params(1), fakes.gemma_params(2)
  arch = types.SimpleNamespace(network=fakes.GEMMA, config=types.SimpleNamespace(score_shift=0.3))
  found = given.values(arch, implicit.Pair(model, reference, 0.2), ROWS, GIVEN, rows=rows)
  for prompt_t, one, value_z in zip(ROWS, GIVEN, found):
    token_bt = np.concatenate([prompt_t, one.token_t])[None]
    ratio_t = np.asarray(network_lib.token_log_probs(fakes.GEMMA, model, token_bt) - network_lib.token_log_probs(fakes.GEMMA, reference, token_bt))[0, len(prompt_t) - 1:]
    logit_z = 0.2 * np.array([0, *(ratio_t[:end + 1].sum() for end in one.end_s)]) - 0.3
    np.testing.assert_allclose(value_z, 1 / (1 + np.exp(-logit_z)), atol=2e-5)
    np.testing.assert_allclose(implicit.process_rewards(value_z), np.diff(logit_z), atol=3e-4)
    assert np.ptp(value_z) > 0.01 and implicit.process_rewards(value_z).sum() == pytest.approx(logit_z[-1] - logit_z[0], abs=1e-3)


def test_where_it_begins_every_reward_is_nought():
  params = fakes.gemma_params(1)
  for value_z in given.values(ARCH, implicit.Pair(params, params, 0.05), ROWS, GIVEN, rows=4):
    np.testing.assert_array_equal(value_z, 0.5)
    np.testing.assert_array_equal(implicit.process_rewards(value_z), 0)


def test_at_the_optimum_a_prefix_has_the_tilted_mean_of_what_follows():
  """pi_RM = pi_ref exp(r / beta) / Z over two tokens, r of the whole response: the sum behind the first is beta log E[exp(r / beta)]
  of it, less that of the bare prompt. The mean of r is another thing."""
  beta, ref_1, ref_2 = 0.5, np.array([0.6, 0.4]), np.array([[0.5, 0.5], [0.9, 0.1]])
  r = np.array([[2.0, -1.0], [-1.0, 2.0]])
  whole = ref_1[:, None] * ref_2 * np.exp(r / beta)
  model_1, model_2 = whole.sum(axis=1) / whole.sum(), whole / whole.sum(axis=1, keepdims=True)
  rows = lambda one, two: fakes.chain_params({BOS: dict(zip((A, B), one)), A: dict(zip((C, EOS), two[0])), B: dict(zip((C, EOS), two[1]))})
  pair = implicit.Pair(rows(model_1, model_2), rows(ref_1, ref_2), beta)
  arch = types.SimpleNamespace(network=fakes.CHAIN, config=types.SimpleNamespace(score_shift=0.0))
  responses = [Given(np.array([first, second]), np.array([0, 1])) for first in (A, B) for second in (C, EOS)]
  logit_bz = np.stack([np.log(x / (1 - x)) for x in given.values(arch, pair, [np.array([BOS])] * 4, responses, rows=4)])
  tilted = beta * np.log((ref_2 * np.exp(r / beta)).sum(axis=1))
  bare = beta * np.log(whole.sum())
  np.testing.assert_allclose(logit_bz[:, 1], np.repeat(tilted - bare, 2), atol=1e-4)
  np.testing.assert_allclose(logit_bz[:, 2], r.ravel() - bare, atol=1e-4)
  assert abs((ref_2 * r).sum(axis=1) - tilted).max() > 0.3


def test_a_gradient_raises_what_was_right():
  """Outcomes alone move the model: right responses become likelier than the reference has them, wrong ones less."""
  reference = fakes.gemma_params(3)
  token_bt = np.array([[BOS, A, B, C, EOS], [BOS, A, C, C, EOS]])
  mask_bt = np.tile(np.float32([0, 1, 1, 1]), (2, 1))
  reference_bt = np.asarray(network_lib.token_log_probs(fakes.GEMMA, reference, token_bt))
  batch = implicit.OutcomeBatch(token_bt, mask_bt, reference_bt, np.float32([1, 0]), np.float32([1, 1]))
  loss_fn = lambda params: implicit.outcome_loss(fakes.GEMMA, 0.5)(params, batch, None)[0]
  params = jax.tree.map(lambda x, g: x - 0.05 * g, reference, jax.grad(loss_fn)(reference))
  gain_b = ((np.asarray(network_lib.token_log_probs(fakes.GEMMA, params, token_bt)) - reference_bt) * mask_bt).sum(axis=1)
  assert gain_b[0] > 0 > gain_b[1] and loss_fn(params) < 2 * np.log(2)


@pytest.fixture
def run(tmp_path):
  """A run with an implicit verifier beside its policy."""
  root = made_lib.run(tmp_path / "run")
  path = root / "verifier/implicit"
  model = pav_jax.load(str(root / "other/best"))
  meta = model.arch.shifted(0.5).meta("implicit") | implicit.described(files.path(root), files.path(path), str(root / "sft/best"), 0.05)
  made_lib.save(path / "best", model.params, meta)
  return root


def test_a_checkpoint_finds_its_reference_wherever_the_run_goes(run, tmp_path):
  assert checkpoint.read_meta(run / "verifier/implicit/best")["reference"] == "../../sft/best"
  said = lambda path: pav_jax.score_steps(pav_jax.load(str(path)), ["Ann has 3"], [["1: +5 = 8", "#### 8"]])[0]
  found = said(run / "verifier/implicit/best")
  assert found.q_z[0] == pytest.approx(1 / (1 + np.exp(0.5))) and found._fields == ("q_z", "process_reward_s")
  np.testing.assert_allclose(found.process_reward_s, implicit.process_rewards(found.q_z), atol=1e-5)
  shutil.move(run, tmp_path / "elsewhere")
  np.testing.assert_array_equal(said(tmp_path / "elsewhere/verifier/implicit/best/1").q_z, found.q_z)


def test_without_the_policy_it_was_trained_against_it_says_nothing(run):
  path = str(run / "verifier/implicit/best")
  shutil.move(run / "sft", run / "kept")
  with pytest.raises(UserError, match="is of kind implicit, and the policy that it was trained against, ../../sft/best, is not there"):
    pav_jax.load(path)
  shutil.copytree(run / "other", run / "sft")
  with pytest.raises(UserError, match="sft/best is not the policy that it was trained against any more"):
    pav_jax.load(path)


def test_what_is_not_made_of_it(run):
  verifier, policy = pav_jax.load(str(run / "verifier/implicit/best")), pav_jax.load(str(run / "sft/best"))
  with pytest.raises(UserError, match="it reranks whole responses, and guides no beam"):
    pav_jax.beam_search(policy, verifier, ["Ann has 3"], max_new=4)
  q = pav_jax.load(str(run / "verifier/q/best"))
  with pytest.raises(UserError, match="a verifier of kind implicit says no Q.pi, to which a prover's advantages could be added"):
    pav_jax.score_steps(verifier, ["q"], [["a"]], prover=q)
  with pytest.raises(UserError, match="a verifier of kind q, hard or drop is needed, and a checkpoint of a verifier of kind implicit is given"):
    pav_jax.score_steps(q, ["q"], [["a"]], prover=verifier)


def test_score_and_judge_read_it(run, tmp_path):
  from pav_jax import judge
  from pav_jax import score
  file = tmp_path / "rows.jsonl"
  file.write_text(json.dumps({"question": "Ann has 3", "steps": ["1: +5 = 8", "#### 8"]}) + "\n")
  assert score.main([str(file), f"--verifier={run}/verifier/implicit/best"]) == 0
  row = json.loads((tmp_path / "rows.scored.jsonl").read_text())
  assert (len(row["q"]), len(row["process_reward"])) == (3, 2) and not {"advantage", "effective_reward", "verdict"} & row.keys()
  cases = tmp_path / "gsm8k.jsonl"
  cases.write_text("".join(json.dumps({"id": f"gsm8k-{i}", "problem": "Ann has 3", "steps": ["1: +5 = 8", "#### 8"], "label": label,
                                       "final_answer_correct": label == -1, "generator": "x"}) + "\n" for i, label in enumerate((-1, 0, 1))))
  assert judge.main([f"--verifier={run}/verifier/implicit/best", str(cases), f"--output={tmp_path}/out.json"]) == 0
  assert set(json.loads((tmp_path / "out.json").read_text())["tau"]) == {"q", "advantage", "progress"}
