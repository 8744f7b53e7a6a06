"""Figure 3b: how the prover's strength gamma changes learning, exact advantages.

  python -m pav_jax.main --config=configs/didactic/fig3b.py --workdir=runs/didactic

Expected: weak provers help less; no decline at large gamma (the paper has one: decline.py looks for it). 2 minutes.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("fig3b", **base.learner(adam=300, sgd=200), alpha=1.0, optimizers=("adam", "sgd"),
                     gammas=(1.0, 3.0, 10.0, 100.0, 1000.0))
