"""What a search cost: tokens and FLOPs, the verifier's as well as the policy's.

Costs are counted per problem from the lengths of what was really read and
drawn; padding does not count, and a prompt that rows share counts once for
each network that reads it.
"""

from typing import NamedTuple

import numpy as np


class Cost(NamedTuple):
  """Per problem, float64 (p,): tokens drawn, prompt tokens read, tokens a verifier read, FLOPs of both."""

  generated_p: np.ndarray
  prompt_p: np.ndarray
  scored_p: np.ndarray
  policy_flops_p: np.ndarray
  verifier_flops_p: np.ndarray

  @property
  def tokens_p(self) -> np.ndarray:
    """Generated plus prompt tokens of the policy."""
    return self.generated_p + self.prompt_p

  @property
  def flops_p(self) -> np.ndarray:
    """Policy and verifier."""
    return self.policy_flops_p + self.verifier_flops_p

  def __add__(self, other: "Cost") -> "Cost":
    return Cost(*(a + b for a, b in zip(self, other)))


def nothing(count: int) -> Cost:
  """No cost for `count` problems."""
  return Cost(*(np.zeros(count) for _ in Cost._fields))


def prompts(flops, prompt_length_p: np.ndarray, *, verifier: bool) -> Cost:
  """Reading every prompt once. flops: the reading network's; the policy's last token is read when it first draws."""
  cost = nothing(len(prompt_length_p))
  if verifier:
    return cost._replace(scored_p=prompt_length_p.astype(float),
                         verifier_flops_p=flops(0, prompt_length_p, 0).astype(float))
  return cost._replace(prompt_p=prompt_length_p.astype(float),
                       policy_flops_p=flops(0, prompt_length_p - 1, 0).astype(float))


def drawn(flops, problem_r: np.ndarray, start_r: np.ndarray, new_r: np.ndarray, count: int) -> Cost:
  """Drawing new_r tokens after start_r known ones: each reads one token and computes one row of logits."""
  sum_p = lambda x_r: np.bincount(problem_r, weights=x_r, minlength=count)
  return nothing(count)._replace(
      generated_p=sum_p(new_r), policy_flops_p=sum_p(flops(start_r - 1, start_r - 1 + new_r, new_r)))


def scored(flops, problem_r: np.ndarray, start_r: np.ndarray, new_r: np.ndarray, count: int) -> Cost:
  """A verifier reads new_r tokens after start_r cached ones; the dot product of a score (2 * width) is left out."""
  sum_p = lambda x_r: np.bincount(problem_r, weights=x_r, minlength=count)
  return nothing(count)._replace(
      scored_p=sum_p(new_r), verifier_flops_p=sum_p(flops(start_r, start_r + new_r, 0)))
