"""These tests compile many tiny networks: most of their time would be XLA's optimiser."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def unoptimised_compilation():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
