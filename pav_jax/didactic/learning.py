"""Figures 3a, 3b, 3c and the decline: config -> results, plain JSON values.

Seeds share nothing but the world: each has its own network, demonstrations and sequences; arms of one figure
start from the same SFT policies and draw with the same keys. Intervals are 95 %, over seeds, by bootstrap.
"""

import json

from etils import epath
import jax
import numpy as np

from pav_jax.didactic import intervals
from pav_jax.didactic import made as made_lib
from pav_jax.didactic import provers
from pav_jax.didactic import sequence
from pav_jax.didactic import train
from pav_jax.training import files
from pav_jax.training import metrics


def arrivals(learned: train.Learned, target: float) -> tuple[np.ndarray, np.ndarray]:
  """(iterations, came), int and bool (seeds,): the first evaluation at or over the target; the last one where none is."""
  over_ie = learned.success_ie >= target
  came_i = over_ie.any(axis=1)
  return np.where(came_i, learned.iteration_e[over_ie.argmax(axis=1)], learned.iteration_e[-1]), came_i


class Kept:
  """Rows of a figure as they come, a JSON line each: an interrupted figure goes on after its last whole arm."""

  def __init__(self, path: epath.Path):
    self._path = path
    self._rows = metrics.read_curves(path, key=None)

  def row(self, make, **name) -> dict:
    """The row of that name, its rest made by make(**name) if it is not there."""
    for row in self._rows:
      if name.items() <= row.items():
        return row
    self._rows.append(name | make(**name))
    files.write(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))
    return self._rows[-1]


class _Study:
  """What the figures of one config share: world, network, SFT policies, keys."""

  def __init__(self, config):
    self.config = config
    self.world = sequence.World(**config.world)
    self.made = made_lib.Made(length=config.world.length, vocabulary=config.world.vocabulary, **config.policy)
    key = jax.random.key(config.seed)
    self.at_sft_i, self.at_rl_i, self.at_test_i = jax.random.split(key, (3, config.seeds))
    sft = config.sft.to_dict()
    teacher_jv = sequence.procedural(self.world, sft.pop("gamma"))
    self.params_i = train.sft(self.made, self.world, teacher_jv, self.at_sft_i, **sft)

  def arm(self, *, gamma: float, alpha: float, optimizer: str, what: str, eos_ends: bool = True, reading: str = "exact",
          amount: float = 0.0, **changed) -> train.Learned:
    """One run of RL on all seeds; eos_ends, reading, amount: see `changes`; changed: fields of train.Rl."""
    config, world = self.config, self.world._replace(eos_ends=self.world.eos_ends and eos_ends)
    value_izj = np.stack([provers.table(world, gamma, reading=reading, amount=amount, seed=config.seed * 1000 + i)
                          for i in range(config.seeds)])
    knobs = config.rl.to_dict()
    rl = train.Rl(**{"optimizer": optimizer, **knobs, "learning_rate": knobs["learning_rate"][optimizer], **changed})
    return train.reinforce(self.made, world, self.params_i, value_izj, alpha, self.at_rl_i, rl=rl, what=what)

  def arrival(self, learned: train.Learned) -> dict:
    """What is told of an arm: when each seed came to the target (the last iteration if it did not), and its curve."""
    at_i, came_i = arrivals(learned, self.config.rl.target)
    return {"iterations": at_i.tolist(), "came": came_i.tolist(), **intervals.bootstrap(at_i),
            "iteration": learned.iteration_e.tolist(), "success": intervals.curve(learned.success_ie)}

  def chances(self, params_i) -> np.ndarray:
    """int (seeds,): right ones among config.samples sequences of each seed's policy, counted in eight parts."""
    part = self.config.samples // 8
    keys = [jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.at_test_i, n) for n in range(8)]
    share_i = sum(np.asarray(train.successes(self.made, self.world, params_i, k, part)) for k in keys)
    return np.rint(share_i * part).astype(int)


ARMS = ("effective", "outcome", "weighed")


