"""All responses that the demonstrator could write to a problem, as a tree: exact values of any policy there.

On `arithmetic` a prefix goes on in one of few lines (`arithmetic.outcomes`), so the responses are few, too: 2^days of
them without slips, restatements and early answers.

  1. `build` enumerates the trees of some problems.
  2. `responses` writes them out as tokens; `log_probs` reads them under a network, in batches of one shape, and sums
     line by line: a line's newline counts with it, and eos with the answer's.
  3. `chances` makes pi(a|s) of every line from them. What they lack to 1 is the chance to write a line that no
     demonstrator would: from there on a response counts as wrong. `share` says how much stays in the tree.
  4. `values` is Q^pi at every node by backup (Eq. 1), `visits` the chance that pi comes there.
  5. A prover's Q at the nodes is `demonstrator`'s, exact for any dials, or what a verifier says of the responses'
     prefixes (`at_nodes`); `terms` sets its advantages against pi.

Nodes u of a problem p: node 0 is the bare prompt, parents stand before their children. c counts the lines that may
follow a node. Row p is row p of the problems given.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import network as network_lib
from pav_jax.models.network import Network
from pav_jax.problems import arithmetic
from pav_jax.problems import given
from pav_jax.problems import prepared
from pav_jax.problems import steps as steps_lib
from pav_jax.training import mesh as mesh_lib
from pav_jax.values import equations

# Responses of a problem: twelve days with two lines each.
LIMIT = 4096


class Trees(NamedTuple):
  """child_puc: int32, the node after each line that may follow, -1 for none; right_pu: float64, whether an answered node is
  right, NaN at others and where there is no node. walks, and for each node: its state, the lines up to it."""

  child_puc: np.ndarray
  right_pu: np.ndarray
  walks: tuple[arithmetic.Walk, ...]
  states: tuple[tuple[arithmetic.State, ...], ...]
  lines: tuple[tuple[tuple[str, ...], ...], ...]

  @property
  def answered_pu(self) -> np.ndarray:
    """bool: a whole response."""
    return ~np.isnan(self.right_pu)


class Responses(NamedTuple):
  """All responses of all trees: their tokens, eos included; end_bz as in `monte_carlo.Values`; node_bz: the node of each prefix, -1 for none."""

  problem_b: np.ndarray
  token_bt: np.ndarray
  length_b: np.ndarray
  end_bz: np.ndarray
  node_bz: np.ndarray


@functools.lru_cache(maxsize=100_000)
def count(walk: arithmetic.Walk, state: arithmetic.State) -> int:
  """How many responses the demonstrator could write from there on."""
  return 1 if state.answered else sum(count(walk, after) for _, _, after in arithmetic.outcomes(walk, state))


def check(dials: arithmetic.Arithmetic, limit: int = LIMIT):
  """UserError where problems under these dials may have more than `limit` responses."""
  for other in ("+3", "*3"):
    days = (arithmetic.Day("+1", other, "", False),) * dials.max_length
    _refuse(arithmetic.Walk(0, days, dials), limit, f"problems of arithmetic.dials.max_length {dials.max_length} have")


def _refuse(walk: arithmetic.Walk, limit: int, who: str):
  if (size := count(walk, arithmetic.start_state(walk))) > limit:
    raise UserError(f"exact tree: {who} {size} responses that the demonstrator could write, more than {limit}: "
                    "fewer days, or slip, restate and give_up of 0")


def build(question_p: Sequence[str], dials: arithmetic.Arithmetic, limit: int = LIMIT) -> Trees:
  """The trees of these problems under a demonstrator with these dials.

  Raises UserError for a problem that is none of arithmetic's, or whose tree has more than `limit` responses.
  """
  walks = tuple(arithmetic.parse(str(question), dials) for question in question_p)
  for p, walk in enumerate(walks):
    _refuse(walk, limit, f"problem {p} has")
  found = [_nodes(walk) for walk in walks]
  size = max(len(states) for states, *_ in found)
  width = max(len(child_c) for *_, children in found for child_c in children)
  child_puc, right_pu = np.full((len(walks), size, width), -1, np.int32), np.full((len(walks), size), np.nan)
  for p, (states, _, children) in enumerate(found):
    for u, (state, child_c) in enumerate(zip(states, children)):
      child_puc[p, u, :len(child_c)] = child_c
      if state.answered:
        right_pu[p, u] = state.number == walks[p].answer
  return Trees(child_puc, right_pu, walks, tuple(states for states, *_ in found), tuple(lines for _, lines, _ in found))


def _nodes(walk: arithmetic.Walk):
  """(states, lines up to each, children of each), breadth first."""
  states, lines, children = [arithmetic.start_state(walk)], [()], []
  for u, state in enumerate(states):  # which grows
    children.append([])
    for _, line, after in [] if state.answered else arithmetic.outcomes(walk, state):
      children[u].append(len(states))
      states.append(after)
      lines.append((*lines[u], line))
  return tuple(states), tuple(lines), children


def responses(trees: Trees, vocabulary) -> Responses:
  """Every response as tokens, problem by problem. UserError where the run's rule of steps does not cut them line by line."""
  problem_b, nodes, written = [], [], []
  for p, (lines, answered_u) in enumerate(zip(trees.lines, trees.answered_pu)):
    at = {path: u for u, path in enumerate(lines)}
    for u in np.flatnonzero(answered_u):
      problem_b.append(p)
      nodes.append([at[lines[u][:z]] for z in range(len(lines[u]) + 1)])
      written.append(given.tokens(lines[u], vocabulary, separator="\n"))
  length_b = np.array([len(one.token_t) for one in written], np.int32)
  depth = max(map(len, nodes))
  token_bt = np.zeros((len(written), length_b.max()), np.int32)
  end_bz, node_bz = np.full((len(written), depth), -2, np.int32), np.full((len(written), depth), -1, np.int32)
  for b, (one, path) in enumerate(zip(written, nodes)):
    token_bt[b, :length_b[b]], node_bz[b, :len(path)] = one.token_t, path
    end_bz[b, :len(path)] = [-1, *one.end_s]
  end_bs, count_b = steps_lib.step_ends_bs(token_bt, length_b, vocabulary.step_rule, depth - 1, merge=True)
  if (count_b > depth - 1).any() or (np.where(end_bs < 0, -2, end_bs) != end_bz[:, 1:]).any():
    raise UserError("exact tree: a line is not a step by problems.steps: newline")
  return Responses(np.array(problem_b, np.int32), token_bt, length_b, end_bz, node_bz)


