"""The report as one HTML page: no script, nothing loaded, every text escaped.

Questions and responses are whatever a data set or a model wrote; `html.escape`
stands between them and the page, and a policy in its head forbids scripts and
requests even so. Only `Markup`, made here or by figures.py, is left as it is.
"""

import html
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from pav_jax.evaluation import tables
from pav_jax.evaluation import verdicts

_SECURITY = "default-src 'none'; style-src 'unsafe-inline'"
_CSS = """
:root { color-scheme: light dark; --ink: #1b1d21; --soft: #5c636e; --line: #d5d9df; --paper: #fff; --tint: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa3af; --line: #3a3f47; --paper: #15171b; --tint: #1f2329; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 66rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); } h3 { margin-bottom: .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .22rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td.number { text-align: right; white-space: nowrap; }
small { display: block; color: var(--soft); white-space: nowrap; }
.wide { overflow-x: auto; margin: .6rem 0; } .from { color: var(--soft); font-size: .82rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .82rem; overflow-wrap: anywhere; }
pre { background: var(--tint); padding: .8rem; white-space: pre-wrap; } pre.text { margin: .2rem 0; }
td code { unicode-bidi: isolate; white-space: pre-wrap; }
svg { max-width: 100%; height: auto; } svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .86rem; max-width: 52rem; }
li { margin: .3rem 0; } summary { cursor: pointer; color: var(--soft); }
"""


class Markup(str):
  """HTML that is already safe."""


def text(value) -> Markup:
  """Any value as safe HTML; what could move the reader's cursor or cannot be written is made visible."""
  if isinstance(value, Markup):
    return value
  shown = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") or c in "\n\t" else f"\\u{ord(c):04x}"
                  for c in str(value))
  return Markup(html.escape(shown))


def number(value) -> str:
  """A count or measurement for reading; '–' for none."""
  if value is None:
    return "–"
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return str(value)
  return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def element(tag: str, content, attributes: str = "") -> Markup:
  """<tag attributes>content</tag>; the content is escaped unless it is Markup, attributes are ours."""
  return Markup(f"<{tag}{' ' + attributes if attributes else ''}>{text(content)}</{tag}>")


def join(parts: Iterable) -> Markup:
  """Parts one after another, each made safe."""
  return Markup("\n".join(text(p) for p in parts))


def table(head: Sequence, rows: Iterable[Sequence]) -> Markup:
  """A table; a cell that is a number stands right."""
  cells = lambda row: join(element("td", number(c), 'class="number"') if isinstance(c, (int, float)) or c is None
                           else c if isinstance(c, Markup) and c.startswith("<td") else element("td", c) for c in row)
  body = join(element("tr", cells(row)) for row in rows)
  heads = element("tr", join(element("th", h) for h in head))
  return element("div", element("table", join([element("thead", heads), element("tbody", body)])), 'class="wide"')


