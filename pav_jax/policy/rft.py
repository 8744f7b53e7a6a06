"""Rejection fine-tuning: the SFT policy learns its own correct seed responses; RL starts there (section 5).

  1. Of each problem's seed responses keep those that are right, each text once.
  2. Train on them as SFT does on solutions, from the SFT policy's best; the
     parameters with the lowest loss on the correct responses of held-out
     problems are kept.
"""

from etils import epath
import numpy as np

from pav_jax.errors import UserError
from pav_jax.grading import grading
from pav_jax.models import architecture
from pav_jax.problems import prepared
from pav_jax.problems import text
from pav_jax.rollouts import collect
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.run import Run


def correct_rows(problems: prepared.Problems, rollouts: collect.Rollouts) -> text.TextBatch:
  """Rows of prompt + response for the correct ones; of equal responses to a problem the first. UserError if none is right."""
  right_b = np.flatnonzero((rollouts.verdict_b == grading.Verdict.CORRECT) & rollouts.ended_b)
  keys = np.concatenate([rollouts.problem_b[right_b, None], rollouts.token_bt[right_b]], axis=1)
  _, first = np.unique(keys, axis=0, return_index=True)
  row_b = right_b[np.sort(first)]
  if not len(row_b):
    raise UserError(f"rft: none of {len(rollouts.verdict_b)} seed responses is right and ended: nothing to imitate")
  start_b, length_b = problems.prompt_length_p[rollouts.problem_b[row_b]], rollouts.length_b[row_b]
  token_bt = prepared.join_rows(problems.prompt_pt[rollouts.problem_b[row_b]], start_b, rollouts.token_bt[row_b], length_b)
  at_bt = np.arange(token_bt.shape[1])[None]
  weight_bt = (at_bt >= start_b[:, None]) & (at_bt < (start_b + length_b)[:, None])
  return text.TextBatch(token_bt, weight_bt.astype(np.float32))


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the section rft."""
  fit.check(config.rft, "config.rft")
  fit.check_batch(config.rft, "config.rft", mesh_lib.parts_of(config.mesh))
  if not 0 < config.rft.valid_fraction < 1:
    raise UserError(f"config.rft.valid_fraction {config.rft.valid_fraction} is not between 0 and 1")


def run_stage(run: Run):
  """rft: problems, sft, rollouts -> rft/."""
  folder, done = run.start("rft", sections=["policy", "rft"], inputs=["problems/train", "rollouts", "sft"])
  if done:
    return
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  problems = prepared.read(run.folder("problems/train"))
  rollouts = collect.Rollouts(**run.folder("rollouts").read())
  rng = np.random.default_rng([run.config.seed, 11])
  held_out = rng.random(len(problems.id_p))[rollouts.problem_b] < run.config.rft.valid_fraction
  pick = lambda row_b: collect.Rollouts(*(x[row_b] for x in rollouts))
  rows, valid_rows = correct_rows(problems, pick(~held_out)), correct_rows(problems, pick(held_out))
  arch, start = architecture.restore(str(run.folder("sft").path / "best"), run.config.policy, vocabulary, run.mesh)
  found = fit.fit(run, run.config.rft, **arch.born("policy"), loss_fn=text.language_loss(arch.network), train_rows=rows,
                  valid_rows=valid_rows, path=folder.path, what="rft", seed=run.config.seed + 4, start_params=start)
  folder.finish(0, {**found, "train_rows": len(rows.token_bt), "valid_rows": len(valid_rows.token_bt), "of": len(rollouts.verdict_b)})
