"""The rl stage: arms that differ in what they are paid, trained alike from one policy, and measured on the test problems.

Outcome alone (alpha = 0), by baseline:
  outcome         the config's, ORM-RL's; leave-one-out unless the config says otherwise
  reinforce       none
  grpo            the group's mean and deviation
  outcome_critic  the verifier at every token (`rl.critic`), which ORM-RL has not

PAV-RL, and what the prover is:
  progress        the config as it is
  self            mu = the policy that RL starts from, frozen, by the run's own verifier of Q: the network that best-of-K reads, too
  oracle          the demonstrator's exact values in the verifier's place, on `arithmetic`
  random          advantages of the same size, dealt at random; with `rl.critic` its baseline is outcome_critic's
  vine            mu = the current policy: its own advantages, by Monte Carlo
  renewed         progress, whose verifier learns anew from the current policy every `renew_every` iterations (renewal.py)
  uncertain       progress on tokens that the policy was not certain of (advantages.uncertain; SPO)
  shaping         future advantages summed
  value           Q^mu in place of A^mu (App. G's control)

A @NAME behind the arm's name gives it a prover of its own: mu is the policy whose verifier of Q stands at `rl.provers.NAME`, and its
Q^mu is taken as it is. Q^pi, as the critic, stays `rl.verifier`'s. progress@good is PAV-RL by the prover `good`.

Neighbours, as we read them (credit.py has their equations); the last two ask no verifier:
  min_form        the least of the advantages to come in place of A^mu (PURE)
  first_error     reward up to the first error (VPPO)
  implicit        of a reward model that learns from outcomes while the policy does (PRIME)
  answer_probability  what a step adds to the probability of the reference's answer, were it given now (GRPO-VPS; belief.py)

  1. RFT (rft.py) if `rl.init_from` is "rft"; each arm from it, from the SFT policy
     ("sft") or from a checkpoint by path (reinforce.py), once for each of `rl.seeds`, which order its problems and
     draw its responses: the same for all arms.
  2. `eval_samples` responses of the SFT and RFT policies and of each arm's best
     (by accuracy on validation problems, at temperature 1) to the test problems, graded.
"""

import functools
from typing import NamedTuple

from etils import epath
import jax
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.models import network as network_lib
from pav_jax.policy import advantages
from pav_jax.policy import belief
from pav_jax.policy import credit
from pav_jax.policy import lookout
from pav_jax.policy import losses
from pav_jax.policy import provers
from pav_jax.policy import reading
from pav_jax.policy import reinforce
from pav_jax.policy import renewal
from pav_jax.policy import rft
from pav_jax.policy import watch
from pav_jax.problems import mixture
from pav_jax.problems import prepare
from pav_jax.problems import prepared
from pav_jax.training import files
from pav_jax.training import fit
from pav_jax.training import loop
from pav_jax.training import mesh as mesh_lib
from pav_jax.training import metrics
from pav_jax.training import state as state_lib
from pav_jax.training.run import Run
from pav_jax.training.run import epoch_rows
from pav_jax.verifiers import process
from pav_jax.verifiers import targets

