"""Results -> inline SVG and verdicts; equal bytes for equal results.

Drawn as the report's figures are (pav_jax/evaluation/figures.py, which this folder, standing apart, does not
import): colours are Okabe and Ito's, no line is told by colour alone. These stand alone as files, so that their
ink is a grey that is read on white and on black.
"""

import io
import re

import matplotlib
from matplotlib import ticker
from matplotlib.figure import Figure
import numpy as np

_INK = "#010203"
_COLOURS = ("#1F83C4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A6761D", _INK)
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.", ":")
_MARKS = "osD^vPX*"
_OPTIMIZERS = {"adam": "Adam", "sgd": "SGD", "unit": "SGD, unit gradient"}
_SETTINGS = {
    "svg.fonttype": "none", "font.size": 9, "axes.edgecolor": _INK, "axes.labelcolor": _INK, "text.color": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "text.parse_math": False,
    "legend.frameon": False, "legend.fontsize": 8, "axes.titlesize": 9}


def _svg(figure: Figure, name: str) -> str:
  """The figure as an <svg> document of its own."""
  out = io.StringIO()
  for axis in (side for axes in figure.axes for side in (axes.xaxis, axes.yaxis)):
    # Logarithmic axes write powers in TeX, which nothing here sets.
    if axis.get_scale() != "linear":
      axis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:g}"))
      axis.set_minor_formatter(ticker.NullFormatter())
  with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
  text = out.getvalue()
  text = text[text.index("<svg"):]
  text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
  text = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?px)[^;\"]*", r"font: \1 system-ui, sans-serif", text)
  head = f'<svg role="img" color="#767676" aria-label="{name}"'
  return text.replace(_INK, "currentColor").replace("<svg", head, 1).strip() + "\n"


