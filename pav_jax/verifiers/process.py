"""A process verifier by name or path: what kind it is, what that can be asked for, and what it says of responses.

Kinds (targets.py) differ in what their sigmoid means:

  q, hard, drop        a value: best-of-K, advantages and the effective reward are made of it; of `hard` and `drop` those of
                       best-of-n of the policy, n the continuations of a label
  relative, effective  a verdict on the last step: there is no value in it, nothing to take a difference of
  implicit             two language models, read together at every token of a response that is there

A checkpoint that does not say its kind, as none did in the beginning, is taken for what is asked for.
"""

from collections.abc import Sequence
from typing import NamedTuple

from etils import epath
import numpy as np

from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.problems.given import Given
from pav_jax.training import checkpoint
from pav_jax.training import files
from pav_jax.training.run import Run
from pav_jax.verifiers import given as given_lib
from pav_jax.verifiers import implicit
from pav_jax.verifiers import score
from pav_jax.verifiers import targets


class Verdicts(NamedTuple):
  """What a verifier of kind relative or effective makes of s steps, float32 (s,): the chance that each is called good."""

  verdict_s: np.ndarray


class ProcessRewards(NamedTuple):
  """What one of kind implicit makes of s steps, float32: q_z (s + 1,) as of library.Scores, and each step's reward, in log-odds."""

  q_z: np.ndarray
  process_reward_s: np.ndarray


def of_steps(kind: str, score_z: np.ndarray) -> Verdicts | ProcessRewards:
  """What a verifier of a kind that says no value makes of s steps, from its sigmoids (s + 1,) at the bare prompt and each step's end."""
  if kind in targets.VERDICTS:
    return Verdicts(score_z[1:])
  return ProcessRewards(score_z, implicit.process_rewards(score_z).astype(np.float32))


def path_of(name: str, root: epath.Path) -> str:
  """The checkpoint that a config names: '' is the run's own of kind q, a kind the run's own of that kind, all else a path."""
  return str(root / "verifier" / (name or "q") / "best") if not name or name in targets.KINDS else name


def check(name: str, key: str, kinds: Sequence[str], wanted: Sequence[str], root: epath.Path | None) -> str:
  """The kind of the verifier that `name` means; '' where it does not say, or is not there yet.

  key: where the config names it; kinds: those that the run trains; wanted: those that will do; root: the workdir, if there is one.
  UserError for another kind, one that the run does not train, a path that is no checkpoint.
  """
  if not name or name in targets.KINDS:
    kind = name or "q"
    if kind not in kinds:
      raise UserError(f"{key} {name!r} is the run's own verifier of kind {kind!r}, which config.verifier.kinds {tuple(kinds)} "
                      "does not name")
  else:
    architecture.check_checkpoint(name, key, root)
    kind = architecture.kind_of(name) if files.exists(files.path(name)) else ""
  return _wanted(kind, wanted, f"{key} {name!r}")


def _wanted(kind: str, wanted: Sequence[str], who: str) -> str:
  if kind and kind not in wanted:
    raise UserError(f"{who} is {named(kind)}, and {named(*wanted)} is needed")
  return kind


def named(*kinds: str) -> str:
  """'a policy', 'a verifier of kind q, hard or drop'."""
  if kinds == ("policy",):
    return "a policy"
  return "a verifier of kind " + ", ".join(kinds[:-1]) + " or " * (len(kinds) > 1) + kinds[-1]


def check_guide(kind: str, values: bool, who: str):
  """UserError where a verifier of this kind cannot guide a beam; values: whether advantages are made of what it says, or added to it."""
  if kind == "implicit":
    raise UserError(f"{who} is {named(kind)}: two language models that read every token of a response, where a beam has one "
                    "network's score at the end of each step: it reranks whole responses, and guides no beam")
  if kind in targets.VERDICTS and values:
    raise UserError(f"{who} is {named(kind)}, a verdict on the last step: it is no Q^pi, and has no advantages: with alpha=0 a "
                    "beam goes by the verdict alone")


def restore(path: str, section, vocabulary, mesh, wanted: Sequence[str] = targets.KINDS):
  """(architecture, parameters, kind) of a verifier's checkpoint; of kind implicit the parameters are an `implicit.Pair`.

  UserError for a kind that is not wanted, and as of architecture.restore.
  """
  kind = _wanted(architecture.kind_of(path), wanted, f"checkpoint {path}")
  arch, params = architecture.restore(path, section, vocabulary, mesh)
  if kind == "implicit":
    params = implicit.pair(path, checkpoint.read_meta(path), arch, params, mesh)
  return arch, params, kind


def of_responses(run: Run, arch, params, problems, rollouts, end_bz: np.ndarray, rows_per_call: int) -> np.ndarray:
  """sigmoid of what a verifier says of each prefix, float32 (b, z); NaN where end_bz is -2 (as in values.Values)."""
  if not isinstance(params, implicit.Pair):
    return score.score_responses(
        arch.network, params, problems.prompt_pt, problems.prompt_length_p, rollouts.problem_b, rollouts.token_bt,
        rollouts.length_b, end_bz, rows_per_call=rows_per_call, mesh=run.mesh)
  prompts = [problems.prompt_pt[p, :problems.prompt_length_p[p]] for p in rollouts.problem_b]
  given = [Given(token_t[:length], end_s[end_s > -2])
           for token_t, length, end_s in zip(rollouts.token_bt, rollouts.length_b, end_bz[:, 1:])]
  found_bz = np.full(end_bz.shape, np.nan, np.float32)
  for row_z, value_z in zip(found_bz, given_lib.values(arch, params, prompts, given, rows=rows_per_call, mesh=run.mesh)):
    row_z[:len(value_z)] = value_z
  return found_bz
