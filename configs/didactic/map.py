"""The map of provers: distinguishability, alignment, the improvement as colour, weak ones that help strong ones marked.

  python -m pav_jax.main --config=configs/didactic/map.py --workdir=runs/didactic

Expected: seconds. strong: policies above this quantile of the draws' values count as strong; prover_spread: deviation of
the provers' logits (with that of the policies, 1, nearly every prover is aligned and helps).
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("map", tree=base.tree(), draws=5000, eta=0.1, strong=0.5, prover_spread=4.0, points=800)
