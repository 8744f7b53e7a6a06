r"""What the policy believes: the probability it gives the reference's answer if it had to answer now. No rollout, no verifier.

  p(s_h) = product over i of pi(answer_i | prompt, steps 1..h, marker, answer_<i)

The change of p at the end of a step is the step's reward, as in GRPO-VPS (2604.20659), as we read it: the answer in the form in
which the policy learnt to give one is appended to every prefix. The marker (`####`, `\boxed{`) is given and not scored:
whether the policy would answer now is not the question. After the last step the answer has been given: p is Rex there.
So the rewards of a response telescope to Rex - p(bare prompt).
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import network as network_lib
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.training import mesh as mesh_lib

# What stands before an answer in the solutions of each family, and behind it: where nothing does, the response ends there.
FORMS = {"arithmetic": ("#### ", ""), "gsm8k": ("#### ", ""), "math": (r"\boxed{", "}")}


class Lines(NamedTuple):
  """The reference's answer of each problem as ids: int32 (p, t), padded with 0; of length tokens the first given are the marker's."""

  token_pt: np.ndarray
  length_p: np.ndarray
  given_p: np.ndarray


def lines(problems: prepared.Problems, vocabulary) -> Lines:
  """The answers' lines. UserError for a family of problems of which no solution holds the marker: its form is not known."""
  for family in sorted(set(map(str, problems.dataset_p))):
    marker, of_family = FORMS[family][0], problems.dataset_p == family
    said = zip(problems.solution_pt[of_family], problems.solution_length_p[of_family])
    if not any(marker in vocabulary.decode(token_t[:length]) for token_t, length in said):
      raise UserError(f"rl: arm answer_probability: none of {of_family.sum()} solutions of family {family} holds {marker!r}: "
                      "in which form the policy answers is not known; leave the arm out")
  rows, given = [], []
  for family, answer in zip(map(str, problems.dataset_p), map(str, problems.answer_p)):
    marker, close = FORMS[family]
    alone, whole = vocabulary.encode(marker), vocabulary.encode(marker + answer + close)
    apart = [x != y for x, y in zip(alone, whole)]  # a piece may hold the marker's end and the answer's beginning
    given.append(apart.index(True) if True in apart else len(alone))
    rows.append(whole if close else [*whole, vocabulary.eos_id])
  length_p = np.array([len(row) for row in rows], np.int32)
  token_pt = np.zeros((len(rows), length_p.max()), np.int32)
  for p, row in enumerate(rows):
    token_pt[p, :len(row)] = row
  return Lines(token_pt, length_p, np.array(given, np.int32))


@functools.partial(jax.jit, static_argnames=("mesh", "network"))
def _log_probs(mesh, network, params, token_rt):
  return mesh_lib.on(mesh, functools.partial(network_lib.token_log_probs, network))(params, token_rt)


def values(mesh, network, params, problems: prepared.Problems, rollouts: collect.Rollouts, end_bz, answers: Lines, outcome_b):
  """(float32 (b, z): p at the bare prompt and after every step, Rex after the last, NaN where there is no prefix; FLOPs).

  A row is read for every prefix but the last, as many at once as there are responses: one shape for all batches.
  """
  there_bz, last_bz = end_bz > -2, end_bz == rollouts.length_b[:, None] - 1
  p_bz = np.where(there_bz, np.asarray(outcome_b, np.float32)[:, None], np.nan)
  b_r, z_r = np.nonzero(there_bz & ~last_bz)
  problem_r, kept_r = rollouts.problem_b[b_r], end_bz[b_r, z_r] + 1
  start_r = problems.prompt_length_p[problem_r] + kept_r
  width = problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]
  prefix_rt = prepared.join_rows(problems.prompt_pt[problem_r], problems.prompt_length_p[problem_r], rollouts.token_bt[b_r], kept_r, 1)
  token_rt = prepared.join_rows(prefix_rt, start_r, answers.token_pt[problem_r], answers.length_p[problem_r], 1)
  rows = len(end_bz)
  token_rt = np.pad(token_rt, ((0, -len(b_r) % rows), (0, width + answers.token_pt.shape[1] - token_rt.shape[1])))
  log_prob_rt = np.concatenate([mesh_lib.fetch(_log_probs(mesh, network, params, mesh_lib.put_rows(part_rt, mesh)))
                                for part_rt in np.split(token_rt, len(token_rt) // rows)])[:len(b_r)]
  stop_r, first_r = start_r + answers.length_p[problem_r], start_r + answers.given_p[problem_r]
  at_rt = np.arange(1, token_rt.shape[1])  # column t is about token t + 1
  scored_rt = (at_rt >= first_r[:, None]) & (at_rt < stop_r[:, None])
  p_bz[b_r, z_r] = np.exp((log_prob_rt * scored_rt).sum(axis=1))
  return p_bz.astype(np.float32), float(network.flops(0, stop_r, stop_r - first_r).sum())
