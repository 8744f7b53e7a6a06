"""Verdicts of the page of claims: goldens by hand, and that the page follows its records."""

import copy
import math

import pytest

from docs import claims
from docs import pages


@pytest.mark.parametrize("found, at, word", [
    ([], 0, "not run"),
    ([(2, 1, 3)], 0, "holds"),
    ([(2, 1, 3)], 1, "open"),  # its very end
    ([(2, 1, 3), {"accuracy": .5, "difference": .1, "difference_low": -.1, "difference_high": .3}], 0, "open"),
    ([(2, 1, 3), (-2, -3, -1), (1, -1, 3)], 0, "does not hold"),
    ([{"share": .5, "low": .4, "high": .6}], 0.3, "holds"),
])
def test_a_verdict_is_of_all_intervals(found, at, word):
  assert claims.verdict(found, at=at) == word


def test_claims_with_every_seed():
  assert claims.over_seeds([{"0": True, "1": True}]) == "holds"
  assert claims.over_seeds([{"0": True, "1": True}, {"0": True, "1": False}]) == "open"
  assert claims.over_seeds([{"0": False, "1": False}]) == "does not hold"


def test_less_is_paired_where_it_can_be():
  one = {"accuracy": .4, "low": .3, "high": .5, "by_training": [.3, .4, .5]}
  other = {"accuracy": .2, "low": .1, "high": .25, "by_training": [.2, .2, .2]}
  assert claims.less(one, other) == pytest.approx((.2, .2 - .24841, .2 + .24841), abs=1e-4)  # 4.3027 * .1 / sqrt(3)
  far = pytest.approx((.2, .05, .4))
  assert claims.less(one, {key: other[key] for key in ("accuracy", "low", "high")}) == far
  assert claims.less({**one, "by_training": [.4]}, {**other, "by_training": [.2]}) == far  # one training is no pair of trainings
  assert claims.less({"accuracy": [.4, .3, .5], "by_seed": [.4]}, (.2, .1, .25)) == far


def test_the_cheapest_that_is_shown_to_be_above():
  row = lambda n, flops, low: {"n": n, "flops": flops, "accuracy": low + .1, "low": low, "high": low + .2}
  other = {"flops": 12, "accuracy": .3, "low": .2, "high": .4}
  found = claims.cheapest([row(8, 6, .5), row(2, 1, .35), row(4, 3, .45)], other)
  assert found["row"]["n"] == 4 and found["times"] == 4 and found["over"] == pytest.approx((.25, .05, .45))
  assert claims.cheapest([row(2, 1, .35)], other) is None


def test_ratios_have_a_geometric_mean():
  assert claims.times([2.0, 8.0]) == pytest.approx((4, 4 * 4**(-12.7062 / 2), 4 * 4**(12.7062 / 2)), rel=1e-4)
  assert claims.times([2.0, None]) is None
  assert claims.times([3.0, 3.0, 3.0]) == pytest.approx((3, 3, 3)) and math.isclose(claims.times([1.0, 1.0])[0], 1)


def test_what_a_record_carries():
  training = {"seed": 0, "versions": {}, "minutes": {}}
  old = {"versions": {}, "machine": {}, "search": {}, "trainings": [training, training]}
  assert claims.carries(old) == {"config": "in part", "versions": "yes", "seeds": "yes", "hardware": "yes", "minutes": "yes"}
  assert claims.carries(old | {"trainings": [training, {"seed": 1}]})["minutes"] == "no"
  whole = training | {"config": {"policy": {}, "verifier": {}}}
  assert claims.carries(old | {"trainings": [whole, whole]})["config"] == "yes"
  assert claims.carries({"config": {"alpha": 3}, "seeds": [0]}) == {
      "config": "in part", "versions": "no", "seeds": "yes", "hardware": "no", "minutes": "no"}
  assert claims.carries({"config": {"alpha": 3}, "sections": {"policy": {}, "verifier": {}}})["config"] == "yes"


def test_the_page_follows_its_records(monkeypatch):
  """With another result the word is another; nobody has typed it."""
  def line(difference):
    def read(path):
      found = pages.read(path)
      if path.endswith("rl_sparse.json"):
        found = copy.deepcopy(found) | {"differences": found["differences"] | {"progress": difference}}
      return found
    monkeypatch.setitem(pages.ENVIRONMENT.globals, "read", read)
    text = pages.render("results/claims.md")
    (row,) = [x for x in text.splitlines() if "PAV-RL ends more accurate than ORM-RL" in x and "| sparse |" in x]
    return row.split(" | ")
  for difference, word in (([.1, .05, .15], "**holds**"), ([.1, -.05, .15], "**open**"), ([-.1, -.15, -.05], "**does not hold**")):
    assert word in line(difference)
