"""Reading a compiled program's text: its collectives, what each sends, and how often.

A loop whose length the compiler knows counts so many times; one that ends
when its data says so (decoding) counts once: its figures are those of a round.
"""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_OPENING = re.compile(r"\s*(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLS = re.compile(r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)")


class Collective(NamedTuple):
  """size: bytes on a chip, of what goes in or of what comes out, whichever is more; group: chips that take part;
  times: runs of it in a call; in_loop: inside a loop.
  """

  kind: str
  size: int
  group: int
  times: int
  in_loop: bool

  @property
  def sent(self) -> float:
    """Bytes a chip sends in one call of the program, in rings: n - 1 of n parts, twice for an all-reduce."""
    if self.kind == "collective-permute":
      return float(self.times * self.size)
    share = (self.group - 1) / self.group
    return self.times * self.size * share * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str) -> list[Collective]:
  """Every collective of a compiled module's text."""
  times, in_loop = _counts(text)
  found, name, chains = [], "", set()
  for line in text.splitlines():
    if opening := _OPENING.match(line):
      name = opening.group(2)
    match = re.search(r"= (.*?) (" + "|".join(KINDS) + r")(-start)?\(", line)
    # A v5e goes on with products while it sends: start, pieces and end are fused into these, and each names the whole.
    chain = re.search(r'chain_id="\d+"', line)
    if match and times[name] and not (chain and chain.group() in chains):
      chains.update([chain.group()] if chain else [])
      # What a TPU does in one operation is written as a sum and a cut of it, fused.
      fused = match.group(2) == "all-reduce" and name.startswith("all-reduce-scatter")
      kind, group = "reduce-scatter" if fused else match.group(2), _group(line)
      size = _size(match.group(2), bool(match.group(3)), match.group(1), group)
      found.append(Collective(kind, size, group, times[name], name in in_loop))
  return found


def _size(kind: str, started: bool, result: str, group: int) -> int:
  """Bytes of the larger side, several arrays sent as one added up, from the shapes of what the operation gives."""
  shapes = [(name, dims) for name, dims in re.findall(r"(\w+)\[([\d,]*)\]", result) if name in _BYTES]
  if started and kind != "all-reduce":  # operands, results and, of a permutation, two counters
    shapes = [x for x in shapes if x != ("u32", "")]
    shapes = shapes[len(shapes) // 2:]
  total = sum(_BYTES[name] * math.prod(int(x) for x in dims.split(",") if x) for name, dims in shapes)
  return total * group if kind == "reduce-scatter" else total


def _trips(text: str) -> dict[str, int]:
  """How often the loop with this condition runs, for conditions that compare a counter with a constant: i < n."""
  found, name, constants = {}, "", {}
  for line in text.splitlines():
    if opening := _OPENING.match(line):
      name, constants = opening.group(2), {}
    elif match := re.search(r"%?([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", line):
      constants[match.group(1)] = int(match.group(2))
    elif "ROOT" in line and (match := re.search(r" (?:compare|fusion)\((.*?)\)", line)) and len(constants) == 1:
      if "direction=LT" in line or "fusion" in line:
        found[name] = next(iter(constants.values()))
  return found


def _group(line: str) -> int:
  """Chips of one group of a collective."""
  if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
    return int(match.group(1))
  if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match.group(1)))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match.group(2)))
  if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
    return match.group(1).count(",") + 1
  return 2  # a permutation's pairs


def _counts(text: str) -> tuple[dict[str, int], set[str]]:
  """(how often each computation runs in one call of the module, those that run inside a loop)."""
  callers, name, entry, bodies = collections.defaultdict(list), "", "", set()
  trips_of = _trips(text)
  for line in text.splitlines():
    if opening := _OPENING.match(line):
      name = opening.group(2)
      entry = name if opening.group(1) else entry
      continue
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    trips = trips_of.get(condition.group(1), 1) if condition else 1
    for group in _CALLS.finditer(line):
      for called in re.findall(r"[\w.\-]+", group.group(1)):
        callers[called].append((name, trips))
    bodies.update(re.findall(r"body=%?([\w.\-]+)", line))
  times = collections.defaultdict(int, {entry: 1})
  def count(name):
    if name not in times:
      times[name] = 0  # nothing calls itself
      times[name] = sum(count(caller) * trips for caller, trips in callers[name])
    return times[name]
  for name in list(callers):
    count(name)
  in_loop, inside = set(bodies), lambda name: any(caller in in_loop for caller, _ in callers[name])
  while more := {name for name in callers if name not in in_loop and inside(name)}:
    in_loop |= more
  return times, in_loop
