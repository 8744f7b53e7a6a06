"""Checkpoints in use: load, sample, score, search, grade. What `pav_jax` exports, and nothing else, is promised to stay.

Texts come in and go out; the ids between them are those of the run that made
the checkpoint (problems/home.py).
"""

from collections.abc import Callable, Iterable, Sequence
import numbers
import os
from typing import NamedTuple

import ml_collections
import numpy as np

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.grading import answers
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.models import gemma
from pav_jax.problems import given as given_lib
from pav_jax.problems import home as home_lib
from pav_jax.problems import prepared
from pav_jax.rollouts import collect
from pav_jax.rollouts import jobs as jobs_lib
from pav_jax.rollouts import sampling as sampling_lib
from pav_jax.search import beam
from pav_jax.search import ranking
from pav_jax.training import mesh as mesh_lib
from pav_jax.verifiers import given as values_lib
from pav_jax.verifiers import process
from pav_jax.verifiers import targets

PROVER_KINDS = ("q", "advantage")


class Model(NamedTuple):
  """A policy or a verifier on this process's devices: its network (arch), parameters, texts (home) and mesh.

  kind: 'policy', or what a verifier says (verifiers/targets.py); '' of a checkpoint that does not tell.
  """

  arch: architecture.Architecture
  params: object
  home: home_lib.Home
  mesh: object
  kind: str


class Response(NamedTuple):
  """A sampled response: its text, int32 token_t, float32 log_prob_t (natural logarithms), whether it came to its end."""

  text: str
  token_t: np.ndarray
  log_prob_t: np.ndarray
  ended: bool


class Scores(NamedTuple):
  """What a verifier makes of s steps, float32: chances, and differences of chances.

  q_z: (s + 1,), Q^pi of the bare question and behind each step; advantage_s:
  A^mu of each step under the prover; effective_reward_s: Q^pi + alpha A^mu.
  """

  q_z: np.ndarray
  advantage_s: np.ndarray
  effective_reward_s: np.ndarray


class Found(NamedTuple):
  """What a beam came to: the response's text, its Q^pi, whether it came to its end (else its tokens were used up)."""

  text: str
  q: float
  ended: bool


def load(checkpoint: str, *, vocabulary: str = "", prompt: str = "", steps: str = "", size: str = "") -> Model:
  """A policy or a verifier from a checkpoint: a step's folder, or the folder of steps, as WORKDIR/sft/best.

  vocabulary, prompt, steps: as in `home.of`; needed where no run lies above
  the checkpoint. size: what weights of others are, as gemma2_2b,
  where they do not say it.
  Raises UserError for whatever of it is wrong.
  """
  _each(lambda x: isinstance(x, (str, os.PathLike)), "a path", checkpoint=checkpoint)
  _each(lambda x: isinstance(x, str), "a string", vocabulary=vocabulary, prompt=prompt, steps=steps, size=size)
  checkpoint = os.fspath(checkpoint)
  home = home_lib.of(checkpoint, vocabulary=vocabulary, prompt=prompt, steps=steps)
  mesh = mesh_lib.make_mesh(data=-1, fsdp=1, model=1)
  # Of a checkpoint of ours only logit_chunk is read.
  section = ml_collections.ConfigDict({"size": size, "vocab_size": gemma.SIZES[size].vocab_size if size in gemma.SIZES else 0, "param_dtype": "float32", "dtype": "float32",
                                       "logit_chunk": 128})
  arch, params, kind = process.restore(checkpoint, section, home.vocabulary, mesh, ("policy", *targets.KINDS))
  return Model(arch, params, home, mesh, kind)