ARMS = {
    "outcome": {"alpha": 0.0, "critic": False}, "reinforce": {"alpha": 0.0, "critic": False, "baseline": "none"},
    "grpo": {"alpha": 0.0, "critic": False, "baseline": "group"}, "outcome_critic": {"alpha": 0.0, "critic": True},
    "progress": {}, "self": {"prover": "q"}, "oracle": {"prover": "exact"}, "random": {"prover": "random"},
    "vine": {"prover": "monte_carlo", "critic": False}, "uncertain": {"uncertain": True}, "shaping": {"reward": "shaping"},
    "value": {"reward": "value"}, "min_form": {"reward": "min_form"},
    # Methods in which the outcome and the process weigh the same.
    "first_error": {"reward": "first_error", "prover": "q", "alpha": 1.0},
    "implicit": {"reward": "implicit", "alpha": 1.0, "critic": False, "baseline": "leave_one_out"},
    "answer_probability": {"prover": "answer", "critic": False}, "renewed": {}}


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the rl section, or names what is not there; root: the workdir, if there is one."""
  knobs = config.rl
  fit.check(knobs, "config.rl")
  for name, split in (("num_problems", "train"), ("eval_problems", "validation"), ("test_problems", "test")):
    prepare.check_count(config, root, "config.rl", name, split)
  errors.at_least(1, knobs, "config.rl", "eval_n", "rows")
  errors.at_least(1, knobs.watch, "config.rl.watch", "responses", "factor")
  errors.at_least(0, knobs.watch, "config.rl.watch", "kl")
  errors.at_least(0, knobs, "config.rl", "value_warmup", "clip_ratio", "kl", "alpha", "entropy")
  errors.at_least(0, knobs.min_form, "config.rl.min_form", "temperature")
  errors.at_least(0, knobs.first_error, "config.rl.first_error", "min_q", "min_ratio")
  for section, where, names in ((knobs, "config.rl", ("clip", "value_lr", "certain")),
                                (knobs.implicit, "config.rl.implicit", ("beta", "lr", "discount"))):
    for name in names:
      if not section[name] > 0:
        raise UserError(f"{where}.{name} {section[name]} is not above 0")
  for name, share in (("certain", knobs.certain), ("implicit.discount", knobs.implicit.discount)):
    if share > 1:
      raise UserError(f"config.rl.{name} {share} is more than 1")
  if min(knobs.seeds, default=0) < 0:
    raise UserError(f"config.rl.seeds {tuple(knobs.seeds)}: none is negative")
  if knobs.init_from not in ("sft", "rft"):
    architecture.check_checkpoint(knobs.init_from, "config.rl.init_from", root)
  elif knobs.init_from == "rft":
    rft.check(config, root)
  published = {"gsm8k", "gsm8k_notes", "math", "math_prm800k"} & set(mixture.rates(config.problems.train))
  if published and (knobs.prover == "exact" or "oracle" in knobs.arms):
    raise UserError(f"config.rl: prover 'exact' (arm oracle) needs arithmetic problems, not {', '.join(sorted(published))}")
  lookout.check(config, root)
  renewal.check(config)
  kind = process.check(knobs.verifier, "config.rl.verifier", config.verifier.kinds, (*targets.VALUES, *targets.VERDICTS), root)
  grading.check(config.grading)
  for name, allowed in (("reward", credit.REWARDS), ("baseline", advantages.BASELINES), ("prover", provers.PROVERS),
                        ("kl_as", ("loss", "penalty"))):
    if knobs[name] not in allowed:
      raise UserError(f"rl.{name} {knobs[name]!r} is none of {', '.join(allowed)}")
  if not knobs.init_from:
    raise UserError("rl.init_from is empty: 'sft', 'rft' or a checkpoint's path")
  for name, path in knobs.provers.items():
    if path:
      process.check(path, f"config.rl.provers.{name}", config.verifier.kinds, targets.VALUES, root)
  for name in ("lr_factor", "kl_factor"):
    for key in knobs[name]:
      if "@" in key and key.partition("@")[2] not in knobs.provers:
        raise UserError(f"rl.{name}.{key}: no prover {key.partition('@')[2]!r} among config.rl.provers: {', '.join(knobs.provers)}")
  for arm in knobs.arms:
    base, _, prover = arm.partition("@")
    if base not in ARMS:
      raise UserError(f"rl.arms: {base!r} is none of {', '.join(ARMS)}")
    for name in ("lr_factor", "kl_factor"):
      if not factor(knobs, name, arm) > 0:
        raise UserError(f"rl.{name}.{arm} is {factor(knobs, name, arm)}, not above 0")
    if prover or arm.endswith("@"):
      check_prover(config, arm)
  check_kind(knobs, kind)
  if knobs.log_every != 1:
    raise UserError(f"rl.log_every is {knobs.log_every}: the report adds up what every iteration cost, so it is 1")
  for name in ("group", "updates", "batch_size", "parity_every", "eval_samples", "share", "n_mc", "prover_k"):
    if knobs[name] < 1:
      raise UserError(f"rl.{name} {knobs[name]} is less than 1")
  if knobs.updates > 1 and not knobs.clip_ratio:
    raise UserError("rl.updates > 1 without rl.clip_ratio: nothing would hold the policy near the one that drew")
  for arm, of_arm in ((arm, knobs_of(knobs, arm)) for arm in knobs.arms):
    if knobs.group < 2 and (of_arm.baseline in ("leave_one_out", "group") or "reward_model" in reading.beside(of_arm)):
      raise UserError(f"rl: arm {arm} sets a problem's responses against one another (baseline {of_arm.baseline!r}): "
                      "it needs rl.group of at least 2")
  if not knobs.seeds or not knobs.arms:
    raise UserError("rl.arms and rl.seeds each need at least one")
  parts = mesh_lib.parts_of(config.mesh)
  if knobs.batch_size % parts or knobs.batch_size * knobs.group % (knobs.microbatches * parts):
    raise UserError(f"rl.batch_size {knobs.batch_size} problems of {knobs.group} responses do not divide into "
                    f"{knobs.microbatches} micro-batches over {parts} devices")


def check_prover(config, arm: str):
  """UserError for an arm with a prover of its own that cannot have one, or whose prover has no path."""
  base, _, prover = arm.partition("@")
  knobs, said = config.rl, f"rl.arms {arm!r}"
  if base in ("self", "renewed"):
    raise UserError(f"{said}: the prover of {base} is the policy itself; without @{prover}")
  if not reading.by_values(knobs_of(knobs, base)):
    raise UserError(f"{said}: {base} is paid nothing that a prover's verifier says; without @{prover}")
  if prover not in knobs.provers:
    raise UserError(f"{said}: no prover {prover!r} among config.rl.provers: {', '.join(knobs.provers)}")
  if not knobs.provers[prover]:
    raise UserError(f"{said}: config.rl.provers.{prover} is empty: the path of a verifier of its Q")


def check_kind(knobs, kind: str):
  """UserError for an arm that asks of a verifier of this kind what it does not say (verifiers/process.py)."""
  for arm in knobs.arms if kind not in ("", "q") else ():
    of_arm, who = knobs_of(knobs, arm), f"config.rl: arm {arm} with rl.verifier of kind {kind}"
    if of_arm.baseline == "critic":
      raise UserError(f"{who}: rl.critic takes Q^pi at every token off the reward, which only kind q says: critic=False")
    pays = reading.by_values(of_arm) and "@" not in arm
    if pays and kind in targets.VERDICTS and (of_arm.prover != "q" or of_arm.reward != "value"):
      raise UserError(f"{who}: a verdict on a step is no value, so there is no advantage of it and no best-of-K: rl.reward=value "
                      "and rl.prover=q pay each step its verdict")


def run_stage(run: Run):
  """rl: problems, sft, rollouts, verifier -> rft/, rl/<arm>/<seed>, rl/."""
  knobs = run.config.rl
  if any(of_arm.alpha and of_arm.prover == "answer" for of_arm in (knobs_of(knobs, arm) for arm in knobs.arms)):
    belief.lines(prepared.read(run.folder("problems/train"), knobs.num_problems), prepared.vocabulary(run.folder("problems/train")))
  if knobs.init_from == "rft":
    rft.run_stage(run)
  folder, done = run.start(
      "rl", sections=["policy", "rl", "grading", "rollouts.max_new", "monte_carlo.max_steps"],
      inputs=["problems/train", "problems/validation", "problems/test", "sft"] + ["rft"] * (knobs.init_from == "rft")
      + ["verifier"] * (not knobs.verifier or knobs.verifier in targets.KINDS), way_on="rl.init_from={}/ARM/SEED/best")
  if done:
    return
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  train = prepared.read(run.folder("problems/train"), knobs.num_problems)
  own = knobs.init_from in ("sft", "rft")
  start = run.folder(knobs.init_from).path / "best" if own else files.path(knobs.init_from)
  paths = {"sft": run.folder("sft").path / "best", knobs.init_from if own else "start": start}
  with grading.Grader(run.config.grading.workers, run.config.grading.timeout_s) as grader:
    arena = lambda problems, knobs, seed: reading.Arena(
        problems, vocabulary, grader, run.mesh, run.config, knobs, (run.config.seed, seed))
    arch, reference = architecture.restore(str(start), run.config.policy, vocabulary, run.mesh)
    *verifier, kind = process.restore(process.path_of(knobs.verifier, run.root), run.config.verifier.model, vocabulary, run.mesh,
                                      (*targets.VALUES, *targets.VERDICTS))
    check_kind(knobs, kind)
    provers = functools.cache(lambda name: process.restore(
        process.path_of(knobs.provers[name], run.root), run.config.verifier.model, vocabulary, run.mesh, targets.VALUES)[:2])
    learners = functools.cache(lambda lr, kl, beside: learners_of(knobs, arch.network, run.mesh, peak_lr=lr, kl=kl, beside=beside))
    renews = functools.cache(lambda: renewal.learner(run.config, verifier[0], run.mesh))
    facts, validation = {}, prepared.read(run.folder("problems/validation"), knobs.eval_problems)
    watched = knobs.watch_prover and lookout.begin(prepared.read(run.folder("problems/validation"), knobs.watch_prover), vocabulary, run.config)
    for seed in knobs.seeds:
      for arm in knobs.arms:
        of_arm = knobs_of(knobs, arm)
        prover = arm.partition("@")[2]
        asked = verifier if reading.asks_verifier(of_arm, bool(prover)) else (None, None)
        name, players = f"{arm}/{seed}", reading.Players(arch, reference, *asked, *(provers(prover) if prover else ()))
        facts[name] = train_arm(run, name, folder.path / name, arena(train, of_arm, seed), arena(validation, of_arm, seed),
                                players, learners(of_arm.peak_lr, of_arm.kl, reading.beside(of_arm)), watched,
                                renews() if arm == "renewed" else None)
        paths[name] = folder.path / name / "best"
    test = arena(prepared.read(run.folder("problems/test"), knobs.test_problems), knobs, 0)
    measure(run, folder, test, paths)
  folder.finish(len(paths), {"policies": list(paths), "training": facts})


def knobs_of(knobs, arm: str):
  """The rl section as the arm has it, tuned; its baseline is "critic" where the verifier takes the baseline's place."""
  base, _, prover = arm.partition("@")
  found = knobs.copy_and_resolve_references()
  found.update(ARMS[base])
  if prover:
    found.prover_k = 1  # best-of-1: its Q as it is
  found.peak_lr, found.kl = factor(knobs, "lr_factor", arm) * knobs.peak_lr, factor(knobs, "kl_factor", arm) * knobs.kl
  if found.critic:
    found.baseline = "critic"
  return found


