"""Figure 3b: how the prover's strength gamma changes learning, exact advantages.

  python -m pav_jax.main --config=configs/didactic/fig3b.py --workdir=runs/didactic

Expected: weak provers help less; no decline at large gamma (the paper has one: decline.py looks for it).
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("fig3b", **base.learner(iterations=500, target=0.95), alpha=1.0, optimizers=("adam", "sgd", "unit"),
                     gammas=(1.0, 3.0, 10.0, 30.0, 100.0, 1000.0))
