"""Who wins, in sentences computed from the rows; one who does not win is said not to.

A difference is won where its 95 % interval lies above 0. The aim is the
paper's: a PAV beam at least 8 points above ORM best-of-N at equal compute.
"""

from pav_jax.evaluation import tables

AIM = 0.08


def accuracy(row: dict) -> str:
  """'.812 [.774, .850]'."""
  return f"{_share(row['accuracy'])} [{_share(row['low'])}, {_share(row['high'])}]"


def points(row: dict) -> str:
  """'+11.0 points [+7.1, +15.0]' from a difference."""
  # Adding 0 makes a rounded -0.0 positive.
  mean, low, high = (f"{round(100 * row[k], 1) + 0.0:+.1f}"
                     for k in ("difference", "difference_low", "difference_high"))
  return f"{mean} points [{low}, {high}]"


def amount(value: float, unit: str) -> str:
  """'12.3 MFLOPs': three digits and a prefix."""
  for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
    if value >= factor:
      return f"{value / factor:.3g} {prefix}{unit}"
  return f"{value:.3g} {unit}"


def outcome(difference: dict, winner: str) -> str:
  """'PAV beam wins', 'is not shown to win: the interval holds 0' or 'does not win, it loses'."""
  if difference["difference_low"] > 0:
    return f"{winner} wins"
  if difference["difference_high"] < 0:
    return f"{winner} does not win: it loses"
  return f"{winner} does not win: the interval holds 0"


def sentences(search: tables.Search) -> dict[str, list[str]]:
  """Heading -> sentences, what matters most first."""
  rows = {(by, r["beam"], r["width"], r["method"]): r for by in ("flops", "n") for r in search.comparisons(by)}
  beams = search.pav_beams()
  best = _best_of_each_width(search)
  picked = {(by, beam): {key[3]: r for key, r in rows.items() if key[:3] == (by, *beam)}
            for by in ("flops", "n") for beam in beams}
  against = {beam: [r for r in search.against_arms() if (r["beam"], r["width"]) == beam] for beam in beams}
  return {
      "PAV beam against ORM best-of-N at equal compute": [
          _equal_compute(search, picked["flops", beam], *beam) for beam in beams],
      "PAV beam against the other arms of search at equal compute": [
          _against_arms(search, against[beam], *beam) for beam in beams if against[beam]],
      "PAV beam against whatever else is best at equal compute": [
          _strongest(picked["flops", beam], *beam) for beam in best],
      "The compute that ORM best-of-N needs for the beam's accuracy": [_catching_up(search, *beam) for beam in best],
      "At equal N": [_equal_n(picked["n", beam], method, *beam) for beam in best
                     for method in ("orm_best_of_n", "majority", "q_beam") if method in picked["n", beam]],
      "PAV as ORM: whole responses reranked by process scores": _pav_as_orm(search),
      "ORM against majority": _orm_against_majority(search)}


def _best_of_each_width(search: tables.Search) -> list[tuple[str, int]]:
  """The PAV beam of the highest accuracy at each width: of the others the tables tell."""
  beams, accuracy_of = search.pav_beams(), lambda beam: search.cell(*beam).accuracy_ps.mean()
  return [max((b for b in beams if b[1] == width), key=accuracy_of) for width in dict.fromkeys(n for _, n in beams)]


def _share(x: float) -> str:
  text = f"{x:.3f}"
  return text[1:] if text.startswith("0") else text


def _equal_compute(search: tables.Search, by_flops: dict, beam: str, width: int) -> str:
  """The paper's comparison: PAV beam against ORM best-of-N that has at least its compute."""
  own, orm, name = by_flops[beam], by_flops["orm_best_of_n"], tables.name_of(beam)
  start = f"At the compute of a {tables.name_of(beam, width)} ({amount(own['flops'], 'FLOPs')} a problem): "
  if not orm["reached"]:
    last = search.row("orm_best_of_n", search.max_n)
    return (f"{start}no comparison: ORM best-of-N needs N = {orm['n']}, and {search.max_n} samples were drawn. "
            f"{name} {accuracy(own)}; {tables.name_of('orm_best_of_n', search.max_n)}, with "
            f"{last['flops'] / own['flops']:.2f} of the compute, {accuracy(last)}.")
  text = (f"{start}{name} {accuracy(own)}, {tables.name_of('orm_best_of_n', orm['n'])} {accuracy(orm)} "
          f"({orm['ratio']:.2f} of the compute): {points(orm)}: {outcome(orm, name)}")
  reached = orm["difference_low"] > 0 and orm["difference"] >= AIM
  return f"{text}; the aim of {100 * AIM:.0f} points is {'reached' if reached else 'not reached'}."


