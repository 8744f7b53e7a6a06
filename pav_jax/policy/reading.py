"""Fresh responses, read by everyone once: what each token had for a probability, and what it is paid.

  1. Rows of prompt + response are read in one jitted pass (`read_all`) by the policy, the initial policy, the verifier,
     the arm's own prover and what is learnt beside the policy (`beside`).
  2. Values at the ends of steps are the verifier's, the prover's, or of the other source that `rl.prover` names (provers.py, belief.py).
  3. Of these, or of the reward model, the process rewards are made (credit.py); with the outcome they are what a token is paid.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.models import network as network_lib
from pav_jax.policy import advantages
from pav_jax.policy import belief
from pav_jax.policy import credit
from pav_jax.policy import losses
from pav_jax.policy import provers
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import mesh as mesh_lib
from pav_jax.values import monte_carlo


class Players(NamedTuple):
  """The fixed ones: parameters of the initial policy, of the verifier and of the prover's (None without one), and what they are.

  prover: the verifier of an arm's own prover, `rl.provers`; without one the prover is made of the verifier.
  """

  policy: architecture.Architecture
  reference: Any
  verifier: architecture.Architecture | None = None
  verifier_params: Any = None
  prover: architecture.Architecture | None = None
  prover_params: Any = None


@dataclasses.dataclass(frozen=True)
class Arena:
  """Where a policy plays: problems, vocabulary, grader, mesh, the config and its `rl` section; the seeds of run and arm."""

  problems: prepared.Problems
  vocabulary: Any
  grader: grading.Grader
  mesh: Any
  config: Any
  knobs: Any
  seeds: tuple[int, int]

  def seed_of(self, what: int, n: int = 0) -> int:
    """A seed for iteration n; `what` keeps those of different uses apart."""
    return int(np.random.SeedSequence([*self.seeds, what, n]).generate_state(1)[0] >> 1)

  def draw(self, arch, params, problem_p, n: int, seed: int, greedy: bool = False, bar=None) -> collect.Rollouts:
    """n graded responses to each problem, at temperature 1 or greedily."""
    sampling = sampling_lib.Sampling(0.0) if greedy else sampling_lib.Sampling()
    drawn = collect.sample(
        arch, params, self.problems, problem_p, n, tokens=jobs_lib.token_tables(self.vocabulary, arch.config.vocab_size),
        sampling=sampling, seed=seed, rows=min(self.knobs.rows, len(problem_p) * n), share=min(n, self.knobs.share),
        max_new=self.config.rollouts.max_new, mesh=self.mesh, bar=bar)
    return collect.grade(drawn, self.problems, self.vocabulary, self.grader)[0]

  @functools.cached_property
  def answers(self) -> belief.Lines:
    """The reference's answer of every problem, as the policy would give it."""
    return belief.lines(self.problems, self.vocabulary)


def beside(knobs) -> tuple[str, ...]:
  """What an arm with these knobs learns beside the policy: 'value', a value function; 'reward_model', PRIME's."""
  return ("value",) * (knobs.baseline == "value") + ("reward_model",) * bool(knobs.alpha and knobs.reward == "implicit")


def by_values(knobs) -> bool:
  """Whether an arm with these knobs is paid by what a verifier says of its steps."""
  return bool(knobs.alpha and knobs.reward != "implicit" and knobs.prover not in provers.WITHOUT_VERIFIER)


def asks_verifier(knobs, has_prover: bool = False) -> bool:
  """Whether an arm with these knobs reads `rl.verifier`; has_prover: whether it has a prover of its own (`rl.provers`)."""
  return bool(knobs.baseline == "critic" or by_values(knobs) and not has_prover)


@functools.partial(jax.jit, static_argnames=("mesh", "network", "verifier", "prover"))
def read_all(mesh, network, verifier, prover, params, reference, learnt, verifier_params, prover_params, token_bt):
  """(old_bt, reference_bt, value_bt, implied_bt, q_bt, prover_q_bt) of whole rows.

  learnt: the parameters of what is learnt beside the policy, by name; value and implied, the log-probabilities of the
  reward model, are 0 without them. q and prover_q, the verifier's and the prover's after every token: None without one.
  """
  log_probs, values = (mesh_lib.on(mesh, functools.partial(f, network)) for f in (network_lib.token_log_probs, losses.values))
  def says(judge, judge_params):
    return None if judge is None else jax.nn.sigmoid(mesh_lib.on(mesh, functools.partial(losses.scores, judge))(judge_params, token_bt))
  value_bt, implied_bt = (f(learnt[name], token_bt) if name in learnt else jnp.zeros(())
                          for name, f in (("value", values), ("reward_model", log_probs)))
  return (log_probs(params, token_bt), log_probs(reference, token_bt), value_bt, implied_bt, says(verifier, verifier_params),
          says(prover, prover_params))


