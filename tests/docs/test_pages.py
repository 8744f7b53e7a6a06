"""README.md and docs/ are what the templates and the committed files give; a number without a source is found."""

import re

import pytest

from docs import pages

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s#]+)(#[^)\s]*)?\)")
WORDS_OF_CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]+`", re.S | re.M)


@pytest.mark.parametrize("template", pages.pages())
def test_the_page_is_what_its_template_gives(template):
  """A digit that was changed on a page, or in a file that it cites, is found; `make pages` makes the pages anew."""
  assert pages.pages()[template].read_text(encoding="utf-8") == pages.render(template)


def test_every_page_has_a_template():
  written = {path for path in (pages.ROOT / "docs").rglob("*.md") if pages.TEMPLATES not in path.parents}
  assert written | {pages.ROOT / "README.md"} == set(pages.pages().values())


@pytest.mark.parametrize("template", pages.pages())
def test_links_lead_to_files_and_headings(template):
  page = pages.pages()[template]
  for path, anchor in LINK.findall(WORDS_OF_CODE.sub("", page.read_text(encoding="utf-8"))):
    if not path.startswith("https://"):
      target = page.parent / path
      assert target.exists(), f"{page}: {path}"
      assert not anchor or anchor[1:] in _anchors(target), f"{page}: {path}{anchor}"


def _anchors(page) -> set[str]:
  headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text, lines", [
    ("It gains 26 points.", [1]),
    ("It is\nabout .981\nat best.", [2]),
    ("Five seeds,\ntwice as fast.", [1, 2]),
    ("`a`\n10⁻⁴, `5.8`", [2]),
    ("```text\nPAV beam .93\n```", [2]),
    ("`+` gains 26 `points`", [1]),
    ("[5.8 times](x.md)", [1]),
    ("{{ 5.8 }}", [1]),
    ("{{ '5.8' ~ ' times' }}", [1]),
    ("{% if x %}\n26 points\n{% endif %}", [2]),
    ("{# 26 points #}\n{{ x.gain | points }}, at 95 % by Eq. 5 of App. D and Theorem 3.1\n", []),
    ("Gemma 2 2B on TPU v5e with Python 3.11, `rl.alpha=3`", []),
    ("```bash\nmake --seed=1\n```\n![a](b2.svg) [c](d3.md#e4)", []),
    ("Gemma 25, Eq. 5.8 times", [1]),
    ("Someone weighs often.", []),
    ("{% set x = 26 %}{{ x }} points", [1]),
    ("{{ (r.a if r else 5.8) | number }} times", [1]),
])
def test_a_number_needs_a_source(text, lines):
  assert [n for n, _ in pages.unsourced(text)] == lines


def test_what_is_not_in_a_file_is_an_error_with_its_line(monkeypatch, tmp_path):
  (tmp_path / "page.md").write_text('fine\n{% set r = read("setup.json") %}\n{{ r.accuracy.mean | number }}\n')
  (tmp_path / "number.md").write_text("fine\nsome 26 points\n")
  monkeypatch.setattr(pages, "TEMPLATES", tmp_path)
  monkeypatch.setattr(pages.ENVIRONMENT, "loader", pages.jinja2.FileSystemLoader(tmp_path))
  monkeypatch.setitem(pages.ENVIRONMENT.globals, "read", lambda path: {"accuracy": {}})
  with pytest.raises(ValueError, match="page.md:3: .*no attribute 'mean'"):
    pages.render("page.md")
  with pytest.raises(ValueError, match="number.md:2: a number without a source: some 26 points"):
    pages.render("number.md")


def test_how_numbers_are_written():
  assert [pages.number(x) for x in (0.7264, 1.0, -0.05, -0.0001, 24000, 12.3456)] == [
      ".726", "1.000", "−.050", ".000", "24,000", "12.346"]
  assert pages.interval([0.7264, 0.6622, 0.78053]) == ".726 [.662, .781]"
  assert pages.interval({"mean": 203, "low": 178.0, "high": 1228.4}, 0) == "203 [178, 1,228]"
  assert pages.points({"accuracy": 0.9, "difference": 0.2553, "difference_low": -0.0004, "difference_high": -0.0021}) == (
      "+25.5 [+0.0, −0.2]")
  assert (pages.percent(0.99425, 1), pages.word(5), pages.word(30)) == ("99.4", "five", "30")


def test_a_row_is_the_only_one():
  rows = [{"n": 1, "by": "flops"}, {"n": 2, "by": "flops"}]
  assert pages.row(rows, n=2) == rows[1]
  for wanted in ({"by": "flops"}, {"n": 3}, {"size": 1}):
    with pytest.raises(ValueError, match="not one"):
      pages.row(rows, **wanted)