def _against_arms(search: tables.Search, rows: list[dict], beam: str, width: int) -> str:
  """Against the Q beam, and against the best of all arms; that choice is made on these very problems, in the others' favour."""
  own, name = search.row(beam, width), tables.name_of(beam)
  usable = [r for r in rows if r["reached"] and not tables.is_oracle(r["method"]) and not r["method"].startswith(f"{beam}_by_")]
  q = [r for r in usable if r["method"] == "q_beam"]
  best = [max(usable, key=lambda r: r["accuracy"])] if usable else []
  start = f"{tables.name_of(beam, width)} {accuracy(own)} at {amount(own['flops'], 'FLOPs')} a problem"
  against = lambda r: (f"{tables.name_of(r['method'], r['n'])} ({r['ratio']:.2f} of the compute) {accuracy(r)}: {points(r)}: "
                       f"{outcome(r, name)}")
  parts = [against(q[0])] if q else ["no Q beam that was run costs as much"] if any(m == "q_beam" for m, _ in search.beams) else []
  parts += [f"the best of the arms is {against(r)}" for r in best if r not in q]
  return f"{start}: {'; '.join(parts) or 'no other arm that was run costs as much'}."


def _strongest(by_flops: dict, beam: str, width: int) -> str:
  """Against whatever else is best there; the choice is made on these very problems, in the others' favour."""
  others = [r for m, r in by_flops.items() if m in tables.INDEPENDENT and not tables.is_oracle(m) and r["reached"]]
  start = f"At the compute of a {tables.name_of(beam, width)}, the best of the other methods on independent samples"
  if not others:
    return f"{start} is not known: too few samples were drawn."
  best = max(others, key=lambda r: r["accuracy"])
  return (f"{start} is {tables.name_of(best['method'], best['n'])}, {accuracy(best)}: {points(best)}: "
          f"{outcome(best, tables.name_of(beam))}.")


def _catching_up(search: tables.Search, beam: str, width: int) -> str:
  """How much compute ORM best-of-N needs for the beam's accuracy; the first N that has it, lucky or not."""
  own = search.row(beam, width)
  start = f"ORM best-of-N first has the accuracy of a {tables.name_of(beam, width)} ({_share(own['accuracy'])}) at "
  for n in range(1, search.max_n + 1):
    if search.cell("orm_best_of_n", n).accuracy_ps.mean() >= own["accuracy"]:
      ratio = search.cell("orm_best_of_n", n).costs.flops / own["flops"]
      return f"{start}N = {n}, with {ratio:.2f} times its compute."
  ratio = search.cell("orm_best_of_n", search.max_n).costs.flops / own["flops"]
  return f"{start}no N up to {search.max_n}, where it has {ratio:.2f} times its compute."


def _equal_n(by_n: dict, method: str, beam: str, width: int) -> str:
  own, other, name = by_n[beam], by_n[method], tables.name_of(beam)
  if not other["reached"]:
    return f"At N = {width}: no comparison with {tables.name_of(method)}: fewer samples were drawn."
  return (f"At N = {width} ({other['ratio']:.2f} of the beam's compute): {name} {accuracy(own)}, "
          f"{tables.name_of(method, width)} {accuracy(other)}: {points(other)}: {outcome(other, name)}.")


def _pav_as_orm(search: tables.Search) -> list[str]:
  """Every reading of the process scores against the ORM, on the same samples: the most that were drawn."""
  orm = accuracy(search.row("orm_best_of_n", search.max_n))
  return [f"At N = {r['n']}, on the same samples: {tables.name_of(r['method'], r['n'])} {accuracy(r)}, "
          f"{tables.name_of('orm_best_of_n', r['n'])} {orm}: {points(r)}: {outcome(r, tables.name_of(r['method']))}."
          for r in search.readings() if r["n"] == search.max_n]


def _orm_against_majority(search: tables.Search) -> list[str]:
  """Does the outcome verifier help at all? At the beams' widths and the most samples drawn; N and compute equal."""
  found = []
  # At N = 1 both are the policy.
  for n in sorted({width for _, width in search.pav_beams() if 1 < width <= search.max_n} | {search.max_n}):
    orm = "orm_best_of_n", n
    text = f"{tables.name_of(*orm)} {accuracy(search.row(*orm))}"
    costs = search.cell(*orm).costs.flops
    equal = tables.smallest_n(search.samples, "majority", "flops", costs)
    for when, m in ((f"At N = {n}", n), ("at its compute", equal)):
      if m > search.max_n:
        text += f"; {when}: no comparison, majority needs N = {m}"
        continue
      difference = search.difference(orm, ("majority", m))
      words = (f"{tables.name_of('majority', m)} {accuracy(search.row('majority', m))}: {points(difference)}: "
               f"{outcome(difference, 'ORM')}")
      text = f"{when}: {text}, {words}" if m == n else f"{text}; {when}: {words}"
    found.append(f"{text}.")
  return found