def factor(knobs, name: str, arm: str) -> float:
  """The arm's own of `rl.lr_factor` or `rl.kl_factor`; an arm with a prover of its own has, where it is not named, that of the arm without."""
  return knobs[name].get(arm, knobs[name][arm.partition("@")[0]])


class Learners(NamedTuple):
  """What trains the policy, and what is learnt beside it (reading.beside): one compilation for all arms that agree in `learners_of`."""

  policy: fit.Learner
  beside: dict[str, fit.Learner]


def learners_of(knobs, network: network_lib.Network, mesh, *, peak_lr: float, kl: float, beside: tuple[str, ...]) -> Learners:
  """What the rl section asks for, with the arm's own learning rate of the policy, KL, and what it learns beside the policy."""
  def learner(loss_fn, **schedule):
    section = knobs.copy_and_resolve_references()
    section.update(schedule)
    return fit.learner(section, mesh, init=network.init, patterns=architecture.SHARDING, loss_fn=loss_fn)
  steps, warmup = knobs.num_steps * knobs.updates, knobs.warmup_steps * knobs.updates
  policy_loss = losses.policy_loss(network, clip_ratio=knobs.clip_ratio, kl=kl if knobs.kl_as == "loss" else 0.0)
  learners = {
      # No warm-up of the rate: the first steps are the ones in which it is to learn, while the policy waits.
      "value": lambda: learner(losses.value_loss(network), peak_lr=knobs.value_lr, num_steps=steps + knobs.value_warmup, warmup_steps=0),
      "reward_model": lambda: learner(losses.reward_model_loss(network, knobs.implicit.beta), peak_lr=knobs.implicit.lr,
                                      num_steps=steps, warmup_steps=warmup)}
  return Learners(learner(policy_loss, peak_lr=peak_lr, num_steps=steps, warmup_steps=warmup), {name: learners[name]() for name in beside})


