"""README.md and the pages of docs/, made from docs/templates: `make pages`.

  1. A template is Markdown with Jinja2. `read(path)` is a committed JSON or
     JSONL file, `load(path)` a Python file, `config(path)` what a config gives, `config(path, of)` FILE:OF;
     paths start at the root of the repository.
  2. Every number comes from there, by an expression. A digit or a number word
     in the text itself is an error, unless it belongs to a name (NAMES), to a
     command, or to `code`: so no number stands on a page without its source.
  3. A path that is not in a file is an error, too, with template and line.

templates/README.md becomes README.md, the others docs/ with the same path.
tests/docs/test_pages.py makes them anew and compares.
"""

import importlib.util
import json
import pathlib
import re
import sys
import traceback

import jinja2
from jinja2 import nodes

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "docs/templates"

# Digits that count or measure nothing. 95 % is the level of every interval.
NAMES = re.compile(r"""(?x) \b(
    Gemma\ [23] | [29]B | 27B | 270M | GSM8K | F1 | TPUs?\ v\d\w? | v4 | v5[ep] | float32 | bfloat16 | Python\ 3\.\d+ | Apache\ 2\.0 |
    arXiv\ 2410\.08146 | (Eq\.|App\.|Section|Theorem|Remark|Proposition|Figure)\ [A-Z]?\.?\d*(\.\d+)?[a-c]? | 95\ % | [Kδ]²
    )(?!\w)""")
EXEMPT = (re.compile(r"{#.*?#}|{{.*?}}|{%.*?%}", re.S),  # comments, expressions and statements of Jinja
          re.compile(r"^ *```(bash|python)\n.*?^ *```$", re.S | re.M), re.compile(r"`[^`\n]+`"),
          re.compile(r"\]\([^)\s]*\)"), NAMES)
BARE = re.compile(r"`[\W\d]+`")  # code without a letter
WORDS = "one two three four five six seven eight nine ten eleven twelve".split()
NUMBER = re.compile(r"[\d⁰¹²³⁴⁵⁶⁷⁸⁹½¼¾]|\b(%s|twenty|thirty|hundred|thousand|million|twice|thrice|half)\b" % "|".join(WORDS[1:]), re.I)


def number(x: float, digits: int | None = None) -> str:
  """'.726', '24,000', '−1.5': three digits after the point, none of a whole number, unless said."""
  digits = (0 if isinstance(x, int) else 3) if digits is None else digits
  text = f"{round(float(x), digits) + 0.0:,.{digits}f}"  # adding 0 makes a rounded -0.0 positive
  return re.sub(r"^(−?)0\.", r"\1.", text.replace("-", "−"))


def percent(x: float, digits: int = 0) -> str:
  """'26' of .255; its sign, and %, are the template's."""
  return number(100 * x, digits)


def _three(x, *names):
  """(middle, low, high) of a list, or of a record's row whose middle has one of these names."""
  if isinstance(x, (list, tuple)):
    return x
  name = next(name for name in names if name in x)
  return (x[name], *(x[f"{name}_{end}" if f"{name}_{end}" in x else end] for end in ("low", "high")))


def interval(x, digits: int = 3) -> str:
  """'.726 [.662, .781]'."""
  middle, low, high = (number(y, digits) for y in _three(x, "accuracy", "share", "mean", "median"))
  return f"{middle} [{low}, {high}]"


def points(x, digits: int = 1) -> str:
  """'+25.5 [+19.9, +32.1]': a difference of shares, in points."""
  signed = lambda y: f"{round(100 * y, digits) + 0.0:+.{digits}f}".replace("-", "−")
  middle, low, high = map(signed, _three(x, "difference"))
  return f"{middle} [{low}, {high}]"


def word(n: int) -> str:
  """'five'; from 13 on digits."""
  return WORDS[n - 1] if 1 <= n <= len(WORDS) else number(n)


def row(rows: list[dict], **wanted) -> dict:
  """The one row that has these values."""
  found = [x for x in rows if all(x.get(key) == value for key, value in wanted.items())]
  if len(found) != 1:
    raise ValueError(f"{len(found)} rows have {wanted}, not one")
  return found[0]


def read(path: str):
  """A committed JSON file; of JSONL the list of its lines."""
  text = (ROOT / path).read_text(encoding="utf-8")
  return [json.loads(line) for line in text.splitlines()] if path.endswith(".jsonl") else json.loads(text)


def load(path: str):
  """A Python file as a module."""
  if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


ENVIRONMENT = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True,
                                 lstrip_blocks=True, keep_trailing_newline=True)
ENVIRONMENT.filters |= {x.__name__: x for x in (number, percent, interval, points, word, row)}
ENVIRONMENT.globals |= {"read": read, "load": load, "config": lambda path, *of: load(path).get_config(*of)}


def unsourced(source: str) -> list[tuple[int, str]]:
  """(line, what stands there) of every number in a template's own text, and of every expression that names nothing."""
  text = source
  for pattern in EXEMPT:
    text = pattern.sub(lambda found: found[0] if BARE.fullmatch(found[0]) else "\n" * found[0].count("\n") or "\0", text)
  lines = source.splitlines()
  found = {text.count("\n", 0, x.start()) + 1 for x in NUMBER.finditer(text)}
  tree = ENVIRONMENT.parse(source)
  for output in tree.find_all(nodes.Output):
    found |= {x.lineno for x in output.nodes if not isinstance(x, (nodes.TemplateData, nodes.Name)) and not x.find(nodes.Name)}
  # Nor may a name, or one branch of a condition, stand for a number that is typed.
  shown = [x.node for x in tree.find_all(nodes.Assign)] + [x for output in tree.find_all(nodes.Output) for x in output.nodes]
  found |= {y.lineno for x in shown for y in _branches(x) if isinstance(y, nodes.Const) and isinstance(y.value, (int, float))}
  return [(n, lines[n - 1].strip()) for n in sorted(found)]


def _branches(x: nodes.Node | None) -> list[nodes.Node]:
  """What an expression may come to, before its filters."""
  while isinstance(x, nodes.Filter):
    x = x.node
  return _branches(x.expr1) + _branches(x.expr2) if isinstance(x, nodes.CondExpr) else [x] if x else []


def render(name: str) -> str:
  """The page of a template. Raises ValueError with template and line for a number or a path without a source."""
  try:
    found = unsourced((TEMPLATES / name).read_text(encoding="utf-8"))
    text = "" if found else ENVIRONMENT.get_template(name).render()
  except Exception as error:
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if x.filename.endswith(name)]
    raise ValueError(f"docs/templates/{name}:{getattr(error, 'lineno', None) or lines[-1]}: {error}") from error
  if found:
    raise ValueError("\n".join(f"docs/templates/{name}:{n}: a number without a source: {line}" for n, line in found))
  return text


def pages() -> dict[str, pathlib.Path]:
  """Template -> its page."""
  names = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.md"))
  return {name: ROOT / name if name == "README.md" else ROOT / "docs" / name for name in names}


if __name__ == "__main__":
  for template, page in pages().items():
    try:
      text = render(template)
    except ValueError as error:
      sys.exit(f"error: {error}")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
