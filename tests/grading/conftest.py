"""What the tests of grading share."""

import pytest

from pav_jax.grading import grading


@pytest.fixture(scope="module")
def grader():
  with grading.Grader(num_workers=2, timeout_s=20) as found:
    yield found
