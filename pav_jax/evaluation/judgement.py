"""From cases and a verifier's values to what is said of it: one JSON object, and a table.

  1. tau of the readings q and advantage: given; else the best on ProcessBench's GSM8K
     part, kept for every other set of first wrong steps; else judging.FIXED.
     PRMBench, whose thresholds are part of its conventions, has given or fixed ones.
  2. First wrong steps: accuracy on erroneous and on correct solutions and their
     harmonic mean, of each subset and as the plain mean over subsets.
  3. PRMBench: PRMScore over all steps of all items, of each class, and the plain
     mean of each of its three groups of classes.
  4. 95 % intervals over cases, resampled within each subset.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from pav_jax.evaluation import intervals
from pav_jax.evaluation import judging
from pav_jax.problems import benchmarks

TAU_FROM = "gsm8k"
_FIRST = ("erroneous", "correct", "f1")
_MR = ("matthews", "mr_score")
_PRM = ("prm_score", "f1_correct", "f1_wrong", "accuracy_correct", "accuracy_wrong", "accuracy_first_wrong")
_NAMES = {"q": "Q < {}", "advantage": "A < {}", "progress": "Q/Q before < {}", "verdict": "verdict < {}"}


def thresholds(cases: Sequence[benchmarks.Case], score_cs: Sequence[Mapping], given: Mapping[str, float]) -> dict[str, dict]:
  """Reading -> {'tau', 'from'} for first wrong steps. Only ProcessBench's GSM8K cases are looked at."""
  own = [i for i, case in enumerate(cases) if (case.benchmark, case.subset.lower()) == ("ProcessBench", TAU_FROM)]
  found = {}
  for reading in score_cs[0] if len(score_cs) else judging.READINGS:
    fixed = judging.FIXED[reading]
    found[reading] = {"tau": given.get(reading, fixed), "from": "given" if reading in given else "fixed"}
    if reading != "progress" and reading not in given and own:
      tau = judging.best_tau([score_cs[i][reading] for i in own], [cases[i].first_wrong for i in own], fixed)
      if tau is not None:
        found[reading] = {"tau": tau, "from": TAU_FROM}
  return found


def judge(cases: Sequence[benchmarks.Case], q_cz: Sequence[np.ndarray], given: Mapping[str, float], *, draws: int = 2000,
          verdicts: bool = False) -> dict:
  """All measures of values q_cz (each (s + 1,)) on these cases, as JSON values; None where one is undefined.

  given: thresholds of the readings 'q', 'advantage' and 'verdict', where the user names them. verdicts: as in judging.scores.
  """
  score_cs = [judging.scores(q_z, verdicts) for q_z in q_cz]
  tau = thresholds(cases, score_cs, given)
  found = {"tau": tau, "benchmarks": {}}
  for name in dict.fromkeys(case.benchmark for case in cases):
    own = [i for i, case in enumerate(cases) if case.benchmark == name]
    mine = ([cases[i] for i in own], [score_cs[i] for i in own])
    found["benchmarks"][name] = _every_step(*mine, given, draws) if name == "PRMBench" else _first_step(*mine, tau, draws)
  return found


def predictions(score_s: Mapping, tau: Mapping[str, Mapping]) -> dict[str, int]:
  """Reading -> the first step it calls wrong, -1 for none."""
  return {reading: judging.first_below(score_s[reading], tau[reading]["tau"]) for reading in tau}


def _first_step(cases, score_cs, tau, draws: int) -> dict:
  label_c = np.array([case.first_wrong for case in cases])
  part_crx = np.stack([judging.case_parts([predictions(x, tau)[reading] for x in score_cs], label_c) for reading in tau], axis=1)
  subset_c = np.array([case.subset for case in cases])
  names = _FIRST + _MR * (cases[0].benchmark == "MR")
  def statistic(sum_x):
    first = judging.first_error(sum_x)
    return np.concatenate([first, judging.mr_score(sum_x)], axis=-1) if len(names) > 3 else first
  subsets, whole = {}, []
  for subset in dict.fromkeys(subset_c):
    mine_c = subset_c == subset
    subsets[str(subset)] = _counts(label_c[mine_c]) | _measured([part_crx[mine_c]], statistic, names, tau, draws)
    if 0 < (label_c[mine_c] != -1).sum() < mine_c.sum():
      whole.append(part_crx[mine_c])
  found = {"subsets": subsets}
  if len(whole) > 1:
    found["mean"] = {"subsets": len(whole)} | _measured(whole, statistic, names, tau, draws)
  lucky_c = np.array([bool(case.answer_right) for case in cases]) & (label_c != -1)
  if 0 < lucky_c.sum() < (label_c != -1).sum():
    found["right answer, wrong step"] = {"cases": int(lucky_c.sum())} | _measured(
        [part_crx[lucky_c]], lambda sum_x: judging.first_error(sum_x)[..., :1], _FIRST[:1], tau, draws)
  return found


def _counts(label_c) -> dict:
  return {"cases": len(label_c), "erroneous": int((label_c != -1).sum())}


