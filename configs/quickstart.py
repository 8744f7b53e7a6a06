"""The whole method on a laptop: `make quickstart`.

  python -m pav_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import default


def get_config():
  """See the top of the file."""
  config = default.get_config()
  config.rl.eval_problems = 200  # `make rl` looks at its arms every five iterations: the first of 500 tell enough
  return config