def effective_reward(config, kept: Kept) -> dict:
  """Figure 3a. config.arms are arm/optimizer: effective (A^mu of gamma), outcome (alpha 0), weighed (alpha 0, a better Q^pi)."""
  study = _Study(config)
  weighed = {"continuations": config.continuations, "proposal": config.proposal, "iterations": config.cut}
  def row(arm, optimizer):
    return study.arrival(study.arm(what=f"{arm} {optimizer}", gamma=config.gamma, optimizer=optimizer,
                                   alpha=config.alpha if arm == "effective" else 0.0, **weighed if arm == "weighed" else {}))
  rows = [kept.row(row, **dict(zip(("arm", "optimizer"), run.split("/")))) for run in config.arms]
  ratios = []
  for fast in [r for r in rows if r["arm"] == "effective"]:
    for slow in [r for r in rows if (r["arm"], r["optimizer"]) == ("outcome", fast["optimizer"])]:
      both_ix = np.array([slow["iterations"], fast["iterations"]], float).T
      ratios.append({"optimizer": fast["optimizer"], "censored": not all(slow["came"] + fast["came"]),
                     **intervals.bootstrap(both_ix, lambda x: x[:, 0].mean() / x[:, 1].mean())})
  return {"rows": rows, "ratios": ratios}


def strengths(config, kept: Kept) -> dict:
  """Figure 3b: iterations to the target against the prover's strength, exact advantages."""
  study = _Study(config)
  def row(**at):
    return study.arrival(study.arm(what=f"{at['optimizer']} {at['gamma']:g}", alpha=config.alpha, **at))
  return {"rows": [kept.row(row, optimizer=o, gamma=g) for o in config.optimizers for g in config.gammas]}


def changes(case: str) -> dict:
  """What is changed in a case of the decline, as arguments of _Study.arm; KeyError or ValueError if it is none.

  `rollouts 4`: every value of the prover is the mean of four outcomes, drawn anew each time. `EOS goes on`: EOS is one more
  wrong token in RL's world and in its prover's. The others are readings of provers.py, `learned` and `erring` with their amount.
  """
  alone = {"exact": {}, "EOS goes on": {"eos_ends": False}} | {r: {"reading": r} for r in ("exponent", "share", "lost")}
  if case in alone:
    return alone[case]
  name, _, amount = case.rpartition(" ")
  amount = float(amount)
  if not amount > 0 or name != "erring" and amount % 1:
    raise ValueError(f"{case!r}: {amount:g} is no such amount")
  return {"rollouts": {"mu_rollouts": int(amount)}, "learned": {"reading": "learned", "amount": amount},
          "erring": {"reading": "erring", "amount": amount}}[name]


def decline(config, kept: Kept) -> dict:
  """Success after rl.iterations against gamma, in every case that might make strong provers worse."""
  study = _Study(config)
  def row(case, gamma):
    learned = study.arm(what=f"{case}, {gamma:g}", gamma=gamma, alpha=config.alpha, optimizer=config.optimizer, **changes(case))
    last_i = learned.success_ie[:, -1]
    return {"iteration": int(learned.iteration_e[-1]), "by_seed": last_i.tolist(), **intervals.bootstrap(last_i)}
  return {"rows": [kept.row(row, case=case, gamma=gamma) for case in config.cases for gamma in config.gammas]}


def pass_at_n(config, _: Kept) -> dict:
  """Figure 3c: Pass@N of SFT and of the policies after rl.iterations of RL, averaged over seeds."""
  study = _Study(config)
  params = {"SFT": study.params_i}
  for arm, alpha in (("outcome only", 0.0), ("effective reward", config.alpha)):
    params[arm] = study.arm(gamma=config.gamma, alpha=alpha, optimizer=config.optimizer, what=arm).params
  rows = []
  for arm, params_i in params.items():
    right_i = study.chances(params_i)
    rows.append({"arm": arm, "right": right_i.tolist(), "samples": config.samples, "n": list(config.ns),
                 "success": intervals.bootstrap(right_i / config.samples),
                 "pass": intervals.curve(np.stack([_pass(right_i, config.samples, n) for n in config.ns], axis=1))})
  return {"rows": rows}


def _pass(right_i: np.ndarray, samples: int, n: int) -> np.ndarray:
  """1 - C(samples - right, n) / C(samples, n), without bias in the success rate."""
  left = np.maximum(samples - right_i[:, None] - np.arange(n), 0)
  return 1 - np.prod(left / (samples - np.arange(n)), axis=1)
