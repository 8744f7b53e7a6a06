r"""Brackets in LaTeX: where a text divides, and what stands around the whole of it. Linear in the text."""

from collections.abc import Collection
import re

_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|[()\[\]{},;:=<>|]|[^\\()\[\]{},;:=<>|]+|\\", re.DOTALL)
_OPEN = frozenset(("(", "[", "{", r"\{", r"\langle", r"\begin", r"\lfloor", r"\lceil"))
_CLOSE = frozenset((")", "]", "}", r"\}", r"\rangle", r"\end", r"\rfloor", r"\rceil"))
_DEPTH = 30


class Unreadable(Exception):
  """A text that is no answer."""


def tokens(text: str) -> list[str]:
  """Commands, brackets, separators, and what stands between; together they are the text."""
  return _TOKEN.findall(text)


def parts_at(text: str, separators: Collection[str]) -> tuple[list[str], list[str]]:
  """The parts of a text between separators that stand in no bracket, stripped, and those separators."""
  parts, part, found, level = [], [], [], 0
  for token in tokens(text):
    level += (token in _OPEN) - (token in _CLOSE)
    if level == 0 and token in separators:
      parts.append("".join(part).strip())
      found.append(token)
      part = []
    else:
      part.append(token)
  return [*parts, "".join(part).strip()], found


def split(text: str, separators: Collection[str]) -> list[str]:
  """The parts of a text between separators that stand in no bracket, stripped."""
  return parts_at(text, separators)[0]


def bare(text: str) -> str:
  """Without braces and spaces around it."""
  text = text.strip()
  for _ in range(_DEPTH):
    if not (text.startswith("{") and text.endswith("}") and closes_last(text)):
      break
    text = text[1:-1].strip()
  return text


def closes_last(text: str) -> bool:
  """Whether the bracket that opens a text is closed by its last token."""
  level, found = 0, tokens(text.rstrip())
  for i, token in enumerate(found):
    level += (token in _OPEN) - (token in _CLOSE)
    if level <= 0:
      return level == 0 and i == len(found) - 1
  return False


def is_closing(token: str) -> bool:
  """Whether a token closes a bracket."""
  return token in _CLOSE