def sample(policy: Model, questions: Sequence[str], n: int = 1, *, max_new: int, temperature: float = 1.0, top_k: int = 0,
           top_p: float = 1.0, seed: int = 0, rows: int = 128) -> list[list[Response]]:
  """n responses to each question, of at most max_new tokens.

  temperature 0 is greedy; top_k 0 and top_p 1 cut nothing. rows: that decode
  together. What is drawn hangs on seed, the question's place and the response's.
  """
  _models(policy=policy)
  of_kind(policy, "policy")
  questions = _texts("questions", questions)
  sampling = _sampling(temperature, top_k, top_p)
  _at_least_one(n=n, max_new=max_new, rows=rows)
  _check_seed(seed)
  if not questions:
    return []
  rollouts = collect.sample(
      policy.arch, policy.params, _problems(policy.home, questions), np.arange(len(questions), dtype=np.int32), n,
      tokens=_tables(policy), sampling=sampling, seed=seed, rows=rows, max_new=max_new, mesh=policy.mesh)
  responses = [Response(policy.home.vocabulary.decode(token_t[:length]), token_t[:length], log_prob_t[:length], bool(ended))
               for token_t, length, log_prob_t, ended in zip(
                   rollouts.token_bt, rollouts.length_b, rollouts.log_prob_bt, rollouts.ended_b)]
  return [responses[i * n:(i + 1) * n] for i in range(len(questions))]


def score_steps(verifier: Model, questions: Sequence[str], steps: Sequence[Sequence[str] | str], *,
                ended: bool | Sequence[bool] = True, prover: Model | None = None, prover_kind: str = "q", prover_k: float = 4,
                alpha: float = 0.5, rows: int = 64) -> list[Scores | process.Verdicts | process.ProcessRewards]:
  """What the verifier makes of each solution's steps, in the order given: Scores, unless its kind says something else.

  steps: for each question a list of steps, which is never split again, or a
  text, which the run's rule cuts. ended: whether solutions are over, all or
  each. prover: a second verifier, of Q^mu or (prover_kind=advantage) of A^mu;
  without one mu is best-of-prover_k of pi. rows: that are read together.
  """
  _models(verifier=verifier, prover=prover)
  questions = _texts("questions", questions)
  steps = [x if isinstance(x, str) else _texts(f"steps[{i}]", x) for i, x in enumerate(_list("steps", steps, len(questions)))]
  for i, some in enumerate(steps):
    if isinstance(some, str):
      continue  # a response that says nothing, as a policy may draw it, is its end alone
    said = some[:-1] if len(some) > 1 and some[-1] == "" else some  # a last one without anything is the text's end behind a newline
    _each(str.strip, "a text with something in it", **{f"steps[{i}][{j}]": x for j, x in enumerate(said)})
    if not some:
      raise UserError(f"steps[{i}] has no step")
  ended = _ended(ended, len(questions))
  given = [given_of(verifier.home, *one) for one in zip(steps, ended, strict=True)]
  prompts = [verifier.home.prompt_t(question) for question in questions]
  return score_given(verifier, prompts, given, prover=prover, how=how_of(prover, prover_kind, prover_k), alpha=alpha, rows=rows)


def given_of(home: home_lib.Home, steps: Sequence[str] | str, ended: bool) -> given_lib.Given:
  """The ids of a list of steps, or of a text that the run's rule cuts."""
  if isinstance(steps, str):
    return given_lib.cut(steps, home.vocabulary, ended=ended)
  return given_lib.tokens(steps, home.vocabulary, separator=given_lib.separator_of(home.steps), ended=ended)


def how_of(prover: Model | None, kind: str, k: float) -> ranking.Prover:
  """Whose advantages are added; UserError for a prover that means nothing."""
  if kind not in PROVER_KINDS:
    raise UserError(f"prover_kind {kind!r} is none of {', '.join(PROVER_KINDS)}")
  _numbers(prover_k=k)
  if not 0 < k < float("inf"):
    raise UserError(f"prover_k {k} is not above 0")
  if prover is not None:
    of_kind(prover, *(targets.VALUES if kind == "q" else (kind,)))
  return ranking.Prover("best_of_k" if prover is None else kind, k)


