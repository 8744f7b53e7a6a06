"""How lanes and rows are shared out over the parts of a mesh."""

import types

import numpy as np
import pytest

from pav_jax.rollouts import jobs

FOUR = types.SimpleNamespace(shape={"data": 2, "fsdp": 2, "model": 2})


@pytest.mark.parametrize("rows, share, mesh, lanes", [
    (512, 4, None, (128, 4, 16)),
    (512, 4, FOUR, (128, 4, 16)),
    (20, 4, FOUR, (4, 4, 4)),
    (64, 200, FOUR, (4, 16, 4)),  # no more rows than asked for
    (64, 200, None, (1, 64, 1)),
    (2, 8, FOUR, (4, 1, 4)),  # but a lane for every part
])
def test_lanes(rows, share, mesh, lanes):
  assert jobs.lanes_of(rows, share, mesh) == lanes


def test_every_part_fills_its_own_lanes():
  """12 lanes, 3 each of 4 parts; 2 places of a call for each part; 7 lanes are free, three of them part 1's."""
  calls = list(jobs._places([0, 3, 4, 5, 7, 9, 11], 12, 8, 4))
  assert [lane_p.tolist() for lane_p in calls] == [[0, 12, 3, 4, 7, 12, 9, 11], [12, 12, 5, 12, 12, 12, 12, 12]]
  assert [lane_p.tolist() for lane_p in jobs._places([1, 2, 3], 4, 2, 1)] == [[1, 2], [3, 4]]
  assert not list(jobs._places([], 4, 2, 1))
