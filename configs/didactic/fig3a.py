"""Figure 3a: RL with the effective reward (gamma = 10) against the outcome alone.

  python -m pav_jax.main --config=configs/didactic/fig3a.py --workdir=runs/didactic

Expected: the effective reward comes to 95 % in about 200 iterations under Adam (1e-3), the outcome alone about 4 times
later, under SGD 15 to 20 times. A seed that has not come there after rl.iterations (the paper's runs are 10,000 long)
counts as that many. The arm `weighed` has no prover but a better Q^pi than one outcome: `continuations` of every prefix,
drawn from the procedural policy of strength `proposal` and weighed by importance; it is cut at `cut` iterations.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure(
      "fig3a", **base.learner(iterations=4000, target=0.95), gamma=10.0, alpha=1.0, continuations=4, proposal=50.0, cut=150,
      arms=("effective/adam", "outcome/adam", "weighed/adam", "effective/sgd", "outcome/sgd", "effective/unit",
            "outcome/unit"))
