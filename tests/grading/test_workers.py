"""The pool that reads answers, and what texts and others do to its processes."""

import os
import pathlib
import signal
import threading
import time

import pytest

from pav_jax.grading import workers

SLOW = r"9^{9^{9^9}}"


@pytest.fixture(scope="module", name="pool")
def _pool():
  pool = workers.Workers(num_workers=1, timeout_s=2, memory_bytes=4 << 30)
  pool.read(["x+1"])
  yield pool
  pool.close()


def _servers(pool):
  """Process ids of the forked servers of a pool."""
  found = []
  for worker in pool._workers:
    children = pathlib.Path(f"/proc/{worker._process.pid}/task/{worker._process.pid}/children")
    found += map(int, children.read_text().split())
  return found


SUMS = [f"{n}+1" for n in range(30)]
READ = {text: f'["number", "{n + 1}"]' for n, text in enumerate(SUMS)}


def test_an_overrunning_answer_is_alone_in_its_timeout(pool):
  slow = [SLOW, "100000000!"]
  start = time.monotonic()
  assert pool.read(SUMS + slow) == {**READ, **dict.fromkeys(slow, "timeout")}
  assert 4 <= time.monotonic() - start < 10


def test_a_worker_killed_between_answers_is_replaced(pool):
  for worker in pool._workers:
    os.killpg(worker._process.pid, signal.SIGKILL)
  assert pool.read(SUMS) == READ


def test_an_answer_that_kills_its_worker_twice_is_given_up(pool):
  killed = []

  def kill_busy_servers():
    while len(killed) < 2:
      time.sleep(0.3)
      for server in set(_servers(pool)) - set(killed):
        os.kill(server, signal.SIGKILL)
        killed.append(server)

  thread = threading.Thread(target=kill_busy_servers)
  thread.start()
  outcomes = pool.read([SLOW])
  thread.join()
  assert outcomes == {SLOW: "worker died"}
  assert pool.read(SUMS) == READ


def test_workers_load_no_accelerator_library(pool):
  for server in _servers(pool):
    maps = pathlib.Path(f"/proc/{server}/maps").read_text()
    assert "python" in maps and "jaxlib" not in maps and "tensorflow" not in maps


def test_the_memory_limit_holds():
  # Less than the libraries hold already: every larger allocation fails.
  pool = workers.Workers(num_workers=1, timeout_s=20, memory_bytes=1 << 20)
  outcomes = pool.read(["+".join(map(str, range(200)))])
  pool.close()
  assert set(outcomes.values()) <= {"out of memory", "worker died", "unparsable"}


def test_closing_leaves_no_process(pool):
  pool.read(["6+1"])
  pids = [worker._process.pid for worker in pool._workers] + _servers(pool)
  assert len(pids) == 2
  pool._workers[0].send([SLOW])  # an idle server ends by itself, a busy one does not
  time.sleep(0.1)
  pool.close()
  time.sleep(0.2)
  for pid in pids:
    state = pathlib.Path(f"/proc/{pid}/stat")
    # A killed server may wait, as a zombie, for the system's first process to collect it.
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
