"""Online RL with dense rewards (section 5): outcome plus alpha times progress under a prover, Eq. 5.

  1. Iteration n takes the n-th batch of problems and draws `group` responses
     to each with the current weights, by the engine, on the same devices.
  2. They are graded; the prover's verifier, the initial policy, the value
     function and the policy read them in one jitted pass (`read_all`). At the
     first iteration and every `parity_every` the policy's log-probabilities
     must be the sampler's.
  3. Every token of step h is paid Rex + alpha A^mu (advantages.py), less a baseline: a learned value function of the
     tokens before it as in the paper, the other responses' mean, or the verifier, read at every token (`rl.critic`).
  4. The policy, then the value function, take `updates` steps (training/step.py). The value function begins at 0 everywhere;
     before the first step it learns the first batch for `value_warmup` steps, at its full rate, and the policy does not
     move in that iteration.
  5. Responses are watched for hacking (watch.py).

The loop is training/loop.py's: every `eval_every` iterations accuracy on
validation problems, Pass@N and greedy; the best by accuracy is kept. All
that is carried lies in one TrainState, the value function's whole state beside
the policy's optimiser; the rest is a function of n, so that a run that was
killed gives the same parameters as one that was not.

Deviation: gradients are means over responses, not sums over a batch. Adam takes no notice of a constant factor, as long as
no norm is clipped before it: `clip_norm` is inf here. A bound on the norm would be another step for another alpha, since
rewards of progress make gradients longer: arms would differ in more than what they are paid. `norm_clipped` in the curves is
the share of updates that a bound has cut.
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.policy import advantages
from pav_jax.policy import losses
from pav_jax.policy import provers
from pav_jax.policy import watch
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import step as step_lib
from pav_jax.training.state import TrainState
from pav_jax.values import monte_carlo


class Players(NamedTuple):
  """The fixed ones: parameters of the initial policy and of the verifier (None without one), and what they are."""

  policy: architecture.Architecture
  reference: Any
  verifier: architecture.Architecture | None
  verifier_params: Any


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


@functools.partial(jax.jit, static_argnames=("mesh", "network", "verifier"))
def read_all(mesh, network, verifier, params, reference, value_params, verifier_params, token_bt):
  """(old_bt, reference_bt, value_bt, q_bt) of whole rows; q, after every token, is None without a verifier."""
  log_probs, values = (mesh_lib.on(mesh, functools.partial(f, network)) for f in (losses.log_probs, losses.values))
  q_bt = None
  if verifier is not None:
    q_bt = jax.nn.sigmoid(mesh_lib.on(mesh, functools.partial(losses.scores, verifier))(verifier_params, token_bt))
  value_bt = jnp.zeros(()) if value_params is None else values(value_params, token_bt)
  return log_probs(params, token_bt), log_probs(reference, token_bt), value_bt, q_bt


class Read(NamedTuple):
  """Fresh responses and what everyone says of them; reward_bt: what each token is paid, before penalties."""

  rollouts: collect.Rollouts
  end_bs: np.ndarray
  token_bt: np.ndarray
  mask_bt: np.ndarray
  old_bt: np.ndarray
  reference_bt: np.ndarray
  value_bt: np.ndarray
  process_bs: np.ndarray
  reward_bt: np.ndarray
  figures: dict[str, float]


def read(arena: Arena, players: Players, params, value_params, rollouts: collect.Rollouts, n: int) -> Read:
  """Steps 2 and 3 for the responses of iteration n."""
  knobs, problems, config = arena.knobs, arena.problems, arena.config
  width = problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]  # one shape for every batch
  start_b = problems.prompt_length_p[rollouts.problem_b]
  token_bt = prepared.join_rows(problems.prompt_pt[rollouts.problem_b], start_b, rollouts.token_bt, rollouts.length_b, 1)
  token_bt = np.pad(token_bt, ((0, 0), (0, width - token_bt.shape[1])))
  end_bz, joined = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, arena.vocabulary, config.monte_carlo.max_steps)
  there_bz = end_bz > -2
  verifier = None if players.verifier is None else players.verifier.network
  old_bt, reference_bt, value_bt, q_bt = mesh_lib.fetch(read_all(
      arena.mesh, players.policy.network, verifier, params, players.reference, value_params, players.verifier_params,
      mesh_lib.put_rows(token_bt, arena.mesh)))
  at_ends = lambda x_bt: np.take_along_axis(x_bt, np.where(there_bz, start_b[:, None] + end_bz, 0), axis=1)
  q_bz = None if q_bt is None else at_ends(q_bt)
  outcome_b = (rollouts.verdict_b == grading.Verdict.CORRECT).astype(np.float32)
  figures = {"accuracy": float(outcome_b.mean()), "steps_joined": float(joined)}
  if knobs.prover == "monte_carlo" and knobs.alpha:
    values, counts = monte_carlo.label(
        players.policy, params, problems, rollouts, end_bz, arena.vocabulary, arena.grader,
        strategy=monte_carlo.Strategy(n_mc=knobs.n_mc), seeds_per_problem=-1, sampling=sampling_lib.Sampling(),
        seed=arena.seed_of(3, n), rows=knobs.rows, max_new=config.rollouts.max_new,
        mesh=arena.mesh)
    q_bz, figures["continuation_tokens"] = values.q_bz, float(counts["tokens"])
  if knobs.prover == "exact" and knobs.alpha:
    q_bz = provers.exact_q(problems, rollouts, end_bz, arena.vocabulary, config)
  process_bs = np.zeros(end_bz[:, 1:].shape, np.float32)
  if knobs.alpha:
    q_bz = np.where(there_bz, provers.q_mu(q_bz, knobs.prover, knobs.prover_k), np.nan)
    process_bs, figures["clipped"] = advantages.process_rewards(
        q_bz, outcome_b, reward=knobs.reward, outcome_last=knobs.outcome_last, clip=knobs.clip)
    if knobs.prover == "random":
      process_bs = provers.dealt(process_bs, there_bz[:, 1:], np.random.default_rng(arena.seed_of(5, n)))
    figures |= {"reward": float(process_bs[there_bz[:, 1:]].mean()), "reward_deviation": float(process_bs[there_bz[:, 1:]].std())}
  # Column t of what follows is about token t + 1: responses begin at column start - 1.
  at_bt = np.arange(width - 1)
  mask_bt = (at_bt >= start_b[:, None] - 1) & (at_bt < (start_b + rollouts.length_b)[:, None] - 1)
  shifted_bs = np.where(there_bz[:, 1:], end_bz[:, 1:] + start_b[:, None] - 1, -1)
  reward_bt = mask_bt * (outcome_b[:, None] + knobs.alpha * advantages.per_token(process_bs, shifted_bs, width - 1))
  if knobs.baseline == "critic":
    q_mu_bt = provers.q_mu(q_bt, knobs.prover, knobs.prover_k)
    value_bt = advantages.critic(q_bt[:, :-1], q_mu_bt[:, :-1], at_ends(q_mu_bt)[:, :-1], shifted_bs, reward=knobs.reward,
                                 alpha=0.0 if knobs.prover == "random" else knobs.alpha)
  return Read(rollouts, end_bz[:, 1:], token_bt, mask_bt.astype(np.float32), old_bt, reference_bt,
              np.broadcast_to(value_bt, mask_bt.shape), process_bs, reward_bt.astype(np.float32), figures)


def batch_of(seen: Read, knobs) -> losses.RolloutBatch:
  """Step 3's end: rewards less the baseline and the penalties."""
  advantage_bt = advantages.centred(seen.reward_bt, seen.mask_bt, seen.value_bt, baseline=knobs.baseline, group=knobs.group)
  advantage_bt = losses.penalised(advantage_bt, seen.mask_bt, seen.old_bt, seen.reference_bt,
                                  kl=knobs.kl if knobs.kl_as == "penalty" else 0.0, entropy=knobs.entropy)
  return losses.RolloutBatch(seen.token_bt, seen.mask_bt, advantage_bt.astype(np.float32), seen.reward_bt, seen.old_bt,
                             seen.reference_bt)