def train_arm(run: Run, name: str, path: epath.Path, arena, validation, players: reading.Players, learners: Learners,
              watched: lookout.Lookout | None, renews: fit.Learner | None) -> dict:
  """Trains one arm with one seed; the loop's answer: best validation loss (1 - accuracy) and when. watched: where its prover is looked
  at, if anywhere; renews: by what it is made anew, None where it stays."""
  knobs, arch, reference = arena.knobs, players.policy, players.reference
  key = jax.random.key(run.config.seed)  # nothing is drawn from it: parameters are given, losses exact
  born = lambda tx, params: state_lib.create(arch.network.init, tx, key, run.mesh, architecture.SHARDING, params)
  state = born(learners.policy.tx, reference)
  starts = {"value": arch.silent, "reward_model": lambda params: params}
  learnt = {name: born(learner.tx, starts[name](reference)) for name, learner in learners.beside.items()}
  state = state._replace(opt_state={"policy": state.opt_state} | learnt)
  if renews is not None:
    state = state._replace(opt_state=state.opt_state | {"verifier": players.verifier_params})
  rows = epoch_rows(len(arena.problems.id_p), knobs.batch_size, arena.seed_of(7))
  alarms = watch.Alarms(path / "alarms.jsonl", f"rl {name}")
  kind = reinforce.Trainer if renews is None else functools.partial(renewal.Trainer, renews, name)
  trainer = kind(arena, players, lambda n: rows(n).astype(np.int32), learners.policy.step,
                 {name: learner.step for name, learner in learners.beside.items()}, alarms)
  def evaluate(params):
    found = validate(validation, arch, params)
    return found | lookout.figures(watched, arch, params, trainer.players, knobs, run.mesh) if watched else found
  found = loop.train(
      state, trainer.step, lambda n: rows(n).astype(np.int32), key, num_steps=knobs.num_steps,
      evaluate=evaluate, eval_every=knobs.eval_every, save_every=knobs.save_every,
      keep=knobs.keep, log_every=knobs.log_every, path=path, meta=arch.meta("policy"), mesh=run.mesh, what=f"rl {name}", memory=trainer)
  return found | {"alarms": alarms.count}


