"""Theorem 3.1, Remark 3.1, Proposition F.1 and the map of provers on random trees: config -> results."""

import numpy as np

from pav_jax.didactic import intervals
from pav_jax.didactic import trees
from pav_jax.errors import UserError


def _draw(config, rng):
  """(policy, reward_xo, Q, V, A^pi) of config.draws trees; UserError if one of them has nothing to tell apart."""
  tree = config.tree
  sizes = {"depth": tree.depth, "branching": tree.branching}
  policy = trees.draw_policy(rng, config.draws, spread=tree.spread, **sizes)
  reward_xo = trees.draw_rewards(rng, config.draws, sparsity=tree.sparsity, **sizes)
  flat = int((reward_xo.max(axis=1) == reward_xo.min(axis=1)).sum())
  if flat:
    raise UserError(f"config.tree: in {flat} of {config.draws} trees all leaves are alike: larger trees, or less sparsity")
  q, v = trees.values(policy, reward_xo)
  return policy, reward_xo, q, v, trees.advantages(q, v)


def _other(config, rng, reward_xo):
  """(A^mu, V^mu of the root) of a prover drawn by itself, more decided than the policy."""
  tree = config.tree
  mu = trees.draw_policy(rng, config.draws, spread=config.prover_spread, depth=tree.depth, branching=tree.branching)
  q, v = trees.values(mu, reward_xo)
  return trees.advantages(q, v), v[0][:, 0]


def _improvement(policy, q, a_mu, reward_xo, eta: float, alpha: float = 1.0) -> np.ndarray:
  """Of one exact step, over eta."""
  reward = [x + alpha * a for x, a in zip(q, a_mu)]
  return trees.improvement(policy, trees.step(policy, reward, eta), reward_xo) / eta


def theorem(config, _) -> dict:
  """How often one exact step improves less than Theorem 3.1 says, at every eta, for three kinds of provers."""
  rng = np.random.default_rng(config.seed)
  policy, reward_xo, q, v, a_pi = _draw(config, rng)
  a_others = {"independent": _other(config, rng, reward_xo)[0], "the policy": a_pi,
              f"best of {config.k}": trees.best_of_k(q, v, config.k)}
  rows, points = [], {}
  for prover, a_mu in a_others.items():
    readings = {"root": trees.terms(policy, a_pi, a_mu, levels=1),
                "all steps": trees.terms(policy, a_pi, a_mu, levels=config.tree.depth)}
    for eta in config.etas:
      gain_x = _improvement(policy, q, a_mu, reward_xo, eta)
      law_x = readings["all steps"].first_order()
      for reading, terms in readings.items():
        bound_x = terms.bound()
        # Ties within rounding (mu = pi at small eta) are no violation.
        under_x = gain_x < bound_x - 1e-9 - config.slack * np.abs(bound_x)
        rows.append({"prover": prover, "reading": reading, "eta": eta, "violated": intervals.shares(under_x),
                     "ratio": intervals.spread(gain_x / bound_x, 2.5), "law_ratio": intervals.spread(gain_x / law_x, 2.5),
                     "law_off": float(np.abs(gain_x / law_x - 1).max()),
                     "negative": intervals.shares(gain_x < 0)})
      if eta == min(config.etas):
        terms = readings["all steps"]
        points[prover] = {name: [round(float(x), 6) for x in value[:config.points]] for name, value in (
            ("gain", gain_x), ("bound", terms.bound()), ("law", law_x))}
  return {"rows": rows, "points": points, "eta_of_points": min(config.etas)}


def best_of_k(config, _) -> dict:
  """Remark 3.1: distinguishability and alignment of best-of-k over those of k = 1, for Q^pi small and large."""
  rng = np.random.default_rng(config.seed)
  policy, reward_xo, *_ = _draw(config, rng)
  rows = []
  for scale in config.scales:
    q, v = trees.values(policy, reward_xo * scale)
    a_pi = trees.advantages(q, v)
    one = trees.terms(policy, a_pi, a_pi, levels=config.tree.depth)
    base_x = _improvement(policy, q, a_pi, reward_xo * scale, config.eta, 0.0)
    for k in config.ks:
      a_mu = trees.best_of_k(q, v, k)
      many = trees.terms(policy, a_pi, a_mu, levels=config.tree.depth)
      gain_x = _improvement(policy, q, a_mu, reward_xo * scale, config.eta)
      ratios = {"distinguishability": (many.variance_mu, one.variance_pi),
                "alignment": (many.alignment, one.variance_pi), "gain": (gain_x, base_x)}
      rows.append({"scale": scale, "k": k, "mean_value": float(v[0].mean())} | {
          name: intervals.spread(x / y, 25) for name, (x, y) in ratios.items()})
  return {"rows": rows}


