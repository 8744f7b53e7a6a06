"""The prover over a run, exactly, on `arithmetic`: how well it tells the policy's steps apart, and how far it pulls the policy's way.

Every `rl.eval_every` iterations the current policy reads all responses that the demonstrator could write to the first
`rl.watch_prover` validation problems (values/exact_tree.py). From then on its own Q is known at every prefix, and with it

  tree_share          the share of its responses that are among these; what is not counts as wrong
  exact_accuracy      its accuracy, without a draw
  advantage_variance  Var[A^pi], what is there to be told apart
  distinguishability, alignment   of the arm's prover (Theorem 3.1), A^mu as its verifier says it and as the arm is paid for it
  true_...            the same of the prover that RL begins with, without error: best-of-K of the demonstrator's exact values,
                      or these values, where the run's own verifier stands for them
  fresh_...           the same of the prover that would be renewed now, without error: of the current policy's own values

All but the first two are summed over the steps of a response, and are means over problems.
"""

from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.policy import provers
from pav_jax.problems import prepare
from pav_jax.problems import prepared
from pav_jax.values import exact
from pav_jax.values import exact_tree
from pav_jax.verifiers import score

# Provers of a verifier's values, which an error of the verifier's can be told from.
_LEARNT = ("best_of_k", "q")


class Lookout(NamedTuple):
  """The problems watched, the trees of their responses, and the demonstrator's Q there."""

  problems: prepared.Problems
  trees: exact_tree.Trees
  whole: exact_tree.Responses
  demonstrator_pu: np.ndarray


def check(config, root: epath.Path | None):
  """UserError where rl.watch_prover means nothing, or the problems' trees are too large; root: the workdir, if there is one."""
  errors.at_least(0, config.rl, "config.rl", "watch_prover")
  if config.rl.watch_prover:
    prepare.check_count(config, root, "config.rl", "watch_prover", "validation")
    exact_tree.check(exact.dials_of(config))


def begin(problems: prepared.Problems, vocabulary, config) -> Lookout:
  """The trees of these problems. UserError but on `arithmetic`."""
  if not exact.are_known(problems):
    raise UserError(f"config.rl.watch_prover: exact trees are of arithmetic problems, not {', '.join(sorted(set(problems.dataset_p)))}; 0 for none")
  dials = exact.dials_of(config)
  trees = exact_tree.build(problems.question_p, dials)
  return Lookout(problems, trees, exact_tree.responses(trees, vocabulary), exact_tree.demonstrator(trees, dials))


def figures(lookout: Lookout, arch, params, players, knobs, mesh) -> dict[str, float]:
  """What the module's text names, for an arm with these knobs. params: the policy's by now; players: the arm's, the verifier among them."""
  trees, whole, problems = lookout.trees, lookout.whole, lookout.problems
  pi = exact_tree.policy(trees, exact_tree.chances(trees, whole, exact_tree.log_probs(
      arch.network, params, problems, whole, rows=knobs.rows, mesh=mesh)))
  found = {"tree_share": pi.share_p, "exact_accuracy": pi.q_pu[:, 0],
           "advantage_variance": exact_tree.terms(pi, pi.advantage_puc).variance_pi_p}
  # What is dealt at random, or not by values, is no line's.
  if knobs.alpha and knobs.prover != "random" and knobs.reward != "implicit":
    q_of = {"fresh_": pi.q_pu, "": {"monte_carlo": pi.q_pu, "exact": lookout.demonstrator_pu}.get(knobs.prover)}
    if knobs.prover in _LEARNT:
      own = players.prover is None
      judge, judge_params = (players.verifier, players.verifier_params) if own else (players.prover, players.prover_params)
      q_of[""] = exact_tree.at_nodes(trees, whole, score.score_responses(
          judge.network, judge_params, problems.prompt_pt, problems.prompt_length_p, whole.problem_b, whole.token_bt,
          whole.length_b, whole.end_bz, rows_per_call=knobs.rows, mesh=mesh))
      if own and not knobs.verifier:
        q_of["true_"] = lookout.demonstrator_pu
    for name, q_pu in q_of.items():
      if q_pu is not None:
        terms = exact_tree.terms(pi, paid(trees, q_pu, knobs))
        found |= {f"{name}distinguishability": terms.distinguishability_p, f"{name}alignment": terms.alignment_p}
  return {name: float(x_p.mean()) for name, x_p in found.items()}


def paid(trees: exact_tree.Trees, q_pu: np.ndarray, knobs) -> np.ndarray:
  """A^mu, float64 (p, u, c), of every line as an arm with these knobs has it from Q at the nodes; bounded where it bounds advantages."""
  q_pu = provers.q_mu(q_pu, knobs.prover, knobs.prover_k)
  if knobs.outcome_last:
    q_pu = np.where(trees.answered_pu, trees.right_pu, q_pu)
  return np.clip(exact_tree.advantages(trees, q_pu), -knobs.clip, knobs.clip)
