"""Training the verifiers: ORM, PQV (q), PAV (advantage) and the neighbours' kinds (targets.py), one loss for all but one.

  1. Start from a network that knows the text: a checkpoint, or one pretrained
     here on the training problems (the paper starts from pretrained Gemma 9B);
     the verifier of A^mu may start from that of Q^pi (`advantage_from_q`).
  2. A row is prompt + seed response; in one causal pass the logit of the
     scoring token is read at every labelled prefix; that of Q, if asked for
     (`every_token`; ours), at every token of the step that ends there, too.
     Which labels and weights keep that unbiased says `check_labels`.
  3. Labels are Q-hat; for Q^pi a seed's own ending counts as one continuation
     more of each of its prefixes (`own_outcomes`; ours, not the paper's). With
     `labels` imported or both, kind q learns those of others (`values/imported.py`),
     alone or beside ours, each label by its count, and hard and drop whether they
     are above 0; the other kinds learn from ours.
  4. The loss is the binary cross-entropy against the soft label, right and
     wrong weighing the same (`targets.balance`), plus `text_weight` times the
     language loss on the response, which keeps what pretraining knew.
  5. The parameters with the lowest validation loss, on problems held out from
     the training ones, are kept.

Kind implicit has a loss of its own (implicit.py), and these steps, loop and problems.
"""

from collections.abc import Callable
from typing import NamedTuple

from etils import epath
import jax.numpy as jnp
import numpy as np
import optax

from pav_jax import errors
from pav_jax.errors import UserError
from pav_jax.models import architecture
from pav_jax.models.network import Network
from pav_jax.problems import prepared
from pav_jax.problems import text
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.rollouts import collect
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.run import Run
from pav_jax.values import imported as imported_lib
from pav_jax.values import monte_carlo
from pav_jax.verifiers import implicit
from pav_jax.verifiers import taught as taught_lib
from pav_jax.verifiers import targets as targets_lib


class ValueBatch(NamedTuple):
  """token_bt rows; text_weight_bt, 1 on response tokens; position_bz of prefix ends; target_bz; weight_bz, 0 without a label."""

  token_bt: np.ndarray
  text_weight_bt: np.ndarray
  position_bz: np.ndarray
  target_bz: np.ndarray
  weight_bz: np.ndarray

  def masked(self, live_b: np.ndarray) -> "ValueBatch":
    """The same rows, those that are not live weighing nothing."""
    return self._replace(text_weight_bt=self.text_weight_bt * live_b[:, None],
                         weight_bz=self.weight_bz * live_b[:, None])


def value_loss(network: Network, text_weight: float, shift: float = 0.0):
  """Summed soft binary cross-entropy, plus text_weight times the language loss in the same units.

  shift: what the balance of the labels adds to the log-odds of what a score says (`targets.balance`).
  """
  def loss_fn(params, batch: ValueBatch, key):
    del key
    hidden_btd = network.hidden(params, batch.token_bt)
    hidden_bzd = jnp.take_along_axis(hidden_btd, batch.position_bz[:, :, None], axis=1)
    entropy_bz = optax.sigmoid_binary_cross_entropy(network.scores(params, hidden_bzd) + shift, batch.target_bz)
    value_sum, weight_sum = (entropy_bz * batch.weight_bz).sum(), batch.weight_bz.sum()
    if not text_weight:
      return value_sum, weight_sum, {"value_loss": value_sum}
    log_prob_bt = network.log_probs(params, hidden_btd[:, :-1], batch.token_bt[:, 1:])
    text_weight_bt = batch.text_weight_bt[:, 1:]
    text_mean = -(log_prob_bt * text_weight_bt).sum() / jnp.maximum(text_weight_bt.sum(), 1.0)
    return (value_sum + text_weight * text_mean * weight_sum, weight_sum,
            {"value_loss": value_sum, "text_loss": text_mean * weight_sum})
  return loss_fn


def value_rows(taught: taught_lib.Taught, target_bz, weight_bz) -> ValueBatch:
  """All training rows; a prefix without a label has weight 0."""
  start_b = taught.prompt_length_b
  token_bt = prepared.join_rows(taught.prompt_bt, start_b, taught.token_bt, taught.length_b)
  at_bt = np.arange(token_bt.shape[1])[None]
  text_bt = (at_bt >= start_b[:, None]) & (at_bt < (start_b + taught.length_b)[:, None])
  position_bz = np.where(taught.end_bz == -2, 0, start_b[:, None] + taught.end_bz)
  return ValueBatch(token_bt, text_bt.astype(np.float32), position_bz.astype(np.int32),
                    target_bz, weight_bz)


