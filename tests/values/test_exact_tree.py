"""Trees of all responses: by hand, against the demonstrator's exact values, against whole responses, and the laws of Theorem 3.1's terms."""

import dataclasses

import jax
import numpy as np
import pytest

import fakes  # noqa: F401: which compiles fast
from configs import default
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.problems import arithmetic
from pav_jax.problems import prepared
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import mesh as mesh_lib
from pav_jax.values import equations
from pav_jax.values import exact_tree

TEXT = "From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4"
DIALS = arithmetic.Arithmetic(min_length=2, max_length=2, modulus=20, lure=0.6, noise=0.2)
# All that the demonstrator may do, on trees that are not too large.
ALL_ON = arithmetic.Arithmetic(min_length=1, max_length=2, modulus=5, noise=0.2, lure=0.6, lured=0.5, slip=0.1, restate=0.1, slack=1,
                               give_up=0.05)


def questions(dials, count, seed=0):
  return [p.question for p in arithmetic.generate(dials, seed, count)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
  texts = [f"{p.question}\n{p.solution}" for dials in (DIALS, ALL_ON) for p in arithmetic.generate(dials, 1, 200)]
  return vocabulary_lib.train(texts, 340, tmp_path_factory.mktemp("vocabulary") / "vocabulary.model")


def terms(trees, pi, q_mu_pu):
  return exact_tree.terms(pi, exact_tree.advantages(trees, q_mu_pu))


def of_demonstrator(trees, dials):
  """Its chances, line by line."""
  chance_puc = np.zeros(trees.child_puc.shape)
  for p, (walk, states) in enumerate(zip(trees.walks, trees.states)):
    for u, state in enumerate(states):
      if not state.answered:
        found = {line: chance for chance, line, _ in arithmetic.outcomes(dataclasses.replace(walk, dials=dials), state)}
        for c, child in enumerate(trees.child_puc[p, u]):
          if child >= 0:
            chance_puc[p, u, c] = found[trees.lines[p][child][-1]]
  return chance_puc


def test_two_days_by_hand():
  trees = exact_tree.build([TEXT], DIALS)
  assert trees.lines[0][:4] == ((), ("1a +5 = 12",), ("1b -3 = 4",), ("1a +5 = 12", "2b -4 = 8"))
  assert trees.child_puc[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, -1], [8, -1], [9, -1], [10, -1]] + [[-1, -1]] * 4
  chance_puc = of_demonstrator(trees, DIALS)
  pi = exact_tree.policy(trees, chance_puc)
  np.testing.assert_allclose(pi.q_pu[0], [0.32, 0.4, 0, 1, 0, 0, 0, 1, 0, 0, 0], atol=1e-15)
  np.testing.assert_allclose(pi.visit_pu[0], [1, 0.8, 0.2, 0.32, 0.48, 0.08, 0.12, 0.32, 0.48, 0.08, 0.12])
  best_of_2 = equations.best_of_k(pi.q_pu, 2)
  np.testing.assert_allclose(exact_tree.advantages(trees, best_of_2)[0, :2], [[0.1024, -0.5376], [0.36, -0.64]])
  # At the prompt .8 * .128² + .2 * .512², then .8 (.4 * .6² + .6 * .4²).
  np.testing.assert_allclose(terms(trees, pi, best_of_2).distinguishability_p, [0.065536 + 0.192])
  # A^pi is .08, -.32 and .6, -.4.
  np.testing.assert_allclose(terms(trees, pi, best_of_2).alignment_p, [0.04096 + 0.192])


