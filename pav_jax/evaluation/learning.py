"""What RL learned: arms against samples and FLOPs, Pass@N on the test problems, how much sooner.

  1. Validation accuracy of every arm and seed from the training curves,
     against responses drawn and FLOPs spent (drawing, scoring, updates).
  2. On the test problems: accuracy, greedy accuracy and Pass@N of SFT, RFT and
     every arm; problems SFT never solves that an arm does.
  3. Differences to `outcome` (ORM-RL), seed by seed, and how many times fewer
     samples an arm needs to get where `outcome` got at best; differences of Pass@N to
     `outcome`, and to the policy that RL began with; the same against
     `outcome_critic`, whose baseline is the verifier, too: what is left is progress.
     Shares of updates that a bound on the gradient's norm has cut.
  4. rl_report/report.json, its figures, and a short table.

`together` makes the same of several runs, a training of policy and verifiers each (`python -m pav_jax.trainings --of=rl`).

Intervals are over training seeds on the same test problems (Student's t), and with one
seed, or for a policy that RL has not made, over problems; `varies` says which.
On the test problems an arm is its checkpoint of the best validation accuracy; `validation`
has the accuracy at the end, and the mean over the evaluations, which arms are tuned by.
"""

import functools
import json
from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.evaluation import figures
from pav_jax.evaluation import intervals
from pav_jax.evaluation import report as report_lib
from pav_jax.search import best_of_n
from pav_jax.training import files
from pav_jax.training import metrics
from pav_jax.training import records
from pav_jax.training.run import Run

# What policy/lookout.py says of a prover at an evaluation.
PROVER = ("tree_share", "exact_accuracy", "advantage_variance", *(f"{whose}{term}" for whose in ("", "true_", "fresh_")
                                                                for term in ("distinguishability", "alignment")))


