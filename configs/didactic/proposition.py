"""Proposition F.1: the improvement against the squared gap between prover and policy, weaker provers too.

  python -m pav_jax.main --config=configs/didactic/proposition.py --workdir=runs/didactic

Expected: seconds. distances: deviation of the prover's logits from the policy's; factor: what Theta allows.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("proposition", tree=base.tree(), draws=20_000, distances=(0.03, 0.1, 0.3, 1.0, 3.0), factor=10.0,
                     eta=0.001)
