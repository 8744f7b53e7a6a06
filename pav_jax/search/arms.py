"""Arms of search: who is asked, what a candidate is ranked by, how candidates are kept.

An arm's name is one of ARMS, and @NAME behind it where another than the policy is its prover: one of
`search.provers`, whose paths are verifiers of Q^mu (or of A^mu itself, as their checkpoints say), or

  exact      the demonstrator's exact values, on `arithmetic` (values/exact.py): an all-wise prover, which costs nothing
  advantage  the run's own verifier of A^mu

  best_of_K  best-of-K of Q^pi for a K of the arm's own, as best_of_2; best_of_1 is the policy itself, mu = pi

Without @NAME the prover is best-of-K of Q^pi, `search.prover_k`. A second verifier of the policy itself is a name like others.

Every arm has one knob, which the stage `tune` tries `search.settings` of. In a round of width n every arm draws about
n * `search.candidates` steps (`places`): with more candidates a parent, or with lookahead, it has fewer places.
"""

import re
from typing import NamedTuple

from pav_jax.errors import UserError
from pav_jax.problems import mixture
from pav_jax.search import ranking

KNOBS = ("alpha", "candidates", "lookahead", "particle_temperature")
SPECIAL = ("exact", "advantage")
_BEST_OF = re.compile(r"best_of_([1-9]\d*)")


class Arm(NamedTuple):
  """One of ranking.SCORES, one of keep.WAYS, one of KNOBS; prover: 'none', or whether @NAME 'may' or 'must' be there.

  'lookahead' as the knob: a candidate's score is the judges' after so many more steps.
  """

  score: str
  way: str = "beam"
  knob: str = "candidates"
  prover: str = "none"


ARMS = {
    "q_beam": Arm("q"),
    "q_subtrees": Arm("q", "subtrees"),
    "q_lookahead": Arm("q", knob="lookahead"),
    "pav_beam": Arm("effective", knob="alpha", prover="may"),
    "pav_subtrees": Arm("effective", "subtrees", "alpha", "may"),
    "pav_lookahead": Arm("effective", knob="lookahead", prover="may"),
    "prover_q_beam": Arm("prover_q", prover="must"),
    "prover_q_subtrees": Arm("prover_q", "subtrees", prover="must"),
    "prover_a_beam": Arm("prover_a", prover="may"),
    "prover_a_subtrees": Arm("prover_a", "subtrees", prover="may"),
    "particles": Arm("q", "particles", "particle_temperature"),
    "prover_particles": Arm("prover_q", "particles", "particle_temperature", "must"),
    "particles_progress": Arm("prover_a", "particles", "particle_temperature", "may"),
    "random_beam": Arm("random", knob="alpha", prover="may"),
    "constant_beam": Arm("constant"),
}


def parsed(name: str) -> tuple[Arm, str]:
  """(the arm, its prover's name or '') of a name that `check` lets pass."""
  base, _, prover = name.partition("@")
  return ARMS[base], prover


def best_of(prover: str, prover_k: int) -> int | None:
  """K of a prover that is best-of-K of Q^pi (Eq. 30): its own, prover_k where the arm has no @NAME; None of another prover."""
  own = _BEST_OF.fullmatch(prover)
  return int(own[1]) if own else None if prover else prover_k


def check(config, where: str):
  """UserError for an arm or a prover that is none, and for settings that are not as many for every knob."""
  knobs = config.search
  names = tuple(knobs.arms)
  if not names or len(set(names)) < len(names):
    raise UserError(f"{where}.arms {names}: at least one, and each comes once")
  for name in names:
    _check_name(name, config, where)
  for taken in [name for name in knobs.provers if name in SPECIAL or _BEST_OF.fullmatch(name)]:
    raise UserError(f"{where}.provers.{taken}: the name is taken by a prover of its own; another name")
  counts = {knob: len(knobs.settings[knob]) for knob in KNOBS}
  for knob in KNOBS:
    least, values = {"candidates": 1}.get(knob, 0), (*knobs.settings[knob], knobs[knob])
    if not counts[knob] or counts[knob] != max(counts.values()):
      raise UserError(f"{where}.settings.{knob} {tuple(knobs.settings[knob])}: each knob has as many settings, one at least")
    if not all(least <= x < float("inf") for x in values) or knob == "particle_temperature" and min(values) == 0:
      raise UserError(f"{where}.{knob} {knobs[knob]} and {where}.settings.{knob} {tuple(knobs.settings[knob])}: none may be "
                      f"{'less than' if knob != 'particle_temperature' else 'as small as'} {least}, or infinite")


