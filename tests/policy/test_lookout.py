"""The prover over a run: for a policy that is the demonstrator, what its verifier says, what is true and what is fresh are known."""

import types

import numpy as np
import pytest

from pav_jax.errors import UserError
from pav_jax.policy import lookout
from pav_jax.policy import reading
from pav_jax.problems import arithmetic
from pav_jax.values import equations
from pav_jax.values import exact_tree
from pav_jax.verifiers import score

DIALS = arithmetic.Arithmetic(min_length=2, max_length=3, modulus=20, lure=0.6, noise=0.2)


def knobs(**changes):
  return types.SimpleNamespace(**{"alpha": 1.0, "prover": "best_of_k", "prover_k": 4, "verifier": "", "outcome_last": False, "clip": np.inf,
                                  "reward": "advantage",
                                  "rows": 8} | changes)


@pytest.fixture
def watched(monkeypatch):
  """The policy writes as the demonstrator does; the verifier says half of its Q, and .1 more."""
  trees = exact_tree.build([p.question for p in arithmetic.generate(DIALS, 0, 6)], DIALS)
  chance_puc = np.zeros(trees.child_puc.shape)
  for p, (walk, states) in enumerate(zip(trees.walks, trees.states)):
    for u, state in enumerate(states):
      chances = [] if state.answered else [chance for chance, _, _ in arithmetic.outcomes(walk, state)]
      chance_puc[p, u, :len(chances)] = chances
  exact_pu = exact_tree.demonstrator(trees, DIALS)
  monkeypatch.setattr(exact_tree, "log_probs", lambda *_, **__: None)
  monkeypatch.setattr(exact_tree, "chances", lambda *_: chance_puc)
  # A verifier's parameters are here what it adds to that; it says who reads.
  monkeypatch.setattr(score, "score_responses", lambda network, params, *_, **__: params)
  monkeypatch.setattr(exact_tree, "at_nodes", lambda trees, whole, params: 0.1 + 0.5 * exact_pu ** params)
  whole = types.SimpleNamespace(**dict.fromkeys(exact_tree.Responses._fields))
  problems = types.SimpleNamespace(prompt_pt=None, prompt_length_p=None)
  return lookout.Lookout(problems, trees, whole, exact_pu)


def seen(watched, **changes):
  player = types.SimpleNamespace(network=None)
  own = {"prover": player, "prover_params": 2} if changes.pop("own", False) else {}
  return lookout.figures(watched, player, None, reading.Players(player, None, player, 1, **own), knobs(**changes), None)


def test_what_is_said_what_is_true_and_what_is_fresh(watched):
  found, exact_pu = seen(watched), watched.demonstrator_pu
  pi = exact_tree.policy(watched.trees, exact_tree.chances())
  by = lambda q_pu: [x_p.mean() for x_p in exact_tree.terms(pi, exact_tree.advantages(watched.trees, q_pu))]
  assert found["tree_share"] == pytest.approx(1) and found["exact_accuracy"] == pytest.approx(exact_pu[:, 0].mean())
  assert found["advantage_variance"] == pytest.approx(by(exact_pu)[0]) and found["advantage_variance"] > 0.01
  for name, q_pu in (("", 0.1 + 0.5 * exact_pu), ("true_", exact_pu), ("fresh_", exact_pu)):
    apart, aligned, _ = by(equations.best_of_k(q_pu, 4))
    assert (found[f"{name}distinguishability"], found[f"{name}alignment"]) == pytest.approx((apart, aligned))
  assert found["distinguishability"] != pytest.approx(found["true_distinguishability"], rel=0.1)


def test_each_arm_has_its_own_prover(watched):
  of_self = seen(watched, prover="q")
  assert of_self["alignment"] == pytest.approx(0.5 * of_self["true_alignment"]) and of_self["true_alignment"] == pytest.approx(of_self["advantage_variance"])
  oracle, vine = seen(watched, prover="exact"), seen(watched, prover="monte_carlo")
  assert oracle["alignment"] == pytest.approx(seen(watched)["true_alignment"]) and "true_alignment" not in oracle
  assert vine["alignment"] == pytest.approx(vine["advantage_variance"])
  nothing = {"tree_share", "exact_accuracy", "advantage_variance"}
  assert seen(watched, alpha=0.0).keys() == seen(watched, prover="random").keys() == nothing
  named, exact_pu = seen(watched, own=True, prover_k=1), watched.demonstrator_pu
  pi = exact_tree.policy(watched.trees, exact_tree.chances())
  assert named["alignment"] == pytest.approx(exact_tree.terms(pi, exact_tree.advantages(watched.trees, 0.1 + 0.5 * exact_pu**2)).alignment_p.mean())
  assert "true_alignment" not in named  # what another policy's values are, nobody has said
  # Somebody else's verifier stands for values that are not known.
  assert "true_alignment" not in seen(watched, verifier="elsewhere") and "alignment" in seen(watched, verifier="elsewhere")


def test_it_is_what_the_arm_is_paid(watched):
  trees, q_pu = watched.trees, 0.1 + 0.5 * watched.demonstrator_pu
  clipped = lookout.paid(trees, q_pu, knobs(prover="q", clip=0.05))
  plain = exact_tree.advantages(trees, q_pu)
  assert np.abs(clipped).max() == 0.05 < np.abs(plain).max()
  np.testing.assert_allclose(clipped, np.clip(plain, -0.05, 0.05))
  by_outcome = lookout.paid(trees, q_pu, knobs(prover="q", outcome_last=True))
  ends_puc = (trees.child_puc >= 0) & np.take_along_axis(trees.answered_pu[:, None], np.maximum(trees.child_puc, 0), axis=2)
  np.testing.assert_allclose(by_outcome[~ends_puc], plain[~ends_puc])
  np.testing.assert_allclose((by_outcome + q_pu[:, :, None])[ends_puc], np.take_along_axis(
      trees.right_pu[:, None], np.maximum(trees.child_puc, 0), axis=2)[ends_puc])


def test_problems_without_exact_values_are_told():
  with pytest.raises(UserError, match="watch_prover: exact trees are of arithmetic problems, not gsm8k"):
    lookout.begin(types.SimpleNamespace(dataset_p=np.array(["gsm8k"])), None, None)
