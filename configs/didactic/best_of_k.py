"""Remark 3.1: distinguishability of best-of-k grows as k^2 while k Q << 1, and then ends.

  python -m pav_jax.main --config=configs/didactic/best_of_k.py --workdir=runs/didactic

Expected: seconds. scales multiply the rewards.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("best_of_k", tree=base.tree(), draws=2000, scales=(0.001, 0.1, 1.0),
                     ks=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), eta=0.001)
