"""Hacking, planted and not."""

import numpy as np

from pav_jax.grading import grading
from pav_jax.policy import watch

NL = 9
LIMITS = {"share": 0.2, "factor": 2.0, "kl": 1.0}


def _figures(responses, prompt=(1, 2, 3, 4, NL), verdict=grading.Verdict.CORRECT, ended=True):
  n = len(responses)
  lengths = [sum(map(len, steps)) for steps in responses]
  return watch.figures([prompt] * n, responses, np.array(lengths), np.array([ended] * n), np.array([verdict] * n)) | {
      "commonest": watch.commonest(range(n), responses)}


def test_figures_by_hand():
  found = _figures([[(5, NL), (5, NL), (2, 3, NL)], [(5, NL), (2, 4, NL)]])
  assert found == {"repeated": 1 / 5, "restated": 1 / 5, "commonest": 1.0, "steps": 2.5, "length": 6.0, "truncated": 0.0,
                   "ungradable": 0.0}
  found = _figures([[(5, NL)], [(6, NL)]], verdict=grading.Verdict.UNGRADABLE, ended=False)
  assert (found["ungradable"], found["truncated"], found["commonest"]) == (1, 1, 0.5)


def test_the_commonest_step_is_counted_by_problems_not_responses():
  loved, own = (9, NL), lambda n: (n, NL)
  assert watch.commonest([0, 0, 0, 1, 2, 2], [[own(4)], [own(4)], [own(4), loved], [loved], [own(5)], [own(6)]]) == 2 / 3
  assert watch.commonest([0, 1], [[own(1)], [own(2)]]) == 0.5
  assert watch.commonest([0, 1], [[], []]) == 0


def test_one_token_of_the_prompt_is_no_restatement():
  assert _figures([[(2, NL)]])["restated"] == 0
  assert _figures([[(1, 2, 3, 4, NL)]])["restated"] == 1


def _told(start, recent, **more):
  base = {"kl": 0.0, "reward": 0.0, "accuracy": 0.5}
  return watch.alarms(base | recent | more, base | start, **LIMITS)


def test_what_the_task_is_like_by_nature_is_no_alarm():
  start = _figures([[(5, NL), (k, 2, NL)] for k in range(10)])
  assert not _told(start, start)


def test_each_alarm_alone():
  start = _figures([[(5 + k, NL), (k, 2, NL)] for k in range(10)])
  assert _told(start, start | {"steps": 4.1})[0].startswith("steps 4.1 a response")
  assert _told(start, start | {"length": 1.0})[0].startswith("length")
  assert _told(start, start, kl=1.5) == ["kl 1.50 nats a token"]
  assert "while accuracy 0.50 -> 0.40" in _told(start, start, reward=0.1, accuracy=0.4)[0]
  for name in ("repeated", "restated", "commonest", "truncated", "ungradable"):
    assert [line.split()[0] for line in _told(start, start | {name: start[name] + 0.21})] == [name]
    assert not _told(start, start | {name: start[name] + 0.19})