class Read(NamedTuple):
  """Fresh responses and what everyone says of them.

  reward_bt: what each token is paid, before baseline and penalties; own_bt: what it is paid with a baseline of its own taken off.
  """

  rollouts: collect.Rollouts
  end_bs: np.ndarray
  token_bt: np.ndarray
  mask_bt: np.ndarray
  old_bt: np.ndarray
  reference_bt: np.ndarray
  value_bt: np.ndarray
  reward_bt: np.ndarray
  own_bt: np.ndarray
  figures: dict[str, float]


def read(arena: Arena, players: Players, params, learnt: dict, rollouts: collect.Rollouts, n: int) -> Read:
  """The responses of iteration n, read by all; learnt: as in `read_all`."""
  knobs, problems = arena.knobs, arena.problems
  width = problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]  # one shape for every batch
  start_b = problems.prompt_length_p[rollouts.problem_b]
  token_bt = prepared.join_rows(problems.prompt_pt[rollouts.problem_b], start_b, rollouts.token_bt, rollouts.length_b, 1)
  token_bt = np.pad(token_bt, ((0, 0), (0, width - token_bt.shape[1])))
  end_bz, joined = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, arena.vocabulary, arena.config.monte_carlo.max_steps)
  there_bz = end_bz > -2
  verifier, prover = (None if judge is None else judge.network for judge in (players.verifier, players.prover))
  old_bt, reference_bt, value_bt, implied_bt, q_bt, prover_q_bt = mesh_lib.fetch(read_all(
      arena.mesh, players.policy.network, verifier, prover, params, players.reference, learnt, players.verifier_params,
      players.prover_params, mesh_lib.put_rows(token_bt, arena.mesh)))
  if prover is None:
    prover_q_bt = q_bt
  # Column t of what follows is about token t + 1: responses begin at column start - 1.
  at_bt = np.arange(width - 1)
  mask_bt = ((at_bt >= start_b[:, None] - 1) & (at_bt < (start_b + rollouts.length_b)[:, None] - 1)).astype(np.float32)
  shifted_bs = np.where(there_bz[:, 1:], end_bz[:, 1:] + start_b[:, None] - 1, -1)
  at_ends = lambda x_bt: np.take_along_axis(x_bt, np.where(there_bz, start_b[:, None] + end_bz, 0), axis=1)
  outcome_b = (rollouts.verdict_b == grading.Verdict.CORRECT).astype(np.float32)
  figures = {"accuracy": float(outcome_b.mean()), "steps_joined": float(joined)}
  process_bs, own_bt = np.zeros(end_bz[:, 1:].shape, np.float32), np.zeros_like(mask_bt)
  if knobs.alpha and knobs.reward == "implicit":  # PRIME's come token by token, less a baseline of their own
    implied_bt = credit.implicit(implied_bt, reference_bt, mask_bt, knobs.implicit.beta)
    own_bt = knobs.alpha * advantages.implicit(implied_bt, mask_bt, group=knobs.group, discount=knobs.implicit.discount)
    step_bs = np.diff(at_ends(np.pad(np.cumsum(implied_bt, axis=1), ((0, 0), (1, 0)))), axis=1)
  elif knobs.alpha:
    q_bz = values_of(arena, players, params, rollouts, end_bz, None if prover_q_bt is None else at_ends(prover_q_bt), n, figures)
    step_bs, figures["clipped"] = credit.process_rewards(
        np.where(there_bz, q_bz, np.nan), outcome_b, reward=knobs.reward, outcome_last=knobs.outcome_last, clip=knobs.clip,
        temperature=knobs.min_form.temperature, min_q=knobs.first_error.min_q, min_ratio=knobs.first_error.min_ratio)
    if knobs.prover == "random":
      step_bs = provers.dealt(step_bs, there_bz[:, 1:], np.random.default_rng(arena.seed_of(5, n)))
    process_bs = step_bs
  if knobs.alpha:
    figures |= {"reward": float(step_bs[there_bz[:, 1:]].mean()), "reward_deviation": float(step_bs[there_bz[:, 1:]].std())}
  reward_bt = mask_bt * (outcome_b[:, None] + knobs.alpha * credit.per_token(process_bs, shifted_bs, width - 1))
  if knobs.baseline == "critic":
    q_mu_bt = provers.q_mu(prover_q_bt, knobs.prover, knobs.prover_k)
    foreseen = knobs.reward in ("advantage", "shaping", "value") and knobs.prover not in ("random", "answer")
    value_bt = advantages.critic(q_bt[:, :-1], q_mu_bt[:, :-1], at_ends(q_mu_bt)[:, :-1], shifted_bs, reward=knobs.reward,
                                 alpha=knobs.alpha if foreseen else 0.0)
  return Read(rollouts, end_bz[:, 1:], token_bt, mask_bt, old_bt, reference_bt, np.broadcast_to(value_bt, mask_bt.shape),
              reward_bt.astype(np.float32), own_bt.astype(np.float32), figures)


