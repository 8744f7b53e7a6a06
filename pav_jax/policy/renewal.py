"""The arm `renewed`: a prover that is made anew while the policy improves, and with it the verifier that is its critic.

A prover that stays as it is says ever less of a policy that has moved on: the paper keeps it fixed. Before every
`rl.renew_every`-th iteration but the first

  1. the current policy draws `group` responses to each of `renew_problems` training problems, graded;
  2. `n_mc` continuations by it from every prefix label them (values/monte_carlo.label), as the labels of the verifier were made;
  3. the verifier goes on from where it stands, `renew_steps` steps with a rate that falls from `renew_lr` to 0, an
     optimiser of its own each time, by the loss and the balance of the verifier stage (verifiers/train.py);
  4. mu is the prover that the arm's knobs make of it, and so is the critic.

The verifier's parameters are carried in the TrainState; what else there is follows from them, the policy and the
iteration, so that a run that was killed goes on bit for bit. Draws, labels and steps are in the iteration's `flops`, and
the responses in its `renewal_responses`.
"""

from typing import NamedTuple

import jax
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.policy import reinforce
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics
from pav_jax.training import state as state_lib
from pav_jax.training.run import epoch_rows
from pav_jax.training.state import TrainState
from pav_jax.values import monte_carlo
from pav_jax.verifiers import targets as targets_lib
from pav_jax.verifiers import taught as taught_lib
from pav_jax.verifiers import train as verifier_train


class Rows(NamedTuple):
  """Rows as a verifier learns from them; shift_b: what their balance adds to the log-odds, the same for all."""

  rows: verifier_train.ValueBatch
  shift_b: np.ndarray


def check(config):
  """UserError for what means nothing of the knobs that only this arm reads."""
  knobs = config.rl
  errors.at_least(1, knobs, "config.rl", "renew_every", "renew_steps", "renew_problems")
  if not knobs.renew_lr > 0:
    raise UserError(f"config.rl.renew_lr {knobs.renew_lr} is not above 0")
  if "renewed" in knobs.arms and (knobs.prover not in ("best_of_k", "q") or not knobs.alpha):
    raise UserError(f"config.rl.prover {knobs.prover!r}, config.rl.alpha {knobs.alpha}: the arm renewed makes a verifier anew that it is "
                    "paid by, so best_of_k or q, and alpha above 0")


def learner(config, verifier: architecture.Architecture, mesh) -> fit.Learner:
  """What trains the verifier at a renewal; one compilation for all arms and seeds."""
  section = config.verifier.q.copy_and_resolve_references()
  section.update(dict(num_steps=config.rl.renew_steps, peak_lr=config.rl.renew_lr, warmup_steps=0))
  def loss_fn(params, batch: Rows, key):
    return verifier_train.value_loss(verifier.network, config.verifier.text_weight, batch.shift_b[0])(params, batch.rows, key)
  return fit.learner(section, mesh, init=verifier.network.init, patterns=architecture.SHARDING, loss_fn=loss_fn)


class Trainer(reinforce.Trainer):
  """Reinforce's, whose verifier is the state's: opt_state["verifier"], its parameters."""

  def __init__(self, learner: fit.Learner, name: str, *rest):
    """learner: what renews it; name: of the arm and its seed, for the bars; rest: as of reinforce's."""
    super().__init__(*rest)
    self._learner, self._name = learner, name

  def step(self, state: TrainState, problem_p, key) -> tuple[TrainState, dict]:
    """Reinforce's, after the renewal if it is time for one."""
    n, knobs, params, told = int(state.step), self._arena.knobs, state.opt_state["verifier"], {}
    if n and n % knobs.renew_every == 0:
      params, told = renewed(self._arena, self._players.policy, state.params, self._players.verifier, params, self._learner, n, self._name)
    self._players = self._players._replace(verifier_params=params)
    following, figures = super().step(state, problem_p, key)
    flops = figures["flops"] + told.pop("flops", 0.0)
    return following._replace(opt_state=following.opt_state | {"verifier": params}), figures | told | {"flops": flops}


