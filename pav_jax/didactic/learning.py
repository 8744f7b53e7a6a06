"""Figures 3a, 3b, 3c and the decline: config -> results, plain JSON values.

Seeds share nothing but the world: each has its own network, demonstrations and sequences; arms of one figure
start from the same SFT policies and draw with the same keys. Intervals are 95 %, over seeds, by bootstrap.
"""

import json

from etils import epath
import jax
import numpy as np

from pav_jax.didactic import made as made_lib
from pav_jax.didactic import provers
from pav_jax.didactic import sequence
from pav_jax.didactic import train
from pav_jax.training import files
from pav_jax.training import metrics


def bootstrap(value_i: np.ndarray, statistic=np.mean, draws: int = 2000) -> tuple[float, float, float]:
  """(statistic, low, high): 2.5 and 97.5 percentiles over resampled seeds; value_i (seeds, ...)."""
  rng = np.random.default_rng(0)
  found = [statistic(value_i[rng.integers(0, len(value_i), len(value_i))]) for _ in range(draws)]
  return (float(statistic(value_i)), *map(float, np.percentile(found, [2.5, 97.5])))


def curve(value_ie: np.ndarray, draws: int = 2000) -> dict:
  """Mean over seeds and its interval at every point: lists mean, low, high."""
  rng = np.random.default_rng(0)
  count = len(value_ie)
  mean_xe = rng.multinomial(count, np.full(count, 1 / count), size=draws) / count @ value_ie
  low, high = np.percentile(mean_xe, [2.5, 97.5], axis=0)
  return {name: [round(float(v), 5) for v in x] for name, x in
          (("mean", value_ie.mean(axis=0)), ("low", low), ("high", high))}


def arrivals(learned: train.Learned, target: float) -> np.ndarray:
  """int (seeds,): the first evaluation at or over the target; -1 for a seed that never came there."""
  over_ie = learned.success_ie >= target
  return np.where(over_ie.any(axis=1), learned.iteration_e[over_ie.argmax(axis=1)], -1)


class Kept:
  """Rows of a figure as they come, a JSON line each: an interrupted figure goes on after its last whole arm."""

  def __init__(self, path: epath.Path):
    self._path = path
    self._rows = metrics.read_curves(path, key=None)

  def row(self, make, **name) -> dict:
    """The row of that name, made by make() if it is not there."""
    for row in self._rows:
      if name.items() <= row.items():
        return row
    self._rows.append(make())
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

  def arm(self, *, gamma: float, alpha: float, optimizer: str, what: str, mu_rollouts: int = 0, pi_rollouts: int = 0,
          eos_ends: bool = True, reading: str = "exact", target: float | None = None,
          iterations: int | None = None) -> train.Learned:
    """One run of RL on all seeds. eos_ends false: RL's world (and its prover's) goes on after EOS.

    target, iterations: others than the config's.
    """
    config, world = self.config, self.world._replace(eos_ends=self.world.eos_ends and eos_ends)
    altered = config.provers if "provers" in config else {"sequences": 0, "sigma": 0.0}
    value_izj = np.stack([provers.table(world, gamma, reading=reading, seed=config.seed * 1000 + i, **altered)
                          for i in range(config.seeds)])
    knobs = config.rl.to_dict()
    rl = train.Rl(optimizer=optimizer, mu_rollouts=mu_rollouts, pi_rollouts=pi_rollouts,
                  **knobs | {"learning_rate": knobs["learning_rate"][optimizer],
                             "target": knobs["target"] if target is None else target,
                             "iterations": knobs["iterations"][optimizer] if iterations is None else iterations})
    return train.reinforce(self.made, world, self.params_i, value_izj, alpha, self.at_rl_i, rl=rl, what=what)

  def row(self, kept: Kept, name: dict, **arm) -> dict:
    """The summary of one arm, run if it is not kept already."""
    what = " ".join(f"{x:g}" if isinstance(x, float) else x for x in name.values())
    return kept.row(lambda: self.summary(self.arm(what=what, **arm), **name), **name)

  def summary(self, learned: train.Learned, **name) -> dict:
    """An arm's row: when each seed came to the target, a censored one counted as the last iteration; its curve."""
    at_i = arrivals(learned, self.config.rl.target)
    held_i = np.where(at_i < 0, learned.iteration_e[-1], at_i)
    mean, low, high = bootstrap(held_i)
    return {**name, "arrived": int((at_i >= 0).sum()), "seeds": len(at_i), "iterations": at_i.tolist(),
            "mean": mean, "low": low, "high": high,
            "iteration": learned.iteration_e.tolist(), "success": curve(learned.success_ie)}

  def chances(self, params_i) -> np.ndarray:
    """int (seeds,): right ones among config.samples sequences of each seed's policy, counted in eight parts."""
    part = self.config.samples // 8
    keys = [jax.vmap(jax.random.fold_in, in_axes=(0, None))(self.at_test_i, n) for n in range(8)]
    share_i = sum(np.asarray(train.successes(self.made, self.world, params_i, k, part)) for k in keys)
    return np.rint(share_i * part).astype(int)