def score_given(verifier: Model, prompts: list[np.ndarray], given: list[given_lib.Given], *, prover: Model | None,
                how: ranking.Prover, alpha: float, rows: int, bar=None) -> list[Scores | process.Verdicts | process.ProcessRewards]:
  """`score_steps` of token ids (prompts with bos, responses with the ends of their steps); bar: one that counts rows.

  UserError for a row of more than `verifiers.given.LONGEST` tokens, which would take all memory.
  """
  _check_alpha(alpha)
  of_kind(verifier, *targets.PROCESS)
  if prover and verifier.kind not in ("", *targets.VALUES):
    raise UserError(f"{process.named(verifier.kind)} says no Q^pi, to which a prover's advantages could be added: leave the prover out")
  _at_least_one(rows=rows)
  for row, (prompt_t, one) in enumerate(zip(prompts, given, strict=True)):
    if (count := len(prompt_t) + len(one.token_t)) > values_lib.LONGEST:
      raise UserError(f"row {row} (questions[{row}] with steps[{row}]) has {count} tokens, more than {values_lib.LONGEST}")
  _of_one_vocabulary(verifier, prover)
  read = lambda model, bar: values_lib.values(model.arch, model.params, prompts, given, rows=rows, mesh=model.mesh, bar=bar)
  said = [read(verifier, bar), *([read(prover, None)] if prover else [])]
  if verifier.kind not in ("", *targets.VALUES):
    return [process.of_steps(verifier.kind, score_z) for score_z in said[0]]
  found = []
  for raw_vz in zip(*said):
    raw_zv = np.stack(raw_vz, axis=1)
    steps = raw_zv[1:], raw_zv[:-1], how
    effective_s = ranking.candidate_scores(raw_zv[1:], raw_zv[:-1], ranking.Ranking("effective", how, alpha))
    found.append(Scores(raw_zv[:, 0], ranking.step_advantages(*steps), effective_s))
  return found


def beam_search(policy: Model, verifier: Model, questions: Sequence[str], *, max_new: int, max_step: int | None = None,
                width: int = 4, candidates: int = 3, alpha: float = 0.5, prover: Model | None = None, prover_kind: str = "q",
                prover_k: float = 4, max_rounds: int = 40, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
                seed: int = 0, rows: int = 128) -> list[Found | None]:
  """A beam for each question (search/beam.py); None where nothing came to an end in max_rounds steps.

  max_new: tokens of a response; max_step: of a step (None: as many). width
  prefixes are kept, each with so many candidates; rows of these are drawn
  together. alpha and prover: as in `score_steps`; alpha 0 is the beam by Q^pi.
  """
  _models(policy=policy, verifier=verifier, prover=prover)
  of_kind(policy, "policy")
  of_kind(verifier, *targets.PROCESS)
  questions = _texts("questions", questions)
  sampling = _sampling(temperature, top_k, top_p)
  how = how_of(prover, prover_kind, prover_k)
  _check_alpha(alpha)
  process.check_guide(verifier.kind, alpha != 0, "the verifier")
  max_step = max_new if max_step is None else max_step
  _at_least_one(max_new=max_new, max_step=max_step, width=width, candidates=candidates, max_rounds=max_rounds, rows=rows)
  _check_seed(seed)
  _of_one_vocabulary(policy, verifier, prover)
  if not questions:
    return []
  problems = _problems(policy.home, questions)
  judges = beam.Judges(*(beam.Player(x.arch.network, x.params) if x else None for x in (verifier, prover)))
  found = beam.search(
      beam.Player(policy.arch.network, policy.params), judges, problems.prompt_pt, problems.prompt_length_p,
      np.arange(len(questions), dtype=np.int32), _tables(policy),
      way=beam.Way(ranking.Ranking("effective", how, alpha), width=width, candidates=candidates), max_rounds=max_rounds, max_new=max_new,
      max_step=max_step, sampling=sampling, seed=seed, rows=rows, mesh=policy.mesh)
  vocabulary = policy.home.vocabulary
  return [Found(vocabulary.decode(token_t[:length]), float(q), bool(token_t[length - 1] == vocabulary.eos_id)) if length else None
          for token_t, length, q in zip(found.token_pt, found.length_p, found.q_p)]


def grade_answers(references: Sequence[str], responses: Sequence[str], dataset: str = "math", *,
                  ended: bool | Sequence[bool] = True) -> list[grading.Grade]:
  """A grade (verdict, answer, reason) for each response; dataset: gsm8k, math or arithmetic, whose ways to state an answer are read.

  Raises UserError for a reference that nothing can be compared with.
  """
  references = _texts("references", references)
  responses = _texts("responses", responses, len(references), "references")
  errors.one_of(answers.DATASETS, {"dataset": dataset}, "arguments", "dataset")
  ended = _ended(ended, len(references), "references")
  with grading.Grader() as grader:
    return grader.grade(references, responses, dataset, ended)


