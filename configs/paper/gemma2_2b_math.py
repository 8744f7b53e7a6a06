"""Figures 4 and 5a for the Gemma 2 2B policy on MATH (arXiv 2410.08146): PAV beam against ORM best-of-N.

  python -m pav_jax.main --config=configs/paper/gemma2_2b_math.py --workdir=gs://... \
    --config.problems.manual_dir=... --config.vocabulary.path=.../tokenizer.model \
    --config.policy.init_from=.../gemma2-2b --config.verifier.init_from=.../gemma2-9b

Slices on which it fits (`make pods`): v5e:4x4, v4:2x2x4 and v5p:2x2x4, all with `--config.mesh.data=1 --config.mesh.fsdp=4
--config.mesh.model=4`; beams up to 128 on v5p, 64 on v4, 16 on v5e (there with `--config.search.rows=192`).

Expected from the paper: +10 points over ORM best-of-N, or the same at 5x less compute. Not run by us: no accelerator.

Figures 7 and 8, after it: the same with `--config.stage=rl`. Expected: +7 points over ORM-RL, and its best with 6x
fewer samples; +11 over RFT.
"""

from configs.paper import base


def get_config():
  """See the top of the file."""
  return base.get_config("gemma2_2b", peak_lr=5e-6, alpha=0.5, rl_alpha=5.0, rl_steps=10_000)