def _every_step(cases, score_cs, given: Mapping[str, float], draws: int) -> dict:
  tau = {reading: given.get(reading, judging.FIXED[reading]) for reading in score_cs[0]}
  wrong_cs = [case.wrong for case in cases]
  part_crx = np.stack([judging.step_parts([judging.above(x[r], tau[r], r) for x in score_cs], wrong_cs) for r in tau], axis=1)
  class_c, classes = np.array([case.subset for case in cases]), {}
  for name in sum(benchmarks.CLASSES.values(), ()):
    mine_c = class_c == name
    if mine_c.any():
      alone = name == "multi_solutions"
      classes[name] = {"cases": int(mine_c.sum())} | _measured(
          [part_crx[mine_c]], lambda sum_x, alone=alone: judging.prm_score(sum_x, alone), _PRM, tau, draws)
  groups = {}
  for group, names in benchmarks.CLASSES.items():
    if all(name in classes for name in names):
      groups[group] = {reading: _mean(classes[name][reading]["prm_score"]["value"] for name in names) for reading in tau}
  return {"tau": tau, "cases": len(cases), "all": _measured([part_crx], judging.prm_score, _PRM, tau, draws), "groups": groups, "classes": classes}


def _mean(values) -> float | None:
  values = list(values)
  return None if None in values else sum(values) / len(values)


def _measured(groups, statistic, names: Sequence[str], readings, draws: int) -> dict:
  """Reading -> measure -> {'value', 'low', 'high'}."""
  number = lambda x: float(x) if math.isfinite(x) else None
  ends = intervals.over_cases(groups, statistic, draws=draws)
  return {reading: {name: {end: number(x_rx[r, i]) for end, x_rx in zip(("value", "low", "high"), ends)} for i, name in enumerate(names)}
          for r, reading in enumerate(readings)}


def table(found: Mapping) -> str:
  """What `judge` found, in columns."""
  parts = [_prm_table(x) if name == "PRMBench" else _first_table(name, x, found["tau"]) for name, x in found["benchmarks"].items()]
  return "\n\n".join("\n".join(lines) for lines in parts)


def _first_table(name: str, found: Mapping, tau: Mapping) -> list[str]:
  measures = list(next(iter(found["subsets"].values()))[next(iter(tau))])
  rows = [(subset, x["cases"], x["erroneous"], x) for subset, x in found["subsets"].items()]
  if "mean" in found:
    rows.append((f"plain mean of {found['mean']['subsets']}", "", "", found["mean"]))
  if lucky := found.get("right answer, wrong step"):
    rows.append(("right answer, wrong step", lucky["cases"], lucky["cases"], lucky))
  titles = {"erroneous": "acc. on erroneous", "correct": "acc. on correct", "f1": "F1", "matthews": "MCC", "mr_score": "MR-Score"}
  lines = [f"{name}: the first wrong step", f"{'reading':<28}{'subset':<26}{'cases':>6}{'wrong':>7}  " + "".join(f"{titles[m]:<23}" for m in measures).rstrip()]
  for reading in tau:
    said = f"{_NAMES[reading].format(short(tau[reading]['tau']))} ({tau[reading]['from']})"
    for subset, cases, wrong, x in rows:
      cells = "".join(f"{_cell(x[reading].get(m)):<23}" for m in measures).rstrip()
      shown = "".join(c if c.isprintable() else "?" for c in subset[:25])  # it comes from the file
      lines.append(f"{said:<28}{shown:<26}{cases:>6}{wrong:>7}  {cells}")
      said = ""
  return lines


def _prm_table(found: Mapping) -> list[str]:
  said = [_NAMES[r].replace("<", ">=" if r == "progress" else ">").format(short(found["tau"][r])) for r in found["tau"]]
  lines = ["PRMBench: PRMScore, a step being right where", f"{'class':<24}{'cases':>6}  " + "".join(f"{x:<26}" for x in said).rstrip()]
  score = lambda x: "".join(f"{_cell(x[r]['prm_score']):<26}" for r in found["tau"]).rstrip()
  lines.append(f"{'all steps':<24}{found['cases']:>6}  {score(found['all'])}")
  for measure in ("f1_correct", "f1_wrong"):
    lines.append(f"  {measure.replace('f1_', 'F1 of '):<28}  " + "".join(f"{_cell(found['all'][r][measure]):<26}" for r in found["tau"]).rstrip())
  for group, names in benchmarks.CLASSES.items():
    if group in found["groups"]:
      lines.append(f"{group:<24}{'':>6}  " + "".join(f"{short(found['groups'][group][r]):<26}" for r in found["tau"]).rstrip())
    lines += [f"  {name:<22}{found['classes'][name]['cases']:>6}  {score(found['classes'][name])}" for name in names if name in found["classes"]]
  return lines


def short(x: float | None) -> str:
  """'.412', '-.05', '-' for none."""
  if x is None:
    return "-"
  return f"{x:.3f}".replace("0.", ".", 1) if abs(x) < 1 else f"{x:.3f}"


def _cell(x: Mapping | None) -> str:
  if x is None or x["value"] is None:
    return "-"
  return short(x["value"]) + ("" if x["low"] is None else f" [{short(x['low'])}, {short(x['high'])}]")