def watched(seen: Read, arena: Arena) -> tuple[dict[str, float], list]:
  """The figures of hacking, and the responses as their steps' token ids."""
  rollouts, problems = seen.rollouts, arena.problems
  cut = lambda token_t, length: tuple(token_t[:length].tolist())
  prompts = [cut(problems.prompt_pt[p], problems.prompt_length_p[p])[1:] for p in rollouts.problem_b]
  responses = []
  for token_t, end_s in zip(rollouts.token_bt, seen.end_bs):
    end_s = end_s[end_s >= 0]
    responses.append([tuple(token_t[first:last + 1].tolist()) for first, last in zip([0, *(end_s[:-1] + 1)], end_s)])
  return seen.figures | {"commonest": watch.commonest(rollouts.problem_b, responses)} | watch.figures(
      prompts, responses, rollouts.length_b, rollouts.ended_b, rollouts.verdict_b), responses


def cost(seen: Read, arena: Arena, players: Players, n: int) -> float:
  """FLOPs of iteration n: drawing, reading by all players, and updates at three times a reading, the value function's first ones too."""
  rollouts, knobs, policy = seen.rollouts, arena.knobs, players.policy.network
  start_b = arena.problems.prompt_length_p[rollouts.problem_b]
  whole_b = start_b + rollouts.length_b
  prompts = policy.flops(0, start_b - 1, 0)[::knobs.group].sum()
  drawn = policy.flops(start_b - 1, whole_b - 1, rollouts.length_b).sum()
  one = policy.flops(0, whole_b, rollouts.length_b).sum()
  value = policy.flops(0, whole_b, 0).sum() if knobs.baseline == "value" else 0.0
  judged = players.verifier.network.flops(0, whole_b, 0).sum() if players.verifier is not None else 0.0
  again = seen.figures.get("continuation_tokens", 0.0) * drawn / max(rollouts.length_b.sum(), 1)
  updates = knobs.updates * (one + value) + (knobs.value_warmup * value if n == 0 else 0.0)
  return float(prompts + drawn + again + 2 * one + value + judged + 3 * updates)