def split_by_problem(problem_b: np.ndarray, valid_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(train rows, validation rows): no problem has rows on both sides."""
  names = np.unique(problem_b)
  count = max(1, round(valid_fraction * len(names)))
  if count >= len(names):
    raise UserError(f"verifier.valid_fraction {valid_fraction} leaves no problem of {len(names)} to train on")
  held_out = np.random.default_rng([seed, 7]).permutation(names)[:count]
  is_valid_b = np.isin(problem_b, held_out)
  return np.flatnonzero(~is_valid_b), np.flatnonzero(is_valid_b)


def check(config, root: epath.Path | None = None):
  """UserError for a verifier section that means nothing, names what is not there, or that the labels of its monte_carlo section
  would teach wrongly; root: the workdir, if there is one."""
  knobs, where, parts = config.verifier, "config.verifier", mesh_lib.parts_of(config.mesh)
  kinds = tuple(knobs.kinds)
  if set(kinds) - set(targets_lib.KINDS) or not kinds or len(set(kinds)) < len(kinds):
    raise UserError(f"{where}.kinds {kinds}: each is one of {', '.join(targets_lib.KINDS)}, and comes once")
  if "advantage" in kinds and knobs.advantage_from_q and "q" not in kinds[:kinds.index("advantage")]:
    raise UserError(f"{where}.advantage_from_q: 'q' must stand before 'advantage' in {where}.kinds")
  errors.one_of(taught_lib.SOURCES, knobs, where, "labels")
  check_labels(knobs, config.monte_carlo, config.rollouts)
  errors.one_of(targets_lib.BALANCES, knobs, where, "balance")
  errors.at_least(1, knobs, where, "prover_k")
  errors.at_least(0, knobs, where, "text_weight", "effective_alpha", "effective_above")
  for name in ("relative_ratio", "implicit_beta"):
    if not knobs[name] > 0:
      raise UserError(f"{where}.{name} {knobs[name]} is not above 0")
  if not 0 < knobs.valid_fraction < 1:
    raise UserError(f"{where}.valid_fraction {knobs.valid_fraction} is not between 0 and 1")
  if knobs.init_from != "sft":
    architecture.check_checkpoint(knobs.init_from, f"{where}.init_from", root)
  # The run's own policy may be yet to come: then its section says what it will be.
  asked, start = (knobs.model, knobs.init_from) if knobs.init_from != "sft" else (
      (knobs.model, "") if knobs.model.size else (config.policy, config.policy.init_from))
  architecture.check(asked, f"{where}.model", config.mesh, start)
  vocabulary_lib.check_fits(config, architecture.shape(asked, start).vocab_size, f"{where}.model")
  if "implicit" in kinds and not knobs.init_from:
    raise UserError(f"{where}.init_from is empty, and kind 'implicit' measures how far it has gone from where it began: sft, or "
                    "a checkpoint")
  for name in ("pretrain",) * (knobs.pretrain.num_steps != 0) + tuple(dict.fromkeys(map(targets_lib.section_of, kinds))):
    fit.check(knobs[name], f"{where}.{name}")
    fit.check_batch(knobs[name], f"{where}.{name}", parts)


def check_labels(knobs, labels, seeds):
  """UserError where the verifier section would learn something else than it says; labels, seeds: monte_carlo and rollouts sections."""
  if knobs.labels != "monte_carlo" and "q" in knobs.kinds and knobs.every_token:
    raise UserError(f"verifier.every_token: with verifier.labels={knobs.labels}, of the tokens inside of a step the labels of others "
                    "say nothing: every_token=False, or labels=monte_carlo")
  if knobs.labels == "imported":
    if set(knobs.kinds) - set(taught_lib.FROM_OTHERS):
      raise UserError(f"verifier.kinds {tuple(knobs.kinds)}: the labels of others are of steps, so there is neither an outcome for "
                      "'orm' or 'implicit', nor two values of one policy for 'relative' or 'effective', nor a policy for 'advantage': "
                      f"kinds of {', '.join(taught_lib.FROM_OTHERS)}, or labels=both, where those learn from ours alone")
    return
  if "q" in knobs.kinds:
    if knobs.own_outcomes and (labels.checkpoint != seeds.checkpoint or collect.sampling_of(labels) != collect.sampling_of(seeds)):
      raise UserError("verifier.own_outcomes: a seed's ending is a continuation only if rollouts and monte_carlo have the same "
                      "checkpoint, temperature, top_k and top_p: the same for both, or verifier.own_outcomes=False")
    if knobs.own_outcomes and knobs.balance == "buckets" and labels.strategy == "first_pit":
      raise UserError("verifier.own_outcomes: first_pit labels few prefixes of wrong responses, and buckets weigh those known "
                      "from their outcome alone as much: verifier.own_outcomes=False, or balance=classes or none")
    if knobs.balance == "buckets" and labels.strategy == "adaptive":
      raise UserError("verifier.balance=buckets weighs labels once each, whose plain mean monte_carlo.strategy=adaptive biases: "
                      "verifier.balance=classes or none, or another strategy")
    if knobs.every_token and labels.strategy != "uniform":
      raise UserError(f"verifier.every_token: under monte_carlo.strategy={labels.strategy} a label's weight depends on outcomes, "
                      "which biases what tokens inside of a step learn: monte_carlo.strategy=uniform, or every_token=False")
    if knobs.every_token and knobs.balance == "buckets":
      raise UserError("verifier.every_token: in buckets a label's weight depends on the label, which biases what tokens inside "
                      "of a step learn: verifier.balance=classes or none, or every_token=False")
  marks = [kind for kind in knobs.kinds if kind in targets_lib.MARKS]
  if marks and (labels.reuse or labels.strategy == "adaptive"):
    raise UserError(f"verifier.kinds: a label of {marks[0]!r} is of n continuations, the same n everywhere: with more, more prefixes "
                    f"have a right one. monte_carlo.{'reuse' if labels.reuse else 'strategy=adaptive'} spends more on some: "
                    "strategy=uniform or first_pit, and reuse=False, or leave it out")
  if "advantage" in knobs.kinds:
    if labels.n_mc < knobs.prover_k:
      raise UserError(f"verifier.kinds: no label of 'advantage' without bias, best-of-{knobs.prover_k}, from monte_carlo.n_mc="
                      f"{labels.n_mc} continuations: n_mc={knobs.prover_k} at least, or leave it out: "
                      "search.arms=pav_beam takes the same from a learnt q")
    if labels.strategy == "adaptive":
      raise UserError("verifier.kinds: no label of 'advantage' without bias from monte_carlo.strategy=adaptive, whose plain means "
                      "are biased: another strategy, or leave it out: search.arms=pav_beam takes the same from a learnt q")


def run_stage(run: Run):
  """verifier: problems and sft, rollouts and values, labels, as far as they teach -> verifier/base, verifier/<kind>."""
  knobs = run.config.verifier
  ours, others = knobs.labels != "imported", knobs.labels != "monte_carlo"
  if ours:
    check_labels(knobs, run.made_with("values", "monte_carlo"), run.made_with("rollouts", "rollouts"))
  folder, done = run.start("verifier", sections=["verifier", "policy"],
                           inputs=["problems/train", "problems/validation", *["rollouts", "values"] * ours, *["labels"] * others,
                                   *["sft"] * (ours or knobs.init_from == "sft")],
                           way_on="verifier.init_from={}/KIND/best")
  if done:
    facts = folder.manifest()["facts"]
    _doubt(run, folder, [doubt for kind in knobs.kinds for doubt in facts[kind].get("doubts", ())])
    return
  problems = prepared.read(run.folder("problems/train"))
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  rollouts, values = monte_carlo.read(run) if ours else (None, None)
  imported = imported_lib.read(run, vocabulary) if others else None
  start_path = knobs.init_from
  if start_path == "sft":
    start_path = str(run.folder("sft").path / "best")
  arch = architecture.build(knobs.model, vocabulary, start_path)
  facts = {"parameters": arch.num_params}
  if knobs.pretrain.num_steps:
    facts["base"] = fit.fit(
        run, knobs.pretrain, **arch.born("policy"), loss_fn=text.language_loss(arch.network), train_rows=text.text_rows(problems),
        valid_rows=text.text_rows(prepared.read(run.folder("problems/validation"))), path=folder.path / "base",
        what="verifier base", seed=run.config.seed + 2, start_params=architecture.load(start_path, arch, run.mesh))
    start_path = str(folder.path / "base" / "best")
  for kind in knobs.kinds:
    kind_path = str(folder.path / "q" / "best") if kind == "advantage" and knobs.advantage_from_q else start_path
    rows, taught = _rows(run, kind, problems, rollouts, values, imported)
    of_kind = _outcomes if kind == "implicit" else _prefixes
    begun = architecture.load(kind_path, arch, run.mesh)
    learnt = of_kind(run, kind, taught, arch, begun, folder.path / kind, kind_path)
    doubts = one_class(kind, taught.target_bz[rows[0]])
    _doubt(run, folder, doubts)
    train_rows, valid_rows = (type(learnt.rows)(*(x[index] for x in learnt.rows)) for index in rows)
    facts[kind] = fit.fit(
        run, knobs[targets_lib.section_of(kind)], **learnt.born, loss_fn=learnt.loss_fn, train_rows=train_rows, valid_rows=valid_rows,
        path=folder.path / kind, what=f"verifier {kind}", seed=run.config.seed + 3, start_params=begun)
    facts[kind] |= {"train_rows": len(rows[0]), "valid_rows": len(rows[1]), "labels": int(taught.labels_b[rows[0]].sum()),
                    **({"doubts": doubts} if doubts else {})}
  folder.finish(0, facts)


def _rows(run: Run, kind: str, problems, rollouts, values, imported) -> tuple[tuple[np.ndarray, np.ndarray], taught_lib.Taught]:
  """((training rows, validation rows), what the kind learns from). UserError where either are none."""
  knobs = run.config.verifier
  taught = taught_lib.joined([
      *([taught_lib.own(kind, knobs, problems, rollouts, values)] if rollouts is not None else []),
      *([taught_lib.others(kind, knobs, imported)] if imported is not None and kind in taught_lib.FROM_OTHERS else [])])
  rows = tuple(rows_b[taught.useful_b[rows_b]] for rows_b in split_by_problem(taught.problem_b, knobs.valid_fraction, run.config.seed))
  if not len(rows[0]) or not len(rows[1]):
    raise UserError(f"verifier {kind}: {len(rows[0])} training and {len(rows[1])} validation responses of "
                    f"{len(taught.problem_b)} have a label")
  return rows, taught


class _Learnt(NamedTuple):
  """What `fit` is given of a kind: how the network is born, the loss, all rows."""

  born: dict
  loss_fn: Callable
  rows: NamedTuple


def _prefixes(run: Run, kind: str, taught: taught_lib.Taught, arch, begun, path, begun_path: str) -> _Learnt:
  """Of the kinds that read the scoring token's logit at prefixes."""
  del begun, path, begun_path
  knobs = run.config.verifier
  balanced = targets_lib.balance(taught.target_bz, taught.count_bz, knobs.balance)
  shifted = arch.shifted(balanced.shift)
  return _Learnt(shifted.born(kind), value_loss(shifted.network, knobs.text_weight, balanced.shift),
                 value_rows(taught, balanced.target_bz, balanced.weight_bz))


def _outcomes(run: Run, kind: str, taught: taught_lib.Taught, arch, begun, path, begun_path: str) -> _Learnt:
  """Of kind implicit, which reads whole responses; what it begins from is its reference."""
  knobs = run.config.verifier
  balanced = targets_lib.balance(taught.target_bz, taught.count_bz, knobs.balance)
  whole = value_rows(taught, balanced.target_bz, balanced.weight_bz)
  reference_bt = implicit.reference_log_probs(arch.network, begun, whole.token_bt, rows=knobs.implicit.batch_size, mesh=run.mesh)
  born = arch.shifted(balanced.shift).born(kind)
  born["meta"] |= implicit.described(run.root, path, begun_path, knobs.implicit_beta)
  return _Learnt(born, implicit.outcome_loss(arch.network, knobs.implicit_beta), implicit.OutcomeBatch(
      whole.token_bt, whole.text_weight_bt[:, 1:], reference_bt, whole.target_bz.sum(axis=1), whole.weight_bz.sum(axis=1)))


def one_class(kind: str, target_bz: np.ndarray) -> list[str]:
  """What a verifier's labels, NaN where there is none, leave it to learn: a line if all are the same extreme, else []."""
  target_x = target_bz[~np.isnan(target_bz)]
  return [f"{kind}: all {len(target_x)} labels are {value}: there is nothing to tell apart" for value in (0, 1)
          if len(target_x) and (target_x == value).all()]


def _doubt(run: Run, folder, doubts: list[str]):
  made = "is finished and stays" if folder.done else "is not finished"
  run.doubt("verifier", doubts, f"{folder.path} {made}; to learn from other labels make those anew, "
            "and remove it with them")
