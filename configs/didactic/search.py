"""Best-of-N against beams by Q and by Q + alpha A, values exact or from a few rollouts: why advantages, whose.

  python -m pav_jax.main --config=configs/didactic/search.py --workdir=runs/didactic

Expected: with exact values the prover adds nothing; with values from rollouts it adds much, most for gamma near 100.
"""

from configs.didactic import base


def get_config():
  """See the top of the file. width, gamma, alpha: where the others are varied; widths, gammas, alphas: what is tried."""
  return base.figure("search", world=base.world(), base_gamma=5.0, width=4, gamma=50.0, alpha=0.5,
                     widths=(1, 2, 4, 8, 16, 32), gammas=(1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0),
                     alphas=(0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0), candidates=3, rollouts=(0, 8, 16), runs=2000)
