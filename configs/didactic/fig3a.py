"""Figure 3a: RL with the effective reward (gamma = 10) against the outcome alone.

  python -m pav_jax.main --config=configs/didactic/fig3a.py --workdir=runs/didactic

Expected: the effective reward comes to 95 % in 140-230 iterations under Adam (1e-3), the outcome alone several times
later. Runs of the outcome are cut at rl.iterations (the paper's are 10,000 long), seeds that did not come to 95 % by
then count as the cut. The arm `rollouts` has no prover but a nearly exact Q^pi: pi_rollouts continuations of every
prefix, cut at rollout_iterations. 2 cores: 3 minutes.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("fig3a", **base.learner(adam=1500, sgd=400, unit=400), gamma=10.0, alpha=1.0, pi_rollouts=4,
                     rollout_iterations=100,
                     arms=("effective", "outcome", "rollouts"), optimizers=("adam", "sgd", "unit"))
