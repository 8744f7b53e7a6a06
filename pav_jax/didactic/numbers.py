"""Results -> lines of numbers, as printed by the command."""


def _band(row: dict, form: str = ".3g") -> str:
  middle = next(row[k] for k in ("share", "mean", "median") if isinstance(row.get(k), (int, float)))
  return f"{middle:{form}} [{row['low']:{form}}, {row['high']:{form}}]"


def _arrival(row: dict) -> str:
  return f"{_band(row, '.0f')} iterations to the target ({sum(row['came'])} of {len(row['came'])} seeds came there)"


def after(row: dict, iteration: int) -> dict:
  """iteration, mean, low, high of the last evaluation of a curve that is not after this iteration, or of the first."""
  n = max(0, sum(x <= iteration for x in row["iteration"]) - 1)
  return {"iteration": row["iteration"][n]} | {name: x[n] for name, x in row["success"].items()}


def _fig3a(results):
  for r in results["rows"]:
    early = after(r, 100)
    yield f"{r['optimizer']}, {r['arm']}: {_arrival(r)}; success after {early['iteration']} {_band(early, '.3f')}"
  for r in results["ratios"]:
    yield (f"{r['optimizer']}: outcome takes {'at least ' if r['censored'] else ''}{_band(r)} times as many iterations as "
           "the effective reward")


def _fig3b(results):
  yield from (f"{r['optimizer']}, gamma {r['gamma']:g}: {_arrival(r)}" for r in results["rows"])


def _fig3c(results):
  for r in results["rows"]:
    p = r["pass"]
    yield f"{r['arm']}: success {_band(r['success'], '.2g')}; Pass@N " + ", ".join(
        f"{n}: {m:.3f}" for n, m in zip(r["n"], p["mean"]))


def _decline(results):
  for r in results["rows"]:
    yield f"{r['case']}, gamma {r['gamma']:g}: success after {r['iteration']} iterations {_band(r, '.2f')}"


def _search(results):
  for r in results["rows"]:
    known = f"{r['rollouts']} rollouts" if r["rollouts"] else "exact"
    yield f"{r['sweep']}: {known}, N {r['width']}, gamma {r['gamma']:g}, alpha {r['alpha']:g}: {_band(r, '.3f')}"
  yield from (f"best-of-{r['n']}: {r['share']:.3f}" for r in results["best_of_n"])


def _theorem(results):
  for r in results["rows"]:
    yield (f"{r['prover']}, {r['reading']}, eta {r['eta']:g}: below the bound in {_band(r['violated'])}; improvement / "
           f"bound {_band(r['ratio'])}; improvement / first-order law {_band(r['law_ratio'])}")


def _best_of_k(results):
  for r in results["rows"]:
    yield (f"mean value {r['mean_value']:.2g}, k {r['k']}: distinguishability x {_band(r['distinguishability'])}, "
           f"alignment x {_band(r['alignment'])}, improvement x {_band(r['gain'])}")


def _proposition(results):
  for r in results["rows"]:
    if r["draws"]:
      yield (f"{r['side']}, median gap {r['gap']:.2g}: {r['draws']} draws, improvement / (eta gap^2) at least "
             f"{r['least']:.2g}, median {r['median']:.2g}; negative in {_band(r['negative'])}, more than without a "
             f"prover in {_band(r['helped'])}")


def _map(results):
  for name in ("helped", "helped by a weaker one, strong policies", "helped by a stronger one"):
    yield f"{name}: {_band(results[name])} of the draws"
  yield "correlation with the extra gain: " + ", ".join(
      f"{name} {x:.2f}" for name, x in results["correlation with the extra gain"].items())


def lines(figure: str, results: dict) -> list[str]:
  """One figure's results in words; brackets are 95 % intervals (quartiles for best_of_k)."""
  said = {"fig3a": _fig3a, "fig3b": _fig3b, "fig3c": _fig3c, "decline": _decline, "search": _search,
          "theorem": _theorem, "best_of_k": _best_of_k, "proposition": _proposition, "map": _map}
  return list(said[figure](results))