# What the record accounts for: the policy, the verifier and RL itself.
MADE = ("problems/train", "sft", "rollouts", "values", "verifier", "rft", "rl")


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the one knob that is read here and not by rl."""
  errors.at_least(1, config.report, "config.report", "bootstrap_draws")


class Learned(NamedTuple):
  """What one rl stage has left, or several together: by a policy's name, ARM/SEED where RL has made it.

  right: test responses, bool (p, n); greedy: bool (p,); rows: of curves.jsonl; curves: `curve` of them. arms: the policies of each;
  others: those that RL has not made, sft and rft; origin: the one that each arm's policy began as.
  """

  right: dict[str, np.ndarray]
  greedy: dict[str, np.ndarray]
  rows: dict[str, list[dict]]
  curves: dict[str, list[dict]]
  arms: dict[str, list[str]]
  others: dict[str, list[str]]
  origin: dict[str, str]


def read(folder: records.Folder) -> Learned:
  """Of a finished rl stage."""
  arrays, manifest = folder.read(), folder.manifest()
  facts, knobs = manifest["facts"], manifest["config"]["rl"]
  of = lambda key: {name: arrays[key][arrays["policy_p"] == i] for i, name in enumerate(facts["policies"])}
  rows = {name: metrics.read_curves(folder.path / name / "curves.jsonl") for name in facts["training"]}
  arms = {arm: [f"{arm}/{seed}" for seed in knobs["seeds"]] for arm in knobs["arms"]}
  start = knobs["init_from"] if knobs["init_from"] in facts["policies"] else "start"
  return Learned(of("right_pn"), of("greedy_p"), rows,
                 {name: curve(found, knobs["batch_size"] * knobs["group"]) for name, found in rows.items()}, arms,
                 {name: [name] for name in facts["policies"] if "/" not in name}, dict.fromkeys(facts["training"], start))


def together(runs: list[Learned]) -> Learned:
  """Several trainings as one: the policies of the x-th are called NAME/x. Each has one seed of RL, and the same arms on the same problems."""
  for x, run in enumerate(runs):
    if any(len(members) > 1 for members in run.arms.values()):
      raise UserError(f"training {x} has several seeds of RL: a table over trainings takes one of each, rl.seeds=N,")
    if [*run.arms, *run.others] != [*runs[0].arms, *runs[0].others]:
      raise UserError(f"training {x} has {', '.join([*run.arms, *run.others])}, the first {', '.join([*runs[0].arms, *runs[0].others])}")
  name = lambda policy, x: f"{policy.partition('/')[0]}/{x}"
  merged = lambda of: {name(policy, x): found for x, run in enumerate(runs) for policy, found in of(run).items()}
  members = lambda policies: {policy: [name(policy, x) for x in range(len(runs))] for policy in policies}
  return Learned(*(merged(lambda run, field=field: getattr(run, field)) for field in ("right", "greedy", "rows", "curves")),
                 members(runs[0].arms), members(runs[0].others),
                 {name(policy, x): name(start, x) for x, run in enumerate(runs) for policy, start in run.origin.items()})


def compare(learned: Learned, draws: int) -> dict:
  """What the report has of the arms; draws: of the bootstrap, where there is one training."""
  right, greedy, rows, curves, arms, others, origin = learned
  sft = others["sft"]
  return {"problems": len(right[sft[0]]), "samples": int(right[sft[0]].shape[1]),
          "policies": {name: standing(right, greedy, members, sft, draws) for name, members in (others | arms).items()},
          "differences": differences(right, arms, "outcome", draws), "over_critic": differences(right, arms, "outcome_critic", draws),
          "over_start": {name: difference(right, members, [origin[m] for m in members], draws) for name, members in arms.items()},
          "pass_over_outcome": {name: pass_differences(right, members, arms["outcome"], draws)
                                for name, members in arms.items() if name != "outcome" and "outcome" in arms},
          "pass_over_start": {name: pass_differences(right, members, [origin[m] for m in members], draws) for name, members in arms.items()},
          "validation": {name: on_validation([curves[m] for m in members]) for name, members in arms.items()},
          "norm_clipped": {name: norm_clipped([rows[m] for m in members]) for name, members in arms.items()},
          "sooner": paces(curves, arms, "outcome"), "sooner_than_critic": paces(curves, arms, "outcome_critic"),
          "seconds": {name: seconds(rows[members[0]]) for name, members in arms.items()}, "curves": curves}


def run_stage(run: Run):
  """rl_report: rl -> rl_report/report.json and figures."""
  learned, knobs = read(run.folder("rl")), run.config.rl
  report = {"command": report_lib.command(), "seeds": list(knobs.seeds), "training": run.folder("rl").manifest()["facts"]["training"],
            **compare(learned, run.config.report.bootstrap_draws),
            "versions": records.versions(), "config": json.loads(json.dumps(run.config.rl.to_dict(), default=str)),
            "machine": report_lib.machine(run)}
  made = records.account({name: run.folder(name) for name in MADE})
  report = report_lib.finite(report | {"sections": made["config"], "minutes": made["minutes"]})
  path = run.root / "rl_report"
  texts = {f"{name}.svg": svg for name, svg in drawn(learned, report["policies"]).items()}
  texts["report.json"] = json.dumps(report, indent=1, allow_nan=False) + "\n"
  for name, content in texts.items():
    files.write(path / name, content)
  print("\n".join([*sentences(report), "", short_table(report)]))
  print(f"\n{path}")


def sentences(report: dict) -> list[str]:
  """Whether progress pays, a line for each arm of PAV-RL: against outcomes alone with the verifier as critic, where PAV-RL has it, too, and
  that arm is there, or against ORM-RL. What varies is said: of one training, how trainings vary is not known."""
  critic = bool(report["over_critic"]) and bool(report["config"]["critic"])
  varies = "trainings" if "trainings" in report else "seeds of RL on this one training" if len(report["seeds"]) > 1 else "problems; one seed of RL on this one training"
  rival, over, sooner_ = ("outcome_critic", report["over_critic"], report["sooner_than_critic"]) if critic else (
      "outcome", report["differences"], report["sooner"])
  said = []
  for arm, (mean, low, high) in over.items():
    if arm.partition("@")[0] != "progress":
      continue
    verdict = "pays" if low > 0 else "costs" if high < 0 else "is open"
    mine, theirs, pace = report["policies"][arm]["accuracy"][0], report["policies"][rival]["accuracy"][0], sooner_[arm]
    fewer = f"as good after {pace['median']:.1f} times fewer responses" if pace["median"] else "seldom as good within the run"
    said.append(f"Progress {verdict} ({arm}): {mine:.3f} against {theirs:.3f} of {rival}{', which has the verifier as critic, too' if critic else ''}: "
                f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}] over {varies}; {fewer} ({pace['reached']} of {pace['of']}).")
  return said


def drawn(learned: Learned, policies: dict) -> dict[str, str]:
  """Every figure, SVG by name; policies: as `compare` has them."""
  by_arm = {arm: [learned.curves[m] for m in members] for arm, members in learned.arms.items()}
  paid = {arm: x for arm, x in by_arm.items() if arm != "outcome"}
  figure_of = {"samples": figures.learning_figure(by_arm, "samples"), "flops": figures.learning_figure(by_arm, "flops"),
           "outcome": figures.learning_figure(by_arm, "samples", "outcome"),
           **({"process": figures.learning_figure(paid, "samples", "process")} if paid else {}),
           "pass_at_n": figures.pass_figure({name: found["pass_at_n"] for name, found in policies.items()})}
  looked_at = {arm: x for arm, x in by_arm.items() if "fresh_alignment" in x[0][-1]}
  return figure_of | ({"provers": figures.lookout_figure(looked_at)} if looked_at else {})


def curve(rows: list[dict], per_step: int) -> list[dict]:
  """Evaluations in order: samples and FLOPs spent until then, accuracy, greedy accuracy; and of the responses drawn since
  the last one the outcome reward of each and the process reward of each step (0 where none is paid), on average. Where the
  prover is looked at (policy/lookout.py), what theory says of it. Responses drawn to renew a prover are samples, too.

  rows: of curves.jsonl, with one row for every iteration's FLOPs.
  """
  spent, renewing, drawn, found = 0.0, 0.0, [], []
  for row in rows:
    if "valid_accuracy" not in row:
      spent, renewing, drawn = spent + row["flops"], renewing + row.get("renewal_responses", 0.0), [*drawn, row]
      continue
    mean = lambda key: float(np.mean([r.get(key, 0.0) for r in drawn]))
    found.append({"samples": row["step"] * per_step + int(renewing), "flops": spent, "accuracy": row["valid_accuracy"], "greedy": row["valid_greedy"],
                  "outcome": mean("accuracy"), "process": mean("reward")} | {
                      name: row[f"valid_{name}"] for name in PROVER if f"valid_{name}" in row})
    drawn = []
  return found


def standing(right, greedy, members: list[str], sft: list[str], draws: int) -> dict:
  """Of a policy, or an arm's seeds together: accuracy, greedy, Pass@N, problems it solves and SFT, of the same training, never did."""
  over = functools.partial(interval, draws=draws)
  unsolved_sp = [~right[before].any(axis=1) for before in (sft if len(sft) > 1 else sft * len(members))]
  pass_at_n = []
  for n in ns_of(right[sft[0]]):
    mean, low, high = over(np.stack([best_of_n.pass_at_n(right[m], n) for m in members], axis=1))
    pass_at_n.append({"n": n, "accuracy": mean, "low": low, "high": high})
  return {"accuracy": over(np.stack([right[m].mean(axis=1) for m in members], axis=1)),
          "greedy": over(np.stack([greedy[m] for m in members], axis=1).astype(float)),
          "varies": "training seeds" if len(members) > 1 else "problems", "by_seed": [float(right[m].mean()) for m in members],
          "pass_at_n": pass_at_n, "sft_never_solved": float(np.mean([unsolved_p.sum() for unsolved_p in unsolved_sp])),
          "newly_solved": float(np.mean([right[m][unsolved_p].any(axis=1).sum() for m, unsolved_p in zip(members, unsolved_sp)]))}