class Trainer:
  """One arm of RL: `step` is what training/loop.py calls."""

  def __init__(self, arena: Arena, players: Players, rows, update, update_value, alarms: watch.Alarms):
    """update, update_value (None without a value function): jitted steps; rows(n): the problems of batch n."""
    self._arena, self._players, self._update, self._update_value, self._alarms = arena, players, update, update_value, alarms
    knobs, value_params = arena.knobs, players.reference if update_value is not None else None
    self._window = -(-knobs.watch.responses // (knobs.batch_size * knobs.group))
    self._recent = []
    for n in range(self._window):  # the start's figures, from batches like those that will be set against them
      drawn = arena.draw(players.policy, players.reference, rows(n), knobs.group, arena.seed_of(2, n))
      self._start = self._latest(*watched(read(arena, players, players.reference, value_params, drawn, n), arena), rows(n))
    self._recent = []

  @property
  def players(self) -> Players:
    """Who plays, the verifier that reads now among them."""
    return self._players

  def step(self, state: TrainState, problem_p, key) -> tuple[TrainState, dict]:
    """(the state after this iteration, its figures). UserError when the sampler and the training forward differ."""
    n, knobs, arena, value = int(state.step), self._arena.knobs, self._arena, state.opt_state.get("value")
    clock, problem_p = [time.perf_counter()], mesh_lib.fetch(problem_p)
    drawn = arena.draw(self._players.policy, state.params, problem_p, knobs.group, arena.seed_of(1, n))
    clock.append(time.perf_counter())
    seen = read(arena, self._players, state.params, value.params if value is not None else None, drawn, n)
    figures, responses = watched(seen, arena)
    figures |= {"flops": cost(seen, arena, self._players, n), "parity": _parity(seen)}
    if n % knobs.parity_every == 0 and not figures["parity"] <= knobs.parity_tolerance:
      raise UserError(f"rl: at iteration {n} the log-probabilities of sampler and training differ by {figures['parity']:.2e}, "
                      f"more than rl.parity_tolerance {knobs.parity_tolerance}")
    clock.append(time.perf_counter())
    batch = mesh_lib.put_rows(batch_of(seen, knobs), arena.mesh)
    following = state.step + 1  # now: an update takes the state's buffers
    inner = TrainState(state.step, state.params, state.opt_state["policy"])
    moves = n > 0 or value is None
    if not moves:  # or the first gradients would be those of an untrained baseline
      warmup = []
      for _ in range(knobs.value_warmup):
        value, of_value = self._update_value(value, batch, key)
        warmup.append(of_value["loss"])
      figures |= {f"value_warmup_{at}": float(loss) for at, loss in zip(("first", "last"), (warmup[:1] + warmup[-1:]))}
    cut = []  # of each update: its gradient's norm, its share of clipped ratios
    for _ in range(knobs.updates):
      inner, metrics = self._update(inner, batch if moves else batch._replace(mask_bt=0 * batch.mask_bt), key)
      cut.append((metrics["grad_norm"], metrics["ratio_clipped"]))
      if value is not None:
        value, of_value = self._update_value(value, batch, key)
        metrics |= {"value_loss": of_value["loss"]}
    figures |= {name: float(x) for name, x in metrics.items()}
    norms, ratios = np.array(cut, float).T
    figures |= {"norm_clipped": float(np.mean(norms > knobs.clip_norm)), "ratio_clipped": float(np.mean(ratios))}
    clock.append(time.perf_counter())
    figures |= dict(zip(("rollout_s", "score_s", "update_s"), np.diff(clock)))
    self._watch(n, figures, responses, problem_p)
    return TrainState(following, inner.params, {"policy": inner.opt_state} | ({} if value is None else {"value": value})), figures

  def _latest(self, figures: dict, responses: list, problem_p) -> dict[str, float]:
    """Means over the last responses, these among them; what stands in most of them is counted over all."""
    problem_b = np.repeat(problem_p, self._arena.knobs.group)
    self._recent = [*self._recent, (figures, problem_b, responses)][-self._window:]
    mean = {name: float(np.mean([f[name] for f, _, _ in self._recent])) for name in figures}
    return mean | {"commonest": watch.commonest(np.concatenate([p for _, p, _ in self._recent]),
                                                [steps for _, _, texts in self._recent for steps in texts])}

  def _watch(self, n: int, figures: dict, responses: list, problem_p):
    """Alarms once as many responses are seen as the start's figures are of."""
    knobs, latest = self._arena.knobs.watch, self._latest(figures, responses, problem_p)
    if len(self._recent) < self._window:
      return
    for line in watch.alarms({"reward": 0.0} | latest, {"reward": 0.0} | self._start, share=knobs.share, factor=knobs.factor, kl=knobs.kl):
      self._alarms.tell(n, line)

  def tell(self) -> list:
    """The last responses and their figures, for `recall` (training/loop.py's Memory)."""
    return [[figures, problem_b.tolist(), responses] for figures, problem_b, responses in self._recent]

  def recall(self, step: int, told: list | None):
    """Goes on watching where a run of so many iterations stood."""
    self._alarms.restart(step)
    self._recent = [(figures, np.array(problem_b), [[tuple(tokens) for tokens in steps] for steps in responses])
                    for figures, problem_b, responses in told or []]


def _parity(seen: Read) -> float:
  """Greatest difference between the sampler's log-probabilities and the training forward's."""
  rollouts = seen.rollouts
  drawn_bt = np.zeros_like(seen.old_bt)
  drawn_bt[seen.mask_bt > 0] = rollouts.log_prob_bt[np.arange(rollouts.log_prob_bt.shape[1]) < rollouts.length_b[:, None]]
  return float(losses.parity(seen.old_bt, drawn_bt, seen.mask_bt))