def log_probs(network: Network, params, problems: prepared.Problems, whole: Responses, *, rows: int, mesh, bar=None) -> np.ndarray:
  """float64 (b, s): log pi of each line of each response, given what stands before it; 0 where there is no line.

  rows: that are read at a time. bar: counts responses. Their sum is the log-probability of the whole response, eos included.
  """
  rows = -(-rows // mesh_lib.num_parts(mesh)) * mesh_lib.num_parts(mesh)
  start_b = problems.prompt_length_p[whole.problem_b]
  token_bt = prepared.join_rows(problems.prompt_pt[whole.problem_b], start_b, whole.token_bt, whole.length_b)
  found = []
  for first in range(0, len(token_bt), rows):
    row_b = np.minimum(np.arange(first, first + rows), len(token_bt) - 1)
    found.append(mesh_lib.fetch(_log_probs(mesh, network, params, mesh_lib.put_rows(token_bt[row_b], mesh)))[:len(token_bt) - first])
    if bar is not None:
      bar.update(len(found[-1]))
  # Column t is about token t + 1, so that the sum up to the token at an index is at that index.
  sum_bt = np.pad(np.cumsum(np.concatenate(found), axis=1, dtype=np.float64), ((0, 0), (1, 0)))
  there_bz = whole.end_bz > -2
  sum_bz = np.take_along_axis(sum_bt, np.where(there_bz, start_b[:, None] + whole.end_bz, 0), axis=1)
  return np.where(there_bz[:, 1:], sum_bz[:, 1:] - sum_bz[:, :-1], 0.0)


@functools.partial(jax.jit, static_argnames=("mesh", "network"))
def _log_probs(mesh, network: Network, params, token_bt):
  return mesh_lib.on(mesh, functools.partial(network_lib.token_log_probs, network))(params, token_bt)


def at_nodes(trees: Trees, whole: Responses, x_bz: np.ndarray) -> np.ndarray:
  """float64 (p, u): what x_bz says of a response's prefix, at that prefix's node; NaN where there is no node. Responses that share
  a prefix must say the same of it."""
  x_pu = np.full(trees.right_pu.shape, np.nan)
  b, z = np.nonzero(whole.node_bz >= 0)
  x_pu[whole.problem_b[b], whole.node_bz[b, z]] = np.asarray(x_bz)[b, z]
  return x_pu


def chances(trees: Trees, whole: Responses, log_prob_bs: np.ndarray) -> np.ndarray:
  """pi(a|s), float64 (p, u, c), of the lines that may follow each node, from the log-probabilities of all lines; 0 where there is none."""
  return _children(trees, np.exp(at_nodes(trees, whole, np.pad(log_prob_bs, ((0, 0), (1, 0))))))


def _children(trees: Trees, x_pu: np.ndarray) -> np.ndarray:
  """x of the node after each line, 0 where there is none."""
  x_puc = np.take_along_axis(x_pu[:, None, :], np.maximum(trees.child_puc, 0), axis=2)
  return np.where(trees.child_puc >= 0, x_puc, 0.0)


def values(trees: Trees, chance_puc: np.ndarray) -> np.ndarray:
  """Q^pi at every node, float64 (p, u), NaN where there is none: exact but for right answers outside of the tree, which count as wrong."""
  q_pu = trees.right_pu.copy()
  inside_pu = trees.child_puc[:, :, 0] >= 0
  every = np.arange(len(q_pu))[:, None]
  for u in reversed(range(q_pu.shape[1])):  # children stand behind
    mean_p = (chance_puc[:, u] * np.nan_to_num(q_pu[every, trees.child_puc[:, u]])).sum(axis=1)
    q_pu[:, u] = np.where(inside_pu[:, u], mean_p, q_pu[:, u])
  return q_pu


def visits(trees: Trees, chance_puc: np.ndarray) -> np.ndarray:
  """d^pi(s), float64 (p, u): the chance that a response of pi comes by each node; 1 at the bare prompt, 0 where there is no node."""
  visit_pu = np.zeros(trees.right_pu.shape)
  visit_pu[:, 0] = 1
  for u in range(visit_pu.shape[1]):  # parents stand before
    p, c = np.nonzero(trees.child_puc[:, u] >= 0)
    visit_pu[p, trees.child_puc[p, u, c]] = visit_pu[p, u] * chance_puc[p, u, c]
  return visit_pu


def share(trees: Trees, chance_puc: np.ndarray) -> np.ndarray:
  """float64 (p,): the chance that a response of pi is one of the tree's."""
  return (visits(trees, chance_puc) * trees.answered_pu).sum(axis=1)


def demonstrator(trees: Trees, dials: arithmetic.Arithmetic) -> np.ndarray:
  """Exact Q at every node, float64 (p, u), of a demonstrator with other dials who writes on from there; NaN where there is no node.

  Its own lines may be others than the tree's. UserError for another modulus.
  """
  q_pu = np.full(trees.right_pu.shape, np.nan)
  for p, (walk, states) in enumerate(zip(trees.walks, trees.states)):
    if walk.dials.modulus != dials.modulus:
      raise UserError(f"exact tree: a demonstrator modulo {dials.modulus} has no values of a problem modulo {walk.dials.modulus}")
    other = dataclasses.replace(walk, dials=dials)
    q_pu[p, :len(states)] = [arithmetic.exact_q(other, state) for state in states]
  return q_pu


class Policy(NamedTuple):
  """pi on the trees: d^pi, pi(a|s) among the tree's lines, A^pi among them, Q^pi; share_p: as of `share`.

  visit_pu and q_pu count what leaves the tree; line_puc, which sums to 1 where a line may follow, and advantage_puc do
  not: nobody says what a prover makes of a line that is not there.
  """

  visit_pu: np.ndarray
  line_puc: np.ndarray
  advantage_puc: np.ndarray
  q_pu: np.ndarray
  share_p: np.ndarray


def policy(trees: Trees, chance_puc: np.ndarray) -> Policy:
  """What distinguishability and alignment need of a policy with these chances."""
  sum_pu1 = chance_puc.sum(axis=2, keepdims=True)
  line_puc = chance_puc / np.where(sum_pu1 > 0, sum_pu1, 1)
  q_pu = values(trees, chance_puc)
  mean_pu1 = (line_puc * np.nan_to_num(_children(trees, q_pu))).sum(axis=2, keepdims=True)
  advantage_puc = np.where(trees.child_puc >= 0, _children(trees, q_pu) - mean_pu1, 0.0)
  return Policy(visits(trees, chance_puc), line_puc, advantage_puc, q_pu, share(trees, chance_puc))


def advantages(trees: Trees, q_pu: np.ndarray) -> np.ndarray:
  """A^mu(s, a), float64 (p, u, c), of the lines that may follow a node, from a prover's Q at the nodes (Eq. 2, its second form); 0 where there is none."""
  return np.where(trees.child_puc >= 0, _children(trees, q_pu) - q_pu[:, :, None], 0.0)


class Terms(NamedTuple):
  """Of a prover on each problem, float64 (p,), summed over the steps of a response: the terms of Theorem 3.1, and Var[A^pi] beside them."""

  distinguishability_p: np.ndarray
  alignment_p: np.ndarray
  variance_pi_p: np.ndarray


def terms(pi: Policy, advantage_puc: np.ndarray) -> Terms:
  """Of a prover whose A^mu of every line is given; it may be off by a number at each node."""
  of = functools.partial(equations.distinguishability, pi.visit_pu, pi.line_puc)
  return Terms(of(advantage_puc), equations.alignment(pi.visit_pu, pi.line_puc, advantage_puc, pi.advantage_puc), of(pi.advantage_puc))


def best_of_candidates(chance_puc: np.ndarray, score_puc: np.ndarray, n: int) -> np.ndarray:
  """Chances of the policy that draws n lines from pi at every node and goes on with the one of the highest score: a beam of one.

  A line that is not in the tree scores below all that are; lines of one score share their chance as pi does.
  """
  other_pu1 = np.maximum(1 - chance_puc.sum(axis=2, keepdims=True), 0)
  than_pucc = lambda holds: (chance_puc[:, :, None, :] * holds(score_puc[:, :, None, :], score_puc[:, :, :, None])).sum(axis=3)
  below_puc, like_puc = other_pu1 + than_pucc(np.less), than_pucc(np.equal)
  return chance_puc * ((below_puc + like_puc) ** n - below_puc**n) / np.where(like_puc > 0, like_puc, 1)
