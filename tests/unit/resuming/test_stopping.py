"""Requests to stop: by signal, by the time that is left, and by another process that has taken over."""

import os
import signal

import pytest

from latentwire.resuming.stopping import MARGIN_SECONDS, OWNER_SECONDS, Stopped, StopRequest


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _restored():
    # What starts the tests in the background may ignore some of them.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stops(request):
    """Why a request stops, and whether the state was kept; None if it goes on."""
    kept = []
    try:
        request.check(lambda: kept.append(True))
    except Stopped as stopped:
        return str(stopped), bool(kept)
    assert not kept
    return None


def test_nothing_stops_a_run_that_nobody_told(clock):
    request = StopRequest(clock=clock)
    clock.now = 1e9
    assert stops(request) is None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request_and_not_the_end(number):
    request = StopRequest().listen()
    os.kill(os.getpid(), number)
    reason, kept = stops(request)
    assert kept
    assert reason == f"received {number.name}; the state is kept; rerun the same command to resume"


def test_a_second_ctrl_c_ends_the_program_at_once():
    StopRequest().listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = StopRequest().listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert stops(request) is None


@pytest.mark.parametrize(("minutes", "stops_at"), [(360, 360 * 60 - MARGIN_SECONDS), (1, 45)])
def test_the_time_that_is_left(clock, minutes, stops_at):
    clock.now = 5.0
    request = StopRequest(minutes, clock=clock)
    clock.now = 5.0 + stops_at - 1
    assert stops(request) is None
    clock.now = 5.0 + stops_at
    reason, kept = stops(request)
    assert kept
    assert f"the job's time limit of {minutes} minutes is close" in reason


def test_who_is_taken_over_stops_and_touches_nothing(tmp_path, clock):
    first, second = StopRequest(clock=clock), StopRequest(clock=clock)
    first.take_over(tmp_path)
    assert stops(first) is None
    second.take_over(tmp_path)
    clock.now += OWNER_SECONDS
    assert stops(first) == ("another process has taken over this work: stopped without touching its state", False)
    assert stops(second) is None
    # Even if it is told to stop as well.
    first.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    clock.now += OWNER_SECONDS
    assert stops(first)[1] is False


def test_an_owner_whose_predecessor_tidied_up_goes_on(tmp_path, clock):
    request = StopRequest(clock=clock)
    request.take_over(tmp_path)
    (tmp_path / "owner").unlink()
    clock.now += OWNER_SECONDS
    assert stops(request) is None


def test_the_owner_is_not_asked_at_every_step(tmp_path, clock):
    first, second = StopRequest(clock=clock), StopRequest(clock=clock)
    first.take_over(tmp_path)
    assert stops(first) is None
    second.take_over(tmp_path)
    clock.now += OWNER_SECONDS / 2
    assert stops(first) is None
