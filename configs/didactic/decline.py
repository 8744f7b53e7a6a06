"""What makes very strong provers worse, as in the paper's Figure 3b: noise, learned values, other rules, SGD.

  python -m pav_jax.main --config=configs/didactic/decline.py --workdir=runs/didactic

A case is a name of pav_jax/didactic/learning.py (CASES) / an optimizer; those not tried by default: four rollouts,
exponent, share, lost, EOS goes on. Runs are cut at rl.iterations. 3 minutes.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure("decline", **base.learner(adam=200, sgd=200), provers={"sequences": 3200, "sigma": 0.05},
                     alpha=1.0, gammas=(3.0, 10.0, 100.0, 1000.0),
                     cases=("exact/adam", "one rollout/adam", "learned/adam", "erring/adam"))
