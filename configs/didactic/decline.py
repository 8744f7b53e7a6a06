"""What makes very strong provers worse, as in the paper's Figure 3b: noise, learned values, other rules and readings.

  python -m pav_jax.main --config=configs/didactic/decline.py --workdir=runs/didactic

A case says what is changed: pav_jax/didactic/learning.py (changes). Expected: of all of them only values learned from
sequences of the prover's own make the strongest provers worse, the fewer the sequences the more.
"""

from configs.didactic import base


def get_config():
  """See the top of the file."""
  return base.figure(
      "decline", **base.learner(iterations=100), optimizer="adam", alpha=1.0,
      gammas=(3.0, 10.0, 30.0, 100.0, 1000.0),
      cases=("exact", "exponent", "share", "lost", "EOS goes on", "rollouts 1", "rollouts 4", "erring 0.05", "learned 100",
             "learned 400", "learned 3200"))