def test_a_policy_that_leaves_the_tree_is_wrong_there():
  """Half of the responses go astray at the prompt, and a tenth of those that come to 12."""
  trees = exact_tree.build([TEXT], DIALS)
  chance_puc = of_demonstrator(trees, DIALS)
  chance_puc[0, 0] *= 0.5
  chance_puc[0, 1] *= 0.9
  pi = exact_tree.policy(trees, chance_puc)
  np.testing.assert_allclose(pi.q_pu[0, :3], [0.5 * 0.8 * 0.36, 0.36, 0])
  np.testing.assert_allclose(pi.share_p, [0.5 * (0.2 + 0.8 * 0.9)])
  np.testing.assert_allclose(pi.line_puc[0, :2], [[0.8, 0.2], [0.4, 0.6]])
  # Of the lines that are there: .072, -.288 at the prompt; .6, -.4 where .4 of the responses come by.
  np.testing.assert_allclose(terms(trees, pi, pi.q_pu).distinguishability_p, [0.8 * 0.072**2 + 0.2 * 0.288**2 + 0.4 * 0.24])


@pytest.mark.parametrize("dials", [ALL_ON, arithmetic.Arithmetic(min_length=5, max_length=6, modulus=31)])
def test_under_the_demonstrators_own_chances_values_are_the_exact_ones(dials, vocabulary):
  """The chances go through the responses, as a network's do: log-probabilities of lines, row by row."""
  trees = exact_tree.build(questions(dials, 6), dials)
  whole = exact_tree.responses(trees, vocabulary)
  wanted_puc = of_demonstrator(trees, dials)
  chance_pu = np.ones(trees.right_pu.shape)
  for p, u, c in zip(*np.nonzero(trees.child_puc >= 0)):
    chance_pu[p, trees.child_puc[p, u, c]] = wanted_puc[p, u, c]
  log_prob_bs = np.where(whole.node_bz >= 0, np.log(chance_pu[whole.problem_b[:, None], whole.node_bz]), 0)[:, 1:]
  chance_puc = exact_tree.chances(trees, whole, log_prob_bs)
  np.testing.assert_allclose(chance_puc, wanted_puc)
  q_pu = exact_tree.values(trees, chance_puc)
  there = [(p, u) for p, states in enumerate(trees.states) for u in range(len(states))]
  exact = [arithmetic.exact_q(trees.walks[p], trees.states[p][u]) for p, u in there]
  np.testing.assert_allclose([q_pu[x] for x in there], exact, atol=1e-12)
  np.testing.assert_allclose(exact_tree.share(trees, chance_puc), 1)
  np.testing.assert_allclose(exact_tree.demonstrator(trees, dials), q_pu, atol=1e-12)
  assert [np.isnan(q).sum() for q in q_pu] == [q_pu.shape[1] - len(states) for states in trees.states]
  assert len(whole.problem_b) == sum(exact_tree.count(walk, arithmetic.start_state(walk)) for walk in trees.walks)


def test_another_demonstrator_of_the_same_problems():
  """By its own chances, which the tree has, and by its own dials."""
  better = dataclasses.replace(DIALS, lure=0.1, noise=0.05)
  trees = exact_tree.build(questions(DIALS, 5), DIALS)
  np.testing.assert_allclose(exact_tree.demonstrator(trees, better), exact_tree.values(trees, of_demonstrator(trees, better)))
  with pytest.raises(UserError, match="modulo 16"):
    exact_tree.demonstrator(trees, dataclasses.replace(DIALS, modulus=16))


def test_what_a_prover_says_that_says_nothing_and_that_is_the_policy():
  dials = dataclasses.replace(ALL_ON, slip=0.0)
  trees = exact_tree.build(questions(dials, 5), dials)
  pi = exact_tree.policy(trees, 0.9 * of_demonstrator(trees, dials))
  constant_pu = np.where(np.isnan(pi.q_pu), np.nan, 0.37)
  np.testing.assert_array_equal(terms(trees, pi, constant_pu).distinguishability_p, 0)
  np.testing.assert_array_equal(terms(trees, pi, constant_pu).alignment_p, 0)
  same = terms(trees, pi, pi.q_pu).distinguishability_p
  assert same.min() > 1e-3
  np.testing.assert_allclose(terms(trees, pi, pi.q_pu).alignment_p, same, rtol=1e-12)
  np.testing.assert_allclose(terms(trees, pi, 0.5 - 2 * pi.q_pu).alignment_p, -2 * same, rtol=1e-12)
  np.testing.assert_allclose(terms(trees, pi, 0.5 - 2 * pi.q_pu).distinguishability_p, 4 * same, rtol=1e-12)