def _problems(home: home_lib.Home, questions: Sequence[str]) -> prepared.Problems:
  """The prompts of the questions; nothing else is known of them."""
  prompts = [home.prompt_t(question) for question in questions]
  length_p = np.array([len(prompt_t) for prompt_t in prompts], np.int32)
  prompt_pt = np.full((len(prompts), -(-int(length_p.max()) // 8) * 8), home.vocabulary.pad_id, np.int32)
  for row_t, prompt_t in zip(prompt_pt, prompts):
    row_t[:len(prompt_t)] = prompt_t
  nothing_p = np.array([""] * len(prompts))
  return prepared.Problems(nothing_p, nothing_p, np.array(questions), nothing_p, prompt_pt, length_p,
                           np.zeros((len(prompts), 1), np.int32), np.zeros(len(prompts), np.int32))


def _tables(policy: Model):
  return jobs_lib.token_tables(policy.home.vocabulary, policy.arch.config.vocab_size)


def _sampling(temperature: float, top_k: int, top_p: float) -> sampling_lib.Sampling:
  _numbers(temperature=temperature, top_p=top_p)
  _whole(top_k=top_k)
  sampling = sampling_lib.Sampling(temperature, top_k, top_p)
  sampling_lib.check(sampling, "sampling")
  return sampling


def _each(fits: Callable[[object], object], what: str, **arguments):
  """The one check at the door: UserError for the first of these arguments that is not what it should be."""
  for name, value in arguments.items():
    if not fits(value):
      said = " ".join(repr(value).split())
      raise UserError(f"{name} is not {what}, but {type(value).__name__} {said if len(said) <= 60 else said[:57] + '...'}")


def _models(*, prover: Model | None = None, **models: Model):
  _each(lambda x: isinstance(x, Model), "a Model, as pav_jax.load gives", **models, **({} if prover is None else {"prover": prover}))


def of_kind(model: Model, *wanted: str):
  """UserError for a model that says it is of another kind than these."""
  if model.kind not in ("", *wanted):
    raise UserError(f"{process.named(*wanted)} is needed, and a checkpoint of {process.named(model.kind)} is given")


def _whole(**arguments: int):
  _each(lambda x: isinstance(x, numbers.Integral) and not isinstance(x, bool), "a whole number", **arguments)


def _numbers(**arguments: float):
  _each(lambda x: isinstance(x, numbers.Real) and not isinstance(x, bool), "a number", **arguments)


def _at_least_one(**arguments: int):
  _whole(**arguments)
  errors.at_least(1, arguments, "arguments", *arguments)


def _check_seed(seed: int):
  _whole(seed=seed)
  if not -2**63 <= seed < 2**63:
    raise UserError(f"seed {seed} has more than 63 bits")


def _check_alpha(alpha: float):
  _numbers(alpha=alpha)
  if not 0 <= alpha < float("inf"):
    raise UserError(f"alpha {alpha} is negative, or no number")


def _list(name: str, value, count: int | None = None, others: str = "questions") -> list:
  """The values of a list, an array or the like; as many as there are others, if count says how many."""
  _each(lambda x: isinstance(x, Iterable) and not isinstance(x, (str, bytes, dict)), "a list", **{name: value})
  found = list(value)
  if count is not None and len(found) != count:
    raise UserError(f"there are {len(found)} {name} for {count} {others}")
  return found


def _texts(name: str, value, count: int | None = None, others: str = "questions") -> list[str]:
  found = {f"{name}[{i}]": x for i, x in enumerate(_list(name, value, count, others))}
  _each(lambda x: isinstance(x, str), "a string", **found)
  # Half of a pair of surrogates has no bytes.
  _each(lambda x: x.isascii() or not any("\ud800" <= c <= "\udfff" for c in x), "a text that can be encoded", **found)
  return list(found.values())


def _ended(value, count: int, others: str = "questions") -> list[bool]:
  found = [value] * count if isinstance(value, bool) else _list("ended", value, count, others)
  _each(lambda x: isinstance(x, (bool, np.bool_)), "True or False", **{f"ended[{i}]": x for i, x in enumerate(found)})
  return list(map(bool, found))


def _of_one_vocabulary(*models: Model | None):
  """UserError for models that read other ids than the first."""
  first, *others = [x.home.vocabulary for x in models if x]
  for other in others:
    if other.fingerprint != first.fingerprint:
      raise UserError(f"two models with different vocabularies, {first.path} and {other.path}: they cannot read one another's ids")