def renewed(arena, policy: architecture.Architecture, params, verifier: architecture.Architecture, verifier_params, learner: fit.Learner,
            n: int, name: str):
  """(the verifier's parameters after the renewal before iteration n, figures of it). arena: as of the arm."""
  knobs, config, problems = arena.knobs, arena.config, arena.problems
  count = min(knobs.renew_problems, len(problems.prompt_pt))
  problem_p = np.sort(np.random.default_rng(arena.seed_of(8, n)).choice(len(problems.prompt_pt), count, replace=False)).astype(np.int32)
  rollouts = arena.draw(policy, params, problem_p, knobs.group, arena.seed_of(9, n))
  end_bz, _ = monte_carlo.prefix_ends(rollouts.token_bt, rollouts.length_b, arena.vocabulary, config.monte_carlo.max_steps)
  expected = int(monte_carlo.sampled_prefixes(rollouts, end_bz, -1).sum()) * knobs.n_mc
  with metrics.progress(what=f"rl {name}: labels", unit="continuation", total=expected, delay=5) as bar:
    values, counts = monte_carlo.label(
        policy, params, problems, rollouts, end_bz, arena.vocabulary, arena.grader, strategy=monte_carlo.Strategy(n_mc=knobs.n_mc),
        seeds_per_problem=-1, sampling=sampling_lib.Sampling(), seed=arena.seed_of(10, n), rows=knobs.rows,
        max_new=config.rollouts.max_new, mesh=arena.mesh, bar=bar)
  rows = taught(config.verifier, problems, rollouts, values)
  size, steps = config.verifier.q.batch_size, knobs.renew_steps
  of_batch, key = epoch_rows(len(rows.shift_b), size, arena.seed_of(11, n)), jax.random.key(arena.seed_of(11, n))
  # A state of its own: an update takes its buffers, and the old parameters may be another arm's, too.
  state = state_lib.create(verifier.network.init, learner.tx, key, arena.mesh, architecture.SHARDING, verifier_params)
  losses = []
  with metrics.progress(what=f"rl {name}: prover", unit="step", total=steps, delay=5) as bar:
    for i in range(steps):
      batch = jax.tree.map(lambda x, i=i: x[of_batch(i)], rows)
      state, told = learner.step(state, mesh_lib.put_rows(batch, arena.mesh), key)
      losses.append(told["value_loss"])
      bar.update()
  return state.params, {
      "renewal_responses": float(len(rollouts.length_b)), "renewal_accuracy": float(np.mean(rollouts.verdict_b == grading.Verdict.CORRECT)),
      "renewal_loss_first": float(losses[0]), "renewal_loss_last": float(losses[-1]),
      "flops": cost(arena, policy, verifier, problem_p, rollouts, counts["tokens"])}


def taught(knobs, problems, rollouts, values: monte_carlo.Values) -> Rows:
  """What the verifier stage with this section would learn from these labels as kind q, in rows of one width."""
  found = taught_lib.own("q", knobs, problems, rollouts, values)
  found = taught_lib.Taught(*(x[found.useful_b] for x in found))
  balanced = targets_lib.balance(found.target_bz, found.count_bz, knobs.balance)
  rows = verifier_train.value_rows(found, balanced.target_bz, balanced.weight_bz)
  width = -(-(problems.prompt_pt.shape[1] + rollouts.token_bt.shape[1]) // 8) * 8
  wide = lambda x_bt: np.pad(x_bt, ((0, 0), (0, width - x_bt.shape[1])))
  rows = rows._replace(token_bt=wide(rows.token_bt), text_weight_bt=wide(rows.text_weight_bt))
  return Rows(rows, np.full(len(rows.token_bt), balanced.shift, np.float32))


def cost(arena, policy, verifier, problem_p, rollouts, continuation_tokens: int) -> float:
  """FLOPs of a renewal: prompts, draws, reading the responses to continue them, continuations; and steps at three times a reading."""
  knobs, config = arena.knobs, arena.config
  start_b = arena.problems.prompt_length_p[rollouts.problem_b]
  whole_b, length_b = start_b + rollouts.length_b, rollouts.length_b
  prompts = policy.network.flops(0, arena.problems.prompt_length_p[problem_p] - 1, 0).sum()
  drawn = policy.network.flops(start_b - 1, whole_b - 1, length_b).sum()
  read = policy.network.flops(0, whole_b, 0).sum()
  text_b = length_b if config.verifier.text_weight else 0 * length_b
  row = verifier.network.flops(0, whole_b, text_b).mean()
  continued = continuation_tokens * drawn / max(length_b.sum(), 1)
  return float(prompts + drawn + read + continued + 3 * row * config.verifier.q.batch_size * knobs.renew_steps)
