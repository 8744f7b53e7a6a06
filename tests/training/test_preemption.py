"""SIGTERM and Ctrl-C: heard at the end of a loop's step, at once elsewhere and the second time."""

import signal

import pytest

from pav_jax.training import preemption


@pytest.fixture
def notice(monkeypatch):
  """A notice of its own, and its clock."""
  clock = [100.0]
  monkeypatch.setattr(preemption.time, "monotonic", lambda: clock[0])
  one = preemption._Notice()
  one.clock = clock
  return one


def test_outside_of_a_loop_it_ends_at_once(notice):
  with pytest.raises(preemption.Preempted):
    notice.hear(signal.SIGTERM, None)


def test_a_loop_is_asked_to_end_and_does(notice):
  with pytest.raises(preemption.Preempted):
    with notice.waits():
      assert not notice.due(1)
      notice.hear(signal.SIGTERM, None)
      assert notice.due(2)
  notice.clock[0] += 5
  with pytest.raises(preemption.Preempted):
    notice.hear(signal.SIGTERM, None)


def test_a_loop_that_ends_by_itself_after_the_word_is_the_last_thing_done(notice):
  with pytest.raises(preemption.Preempted):
    with notice.waits():
      notice.hear(signal.SIGTERM, None)


def test_the_second_word_does_not_wait_but_an_echo_of_the_first_does(notice):
  with pytest.raises(preemption.Preempted):
    with notice.waits():
      notice.hear(signal.SIGTERM, None)
      notice.clock[0] += 0.5
      notice.hear(signal.SIGTERM, None)
      echo = True
      notice.clock[0] += 1
      notice.hear(signal.SIGTERM, None)
      echo = False
  assert echo


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_ends_a_loop_says_by_which_signal(notice, capfd, number):
  with pytest.raises(preemption.Preempted, match="saved at step 2") as ended:
    with notice.waits():
      notice.hear(number, None)
      assert notice.due(2)
      raise notice.left("saved at step 2")
  assert ended.value.number == number
  assert ("Ctrl-C again does not wait" in capfd.readouterr().err) == (number == signal.SIGINT)
  notice.clock[0] += 5
  with pytest.raises(preemption.Preempted) as ended:
    notice.hear(number, None)  # outside of the loop
  assert ended.value.number == number


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_is_heard_unless_it_means_others(notice, ignored):
  before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  try:
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    notice.listen()
    assert signal.getsignal(signal.SIGTERM) == notice.hear
    assert signal.getsignal(signal.SIGINT) == (signal.SIG_IGN if ignored else notice.hear)
  finally:
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before):
      signal.signal(number, handler)


def test_other_hosts_are_told_once(notice):
  told = []
  notice._pass_on = told.append
  with pytest.raises(preemption.Preempted):
    with notice.waits():
      notice.hear(signal.SIGTERM, None)
      notice.hear(signal.SIGTERM, None)
  assert told == [signal.SIGTERM]


def test_what_a_library_swallowed_ends_the_run_between_stages(notice):
  """A bare `except:` around the handler's call: the stage goes on to its end, and nothing after it begins."""
  try:
    notice.hear(signal.SIGTERM, None)
  except:  # as in a library
    pass
  with pytest.raises(preemption.Preempted):
    notice.raise_if_heard()
  assert notice.due(0)  # a loop that begins all the same saves at once
