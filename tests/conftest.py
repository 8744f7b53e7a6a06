"""What all tests share."""

import gc
import os
import pathlib
import signal

import jax
import pytest

from pav_jax.training.preemption import NOTICE

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


@pytest.fixture(scope="session")
def done(tmp_path_factory) -> pathlib.Path:
  """The whole path on problems of two lines (tests/test_pipeline.py), run once for all tests, which leave it as it is."""
  from pav_jax import main
  from tests.test_pipeline import miniature
  path = tmp_path_factory.mktemp("run")
  main.run(miniature(), path)
  return path


@pytest.fixture(scope="session")
def bucket():
  """A bucket server (tests/bucket.py) that this process and those it starts take for Cloud Storage."""
  from tests.bucket import Bucket
  with Bucket() as found:
    os.environ.update(found.environment)  # for good: clients are kept as long as the process lives
    yield found


@pytest.fixture(autouse=True)
def signals():
  """A command that a test calls in this process listens to signals; the next test knows nothing of what it heard."""
  handlers, heard = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}, vars(NOTICE).copy()
  yield
  vars(NOTICE).update(heard)
  for number, handler in handlers.items():
    signal.signal(number, handler)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> pathlib.Path:
  """A run's folder with a policy and two verifiers that have learnt nothing (tests/made.py); tests leave it as it is."""
  from tests.made import run
  return run(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module", autouse=True)
def compiled():
  """Forgets what was compiled before the process has as many memory maps as Linux allows (65,530), where XLA's compiler aborts it.

  A compiled function holds several; all tests together passed the bound (jaxlib 0.10.2, 2,500 tests in one process).
  """
  yield
  maps = pathlib.Path("/proc/self/maps")
  if maps.exists() and maps.read_bytes().count(b"\n") > 30_000:
    jax.clear_caches()
    gc.collect()
