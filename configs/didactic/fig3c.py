"""Figure 3c: Pass@N of SFT and of the policies after 100 iterations of RL.

  python -m pav_jax.main --config=configs/didactic/fig3c.py --workdir=runs/didactic

Expected: the effective reward's Pass@N far above the outcome's.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("fig3c", **base.learner(iterations=100), optimizer="adam", gamma=10.0, alpha=1.0,
                     samples=65_536, ns=(1, 4, 16, 64, 256, 1024, 4096))
