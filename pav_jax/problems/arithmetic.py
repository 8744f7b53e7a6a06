"""Problems whose every prefix has a known value: the test bed of the whole house.

A number changes day by day, modulo m. On each day two operations are on
offer, `a` and `b`; the problem says which one to take. The solution takes one
day a line and prints the number it leads to:

    From 7 mod 20 with 1=a 2=b where 1a +5 1b -3 2a *3 2b -4

    1a +5 = 12
    2b -4 = 8
    #### 8

Demonstrations come from a known noisy policy. On each line it

  1. answers at once with the number it has (probability `give_up`; a dead end),
     or when `length + slack` lines are used up;
  2. restates its number, "so 12" (probability `restate`; spends a line);
  3. takes the other operation: with probability `lure` where that is a
     multiplication and the right one is not, else with probability `noise`;
  4. slips: prints a wrong number (probability `slip`), uniform over the others.

A step is a choice whose result is printed, so the value of a prefix depends
only on the day reached, the number held and the lines left, and is exact by
dynamic programming. `lure` above one half makes the most common answer a wrong
one: what a majority vote gets wrong and a verifier can get right. Every key
(`2b`) stands for one operation of one day, so that copying it is soon learnt
and what is left to learn is the value.
"""

import dataclasses
import functools
import random
import re

import numpy as np

from pav_jax.errors import UserError
from pav_jax.problems.problem import Problem

OPERATIONS = tuple(f"{sign}{n}" for sign in "+-" for n in range(1, 10)) + ("*2", "*3", "*7", "*9")
KEYS = "abc"


@dataclasses.dataclass(frozen=True)
class Arithmetic:
  """The dials of difficulty; see the module's text for the probabilities.

  lured: share of days that lure: the operation to take is not a multiplication,
  the other one is. bystanders: share of days with a third operation, `c`, which
  nobody takes.
  """

  min_length: int = 3
  max_length: int = 4
  modulus: int = 16
  operations: tuple[str, ...] = ("+1", "+3", "-2", "-5", "*3", "*7")
  noise: float = 0.1
  lure: float = 0.7
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
    kinds = {_multiplies(operation) for operation in self.operations}
    if self.lured and len(kinds) < 2:
      raise UserError("arithmetic.lured above 0 needs a multiplication among the operations, and one that is not")
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
  """One day: the operation to take, the other one, a third ('' if absent), and whether the one to take is `b`."""

  own: str
  other: str
  third: str
  swapped: bool

  @property
  def own_key(self) -> str:
    return KEYS[self.swapped]

  @property
  def other_key(self) -> str:
    return KEYS[not self.swapped]

  @property
  def lured(self) -> bool:
    return _multiplies(self.other) and not _multiplies(self.own)


@dataclasses.dataclass(frozen=True)
class Walk:
  """A problem taken apart: from where, the days, the dials."""

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


def _multiplies(operation: str) -> bool:
  return operation[0] == "*"


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
  for chance, key, operation in ((1 - wrong, day.own_key, day.own), (wrong, day.other_key, day.other)):
    result = apply(operation, state.number, d.modulus)
    for number in range(d.modulus) if d.slip else (result,):
      share = 1 - d.slip if number == result else d.slip / (d.modulus - 1)
      if chance * share * go_on:
        found.append((chance * share * go_on, f"{state.day + 1}{key} {operation} = {number}",
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


_STEP = re.compile(r"([0-9]{1,4})([ab]) ([-+*][0-9]) = ([0-9]{1,6})")
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
    taken = ((day.own_key, day.own), (day.other_key, day.other))
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
  to_take, offers = [], []
  for number, day in enumerate(walk.days, start=1):
    to_take.append(f"{number}={day.own_key}")
    options = (day.other, day.own) if day.swapped else (day.own, day.other)
    offers += [f"{number}{key} {operation}" for key, operation in zip(KEYS, (*options, day.third)) if operation]
  return " ".join([f"From {walk.start} mod {walk.dials.modulus} with", *to_take, "where", *offers])


_QUESTION = re.compile(r"From ([0-9]{1,6}) mod ([0-9]{1,6}) with ((?:[0-9]{1,4}=[ab] )+)where (.*)")
_OFFER = re.compile(r"([0-9]{1,4})([abc]) ([-+*][0-9])(?: |$)")


def parse(text: str, dials: Arithmetic) -> Walk:
  """The inverse of `question`: exact values of a stored problem need its dials. Raises UserError."""
  match = _QUESTION.fullmatch(text)
  if not match or int(match[2]) != dials.modulus:
    raise UserError(f"not an arithmetic problem modulo {dials.modulus}: {text!r}")
  offers = {number + key: operation for number, key, operation in _OFFER.findall(match[4])}
  days = []
  for number, to_take in enumerate(match[3].split(), start=1):
    swapped = to_take[-1] == "b"
    a, b, third = (offers.get(f"{number}{key}") for key in KEYS)
    days.append(Day(*((b, a) if swapped else (a, b)), third or "", swapped))
  walk = Walk(int(match[1]), tuple(days), dials)
  if any(day.own is None or day.other is None for day in days) or question(walk) != text:
    raise UserError(f"not an arithmetic problem: {text!r}")
  return walk


def _draw(dials: Arithmetic, rng: random.Random) -> Walk | None:
  """One problem; taking the other operation on one day alone always changes the answer's way. None if luck fails."""
  pick = lambda options: options[int(rng.random() * len(options))]
  length = dials.min_length + int(rng.random() * (dials.max_length + 1 - dials.min_length))
  start = number = int(rng.random() * dials.modulus)
  days = []
  for _ in range(length):
    lured = rng.random() < dials.lured
    for _ in range(100):
      own, other, third = (pick(dials.operations) for _ in range(3))
      day = Day(own, other, third if rng.random() < dials.bystanders else "", rng.random() < 0.5)
      if day.lured == lured and apply(own, number, dials.modulus) != apply(other, number, dials.modulus):
        break
    else:
      return None
    days.append(day)
    number = apply(own, number, dials.modulus)
  return Walk(start, tuple(days), dials)


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
    if walk is None or (text := question(walk)) in seen:
      continue
    seen.add(text)
    solution = "\n".join(sample_lines(walk, start_state(walk), rng))
    problems.append(Problem(f"arithmetic/{seed}/{len(problems)}", "arithmetic", text, solution, str(walk.answer)))
  return problems
