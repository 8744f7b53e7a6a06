"""`python -m pav_jax`."""

import sys

from pav_jax import console

if __name__ == "__main__":
  sys.exit(console.main())