def values_of(arena: Arena, players: Players, params, rollouts: collect.Rollouts, end_bz, q_bz, n: int, figures: dict):
  """Q^mu at the ends of steps, (b, z), by the source that `rl.prover` names; q_bz: the verifier's or the prover's own. What it costs goes to the figures."""
  knobs, config = arena.knobs, arena.config
  if knobs.prover == "monte_carlo":
    values, counts = monte_carlo.label(
        players.policy, params, arena.problems, rollouts, end_bz, arena.vocabulary, arena.grader,
        strategy=monte_carlo.Strategy(n_mc=knobs.n_mc), seeds_per_problem=-1, sampling=sampling_lib.Sampling(),
        seed=arena.seed_of(3, n), rows=knobs.rows, max_new=config.rollouts.max_new,
        mesh=arena.mesh)
    q_bz, figures["continuation_tokens"] = values.q_bz, float(counts["tokens"])
  if knobs.prover == "exact":
    q_bz = provers.exact_q(arena.problems, rollouts, end_bz, arena.vocabulary, config)
  if knobs.prover == "answer":
    q_bz, figures["answer_flops"] = belief.values(
        arena.mesh, players.policy.network, params, arena.problems, rollouts, end_bz, arena.answers,
        rollouts.verdict_b == grading.Verdict.CORRECT)
  return provers.q_mu(q_bz, knobs.prover, knobs.prover_k)


def cost(seen: Read, arena: Arena, players: Players, n: int) -> float:
  """FLOPs of iteration n: drawing, reading by all players, and updates at three times a reading, the value function's first ones too."""
  rollouts, knobs, policy = seen.rollouts, arena.knobs, players.policy.network
  start_b = arena.problems.prompt_length_p[rollouts.problem_b]
  whole_b = start_b + rollouts.length_b
  prompts = policy.flops(0, start_b - 1, 0)[::knobs.group].sum()
  drawn = policy.flops(start_b - 1, whole_b - 1, rollouts.length_b).sum()
  one = policy.flops(0, whole_b, rollouts.length_b).sum()
  learnt = {"value": policy.flops(0, whole_b, 0).sum(), "reward_model": one}
  learnt = {name: learnt[name] for name in beside(knobs)}
  judged = sum(judge.network.flops(0, whole_b, 0).sum() for judge in (players.verifier, players.prover) if judge is not None)
  again = seen.figures.get("continuation_tokens", 0.0) * drawn / max(rollouts.length_b.sum(), 1)
  updates = knobs.updates * (one + sum(learnt.values())) + (knobs.value_warmup * learnt.get("value", 0.0) if n == 0 else 0.0)
  return float(prompts + drawn + again + 2 * one + sum(learnt.values()) + judged + seen.figures.get("answer_flops", 0.0) + 3 * updates)


def parity(seen: Read) -> float:
  """Greatest difference between the sampler's log-probabilities and the training forward's."""
  rollouts = seen.rollouts
  drawn_bt = np.zeros_like(seen.old_bt)
  drawn_bt[seen.mask_bt > 0] = rollouts.log_prob_bt[np.arange(rollouts.log_prob_bt.shape[1]) < rollouts.length_b[:, None]]
  return float(losses.parity(seen.old_bt, drawn_bt, seen.mask_bt))