def proposition(config, _) -> dict:
  """Proposition F.1: improvement against (gap of the values)^2 among provers near the policy that meet its premises."""
  rng = np.random.default_rng(config.seed)
  policy, reward_xo, q, v, a_pi = _draw(config, rng)
  alone_x = _improvement(policy, q, a_pi, reward_xo, config.eta, 0.0)
  rows = []
  for width in config.distances:
    near = [trees.softmax(np.log(pi) + width * rng.standard_normal(pi.shape)) for pi in policy]
    q_mu, v_mu = trees.values(near, reward_xo)
    a_mu = trees.advantages(q_mu, v_mu)
    terms = trees.terms(policy, a_pi, a_mu, levels=config.tree.depth)
    gap_x = (v_mu[0] - v[0])[:, 0]
    apart_x = sum((d[..., None] * pi * np.abs(a - b)).sum(axis=(1, 2)) for d, pi, a, b in
                  zip(trees.visits(policy), policy, q, q_mu)) / len(policy)
    # Theta(gap): within a factor of config.factor either way.
    meets_x = ((terms.variance_pi < terms.variance_mu) & (apart_x < config.factor * np.abs(gap_x)) &
               (np.abs(gap_x) < config.factor * apart_x))
    gain_x = _improvement(policy, q, a_mu, reward_xo, config.eta)
    for side, chosen_x in (("weaker", meets_x & (gap_x < 0)), ("stronger", meets_x & (gap_x > 0))):
      if not chosen_x.any():
        rows.append({"distance": width, "side": side, "draws": 0})
        continue
      over_x = (gain_x / gap_x ** 2)[chosen_x]
      rows.append({"distance": width, "side": side, "draws": int(chosen_x.sum()),
                   "least": float(over_x.min()), "median": float(np.median(over_x)),
                   "gap": float(np.median(np.abs(gap_x[chosen_x]))), "negative": intervals.shares((gain_x < 0)[chosen_x]),
                   "helped": intervals.shares((gain_x > alone_x)[chosen_x])})
  return {"rows": rows}


def prover_map(config, _) -> dict:
  """Draws as points: distinguishability, alignment, what the prover adds to a step; who is the stronger."""
  rng = np.random.default_rng(config.seed)
  policy, reward_xo, q, v, a_pi = _draw(config, rng)
  a_mu, value_mu = _other(config, rng, reward_xo)
  terms = trees.terms(policy, a_pi, a_mu, levels=config.tree.depth)
  with_x, alone_x = (_improvement(policy, q, a_mu, reward_xo, config.eta, alpha) for alpha in (1.0, 0.0))
  value_x = v[0][:, 0]
  weaker_x = (value_mu < value_x) & (value_x > np.quantile(value_x, config.strong))
  extra_x = with_x - alone_x
  if not weaker_x.any():
    raise UserError(f"config.strong {config.strong}: no prover is weaker than a policy above this quantile; more draws")
  correlation = {name: float(np.corrcoef(x, extra_x)[0, 1]) for name, x in (
      ("distinguishability", terms.variance_mu), ("alignment", terms.alignment))}
  kept = slice(config.points)
  return {"draws": config.draws, "correlation with the extra gain": correlation,
          "helped": intervals.shares(extra_x > 0),
          "helped by a weaker one, strong policies": intervals.shares(extra_x[weaker_x] > 0),
          "helped by a stronger one": intervals.shares(extra_x[value_mu > value_x] > 0),
          "points": {name: [round(float(y), 6) for y in x[kept]] for name, x in (
              ("distinguishability", terms.variance_mu), ("alignment", terms.alignment), ("extra", extra_x),
              ("weaker", weaker_x))}}
