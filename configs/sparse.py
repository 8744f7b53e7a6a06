r"""Where outcome rewards are rare: the bed on which RL with progress is studied (docs/results/rl.md).

Five or six days modulo 31, half of them luring; the policy solves .12, and an
iteration sees one problem.

  for stage in problems sft rollouts values verifier rl; do
    python -m pav_jax.main --config=configs/sparse.py --config.stage=$stage --workdir=runs/sparse; done

RL starts from the SFT policy (`rl.init_from`): after RFT most responses are right already. Every batch is used for four
updates. The verifier learns at every token, and PAV-RL takes it for its baseline there; ORM-RL, which has no process
verifier, the other responses' mean. Half an hour on 2 cores. What came of it: docs/results/rl.md.

Two runs stand beside it, each in a workdir of its own to which `problems`, `sft`, `rollouts`, `values` and `verifier` were
copied. The random control at the setting of outcome_critic, whose critic it has (progress's rate is too high for that one):

  python -m pav_jax.main --config=configs/sparse.py --config.stage=rl --config.rl.arms=random, \
    --config.rl.lr_factor.random=0.7142857142857143 --workdir=runs/sparse_random

And the current policy's own advantages, which were not tuned (20 minutes):

  python -m pav_jax.main --config=configs/sparse.py --config.stage=rl --config.rl.arms=vine, --workdir=runs/sparse_vine
"""

from configs import default


def get_config():
  """See the top of the file."""
  config = default.get_config()
  # Of each split of 500 the first 200 are looked at, so that there are others to look at later.
  config.arithmetic.update(dict(validation_size=500, test_size=500))
  config.arithmetic.dials.update(dict(noise=0.1, lure=0.6, lured=0.5, modulus=31, min_length=5, max_length=6))
  config.problems.update(dict(max_prompt=48, max_solution=42))
  config.rollouts.update(dict(num_problems=12_000, max_new=42))
  for section in (config.policy, config.verifier.model):
    section.vocab_size = 440
  config.vocabulary.size = 440
  config.verifier.update(dict(kinds=("q",), every_token=True))
  config.rl.update(dict(
      init_from="sft", num_steps=300, eval_every=10, save_every=150, batch_size=1, rows=512, peak_lr=1.4e-4, updates=4, clip_ratio=0.2,
      kl=0.05, alpha=3.0, critic=True, seeds=(0, 1, 2, 3, 4), arms=("outcome", "progress", "outcome_critic", "self", "random"), eval_n=4,
      eval_problems=200, test_problems=200))
  # Each arm's own best of one grid, on validation problems with other seeds (tests/benchmarks/rl_tuning.py). The random control and
  # renewed, which was not tuned, have progress's, and vine, which was not, outcome's.
  config.rl.lr_factor.update(dict(outcome_critic=1 / 1.4, progress=2 / 1.4, self=2 / 1.4, random=2 / 1.4, renewed=2 / 1.4))
  return config
