"""Results -> which claims hold: a bool each, so that runs of other seeds can be compared by `diff`.

One figure is above another if their 95 % intervals do not touch. A claim that the paper makes and the results do not
bear out stands here as False.
"""

from pav_jax.didactic import numbers


def _above(one: dict, other: dict) -> bool:
  return one["low"] > other["high"]


def _best(rows: list[dict]) -> dict:
  return max(rows, key=lambda r: r["mean"] if "mean" in r else r["share"])


def _where(rows: list[dict], **at) -> list[dict]:
  return [r for r in rows if at.items() <= r.items()]


def _fig3a(results):
  ratio = {r["optimizer"]: r for r in results["ratios"]}
  for optimizer, r in ratio.items():
    yield f"{optimizer}: the effective reward is faster than the outcome", r["low"] > 1
  if {"sgd", "adam"} <= ratio.keys():
    yield "the gain is larger under SGD than under Adam", _above(ratio["sgd"], ratio["adam"])
  early = {r["arm"]: numbers.after(r, 100) for r in _where(results["rows"], optimizer="adam")}
  if {"effective", "outcome", "weighed"} <= early.keys():
    yield "adam, after 100 iterations: a better Q^pi alone is above the outcome", _above(early["weighed"], early["outcome"])
    yield "adam, after 100 iterations: the effective reward is above a better Q^pi", _above(early["effective"], early["weighed"])


def _fig3b(results):
  for optimizer in dict.fromkeys(r["optimizer"] for r in results["rows"]):
    rows = sorted(_where(results["rows"], optimizer=optimizer), key=lambda r: r["gamma"])
    fastest = min(rows, key=lambda r: r["mean"])
    yield f"{optimizer}: the weakest prover is slower than the best", _above(rows[0], fastest)
    yield f"{optimizer}: the strongest prover is slower than the best", _above(rows[-1], fastest)


def _fig3c(results):
  sft, outcome, effective = (r["pass"] for r in results["rows"])
  over = lambda one, other: all(low > high for low, high in zip(one["low"], other["high"]) if low < 1)
  yield "effective reward above outcome only, at every N under 1", over(effective, outcome)
  yield "outcome only above SFT, at every N", over(outcome, sft)


def _decline(results):
  for case in dict.fromkeys(r["case"] for r in results["rows"]):
    rows = sorted(_where(results["rows"], case=case), key=lambda r: r["gamma"])
    yield f"{case}: the strongest prover is worse than the best", _above(_best(rows), rows[-1])


def _search(results):
  rows, kinds = results["rows"], list(dict.fromkeys(r["rollouts"] for r in results["rows"]))
  by_width = lambda kind, alpha: sorted(_where(rows, sweep="width", rollouts=kind, alpha=alpha), key=lambda r: r["width"])
  for kind in kinds:
    known = f"{kind} rollouts" if kind else "exact values"
    q, both = by_width(kind, 0.0), by_width(kind, results["alpha"])
    yield f"{known}: the beam by Q is above best-of-N of equal tokens at every width", all(
        r["low"] > b["share"] for r, b in zip(q, results["best_of_n"]))
    yield f"{known}: Q + A is above Q at every width", all(map(_above, both, q))
    if 2 * kind in kinds and kind:
      yield f"{known} for Q and for A are above {2 * kind} for Q alone at every width", all(
          map(_above, both, by_width(2 * kind, 0.0)))
    gammas = sorted(_where(rows, sweep="gamma", rollouts=kind), key=lambda r: r["gamma"])
    yield f"{known}: the weakest prover is worse than the best", _above(_best(gammas), gammas[0])
    yield f"{known}: the strongest prover is worse than the best", _above(_best(gammas), gammas[-1])


def _theorem(results):
  rows, eta = results["rows"], results["eta_of_points"]
  for r in _where(rows, eta=eta):
    yield f"{r['prover']}, {r['reading']}: the printed bound holds in every draw at the least eta", r["violated"]["share"] == 0
  yield "the first-order law holds within 1 % in every draw at the least eta", all(
      r["law_off"] < 0.01 for r in _where(rows, eta=eta))


def _best_of_k(results):
  for r in results["rows"]:
    if r["k"] > 1 and r["k"] * r["mean_value"] < 0.01:
      off = r["distinguishability"]["median"] / r["k"] ** 2 - 1, r["alignment"]["median"] / r["k"] - 1
      yield (f"scale {r['scale']:g}, k {r['k']}: distinguishability x k^2, alignment x k, within 5 %",
             all(abs(x) < 0.05 for x in off))
  large = max(r["scale"] for r in results["rows"])
  yield "at the largest scale distinguishability never triples", all(
      r["distinguishability"]["median"] < 3 for r in results["rows"] if r["scale"] == large)


def _proposition(results):
  rows = [r for r in results["rows"] if r["draws"]]
  yield "no draw gets worse", all(r["negative"]["share"] == 0 for r in rows)
  yield "the gain is at least .05 eta gap^2 in every draw", all(r["least"] > 0.05 for r in rows)


def _map(results):
  told, weak = results["correlation with the extra gain"], results["helped by a weaker one, strong policies"]
  yield "alignment tells what a prover adds (correlation over .99)", told["alignment"] > 0.99
  yield "distinguishability tells it as well", told["distinguishability"] > 0.99
  yield "weaker provers help strong policies in 99 % of the draws", weak["low"] > 0.99


def claims(figure: str, results: dict) -> dict[str, bool]:
  """Whether each claim about one figure holds."""
  said = {"fig3a": _fig3a, "fig3b": _fig3b, "fig3c": _fig3c, "decline": _decline, "search": _search,
          "theorem": _theorem, "best_of_k": _best_of_k, "proposition": _proposition, "map": _map}
  return {claim: bool(holds) for claim, holds in said[figure](results)}
