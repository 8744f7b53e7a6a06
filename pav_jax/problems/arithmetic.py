"""Problems whose every prefix has a known value: the test bed of the whole house.

Somebody starts with a number; on each day one thing happens to it and another
to somebody else's; the question is what the first one has in the end, modulo
m. The solution takes one day a line and prints the state it leads to:

    Eve has 7 mod 20. 1: Eve +5 Dan -3 2: Dan *3 Eve -4 What has Eve?

    1: Eve +5 = 12
    2: Eve -4 = 8
    #### 8

Demonstrations come from a known noisy policy. On each line it

  1. answers at once with the number it has (probability `give_up`; a dead end),
     or when `length + slack` lines are used up;
  2. restates its number, "so 12" (probability `restate`; spends a line);
  3. takes the other's operation: with probability `noise` where its own name
     comes first on that day, `lure` where the other's does;
  4. slips: prints a wrong number (probability `slip`), uniform over the others.

A step is a choice whose result is printed, so the value of a prefix depends
only on the day reached, the number held and the lines left, and is exact by
dynamic programming. `lure` above one half makes the most common answer a wrong
one: what a majority vote gets wrong and a verifier can get right.
"""

import dataclasses
import functools
import random
import re

import numpy as np

from pav_jax.errors import UserError
from pav_jax.problems.problem import Problem

OPERATIONS = tuple(f"{sign}{n}" for sign in "+-" for n in range(1, 10)) + ("*2", "*3", "*7", "*9")
NAMES = ("Ann", "Bob", "Cy", "Dan", "Eve", "Fay", "Gus", "Hal")


@dataclasses.dataclass(frozen=True)
class Arithmetic:
  """The dials of difficulty; see the module's text for the probabilities.

  lured: share of days on which the other is named first. bystanders: share of
  days on which a third name comes last, whose operation is never taken.
  """

  min_length: int = 3
  max_length: int = 5
  modulus: int = 20
  operations: tuple[str, ...] = ("+1", "+3", "+7", "-2", "-4", "-5", "*3", "*7")
  noise: float = 0.2
  lure: float = 0.6
  lured: float = 0.5
  slip: float = 0.0
  restate: float = 0.0
  slack: int = 1
  give_up: float = 0.0
  bystanders: float = 0.0

  def __post_init__(self):
    unknown = sorted(set(self.operations) - set(OPERATIONS))
    if unknown:
      raise UserError(f"arithmetic.operations: {unknown[0]!r} is not one of {' '.join(OPERATIONS)}")
    if len(set(self.operations)) < 3:
      raise UserError("arithmetic.operations: at least three different ones are needed")
    if not 1 <= self.min_length <= self.max_length:
      raise UserError(f"arithmetic: lengths {self.min_length}..{self.max_length} are not 1 <= min <= max")
    if self.modulus < 3:
      raise UserError(f"arithmetic.modulus: {self.modulus} is below 3")
    for name in ("noise", "lure", "lured", "slip", "restate", "give_up", "bystanders"):
      if not 0 <= getattr(self, name) <= 1:
        raise UserError(f"arithmetic.{name}: {getattr(self, name)} is not a probability")
    if self.restate + self.give_up > 1:
      raise UserError("arithmetic: restate + give_up exceed 1")
    if self.slack < 0:
      raise UserError(f"arithmetic.slack: {self.slack} is negative")


@dataclasses.dataclass(frozen=True)
class Day:
  """One day: one's own operation, the other's, a third one's ('' if absent), and who is named first."""

  own: str
  other: str
  third: str
  lured: bool


@dataclasses.dataclass(frozen=True)
class Walk:
  """A problem taken apart: who (own, other, third), from where, the days, the dials."""

  names: tuple[str, str, str]
  start: int
  days: tuple[Day, ...]
  dials: Arithmetic

  @property
  def answer(self) -> int:
    number = self.start
    for day in self.days:
      number = apply(day.own, number, self.dials.modulus)
    return number

  @property
  def max_lines(self) -> int:
    return len(self.days) + self.dials.slack