ARMS = ("effective", "outcome", "rollouts")


def effective_reward(config, kept: Kept) -> dict:
  """Figure 3a: arms outcome (alpha 0), effective (A^mu of gamma), and controls, under each optimizer."""
  study, rows = _Study(config), []
  for optimizer in config.optimizers:
    for arm in config.arms:
      # The nearly exact Q^pi costs many rollouts an iteration: one optimizer shows what it does.
      if arm == "rollouts" and optimizer != config.optimizers[0]:
        continue
      changes = {"rollouts": {"pi_rollouts": config.pi_rollouts, "iterations": config.rollout_iterations}}.get(arm, {})
      changes |= {"gamma": config.gamma, "alpha": config.alpha if arm == "effective" else 0.0}
      rows.append(study.row(kept, {"arm": arm, "optimizer": optimizer}, optimizer=optimizer, **changes))
  ratios = []
  for optimizer in config.optimizers:
    mine = {r["arm"]: r for r in rows if r["optimizer"] == optimizer}
    for other in [a for a in mine if a != "effective"]:
      pair_ix = np.array([[at if at >= 0 else r["iteration"][-1] for at in r["iterations"]]
                          for r in (mine[other], mine["effective"])], float).T
      mean, low, high = bootstrap(pair_ix, lambda x: x[:, 0].mean() / x[:, 1].mean())
      ratios.append({"optimizer": optimizer, "slower": other, "ratio": mean, "low": low, "high": high,
                     "censored": any(r["arrived"] < r["seeds"] for r in (mine[other], mine["effective"]))})
  return {"rows": rows, "ratios": ratios}


def strengths(config, kept: Kept) -> dict:
  """Figure 3b: iterations to the target against the prover's strength, exact advantages."""
  study = _Study(config)
  return {"rows": [
      study.row(kept, {"optimizer": optimizer, "gamma": gamma}, gamma=gamma, alpha=config.alpha, optimizer=optimizer)
      for optimizer in config.optimizers for gamma in config.gammas]}


# What is changed in each case of the decline: arguments of _Study.arm.
CASES = {
    "exact": {}, "one rollout": {"mu_rollouts": 1}, "four rollouts": {"mu_rollouts": 4},
    "learned": {"reading": "learned"}, "erring": {"reading": "erring"}, "exponent": {"reading": "exponent"},
    "share": {"reading": "share"}, "lost": {"reading": "lost"}, "EOS goes on": {"eos_ends": False}}


def decline(config, kept: Kept) -> dict:
  """Iterations to the target against gamma, in every case that might make strong provers worse (provers.py)."""
  study, rows = _Study(config), []
  for case in config.cases:
    name, _, optimizer = case.partition("/")
    for gamma in config.gammas:
      rows.append(study.row(kept, {"case": name, "optimizer": optimizer, "gamma": gamma}, gamma=gamma,
                            alpha=config.alpha, optimizer=optimizer, **CASES[name]))
  return {"rows": rows}


def pass_at_n(config, _: Kept) -> dict:
  """Figure 3c: Pass@N of SFT and of the policies after config.rl.iterations of RL, averaged over seeds."""
  study = _Study(config)
  params = {"SFT": study.params_i}
  for arm, alpha in (("outcome only", 0.0), ("effective reward", config.alpha)):
    # A target that cannot be: every arm runs all its iterations.
    params[arm] = study.arm(gamma=config.gamma, alpha=alpha, optimizer=config.optimizer, what=arm, target=2.0).params
  rows = []
  for arm, params_i in params.items():
    right_i = study.chances(params_i)
    rows.append({"arm": arm, "right": right_i.tolist(), "samples": config.samples, "n": list(config.ns),
                 "success": dict(zip(("mean", "low", "high"), bootstrap(right_i / config.samples))),
                 "pass": curve(np.stack([_pass(right_i, config.samples, n) for n in config.ns], axis=1))})
  return {"rows": rows}


def _pass(right_i: np.ndarray, samples: int, n: int) -> np.ndarray:
  """1 - C(samples - right, n) / C(samples, n), without bias in the success rate."""
  left = np.maximum(samples - right_i[:, None] - np.arange(n), 0)
  return 1 - np.prod(left / (samples - np.arange(n)), axis=1)
