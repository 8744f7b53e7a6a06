"""Where outcome rewards are rare: the bed on which RL with progress is studied (docs/results/rl.md).

Five or six days modulo 31, half of them luring; the policy solves .12, and an
iteration sees one problem.

  for stage in problems sft rollouts values verifier rl; do
    python -m pav_jax.main --config=configs/sparse.py --config.stage=$stage --workdir=runs/sparse; done

RL starts from the SFT policy (`rl.init_from`): after RFT most responses are right already. Every batch is used for four
updates. The verifier learns at every token, and PAV-RL takes it for its baseline there; ORM-RL, which has no process
verifier, the other responses' mean. Expected: PAV-RL is where ORM-RL is after 1,200 responses after some 240 and ends 20
points higher; half an hour on 2 cores.
"""

from configs import default


def get_config():
  """See the top of the file."""
  config = default.get_config()
  config.arithmetic.dials.update(dict(noise=0.1, lure=0.6, lured=0.5, modulus=31, min_length=5, max_length=6))
  config.problems.update(dict(max_prompt=48, max_solution=42))
  config.rollouts.max_new = 42
  for section in (config.policy, config.verifier.model):
    section.vocab_size = 440
  config.vocabulary.size = 440
  config.verifier.update(dict(kinds=("q",), every_token=True))
  config.rl.update(dict(
      init_from="sft", num_steps=300, eval_every=10, save_every=150, batch_size=1, rows=512, peak_lr=1e-4, updates=4, clip_ratio=0.2,
      alpha=3.0, critic=True, seeds=(0, 1, 2, 3, 4), arms=("outcome", "progress", "outcome_critic", "self", "random"), eval_n=4))
  # Tuned on validation problems with other seeds: what the arms with a critic bear, outcome rewards alone do not (docs/results/rl.md).
  for arm in ("progress", "outcome_critic", "self", "random"):
    config.rl.lr_factor[arm], config.rl.kl_factor[arm] = 1.4, 50.0
  return config