@dataclasses.dataclass(frozen=True)
class State:
  """Where a prefix stands: days taken, number held, lines used, and whether it has answered."""

  day: int
  number: int
  lines: int
  answered: bool = False


def apply(operation: str, number: int, modulus: int) -> int:
  """The number after '+3', '-2' or '*7', modulo modulus."""
  operand = int(operation[1:])
  return {"+": number + operand, "-": number - operand, "*": number * operand}[operation[0]] % modulus


def outcomes(walk: Walk, state: State) -> list[tuple[float, str, State]]:
  """The demonstrator's next lines: (probability, line, state it leads to); they sum to 1."""
  if state.answered:
    raise ValueError("an answered prefix has no next line")
  d = walk.dials
  answer = (f"#### {state.number}", dataclasses.replace(state, lines=state.lines + 1, answered=True))
  if state.day == len(walk.days) or state.lines >= walk.max_lines:
    return [(1.0, *answer)]
  found = []
  if d.give_up:
    found.append((d.give_up, *answer))
  if d.restate:
    again = dataclasses.replace(state, lines=state.lines + 1)
    found.append((d.restate, f"so {state.number}", again))
  go_on = 1 - d.give_up - d.restate
  day = walk.days[state.day]
  wrong = d.lure if day.lured else d.noise
  for chance, name, operation in ((1 - wrong, walk.names[0], day.own), (wrong, walk.names[1], day.other)):
    result = apply(operation, state.number, d.modulus)
    for number in range(d.modulus) if d.slip else (result,):
      share = 1 - d.slip if number == result else d.slip / (d.modulus - 1)
      if chance * share * go_on:
        found.append((chance * share * go_on, f"{state.day + 1}: {name} {operation} = {number}",
                      State(state.day + 1, number, state.lines + 1)))
  return found


@functools.lru_cache(maxsize=100_000)
def exact_q(walk: Walk, state: State) -> float:
  """Q of a prefix that stands at `state` under the demonstrator (Eq. 1), by dynamic programming."""
  if state.answered:
    return float(state.number == walk.answer)
  return sum(p * exact_q(walk, after) for p, _, after in outcomes(walk, state))


def start_state(walk: Walk) -> State:
  """Where the bare prompt stands."""
  return State(0, walk.start, 0)


def sample_lines(walk: Walk, state: State, rng: random.Random) -> list[str]:
  """The demonstrator's lines from `state` to its answer: the tabular policy."""
  lines = []
  while not state.answered:
    options = outcomes(walk, state)
    cut = rng.random()
    for p, line, state in options:
      cut -= p
      if cut < 0:
        break
    lines.append(line)
  return lines


_STEP = re.compile(r"([0-9]{1,4}): (\w+) ([-+*][0-9]) = ([0-9]{1,6})")
_RESTATE = re.compile(r"so ([0-9]{1,6})")
_ANSWER = re.compile(r"#### ([0-9]{1,6})")


def read_line(walk: Walk, state: State, line: str) -> State | None:
  """The state after a line, None if no demonstrator would write it (another day, another operation...)."""
  if state.answered:
    return None
  if match := _ANSWER.fullmatch(line):
    return dataclasses.replace(state, number=int(match[1]), lines=state.lines + 1, answered=True)
  if state.lines >= walk.max_lines:
    return None
  if match := _RESTATE.fullmatch(line):
    if int(match[1]) != state.number:
      return None
    return dataclasses.replace(state, lines=state.lines + 1)
  if (match := _STEP.fullmatch(line)) and state.day < len(walk.days):
    day = walk.days[state.day]
    taken = ((walk.names[0], day.own), (walk.names[1], day.other))
    number = int(match[4])
    if int(match[1]) == state.day + 1 and (match[2], match[3]) in taken and number < walk.dials.modulus:
      return State(state.day + 1, number, state.lines + 1)
  return None


