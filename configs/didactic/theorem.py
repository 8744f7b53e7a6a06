"""Theorem 3.1: one exact natural-policy-gradient step against the bound, in thousands of random trees.

  python -m pav_jax.main --config=configs/didactic/theorem.py --workdir=runs/didactic

Expected: seconds. The ratio of improvement to bound, how often it is under 1, at every step size.
"""

from configs.didactic import base


def get_config():
  """See the top of the file. slack: how far under the bound is not yet called a violation, relative."""
  return base.figure("theorem", tree=base.tree(), draws=4000, etas=(0.001, 0.01, 0.1, 1.0, 10.0), k=4, slack=1e-3,
                     prover_spread=4.0, points=400)
