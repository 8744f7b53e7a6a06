"""Figures 4 and 5a for the Gemma 2 27B policy on MATH (arXiv 2410.08146): PAV beam against ORM best-of-N.

  python -m pav_jax.main --config=configs/paper/gemma2_27b_math.py --workdir=gs://... \
    --config.problems.manual_dir=... --config.vocabulary.path=.../tokenizer.model \
    --config.policy.init_from=.../gemma2-27b --config.verifier.init_from=.../gemma2-9b

Slices on which it fits (`make pods`), with `--config.mesh.data=1` and fsdp x model: v5e:8x16 and v4:4x4x8 (16 x 8), v5p:4x4x4
(16 x 4); beams up to 128 on v5p, 64 on v4, 32 on v5e.

Expected from the paper: +8 points over ORM best-of-N, or the same at 1.5x less compute. Not run by us: no accelerator.

RL is as for 9B; the paper has none at this size.
"""

from configs.paper import base


def get_config():
  """See the top of the file."""
  return base.get_config("gemma2_27b", peak_lr=5e-7, alpha=0.2, rl_alpha=3.0, rl_steps=5_000)
