"""The whole method on a laptop: `make quickstart`.

  python -m pav_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import default


def get_config():
  """See the top of the file."""
  return default.get_config()
