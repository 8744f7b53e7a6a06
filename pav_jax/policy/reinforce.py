"""Online RL with dense rewards (section 5): outcome plus alpha times progress under a prover, Eq. 5.

  1. Iteration n takes the n-th batch of problems and draws `group` responses
     to each with the current weights, by the engine, on the same devices.
  2. They are graded, and read by all in one jitted pass (reading.py). At the first iteration and every `parity_every` the
     policy's log-probabilities must be the sampler's.
  3. Every token of step h is paid Rex + alpha A^mu, or what else `rl.reward` names (credit.py), less a baseline
     (advantages.py): a learned value function of the tokens before it as in the paper, the other responses' mean, or the
     verifier, read at every token (`rl.critic`).
  4. The policy, then the value function or the reward model where there is one, take `updates` steps (training/step.py).
     The value function begins at 0 everywhere; before the first step it learns the first batch for `value_warmup` steps,
     at its full rate, and the policy does not move in that iteration. The reward model (PRIME's) begins as the initial
     policy, so that it pays nothing at first; it pays for a batch before it learns from it.
  5. Responses are watched for hacking (watch.py).

The loop is training/loop.py's: every `eval_every` iterations accuracy on
validation problems, Pass@N and greedy; the best by accuracy is kept. All
that is carried lies in one TrainState, the whole state of what is learnt beside the policy
next to its optimiser; the rest is a function of n, so that a run that was
killed gives the same parameters as one that was not.

Deviation: gradients are means over responses, not sums over a batch. Adam takes no notice of a constant factor, as long as
no norm is clipped before it: `clip_norm` is inf here. A bound on the norm would be another step for another alpha, since
rewards of progress make gradients longer: arms would differ in more than what they are paid. `norm_clipped` in the curves is
the share of updates that a bound has cut.
"""

import time
from collections.abc import Callable

import numpy as np

from pav_jax.errors import UserError
from pav_jax.policy import advantages
from pav_jax.policy import losses
from pav_jax.policy import reading
from pav_jax.policy import watch
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.state import TrainState


def batch_of(seen: reading.Read, knobs) -> losses.RolloutBatch:
  """Step 3's end: rewards less the baseline, where `rl.uncertain` asks for it on uncertain tokens alone, and the penalties."""
  advantage_bt = seen.own_bt + advantages.centred(seen.reward_bt, seen.mask_bt, seen.value_bt, baseline=knobs.baseline, group=knobs.group)
  if knobs.uncertain:
    advantage_bt = advantages.uncertain(advantage_bt, seen.old_bt, knobs.certain)
  advantage_bt = losses.penalised(advantage_bt, seen.mask_bt, seen.old_bt, seen.reference_bt,
                                  kl=knobs.kl if knobs.kl_as == "penalty" else 0.0, entropy=knobs.entropy)
  return losses.RolloutBatch(seen.token_bt, seen.mask_bt, advantage_bt.astype(np.float32), seen.reward_bt, seen.old_bt,
                             seen.reference_bt)


def watched(seen: reading.Read, arena: reading.Arena) -> tuple[dict[str, float], list]:
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


class Trainer:
  """One arm of RL: `step` is what training/loop.py calls."""

  def __init__(self, arena: reading.Arena, players: reading.Players, rows, update, updates: dict[str, Callable], alarms: watch.Alarms):
    """update: the policy's jitted step; updates: of what is learnt beside it (reading.beside); rows(n): the problems of batch n."""
    self._arena, self._players, self._update, self._updates, self._alarms = arena, players, update, updates, alarms
    knobs, learnt = arena.knobs, dict.fromkeys(updates, players.reference)
    self._window = -(-knobs.watch.responses // (knobs.batch_size * knobs.group))
    self._recent = []
    for n in range(self._window):  # the start's figures, from batches like those that will be set against them
      drawn = arena.draw(players.policy, players.reference, rows(n), knobs.group, arena.seed_of(2, n))
      self._start = self._latest(*watched(reading.read(arena, players, players.reference, learnt, drawn, n), arena), rows(n))
    self._recent = []

  @property
  def players(self) -> reading.Players:
    """Who plays, the verifier that reads now among them."""
    return self._players

  def step(self, state: TrainState, problem_p, key) -> tuple[TrainState, dict]:
    """(the state after this iteration, its figures). UserError when the sampler and the training forward differ."""
    n, knobs, arena, learnt = int(state.step), self._arena.knobs, self._arena, {name: state.opt_state[name] for name in self._updates}
    clock, problem_p = [time.perf_counter()], mesh_lib.fetch(problem_p)
    drawn = arena.draw(self._players.policy, state.params, problem_p, knobs.group, arena.seed_of(1, n))
    clock.append(time.perf_counter())
    seen = reading.read(arena, self._players, state.params, {name: x.params for name, x in learnt.items()}, drawn, n)
    figures, responses = watched(seen, arena)
    figures |= {"flops": reading.cost(seen, arena, self._players, n), "parity": reading.parity(seen)}
    if n % knobs.parity_every == 0 and not figures["parity"] <= knobs.parity_tolerance:
      raise UserError(f"rl: at iteration {n} the log-probabilities of sampler and training differ by {figures['parity']:.2e}, "
                      f"more than rl.parity_tolerance {knobs.parity_tolerance}")
    clock.append(time.perf_counter())
    batch = mesh_lib.put_rows(batch_of(seen, knobs), arena.mesh)
    following = state.step + 1  # now: an update takes the state's buffers
    inner = TrainState(state.step, state.params, state.opt_state["policy"])
    moves = n > 0 or "value" not in learnt
    if not moves:  # or the first gradients would be those of an untrained baseline
      warmup = []
      for _ in range(knobs.value_warmup):
        learnt["value"], of_value = self._updates["value"](learnt["value"], batch, key)
        warmup.append(of_value["loss"])
      figures |= {f"value_warmup_{at}": float(loss) for at, loss in zip(("first", "last"), (warmup[:1] + warmup[-1:]))}
    cut = []  # of each update: its gradient's norm, its share of clipped ratios
    for _ in range(knobs.updates):
      inner, metrics = self._update(inner, batch if moves else batch._replace(mask_bt=0 * batch.mask_bt), key)
      cut.append((metrics["grad_norm"], metrics["ratio_clipped"]))
      for name, update in self._updates.items():
        learnt[name], told = update(learnt[name], batch, key)
        metrics |= {f"{name}_loss": told["loss"]}
    figures |= {name: float(x) for name, x in metrics.items()}
    norms, ratios = np.array(cut, float).T
    figures |= {"norm_clipped": float(np.mean(norms > knobs.clip_norm)), "ratio_clipped": float(np.mean(ratios))}
    clock.append(time.perf_counter())
    figures |= dict(zip(("rollout_s", "score_s", "update_s"), np.diff(clock)))
    self._watch(n, figures, responses, problem_p)
    return TrainState(following, inner.params, {"policy": inner.opt_state} | learnt), figures

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
