"""Rows to figures: inline SVG without scripts, links or ids of its own, equal bytes for equal rows.

Text takes the page's colour and font, so that a figure reads in light and
dark; colours are Okabe and Ito's, and no line is told by colour alone.
"""

import io
import re
import zlib

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from pav_jax.evaluation import tables
from pav_jax.evaluation import verdicts

# A colour nobody draws with stands for the page's own until the SVG is text.
_INK = "#010203"
# Their blue, a little lighter, to be read on black as well.
_BLUE = "#1F83C4"
_COLOURS = {
    "pass_at_n": _INK, "majority": "#CC79A7", "weighted_vote": "#56B4E9", "orm_best_of_n": _BLUE,
    "q_best_of_n": "#009E73", "q_beam": "#009E73", "pav_best_of_n": "#D55E00", "pav_beam": "#D55E00",
    "pav_beam_q": "#E69F00", "pav_beam_advantage": "#A6761D"}
# Of other arms of search, by their names.
_MORE = ("#E69F00", "#A6761D", "#332288", "#CC79A7", "#56B4E9", "#117733", "#AA4499", "#888833", "#999999")
_SETTINGS = {
    "svg.fonttype": "none", "font.size": 9, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "text.parse_math": False}


def _svg(figure: Figure, name: str) -> str:
  """The figure as an <svg> element."""
  out = io.StringIO()
  with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
  text = out.getvalue()
  text = text[text.index("<svg"):]
  text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
  # Names of groups are nobody's target and would clash between figures.
  text = re.sub(r'<g id="[^"]*"', "<g", text)
  text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
  text = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?px)[^;\"]*", r"font: \1 system-ui, sans-serif", text)
  return text.replace(_INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{name}"', 1).strip()


def _axes(width: float, height: float, columns: int = 1):
  with matplotlib.rc_context(_SETTINGS):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
  for axis in axes:
    axis.grid(alpha=0.15, color=_INK, linewidth=0.6)
  return figure, axes


def _style(method: str) -> dict:
  """Beams solid, independent samples dashed, oracles dotted."""
  base, sampled = method.removesuffix("_pass"), method in (*tables.INDEPENDENT, *tables.READINGS)
  style = ":" if tables.is_oracle(method) else "--" if sampled else "-"
  colour = _COLOURS.get(base, _MORE[zlib.crc32(base.encode()) % len(_MORE)])
  return {"color": colour, "linestyle": style, "marker": "o" if sampled else "s",
          "linewidth": 1.1 if tables.is_oracle(method) else 1.8, "markersize": 2.5 if tables.is_oracle(method) else 4}


def accuracy_figure(rows: list[dict], x: str) -> str:
  """Accuracy of every method against 'n' or 'flops', bands of 95 %, each line named at its end."""
  figure, (axis,) = _axes(9.6, 5.4)
  ends = []
  for method in dict.fromkeys(row["method"] for row in rows):
    line = sorted((r for r in rows if r["method"] == method), key=lambda r: r["n"])
    at, style = [r[x] for r in line], _style(method)
    axis.plot(at, [r["accuracy"] for r in line], **style)
    axis.fill_between(at, [r["low"] for r in line], [r["high"] for r in line], color=style["color"], alpha=0.09,
                      linewidth=0)
    ends.append((line[-1]["accuracy"], at[-1], tables.name_of(method), style["color"]))
  if x == "n":
    ticks = sorted({r["n"] for r in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.set_xlabel("N: samples drawn, or width of the beam")
  else:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: verdicts.amount(value, "").strip()))
    axis.set_xlabel("FLOPs a problem, policy and verifier")
  axis.minorticks_off()
  axis.set_ylabel("accuracy")
  axis.set_ylim(max(0.0, min(r["low"] for r in rows) - 0.02), min(1.0, max(r["high"] for r in rows) + 0.02))
  _name_lines(axis, ends)
  return _svg(figure, f"accuracy against {x}")


def _name_lines(axis, ends):
  """Names right of the axes, as near to the lines' ends as they fit, each joined to its own."""
  low, high = axis.get_ylim()
  left, right = np.log(axis.get_xlim())
  gap = 0.05
  at = []
  for accuracy, *_ in sorted(ends):
    at.append(max((accuracy - low) / (high - low), at[-1] + gap if at else 0.0))
  # Pushed up past the top they come down again, still apart.
  for i in reversed(range(len(at))):
    at[i] = min(at[i], 1.0 - gap * (len(at) - 1 - i))
  for y, (accuracy, x, name, colour) in zip(at, sorted(ends)):
    start = (np.log(x) - left) / (right - left), (accuracy - low) / (high - low)
    axis.plot([start[0], 1.03], [start[1], y], transform=axis.transAxes, color=colour, linewidth=0.5, alpha=0.6,
              clip_on=False)
    axis.text(1.035, y, name, transform=axis.transAxes, color=colour, va="center")


def curves_figure(curves: dict[str, list[dict]]) -> str:
  """Loss against step, a panel per network: training and validation."""
  figure, axes = _axes(2.7 * len(curves) + 0.3, 2.6, len(curves))
  for axis, (name, rows) in zip(axes, curves.items()):
    for key, label, style in (("loss", "training", {"color": _BLUE, "linewidth": 1.2, "marker": ".",
                                                          "markersize": 3}),
                              ("valid_loss", "validation", {"color": "#D55E00", "linestyle": "--", "marker": "o",
                                                            "markersize": 3})):
      # A loss that is not finite was written as a string; it is no point of a line.
      line = [(r["step"], r[key]) for r in rows if isinstance(r.get(key), float)]
      if line:
        axis.plot(*zip(*line), label=label, **style)
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("step")
  axes[0].set_ylabel("loss")
  if axes[0].lines:
    axes[0].legend(frameon=False)
  return _svg(figure, "training curves")


_ARMS = {"sft": "#999999", "rft": _INK, "start": _INK, "outcome": _BLUE, "progress": "#D55E00", "self": "#009E73",
         "outcome_critic": "#332288", "random": "#CC79A7", "vine": "#E69F00", "shaping": "#56B4E9", "value": "#A6761D", "oracle": "#666666",
         "reinforce": "#88CCEE", "grpo": "#DDCC77", "uncertain": "#882255", "min_form": "#999933", "first_error": "#AA4499",
         "implicit": "#44AA99", "answer_probability": "#661100", "renewed": "#117733"}


# Of arms with a prover of their own, ARM@NAME, in the order in which they come.
_OF_PROVERS = ("#CC6677", "#6699CC", "#997700", "#994455", "#004488")


def _colors(arms) -> dict[str, str]:
  named = [arm for arm in arms if "@" in arm]
  return {arm: _OF_PROVERS[named.index(arm) % len(_OF_PROVERS)] if arm in named else _ARMS[arm] for arm in arms}


_LEARNED = {"samples": "responses drawn", "flops": "FLOPs: drawing, scoring, updates", "accuracy": "accuracy, validation",
            "outcome": "outcome reward", "process": "process reward a step"}


def learning_figure(arms: dict[str, list[list[dict]]], x: str, y: str = "accuracy") -> str:
  """Validation 'accuracy', or 'outcome' or 'process' reward of the responses drawn, against 'samples' or 'flops': each arm's
  mean over seeds, and every seed as a thin line."""
  figure, (axis,) = _axes(6.4, 3.6)
  color = _colors(arms)
  for arm, curves in arms.items():
    style = {"color": color[arm], "linestyle": "-" if arm == "progress" else "--" if arm == "outcome" else ":"}
    for curve in curves:
      axis.plot([point[x] for point in curve], [point[y] for point in curve], linewidth=0.5, alpha=0.5, **style)
    mean = lambda key: np.mean([[point[key] for point in curve] for curve in curves], axis=0)
    axis.plot(mean(x), mean(y), linewidth=1.8, marker="o", markersize=3, label=arm, **style)
  axis.set(xlabel=_LEARNED[x], ylabel=_LEARNED[y])
  axis.legend(frameon=False)
  return _svg(figure, f"{y} of RL against {x}")


def lookout_figure(arms: dict[str, list[list[dict]]]) -> str:
  """What theory says of each arm's prover over the responses drawn (policy/lookout.py), means over seeds: distinguishability, alignment,
  and the correlation of A^mu with A^pi; solid: as its verifier says it, dotted: the prover that would be renewed now, without error."""
  figure, axes = _axes(9.6, 3.2, 3)
  color = _colors(arms)
  for arm, curves in arms.items():
    mean = lambda key: np.mean([[point.get(key, np.nan) for point in curve] for curve in curves], axis=0)
    for whose, style in (("", {"linewidth": 1.8, "marker": "o", "markersize": 3, "label": arm}), ("fresh_", {"linewidth": 0.9, "linestyle": ":"})):
      apart, aligned = mean(f"{whose}distinguishability"), mean(f"{whose}alignment")
      both = np.sqrt(apart * mean("advantage_variance"))
      correlation = np.where(both > 0, aligned / np.where(both > 0, both, 1), np.nan)
      for axis, line in zip(axes, (apart, aligned, correlation)):
        axis.plot(mean("samples"), line, color=color[arm], **style)
  for axis, name in zip(axes, ("distinguishability E Var[A^μ]", "alignment E[A^μ A^π]", "correlation of A^μ with A^π")):
    axis.axhline(0, color=_INK, linewidth=0.6)
    axis.set(xlabel=_LEARNED["samples"], title=name)
    axis.title.set_fontsize(9)
  axes[0].legend(frameon=False)
  return _svg(figure, "provers over the run")


def pass_figure(rows: dict[str, list[dict]]) -> str:
  """Pass@N of every policy on the test problems, bands of 95 %."""
  figure, (axis,) = _axes(6.4, 3.6)
  color = _colors(rows)
  for name, line in rows.items():
    at, style = [row["n"] for row in line], {"color": color[name]}
    axis.plot(at, [row["accuracy"] for row in line], linewidth=1.8, marker="o", markersize=3, label=name,
              linestyle="-" if name == "progress" else "--", **style)
    axis.fill_between(at, [row["low"] for row in line], [row["high"] for row in line], alpha=0.09, linewidth=0, **style)
  axis.set_xscale("log", base=2)
  axis.set_xticks(at, [str(n) for n in at])
  axis.minorticks_off()
  axis.set(xlabel="N", ylabel="Pass@N, test")
  axis.legend(frameon=False)
  return _svg(figure, "pass at n")


_PREDICTED = {"distinguishability": "E Var[A^μ], over Q's", "alignment": "E[A^μ A^π], over Q's", "pull": "alignment / √distinguishability, over Q's",
              "chosen": "exact accuracy, best line of C, over Q's"}


def provers_figure(rows: list[dict]) -> str:
  """Alignment against distinguishability of every prover and ranking; dotted: the largest pull there is, alignment / √distinguishability."""
  figure, (axis,) = _axes(6.4, 4.2)
  shown = [r for r in rows if r["distinguishability"]["value"] > 0]
  colours = {"verifier": _BLUE, "exact values": "#009E73", "ranking": "#D55E00"}
  for by, colour in colours.items():
    mine = [r for r in shown if r["by"] == by]
    for r, mark in zip(mine, "osD^vP*X<>dhp" * len(mine)):
      axis.plot(r["distinguishability"]["value"], r["alignment"]["value"], mark, color=colour, label=f"{r['prover']}, {by}")
  at = np.linspace(0, axis.get_xlim()[1], 50)
  axis.plot(at, max((r["pull"]["value"] for r in shown), default=0.0) * np.sqrt(at), color=_INK, linewidth=0.6, linestyle=":")
  axis.axhline(0, color=_INK, linewidth=0.6)
  axis.set(xlabel="distinguishability E Var[A^μ]", ylabel="alignment E[A^μ A^π]")
  if shown:
    axis.legend(frameon=False, fontsize=7)
  return _svg(figure, "provers")


def prediction_figure(points: list[dict], y: str = "gain") -> str:
  """What beams gained over the Q beam (`gain`, with intervals, or `any`) against what theory said of their ranking (evaluation/provers.py):
  a panel per predictor, a colour per setting, a mark per method."""
  figure, axes = _axes(2.7 * len(_PREDICTED) + 0.3, 3.1, len(_PREDICTED))
  settings, methods = (list(dict.fromkeys(p[key] for p in points)) for key in ("setting", "method"))
  colours = [_BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D", _INK]
  for axis, (key, name) in zip(axes, _PREDICTED.items()):
    axis.axhline(0, color=_INK, linewidth=0.6)
    for p in points:
      colour, mark = colours[settings.index(p["setting"]) % len(colours)], "osD^vPX*"[methods.index(p["method"]) % 8]
      x, value = p[key], p[y]["value"] if y == "gain" else p[y]
      axis.plot([x["low"], x["high"]], [value] * 2, color=colour, linewidth=0.7, alpha=0.6)
      if y == "gain":
        axis.plot([x["value"]] * 2, [p[y]["low"], p[y]["high"]], color=colour, linewidth=0.7, alpha=0.6)
      axis.plot(x["value"], value, mark, color=colour, markersize=4 if p["width"] == min(q["width"] for q in points) else 6)
    axis.set_xlabel(name)
  axes[0].set_ylabel("accuracy over the Q beam" if y == "gain" else "any finished right, over the Q beam")
  for i, setting in enumerate(settings):
    axes[0].plot([], [], "o", color=colours[i % len(colours)], label=setting)
  for i, method in enumerate(methods):
    axes[0].plot([], [], "osD^vPX*"[i % 8], color=_INK, label=tables.name_of(method))
  axes[0].legend(frameon=False, fontsize=7)
  return _svg(figure, f"{y} against what theory says")


def reliability_figure(calibration: dict[str, dict]) -> str:
  """What happened against what each verifier said, a panel per verifier; a dot's area is its share of the prefixes."""
  figure, axes = _axes(3.1 * len(calibration) + 0.3, 3.1, len(calibration))
  for axis, (name, found) in zip(axes, calibration.items()):
    bins = found["bins"]
    axis.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
    if bins:
      count = np.array([b["count"] for b in bins], float)
      said, seen = [b["predicted"] for b in bins], [b["observed"] for b in bins]
      axis.plot(said, seen, color=_BLUE, linewidth=0.8, alpha=0.6)
      axis.scatter(said, seen, s=12 + 240 * count / count.sum(), color=_BLUE, alpha=0.75, linewidth=0)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xlabel="value said")
    axis.set_title(f"{name}: error {found['error']:.3f}", fontsize=9)
  axes[0].set_ylabel("share right")
  return _svg(figure, "reliability diagrams")