def difference(right, first: list[str], second: list[str], draws: int) -> tuple[float, float, float]:
  """(mean, low, high) of first - second in accuracy, paired by problem and by seed."""
  return interval(np.stack([right[a].mean(axis=1) - right[b].mean(axis=1) for a, b in zip(first, second)], axis=1), draws=draws)


def differences(right, arms: dict[str, list[str]], base: str, draws: int) -> dict:
  """`difference` of every other arm to this one; none where it was not trained."""
  return {name: difference(right, arms[name], arms[base], draws) for name in arms if name != base and base in arms}


def pass_differences(right, first: list[str], second: list[str], draws: int) -> list[dict]:
  """Pass@N of the first less that of the second, a row for each N up to all responses: difference, difference_low, difference_high."""
  rows = []
  for n in ns_of(right[first[0]]):
    pass_p = functools.partial(best_of_n.pass_at_n, n=n)
    found = interval(np.stack([pass_p(right[a]) - pass_p(right[b]) for a, b in zip(first, second)], axis=1), draws=draws)
    rows.append({"n": n} | dict(zip(("difference", "difference_low", "difference_high"), found)))
  return rows


def ns_of(right_pn) -> list[int]:
  """The powers of two up to the number of responses."""
  return [2**i for i in range(right_pn.shape[1].bit_length())]


