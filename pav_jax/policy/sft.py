"""Supervised fine-tuning: the base policy pi, and pretraining for anything that starts from text.

  1. Rows are prompt + solution + EOS; the loss is on the solution alone.
  2. Batches are permutations of the training problems, a new one every epoch.
  3. The loss is the summed -log p(token) over the summed weights, in chunks of
     the vocabulary's logits.
  4. The parameters with the lowest validation loss are kept in `best/` (the
     paper: best checkpoint on validation, App. D).
"""

from etils import epath

from pav_jax.models import architecture
from pav_jax.problems import prepared
from pav_jax.problems import text
from pav_jax.problems import vocabulary as vocabulary_lib
from pav_jax.training import fit
from pav_jax.training import mesh as mesh_lib
from pav_jax.training.run import Run


def check(config, root: epath.Path | None = None):
  """UserError for what means nothing in the sections policy and sft, or names what is not there; root: the workdir, if there is one."""
  start = config.policy.init_from
  architecture.check_checkpoint(start, "config.policy.init_from", root)
  architecture.check(config.policy, "config.policy", config.mesh, start)
  vocabulary_lib.check_fits(config, architecture.shape(config.policy, start).vocab_size, "config.policy")
  fit.check(config.sft, "config.sft")
  fit.check_batch(config.sft, "config.sft", mesh_lib.parts_of(config.mesh))


def run_stage(run: Run):
  """sft: problems -> policy/."""
  folder, done = run.start("sft", sections=["policy", "sft"], inputs=["problems/train", "problems/validation"],
                           way_on="policy.init_from={}/best")
  if done:
    return
  vocabulary = prepared.vocabulary(run.folder("problems/train"))
  arch = architecture.build(run.config.policy, vocabulary, run.config.policy.init_from)
  train_rows = text.text_rows(prepared.read(run.folder("problems/train")))
  valid_rows = text.text_rows(prepared.read(run.folder("problems/validation")))
  start = architecture.load(run.config.policy.init_from, arch, run.mesh)
  found = fit.fit(run, run.config.sft, **arch.born("policy"), loss_fn=text.language_loss(arch.network), train_rows=train_rows,
              valid_rows=valid_rows, path=folder.path, what="sft", seed=run.config.seed, start_params=start)
  folder.finish(0, {**found, "parameters": arch.num_params, "tokens_per_row": int(train_rows.token_bt.shape[1]),
                    "train_rows": len(train_rows.token_bt), "valid_rows": len(valid_rows.token_bt)})