@pytest.mark.parametrize("k", [2, 4, 8])
def test_best_of_k_tells_k_squared_as_much_apart_while_kq_is_small(k):
  """Remark 3.1: values brought to a thousandth, as Q^pi = O(1/K) has it; not so where they are large, and of many tries nothing is left."""
  trees = exact_tree.build(questions(DIALS, 20), DIALS)
  pi = exact_tree.policy(trees, of_demonstrator(trees, DIALS))
  ratio = lambda q_pu: (terms(trees, pi, equations.best_of_k(q_pu, k)).distinguishability_p.sum()
                        / terms(trees, pi, q_pu).distinguishability_p.sum())
  assert ratio(1e-3 * pi.q_pu) == pytest.approx(k**2, rel=0.02)
  assert ratio(pi.q_pu) < 0.75 * k**2
  assert terms(trees, pi, equations.best_of_k(0.5 + pi.q_pu / 2, 100)).distinguishability_p.max() < 1e-12


def test_alignment_is_what_a_step_that_way_gains():
  """The derivative of V at pi exp(eta A^mu), by the backup, for a prover drawn at random."""
  trees = exact_tree.build(questions(DIALS, 5), DIALS)
  chance_puc = of_demonstrator(trees, DIALS)
  pi = exact_tree.policy(trees, chance_puc)
  q_mu_pu = np.where(np.isnan(pi.q_pu), np.nan, np.random.default_rng(0).random(pi.q_pu.shape))
  def gain(eta):
    new_puc = chance_puc * np.exp(eta * exact_tree.advantages(trees, q_mu_pu))
    new_puc /= np.maximum(new_puc.sum(axis=2, keepdims=True), 1e-12)
    return exact_tree.values(trees, new_puc)[:, 0]
  np.testing.assert_allclose((gain(1e-4) - gain(-1e-4)) / 2e-4, terms(trees, pi, q_mu_pu).alignment_p, atol=1e-8)


def test_the_best_of_candidates_by_hand():
  """At the prompt .5 and .2 in the tree, .3 outside of it; the second line scores higher, then both alike."""
  chance_puc = np.array([[[0.5, 0.2]]])
  np.testing.assert_allclose(exact_tree.best_of_candidates(chance_puc, np.array([[[1.0, 2.0]]]), 3), [[[0.8**3 - 0.3**3, 1 - 0.8**3]]])
  np.testing.assert_allclose(exact_tree.best_of_candidates(chance_puc, np.array([[[1.0, 1.0]]]), 3)[0, 0], (1 - 0.3**3) / 0.7 * chance_puc[0, 0])
  np.testing.assert_allclose(exact_tree.best_of_candidates(chance_puc, np.array([[[1.0, 2.0]]]), 1), chance_puc)


def test_the_best_of_candidates_is_what_drawing_them_gives():
  trees = exact_tree.build([TEXT], DIALS)
  chance_puc = of_demonstrator(trees, DIALS)
  score_puc = exact_tree.advantages(trees, np.where(np.isnan(trees.right_pu), 0.1, trees.right_pu))  # sees nothing before the end
  score_puc[0, 1] = 0.3, -0.3
  accuracy = exact_tree.values(trees, exact_tree.best_of_candidates(chance_puc, score_puc, 3))[0, 0]
  rng, right, tries = np.random.default_rng(0), 0, 20_000
  for _ in range(tries):
    u = 0
    while trees.child_puc[0, u, 0] >= 0:
      drawn = rng.choice(2, 3, p=chance_puc[0, u])
      u = trees.child_puc[0, u, drawn[score_puc[0, u, drawn].argmax()]]
    right += trees.right_pu[0, u]
  assert accuracy == pytest.approx(0.8 * (1 - 0.6**3)) and abs(right / tries - accuracy) < 4 * np.sqrt(accuracy * (1 - accuracy) / tries)


