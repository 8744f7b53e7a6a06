"""What all tests share."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config):
  config.addinivalue_line("markers", "slow: whole stages, one after another; `make everyday` leaves them out")


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """The folder of real problems, in their publishers' layout: $PAV_JAX_DATA, else ../shared/data."""
  path = pathlib.Path(os.environ.get("PAV_JAX_DATA", _ROOT / "../shared/data")).resolve()
  if not path.is_dir():
    pytest.skip(f"real data is absent: no folder {path} (set PAV_JAX_DATA)")
  return path
