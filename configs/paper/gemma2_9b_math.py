"""Figures 4 and 5a for the Gemma 2 9B policy on MATH (arXiv 2410.08146): PAV beam against ORM best-of-N.

  python -m pav_jax.main --config=configs/paper/gemma2_9b_math.py --workdir=gs://... \
    --config.problems.manual_dir=... --config.vocabulary.path=.../tokenizer.model \
    --config.policy.init_from=.../gemma2-9b --config.verifier.init_from=.../gemma2-9b

Slices on which it fits (`make pods`), with `--config.mesh.data=1` and fsdp x model: v5e:8x8 and v4:4x4x4 (16 x 4), v5p:2x2x4
(4 x 4); beams up to 128 on v5p, 64 on v4, 16 on v5e.

Expected from the paper: +10 points over ORM best-of-N, or the same at 2x less compute. Not run by us: no accelerator.

Figures 7 and 8, after it: the same with `--config.stage=rl --config.rl.verifier=RUN_OF_2B/verifier/q/best` (the 2B SFT
policy is the best prover for both sizes). Expected: +6 points over ORM-RL, and its best with 5x fewer samples.
"""

from configs.paper import base


def get_config():
  """See the top of the file."""
  return base.get_config("gemma2_9b", peak_lr=5e-6, alpha=0.5, rl_alpha=3.0, rl_steps=5_000)