def _problems(texts, vocabulary) -> prepared.Problems:
  prompts = [[vocabulary.bos_id, *vocabulary.encode(f"{text}\n")] for text in texts]
  prompt_pt = np.zeros((len(texts), max(map(len, prompts))), np.int32)
  for row, prompt in zip(prompt_pt, prompts):
    row[:len(prompt)] = prompt
  return prepared.Problems(*[None] * 4, prompt_pt, np.array([len(x) for x in prompts]), None, None)


def test_lines_add_up_to_whole_responses_and_a_prefix_is_read_alike_in_all(vocabulary):
  """A network with random weights; batches that do not divide the rows. The whole response is read by itself, without its line ends."""
  texts = questions(ALL_ON, 3)
  dials = dataclasses.replace(ALL_ON, slip=0.0)
  trees = exact_tree.build(texts, dials)
  whole, problems = exact_tree.responses(trees, vocabulary), _problems(texts, vocabulary)
  arch = architecture.build(default.model(vocab_size=vocabulary.size), vocabulary)
  params = jax.tree.map(lambda x: 2 * x, arch.network.init(jax.random.key(0)))
  mesh = mesh_lib.make_mesh(data=-1, fsdp=1, model=1)
  log_prob_bs = exact_tree.log_probs(arch.network, params, problems, whole, rows=9, mesh=mesh)
  assert len(log_prob_bs) % 9 and log_prob_bs.max() <= 0 and np.std(log_prob_bs[whole.end_bz[:, 1:] > -2]) > 1
  chosen_b = np.arange(0, len(log_prob_bs), 9)
  rows = [[vocabulary.bos_id, *vocabulary.encode(f"{texts[p]}\n" + "\n".join(trees.lines[p][path.max()])), vocabulary.eos_id]
          for p, path in zip(whole.problem_b[chosen_b], whole.node_bz[chosen_b])]
  token_bt = np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
  log_btv = jax.jit(lambda params, token_bt: jax.nn.log_softmax(arch.network.logits(params, arch.network.hidden(params, token_bt))))(params, token_bt)
  for i, (b, row) in enumerate(zip(chosen_b, rows)):
    start = problems.prompt_length_p[whole.problem_b[b]]
    alone = sum(float(log_btv[i, t - 1, row[t]]) for t in range(start, len(row)))
    assert log_prob_bs[b].sum() == pytest.approx(alone, abs=1e-3)
  # Chances of the lines behind one prefix, read in different responses, are those of one network: at most 1 together.
  chance_puc = exact_tree.chances(trees, whole, log_prob_bs)
  assert chance_puc.sum(axis=2).max() <= 1 + 1e-6 and (chance_puc[trees.child_puc >= 0] > 0).all()
  at = {}
  for b, path in enumerate(whole.node_bz):
    for z in range(1, (path >= 0).sum()):
      at.setdefault((whole.problem_b[b], path[z]), []).append(log_prob_bs[b, z - 1])
  assert max(np.ptp(x) for x in at.values()) < 1e-4 and max(map(len, at.values())) > 5


def test_trees_that_are_too_large_and_lines_that_are_no_steps(vocabulary):
  long = arithmetic.Arithmetic(min_length=7, max_length=7, modulus=100)
  with pytest.raises(UserError, match="problem 0 has 128 responses that the demonstrator could write, more than 100") as told:
    exact_tree.build(questions(long, 2), long, limit=100)
  assert "\n" not in str(told.value)
  exact_tree.build(questions(long, 2), long, limit=128)
  with pytest.raises(UserError, match="max_length 7 have 128 responses"):
    exact_tree.check(dataclasses.replace(long, noise=0.0), limit=100)
  exact_tree.check(long, limit=128)
  by_blank = vocabulary_lib.load(vocabulary.path, "blank")
  with pytest.raises(UserError, match="a line is not a step by problems.steps"):
    exact_tree.responses(exact_tree.build([TEXT], DIALS), by_blank)