def validate(arena, arch, params) -> dict[str, float]:
  """On the arena's problems: accuracy of eval_n responses at temperature 1 (as a loss, 1 - accuracy), their Pass@eval_n, greedy."""
  knobs, problem_p = arena.knobs, np.arange(len(arena.problems.id_p), dtype=np.int32)
  right = lambda rollouts: (rollouts.verdict_b == grading.Verdict.CORRECT).reshape(len(problem_p), -1)
  greedy = right(arena.draw(arch, params, problem_p, 1, 0, greedy=True)).mean()
  drawn_pn = right(arena.draw(arch, params, problem_p, knobs.eval_n, arena.seed_of(4)))
  return {"loss": float(1 - drawn_pn.mean()), "accuracy": float(drawn_pn.mean()), "greedy": float(greedy),
          f"pass_at_{knobs.eval_n}": float(drawn_pn.any(axis=1).mean())}


def measure(run: Run, folder, arena, paths: dict[str, epath.Path]):
  """A shard for every policy: greedy_p and right_pn of the test problems."""
  problem_p = np.arange(len(arena.problems.id_p), dtype=np.int32)
  n = arena.knobs.eval_samples
  with metrics.progress(what="rl test", unit="response", total=len(paths) * len(problem_p) * (n + 1)) as bar:
    for shard, path in enumerate(paths.values()):
      if folder.has_shard(shard):
        bar.update(len(problem_p) * (n + 1))
        continue
      arch, params = architecture.restore(str(path), run.config.policy, arena.vocabulary, run.mesh)
      right = lambda rollouts: (rollouts.verdict_b == grading.Verdict.CORRECT).reshape(len(problem_p), -1)
      greedy_p = right(arena.draw(arch, params, problem_p, 1, 0, greedy=True, bar=bar))[:, 0]
      right_pn = right(arena.draw(arch, params, problem_p, n, arena.seed_of(6), bar=bar))
      folder.write_shard(shard, {"policy_p": np.full(len(problem_p), shard, np.int32), "problem_p": problem_p,
                                 "greedy_p": greedy_p, "right_pn": right_pn}, {"responses": right_pn.size})