def exact_values(walk: Walk, lines: list[str]) -> np.ndarray:
  """q_z, float64 (len(lines) + 1,): exact Q at the bare prompt and after each line.

  NaN from the first line on that the demonstrator could not have written; the
  demonstrator always answers with the number it holds, but an answer line with
  another number is still scored: right or wrong.
  """
  state = start_state(walk)
  q_z = np.full(len(lines) + 1, np.nan)
  q_z[0] = exact_q(walk, state)
  for z, line in enumerate(lines, start=1):
    state = read_line(walk, state, line)
    if state is None:
      break
    q_z[z] = exact_q(walk, state)
  return q_z


def question(walk: Walk) -> str:
  """The problem in words."""
  own, other, third = walk.names
  words = [f"{own} has {walk.start} mod {walk.dials.modulus}."]
  for number, day in enumerate(walk.days, start=1):
    named = [f"{own} {day.own}", f"{other} {day.other}"]
    words += [f"{number}:", *(reversed(named) if day.lured else named)] + [f"{third} {day.third}"] * bool(day.third)
  return " ".join([*words, f"What has {own}?"])


_QUESTION = re.compile(r"(\w+) has ([0-9]+) mod ([0-9]+)\. (.*) What has \1\?")
_DAY = re.compile(r"[0-9]+: (\w+) ([-+*][0-9]) (\w+) ([-+*][0-9])(?: (\w+) ([-+*][0-9]))?(?: |$)")


def parse(text: str, dials: Arithmetic) -> Walk:
  """The inverse of `question`: exact values of a stored problem need its dials. Raises UserError."""
  match = _QUESTION.fullmatch(text)
  if not match or int(match[3]) != dials.modulus:
    raise UserError(f"not an arithmetic problem modulo {dials.modulus}: {text!r}")
  own, other, third, days = match[1], "", "", []
  for name1, operation1, name2, operation2, name3, operation3 in _DAY.findall(match[4]):
    lured = name1 != own
    days.append(Day(operation2, operation1, operation3, True) if lured else
                Day(operation1, operation2, operation3, False))
    other, third = name1 if lured else name2, name3 or third
  walk = Walk((own, other, third), int(match[2]), tuple(days), dials)
  if question(walk) != text:
    raise UserError(f"not an arithmetic problem: {text!r}")
  return walk


def _draw(dials: Arithmetic, rng: random.Random) -> Walk:
  """One problem; taking the other's operation on one day alone always changes the answer's way."""
  pick = lambda options: options[int(rng.random() * len(options))]
  length = dials.min_length + int(rng.random() * (dials.max_length + 1 - dials.min_length))
  own = pick(NAMES)
  other = pick([name for name in NAMES if name != own])
  third = pick([name for name in NAMES if name not in (own, other)]) if dials.bystanders else ""
  start = number = int(rng.random() * dials.modulus)
  days = []
  while len(days) < length:
    mine, yours, theirs = (pick(dials.operations) for _ in range(3))
    if apply(mine, number, dials.modulus) == apply(yours, number, dials.modulus):
      continue
    theirs = theirs if rng.random() < dials.bystanders else ""
    days.append(Day(mine, yours, theirs, rng.random() < dials.lured))
    number = apply(mine, number, dials.modulus)
  if not any(day.third for day in days):
    third = ""
  return Walk((own, other, third), start, tuple(days), dials)


def generate(dials: Arithmetic, seed: int, count: int) -> list[Problem]:
  """`count` different problems with one noisy demonstration each; the same for the same arguments.

  The demonstration is the noisy policy's, right or wrong: imitating it gives
  a policy whose values are known. The answer is the true one.

  Raises UserError when the dials leave too few different problems.
  """
  rng = random.Random(seed)
  problems, seen, tries = [], set(), 0
  while len(problems) < count:
    tries += 1
    if tries > 20 * count + 1000:
      raise UserError(f"arithmetic: the dials give fewer than {count} different problems (seed {seed})")
    walk = _draw(dials, rng)
    text = question(walk)
    if text in seen:
      continue
    seen.add(text)
    solution = "\n".join(sample_lines(walk, start_state(walk), rng))
    problems.append(Problem(f"arithmetic/{seed}/{len(problems)}", "arithmetic", text, solution, str(walk.answer)))
  return problems