def paces(curves, arms: dict[str, list[str]], base: str) -> dict:
  """`sooner` of every other arm than this one; none where it was not trained."""
  of = lambda arm: [curves[member] for member in arms[arm]]
  return {name: sooner(of(name), of(base)) for name in arms if name != base and base in arms}


def interval(accuracy_ps: np.ndarray, draws: int) -> tuple[float, float, float]:
  """(mean, low, high) of a figure of problems p and training seeds s: over the seeds, or over the problems where there is one."""
  return intervals.over_seeds(accuracy_ps.mean(axis=0)) if accuracy_ps.shape[1] > 1 else intervals.over_problems(accuracy_ps, draws=draws)


def on_validation(curves: list[list[dict]]) -> dict:
  """last, mean: accuracy at the last evaluation and on average over the evaluations; a number for each training seed."""
  return {"last": [curve[-1]["accuracy"] for curve in curves],
          "mean": [float(np.mean([point["accuracy"] for point in curve])) for curve in curves]}


def norm_clipped(rows_s: list[list[dict]]) -> float:
  """Share of an arm's updates whose gradient a bound on the norm has cut: the mean over iterations and seeds."""
  return float(np.mean([row["norm_clipped"] for rows in rows_s for row in rows if "norm_clipped" in row]))


def sooner(first: list[list[dict]], second: list[list[dict]]) -> dict:
  """Seed by seed: samples until `first` is where `second` was at best, against the samples `second` took; None if it never is.

  The median is over all seeds, one that never gets there below all others; None where half of them do not.
  """
  ratios = []
  for mine, theirs in zip(first, second):
    goal = max(point["accuracy"] for point in theirs)
    needed = next(point["samples"] for point in theirs if point["accuracy"] == goal)
    mine_needed = next((point["samples"] for point in mine if point["accuracy"] >= goal), None)
    ratios.append(needed / mine_needed if mine_needed else None)
  reached = [r for r in ratios if r is not None]
  middle = float(np.median([r or 0.0 for r in ratios]))
  return {"times_fewer_samples": ratios, "reached": len(reached), "of": len(ratios),
          "median": middle if 2 * len(reached) > len(ratios) else None}


def seconds(rows: list[dict]) -> dict[str, float]:
  """Median seconds of an iteration's parts."""
  told = [row for row in rows if "update_s" in row]
  return {part: float(np.median([row[f"{part}_s"] for row in told])) for part in ("rollout", "score", "update")}


def short_table(report: dict) -> str:
  """A line for each policy."""
  interval = lambda x: f"{x[0]:.3f} [{x[1]:.3f}, {x[2]:.3f}]"
  rival, over_rival, sooner_rival = ("outcome", report["differences"], report["sooner"]) if report["differences"] else (
      "outcome_critic", report["over_critic"], report["sooner_than_critic"])
  lines = [f"{'':<20}{'accuracy':<24}{'greedy':<24}{'Pass@' + str(report['samples']):<10}{'over ' + rival:<26}"
           f"{'samples fewer':<16}new"]
  for name, found in report["policies"].items():
    over, sooner_ = over_rival.get(name), sooner_rival.get(name)
    fewer = "" if sooner_ is None else f"{sooner_['median'] or float('nan'):.1f}x ({sooner_['reached']}/{sooner_['of']})"
    lines.append(f"{name:<20}{interval(found['accuracy']):<24}{interval(found['greedy']):<24}"
                 f"{found['pass_at_n'][-1]['accuracy']:<10.3f}{interval(over) if over else '':<26}{fewer:<16}"
                 f"{found['newly_solved']:.1f} of {found['sft_never_solved']:g}")
  return "\n".join(lines)