def _check_name(name: str, config, where: str):
  base, at, prover = name.partition("@")
  said, provers = f"{where}.arms {name!r}", config.search.provers
  if base not in ARMS:
    raise UserError(f"{said}: no arm {base!r}; there are {', '.join(ARMS)}")
  arm = ARMS[base]
  if at and arm.prover == "none":
    raise UserError(f"{said}: {base} has no prover; leave {at}{prover} out")
  if not prover and (at or arm.prover == "must"):
    raise UserError(f"{said}: whose Q? {base}@NAME, one of {', '.join([*provers, 'exact'])}")
  if prover == "exact":
    others = {"gsm8k", "gsm8k_notes", "math", "math_prm800k"} & set(mixture.rates(config.problems[config.search.split]))
    if others:
      raise UserError(f"{said}: exact values are known of arithmetic problems alone, not of {', '.join(sorted(others))}")
  elif prover == "advantage":
    if arm.score == "prover_q":
      raise UserError(f"{said}: a verifier of A says no Q")
    if "advantage" not in config.verifier.kinds:
      kinds = tuple(config.verifier.kinds)
      raise UserError(f"{said} reads the verifier 'advantage', which config.verifier.kinds {kinds} does not name")
  elif _BEST_OF.fullmatch(prover):
    if arm.score == "prover_q":
      raise UserError(f"{said}: best-of-K's Q ranks as Q^pi does, whose arm it is: {base.removeprefix('prover_')}")
  elif prover and prover not in provers:
    raise UserError(f"{said}: no prover {prover!r} among {where}.provers: {', '.join([*provers, *SPECIAL, 'best_of_K'])}")
  elif prover and not provers[prover]:
    raise UserError(f"{said}: {where}.provers.{prover} is empty: the path of a verifier of its Q")


def settings_of(name: str, knobs, value=None) -> dict:
  """What the arm is run with: the section's KNOBS, its own one at `value` if that is given; no lookahead unless that is its knob."""
  arm, _ = parsed(name)
  found = {"alpha": knobs.alpha, "candidates": knobs.candidates, "lookahead": knobs.lookahead,
           "particle_temperature": knobs.particle_temperature}
  if value is not None:
    found[arm.knob] = type(found[arm.knob])(value)
  if arm.knob != "lookahead":
    found["lookahead"] = 0
  if arm.way == "particles":
    found["candidates"] = 1
  return found


def takes_values(knobs) -> bool:
  """Whether an arm makes advantages of what says Q^pi, or adds some to it: then it must be a value (verifiers/process.py)."""
  def asks(name):
    arm, prover = parsed(name)
    mixed = arm.score in ("effective", "random") and (knobs.alpha != 0 or knobs.tuned)
    return mixed or arm.score == "prover_a" and best_of(prover, knobs.prover_k) is not None
  return any(asks(name) for name in knobs.arms)


def readers(name: str) -> list[str]:
  """The verifiers that the arm reads, 'q' and its prover's name; alpha 0, which reads no prover, is not thought of."""
  arm, prover = parsed(name)
  kind = "q" if best_of(prover, 1) is None else "best_of_k"
  reads_q, reads_prover = ranking.Ranking(arm.score, ranking.Prover(kind), 1.0).reads
  return ["q"] * reads_q + [prover] * (reads_prover and prover != "exact")


def places(width: int, settings: dict, candidates: int) -> int:
  """Places of the beam (trees, particles) at a width: of its width * candidates steps a round each place takes those of its own
  candidates, with their lookahead."""
  return max(1, width * candidates // (settings["candidates"] * (1 + settings["lookahead"])))
