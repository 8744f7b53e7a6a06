"""One row of a file: its fields as texts, and what is wrong with it."""

import json
import re
from collections.abc import Mapping


# Of other systems than Unix, and Unicode's own.
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")


class Bad(Exception):
  """(field, reason): becomes a `Malformed`."""


class Number(str):
  """A JSON number, spelt as in the file."""


def decode(content: bytes):
  """The JSON value of a text, NaN being null. Bad for what is no UTF-8 or no JSON."""
  try:
    return json.loads(content.decode("utf-8-sig"), parse_int=Number, parse_float=Number, parse_constant=_not_a_number)
  except UnicodeDecodeError as error:
    raise Bad("", f"not UTF-8 at byte {error.start}") from error
  except (ValueError, RecursionError) as error:
    raise Bad("", f"broken JSON: {' '.join(str(error).split())}") from error


def decode_object(content: bytes) -> dict:
  """The JSON object of a text; Bad for anything else."""
  found = decode(content)
  if not isinstance(found, dict):
    raise Bad("", "not a JSON object")
  return found


def plain_row(line: bytes) -> tuple[dict, str]:
  """(the JSON object of a line, in JSON's own types, what is wrong with it or ''); {} for what is none."""
  try:
    row = json.loads(line.decode("utf-8-sig"))
    json.dumps(row)  # what is nested too deeply to be written again
  except UnicodeDecodeError as error:
    return {}, f"not UTF-8 at byte {error.start}"
  except (ValueError, RecursionError) as error:
    return {}, f"not JSON: {error}"
  return (row, "") if isinstance(row, dict) else ({}, f"not an object but {type(row).__name__}")


def text(fields: Mapping, name: str, default: str | None = None, *, number: bool = False) -> str:
  """Field `name`, a string; `default` where it is missing or null. Bad where there is neither, and for any other type.

  number: a number is taken, too, as it is spelt.
  """
  value = fields.get(name)
  if value is None or value != value:  # a table's NaN
    if default is None:
      raise Bad(name, "missing")
    return default
  if number and type(value) in (int, float):
    value = Number(value)
  if not isinstance(value, str) or (isinstance(value, Number) and not number):
    raise Bad(name, "not a string")
  if not value.strip() and default is None:
    raise Bad(name, "empty")
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise Bad(name, f"half a surrogate pair at character {error.start}") from error
  return str(value)


def with_newlines(text: str) -> str:
  """The text with newlines as its only line ends: what a vocabulary and a rule of steps take for one."""
  return _LINE_ENDS.sub("\n", text)


def _not_a_number(name):
  if name == "NaN":
    return None  # how tables that were written by Python's json say that there is nothing
  raise ValueError(f"{name} is not JSON")