def flat(values: Mapping, prefix: str = "") -> dict:
  """{'a': {'b': 1}} -> {'a / b': 1}."""
  found = {}
  for name, value in values.items():
    found |= flat(value, f"{prefix}{name} / ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
  return found


def details(summary: str, content) -> Markup:
  """Something to unfold."""
  return element("details", join([element("summary", summary), content]))


def render(report: Mapping, figures: Mapping[str, str]) -> str:
  """The page. report: as in report.json, verdicts by heading; figures: SVG by name."""
  sections = [_verdicts(report), _arms(report), _comparisons(report), _readings(report), _search(report, figures),
              _diagnostics(report, figures), _training(report, figures), _stages(report), _config(report)]
  first = report["search"][0]
  title = f"pav_jax: search on {report['split']}"
  lead = (f"{first['problems']} problems of {report['split']}; seeds of sampling: {first['seeds']}; seed of the run: "
          f"{report['seed']}. In brackets: 95 % bootstrap intervals over problems, the seeds of sampling averaged; for "
          "differences, on the same problems. One policy was trained, and one verifier of each kind: nothing is said of training.")
  head = join([Markup('<meta charset="utf-8">'),
               Markup(f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}">'),
               Markup('<meta name="viewport" content="width=device-width">'),
               element("title", title), Markup(f"<style>{_CSS}</style>")])
  body = join([element("h1", title), element("p", lead), element("pre", report["command"]), *sections])
  return f'<!doctype html>\n<html lang="en">\n{element("head", head)}\n{element("body", body)}\n</html>\n'


def _origin(report: Mapping, *names: str) -> Markup:
  """Where a section's numbers come from: manifests, by path and digest, and the command that made them."""
  stages, made = report["stages"], {}
  for name in names:
    made.setdefault(stages[name]["command"], []).append(name)
  lines = []
  for command, folders in made.items():
    manifests = ", ".join(f"{stages[f]['manifest']} (sha256 {stages[f]['sha256'][:12]})" for f in folders)
    lines.append(element("div", join([f"From {manifests}, made by", element("code", command)])))
  return element("div", join(lines), 'class="from"')


def _verdicts(report: Mapping) -> Markup:
  parts = [element("h2", "Verdicts")]
  for heading, sentences in report["verdicts"].items():
    parts += [element("h3", heading), element("ul", join(element("li", s) for s in sentences))]
  return join([*parts, _origin(report, "search/samples", "search/beams")])


def _comparisons(report: Mapping) -> Markup:
  """Per beam and width: every method at the beam's N, FLOPs and tokens."""
  parts = [element("h2", "Equal N, equal compute"), element("p", (
      "At equal FLOPs (policy and verifier) and at equal tokens (prompt and generated, of the policy) a method on "
      "independent samples has the smallest N whose mean cost is at least the beam's; the Q beam keeps its width. × "
      "is its cost over the beam's. Pass@N chooses with the reference answer: it is a bound, no method."))]
  rows = [*report["equal_n"], *report["equal_flops"], *report["equal_tokens"]]
  for beam in dict.fromkeys(r["beam"] for r in rows):
    methods = list(dict.fromkeys(r["method"] for r in rows if r["beam"] == beam))
    lines = []
    for width in dict.fromkeys(r["width"] for r in rows if r["beam"] == beam):
      for by, words in (("n", "N"), ("flops", "FLOPs"), ("tokens", "tokens")):
        found = {r["method"]: r for r in rows if (r["beam"], r["width"], r["by"]) == (beam, width, by)}
        by_what = element("td", f"equal {words}", 'style="white-space: nowrap"')
        lines.append([f"{width}", by_what, *(_compared(found[m]) if m in found else None for m in methods)])
    parts += [element("h3", tables.name_of(beam)),
              table(["width", "", *(tables.name_of(m) for m in methods)], lines)]
  return join([*parts, _origin(report, "search/samples", "search/beams")])


def _arms(report: Mapping) -> Markup:
  """A line per arm and width with all it costs; then each PAV beam beside the other arms at equal FLOPs."""
  columns = ("flops", "tokens", "verifier_tokens", "label_tokens")
  lines = [[tables.name_of(r["method"]), r["n"], element("td", verdicts.accuracy(r)), *(r[c] for c in columns)]
           for r in report["search"] if r["method"] not in tables.INDEPENDENT and not r["method"].endswith("_pass")]
  parts = [element("h2", "Arms of search"), element("p", (
      "What a candidate is ranked by, and how candidates are kept. Costs are means per problem; label tokens, which are paid once, "
      "are those of all seed responses and continuations behind the verifiers that an arm reads; – where they are not known.")),
           table(["arm", "width", "accuracy", "FLOPs", "tokens", "tokens that verifiers read", "label tokens"], lines)]
  others = list(dict.fromkeys(r["method"] for r in report["arms"]))
  against = []
  for beam, width in dict.fromkeys((r["beam"], r["width"]) for r in report["arms"]):
    found = {r["method"]: r for r in report["arms"] if (r["beam"], r["width"]) == (beam, width)}
    against.append([tables.name_of(beam, width), *(_beside(found[m]) if m in found else "itself" for m in others)])
  if against:
    parts += [element("p", (
        "Each PAV beam beside the cheapest width of every other arm that costs at least as many FLOPs: its accuracy, its width "
        "and × its FLOPs over the beam's, the PAV beam's accuracy less its own. – where no width that was run costs as much.")),
              table(["", *map(tables.name_of, others)], against)]
  if report["tuning"]:
    parts.append(details("Settings that were tried on validation problems", table(
        ["arm", "knob", "setting", "places", "accuracy", "FLOPs", "searches"], (r.values() for r in report["tuning"]))))
  return join([*parts, _origin(report, "search/beams")])


def _beside(row: Mapping) -> Markup:
  if not row["reached"]:
    return element("td", "–")
  said = verdicts.accuracy(row).split(" ")[0], f"width {row['n']}, × {row['ratio']:.2f}", verdicts.points(row)
  return element("td", join([element("b", said[0]), *(element("small", x) for x in said[1:])]))


def _compared(row: Mapping) -> Markup:
  if not row["reached"]:
    return element("td", join(["–", element("small", f"needs N = {row['n']}")]))
  accuracy, interval = verdicts.accuracy(row).split(" ", 1)
  return element("td", join([element("b", accuracy), element("small", interval),
                             element("small", f"N = {row['n']}, × {row['ratio']:.2f}")]))


def _readings(report: Mapping) -> Markup:
  """PAV as ORM: a line per way to rerank, a column per N."""
  rows, lines = report["pav_as_orm"], []
  for method in dict.fromkeys(r["method"] for r in rows):
    cells = [element("td", join([element("b", verdicts.accuracy(r)), element("small", verdicts.points(r))]))
             for r in rows if r["method"] == method]
    lines.append([tables.name_of(method), *cells])
  return join([
      element("h2", "PAV as ORM"),
      element("p", "Whole responses reranked by process scores: Q at the end, or the effective rewards of the steps, read in "
              "three ways. Below each accuracy: the difference to ORM best-of-N on the same samples."),
      table(["", *(f"N = {n}" for n in dict.fromkeys(r["n"] for r in rows))], lines), _origin(report, "search/samples")])


def _figure(svg: str, caption: str) -> Markup:
  return element("figure", join([Markup(svg), element("figcaption", caption)]))


def _search(report: Mapping, figures: Mapping) -> Markup:
  columns = ("n", "accuracy", "low", "high", "tokens", "flops", "prompt_tokens", "generated_tokens",
             "verifier_tokens", "policy_flops", "verifier_flops")
  everything = table(["method", *(c.replace("_", " ") for c in columns)],
                     ([tables.name_of(r["method"]), *(r[c] for c in columns)] for r in report["search"]))
  return join([
      element("h2", "Accuracy and cost"),
      _figure(figures["n"], "Accuracy against N. Solid: beams; dashed: choice among independent samples; dotted: "
              "the reference answer chooses, a bound. N of M samples drawn: mean over M // N disjoint groups."),
      _figure(figures["flops"], "The same against mean FLOPs a problem, policy and verifier, logarithmic. FLOPs "
              "are counted from the lengths really read and drawn, without padding; a prompt counts once."),
      details("Every row (costs are means per problem)", everything),
      _origin(report, "search/samples", "search/beams")])


def _diagnostics(report: Mapping, figures: Mapping) -> Markup:
  found = report["diagnostics"]
  parts = [element("h2", "How good the values are"), element("p", (
      "On responses to the same problems drawn for this page alone. Calibration: the value a verifier says at a "
      "prefix against the share of responses from there that were right."))]
  if "reliability" in figures:
    parts.append(_figure(figures["reliability"], "Reliability: dots on the dotted diagonal say what happens. The "
                         "area of a dot is its bin's share of the prefixes; error is the mean distance."))
  shown = {name: value for name, value in found.items() if name not in ("calibration", "examples", "first_wrong", "provers")}
  scalars = {name: value for name, value in shown.items() if not isinstance(value, (Mapping, list))}
  for name, values in {**{n: v for n, v in shown.items() if isinstance(v, Mapping)}, "others": scalars}.items():
    if values:
      parts += [element("h3", name.replace("_", " ")), table(["", "value"], flat(values).items())]
  if found.get("provers"):
    parts.append(_provers(found["provers"], figures))
  if found.get("first_wrong"):
    parts.append(_first_wrong(found["first_wrong"]))
  if found.get("examples"):
    parts += [element("h3", "Responses, step by step"), element("p", (
        "Q: the Q verifier's value of the prefix that ends there; A: what the step changed it by; exact: the value "
        "under the demonstrator, where one is known. Blue is up, orange is down."))]
    parts += [_example(e) for e in found["examples"]]
  return join([*parts, _origin(report, "sft", "verifier", f"problems/{report['split']}")])


def _measured(row: Mapping, name: str) -> Markup | None:
  """A figure over its interval, None where the row has none."""
  return row.get(name) and element("td", join([element("b", number(row[name]["value"])), element("small", f"[{number(row[name]['low'])}, {number(row[name]['high'])}]")]))


def _provers(found: Mapping, figures: Mapping) -> Markup:
  """What theory says of every prover, and of what every beam ranks by."""
  names = ("distinguishability", "alignment", "pull", "correlation", "own", "chosen")
  return join([
      element("h3", "Provers by theory"),
      element("p", (
          f"All {found['responses']} responses that the demonstrator could write to {found['problems']} problems, read by the policy: "
          f"{number(found['share'])} of its responses are among them, and {number(found['accuracy'])} of all it writes are right, exactly. Distinguishability "
          "is E Var[A^μ], alignment E[A^μ A^π], both summed over steps; pull, alignment over the root of distinguishability, is what Q^π gains where "
          "lines are chosen by this prover, per deviation; correlation is of A^μ with A^π, own of A^μ with what the prover would say without error; "
          f"chosen is the accuracy where each line is the best of {found['candidates']} by this prover.")),
      table(["prover", "by", "beam", *names], [[r["prover"], r["by"], tables.name_of(r["method"]) if "method" in r else "", *(_measured(r, n) for n in names)]
                                              for r in found["rows"]]),
      *([_figure(figures["provers"], "Alignment against distinguishability; dotted: the largest pull.")] if "provers" in figures else [])])


def _first_wrong(found: Mapping) -> Markup:
  """One line per verifier and reading."""
  reading = {"q": "Q < τ", "advantage": "A < τ", "progress": "Q / Q before < τ", "verdict": "verdict < τ"}
  rows = [[r["values"], reading[r["reading"]], r["tau"], r["cases"], r["erroneous"], *(_measured(r, m) for m in ("acc_erroneous", "acc_correct", "f1"))]
          for r in found["rows"]]
  return join([
      element("h3", "The first wrong step"),
      element("p", (
          "A step is wrong where the number it prints is false, or where the demonstrator could not have written it. Found is a wrong "
          "step at exactly its place, by the first step below τ: the best on the responses to the first half of the problems, measured on "
          "the others; of Q / Q before fixed. F1 is the harmonic mean of the two accuracies, as ProcessBench has it. A value tells what "
          "a mistake costs, not that it is one: the exact values miss mistakes that the demonstrator often makes up for. Responses with "
          f"a right answer and a wrong step: {found['right answer, wrong step']}.")),
      table(["values", "reading", "τ", "responses", "with a wrong step", "found", "right ones left alone", "F1"], rows)])


def _tinted(value: float | None, strength: float) -> Markup:
  """A number on blue if positive, on orange if negative, stronger the larger."""
  if value is None:
    return element("td", "–", 'class="number"')
  colour = "0, 114, 178" if value >= 0 else "213, 94, 0"
  alpha = 0.55 * min(1.0, abs(value) * strength)
  return Markup(f'<td class="number" style="background: rgba({colour}, {alpha:.2f})">{value:.2f}</td>')


def _example(example: Mapping) -> Markup:
  lines = ["(the question alone)", *example["response_lines"]]
  # A column may lack the bare question, as the advantages do.
  column = lambda values: [None] * (len(lines) - len(values)) + list(values)
  rows = [[element("code", line), _tinted(q, 1.0), _tinted(a, 2.0), _tinted(exact, 1.0)]
          for line, q, a, exact in zip(lines, *(column(example[k]) for k in ("q", "advantage", "exact")))]
  verdict = {True: "right", False: "wrong"}.get(example["outcome"], example["outcome"])
  return join([element("pre", example["question"], 'class="text" dir="auto"'),
               table(["step", "Q", "A", "exact"], rows), element("p", join(["The answer is", element("b", verdict)]))])


def _training(report: Mapping, figures: Mapping) -> Markup:
  parts = [element("h2", "Training")]
  if "curves" in figures:
    parts.append(_figure(figures["curves"], "Loss on training batches and on held-out problems; the parameters "
                         "with the lowest validation loss are the ones used."))
  facts = report["stages"]["verifier"]["facts"]
  networks = {"sft": report["stages"]["sft"]["facts"]} | {
      f"verifier {k}": {"parameters": facts.get("parameters"), **v} for k, v in facts.items() if isinstance(v, Mapping)}
  columns = list(dict.fromkeys(name for values in networks.values() for name in values))
  rows = [[name, *(values.get(c) for c in columns)] for name, values in networks.items()]
  return join([*parts, table(["network", *(c.replace("_", " ") for c in columns)], rows),
               _origin(report, "sft", "verifier")])


def _stages(report: Mapping) -> Markup:
  """What was counted, left out and cut; hardware, times, versions."""
  stages = report["stages"]
  lost = ("truncated", "ungradable", "malformed", "too long", "unanswered")
  left_out = [[name, *(stage["counts"].get(k) for k in lost)] for name, stage in stages.items()]
  counted = [[name, k, v] for name, stage in stages.items() for k, v in flat(stage["counts"] | {
      f"fact: {k}": v for k, v in stage["facts"].items() if name not in ("sft", "verifier")}).items()]
  made = [[name, element("code", stage["sha256"][:12]), stage["finished"], stage["seconds"],
           element("code", stage["command"])] for name, stage in stages.items()]
  versions = {name: {v["versions"].get(name) for v in stages.values()} for name in report["versions"]}
  return join([
      element("h2", "How it was made"),
      element("p", "What was left out or cut short; – where a stage has no such count. An ungradable "
              "response counts as wrong; in a truncated one only a closed box or #### is an answer."),
      table(["stage", *lost], left_out),
      details("Every count of every stage", table(["stage", "", "value"], counted)),
      element("h3", "Stages"),
      element("p", "Each stage's config and inputs were checked against this page's. Seconds run from a folder's "
              "first file to its last, interruptions included; – where the times are a copy's."),
      table(["folder", "manifest's sha256", "finished (UTC)", "seconds", "command"], made),
      element("h3", "Machine"),
      element("p", "The one that made this page."), table(["", ""], flat(report["machine"]).items()),
      element("h3", "Versions"),
      table(["package", "this page", "the stages"],
            ([n, v, ", ".join(sorted(map(str, versions[n])))] for n, v in report["versions"].items()))])


def _config(report: Mapping) -> Markup:
  shown = json.dumps(report["config"], indent=1)
  return join([element("h2", "Config"), details("The whole config", element("pre", shown))])