def _panels(titles, width: float = 3.3, height: float = 3.0):
  with matplotlib.rc_context(_SETTINGS):
    figure = Figure(figsize=(width * len(titles) + 0.3, height), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
  for axis, title in zip(axes, titles):
    axis.grid(alpha=0.15, color=_INK, linewidth=0.6)
    axis.set_title(title)
  return figure, axes


def _line(axis, n: int, x, mean, low=None, high=None, label: str = ""):
  """The n-th line of a panel, with its band."""
  mark = _MARKS[n] if len(x) < 20 else ""
  axis.plot(x, mean, color=_COLOURS[n], linestyle=_DASHES[n], marker=mark, markersize=3.5, linewidth=1.5, label=label)
  if low is not None:
    axis.fill_between(x, low, high, color=_COLOURS[n], alpha=0.14, linewidth=0)


def _legend(axis, **place):
  with matplotlib.rc_context(_SETTINGS):
    axis.legend(**place)


def _column(rows, name):
  return [r[name] for r in rows]


def effective_reward(results: dict) -> str:
  """Success against iteration, a panel per optimizer."""
  rows = results["rows"]
  optimizers = list(dict.fromkeys(_column(rows, "optimizer")))
  names = {"effective": "Rex + A of the prover", "outcome": "Rex alone", "weighed": "Q from weighed continuations alone"}
  figure, axes = _panels([_OPTIMIZERS[o] for o in optimizers])
  for axis, optimizer in zip(axes, optimizers):
    for n, arm in enumerate(names):
      for row in [r for r in rows if (r["arm"], r["optimizer"]) == (arm, optimizer)]:
        s = row["success"]
        _line(axis, n, row["iteration"], s["mean"], s["low"], s["high"], names[arm])
    axis.set(xscale="log", xlabel="iteration", ylim=(-0.02, 1.02))
    _legend(axis)
  axes[0].set_ylabel("success, mean of the seeds")
  return _svg(figure, "RL with the effective reward against the outcome")


def _against_gamma(axis, lines: dict):
  for n, (label, rows) in enumerate(lines.items()):
    _line(axis, n, *(_column(rows, c) for c in ("gamma", "mean", "low", "high")), label)
  axis.set(xscale="log", xlabel="strength of the prover, gamma")
  _legend(axis)


def _grouped(rows, *names):
  groups = {}
  for row in rows:
    groups.setdefault(", ".join(str(row[n]) for n in names), []).append(row)
  return groups


def strengths(results: dict) -> str:
  """Iterations to the target against gamma."""
  figure, (axis,) = _panels(["exact advantages"], 5.0)
  _against_gamma(axis, {_OPTIMIZERS[o]: rows for o, rows in _grouped(results["rows"], "optimizer").items()})
  axis.set_ylabel("iterations to the target")
  axis.set_ylim(0, None)
  return _svg(figure, "iterations against the strength of the prover")


def decline(results: dict) -> str:
  """Success after the last iteration against gamma: values that are exact, that err, that are learned."""
  groups = _grouped(results["rows"], "case")
  erring = {c: rows for c, rows in groups.items() if c.startswith(("rollouts", "erring"))}
  learned = {c: rows for c, rows in groups.items() if c.startswith("learned")}
  others = {c: rows for c, rows in groups.items() if c not in erring | learned}
  parts = {"other rules and readings": others, "values with noise": erring, "values learned from sequences": learned}
  parts = {title: lines for title, lines in parts.items() if lines}
  figure, axes = _panels(parts, 3.6)
  for axis, lines in zip(axes, parts.values()):
    _against_gamma(axis, lines)
    axis.set_ylim(-0.02, 1.02)
  axes[0].set_ylabel(f"success after {results['rows'][0]['iteration']} iterations")
  return _svg(figure, "what makes strong provers worse")


def pass_at_n(results: dict) -> str:
  """Pass@N, a line per policy."""
  figure, (axis,) = _panels(["after SFT and 100 iterations of RL"], 5.0)
  for n, row in enumerate(results["rows"]):
    p = row["pass"]
    _line(axis, n, row["n"], p["mean"], p["low"], p["high"], row["arm"])
  axis.set(xscale="log", xlabel="N", ylabel="Pass@N, mean of the seeds", ylim=(-0.02, 1.02))
  _legend(axis)
  return _svg(figure, "Pass@N")


def search(results: dict) -> str:
  """Success against the width (best-of-N, Q, Q + alpha A), against gamma, against alpha, by how values are known."""
  said = lambda kind: f"{kind} rollouts a value" if kind else "exact values"
  at = {name: f"{name} {results[name]:g}" for name in ("width", "gamma", "alpha")}
  figure, axes = _panels(["N, the beam's width", "whose advantages", "weight of the advantages"], height=4.4)
  best = results["best_of_n"]
  _line(axes[0], 7, _column(best, "width"), _column(best, "share"), label="best-of-N of equal tokens")
  for axis, sweep in zip(axes, ("width", "gamma", "alpha")):
    kinds = _grouped([r for r in results["rows"] if r["sweep"] == sweep], "rollouts")
    for n, rows in enumerate(kinds.values()):
      kind = said(rows[0]["rollouts"])
      lines = {kind: rows} if sweep != "width" else {
          f"{name}, {kind}": [r for r in rows if (r["alpha"] > 0) == (name != "Q")] for name in ("Q", "Q + A")}
      for k, (label, line) in enumerate(lines.items()):
        _line(axis, n + len(kinds) * k, *(_column(line, c) for c in (sweep, "share", "low", "high")), label)
    axis.set(xscale="linear" if sweep == "alpha" else "log", ylim=(-0.02, 1.02),
             xlabel=f"{'N' if sweep == 'width' else sweep} ({', '.join(x for name, x in at.items() if name != sweep)})")
    _legend(axis, loc="upper left", bbox_to_anchor=(0, -0.2))
  axes[0].set_ylabel("success")
  return _svg(figure, "search by Q and by Q + alpha A")


def theorem(results: dict) -> str:
  """Improvement over eta against the bound and against the first-order law; violations against eta."""
  eta = results["eta_of_points"]
  titles = [f"against the bound, eta {eta:g}", f"against the first-order law, eta {eta:g}", "below the bound"]
  figure, axes = _panels(titles)
  for n, (prover, p) in enumerate(results["points"].items()):
    for axis, name in ((axes[0], "bound"), (axes[1], "law")):
      axis.scatter(p[name], p["gain"], s=5, color=_COLOURS[n], marker=_MARKS[n], alpha=0.5, linewidth=0, label=prover)
  for axis in axes[:2]:
    top = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([0, top], [0, top], color=_INK, linewidth=0.7)
    axis.set_xlabel("predicted improvement / eta")
  axes[0].set_ylabel("exact improvement / eta")
  _legend(axes[0])
  for n, (name, rows) in enumerate(_grouped(results["rows"], "prover", "reading").items()):
    shares = _column(rows, "violated")
    _line(axes[2], n, _column(rows, "eta"), *(_column(shares, c) for c in ("share", "low", "high")), name)
  axes[2].set(xscale="log", xlabel="eta", ylabel="share of draws", ylim=(-0.02, 1.02))
  _legend(axes[2])
  return _svg(figure, "one exact step against Theorem 3.1")


def best_of_k(results: dict) -> str:
  """Ratios to k = 1 against k, a panel each."""
  names = ("distinguishability", "alignment", "gain")
  figure, axes = _panels(["distinguishability, over k = 1", "alignment, over k = 1", "improvement, over no prover"])
  for axis, name in zip(axes, names):
    for n, rows in enumerate(_grouped(results["rows"], "scale").values()):
      r = _column(rows, name)
      _line(axis, n, _column(rows, "k"), _column(r, "median"), _column(r, "low"), _column(r, "high"),
            f"mean value {rows[0]['mean_value']:.2g}")
    k = np.array(sorted({r["k"] for r in results["rows"]}), float)
    laws = {"distinguishability": (k ** 2, "k squared"), "alignment": (k, "k"), "gain": (1 + k, "1 + k")}
    expected, said = laws[name]
    axis.plot(k, expected, color=_INK, linewidth=0.7, linestyle=":", label=said)
    axis.set(xscale="log", yscale="log", xlabel="k")
    axis.set_ylim(0.3, None)
    _legend(axis)
  return _svg(figure, "best-of-k provers")


def proposition(results: dict) -> str:
  """Improvement over the squared gap against the gap."""
  figure, (left, right) = _panels(["improvement / (eta gap^2)", "improves more than without a prover"], 4.2)
  for n, (side, rows) in enumerate(_grouped([r for r in results["rows"] if r["draws"]], "side").items()):
    gap = _column(rows, "gap")
    _line(left, n, gap, _column(rows, "median"), label=f"{side} prover, median")
    _line(left, n + 2, gap, _column(rows, "least"), label=f"{side} prover, least")
    helped = _column(rows, "helped")
    _line(right, n, gap, *(_column(helped, c) for c in ("share", "low", "high")), f"{side} prover")
  left.set(xscale="log", yscale="symlog", ylim=(-1, None), xlabel="median gap |V mu - V pi|")
  right.set(xscale="log", xlabel="median gap |V mu - V pi|", ylabel="share of draws", ylim=(-0.02, 1.02))
  for axis in (left, right):
    _legend(axis)
  return _svg(figure, "Proposition F.1")


def prover_map(results: dict) -> str:
  """Provers by distinguishability and alignment; colour: what they add; crosses: weak ones that help strong ones."""
  p = {name: np.array(x, float) for name, x in results["points"].items()}
  figure, (axis,) = _panels(["what a prover adds to one step"], 5.4, 4.0)
  span = float(np.percentile(np.abs(p["extra"]), 98))
  dots = axis.scatter(p["distinguishability"], p["alignment"], c=p["extra"], s=9, cmap="PuOr", vmin=-span, vmax=span,
                      linewidth=0)
  weak = (p["weaker"] > 0) & (p["extra"] > 0)
  axis.scatter(p["distinguishability"][weak], p["alignment"][weak], s=26, marker="x", color=_INK, linewidth=0.7,
               label="weaker than its strong policy, and helps")
  axis.axhline(0, color=_INK, linewidth=0.7)
  axis.set(xlabel="distinguishability, Var of A mu under pi", ylabel="alignment, mean of A mu A pi", xscale="log")
  with matplotlib.rc_context(_SETTINGS):
    figure.colorbar(dots, ax=axis, label="improvement / eta, less that without a prover")
  _legend(axis)
  return _svg(figure, "the map of provers")
