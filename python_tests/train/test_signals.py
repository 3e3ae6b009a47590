"""A signal asks once, and a second one ends the program; nohup stays nohup."""

import os
import signal

import pytest

from memofast.train.signals import STOPPING, Stop


@pytest.fixture
def handlers():
    """What each signal does outside, put back afterwards."""
    seen = []
    before = {number: signal.signal(number, lambda number, _: seen.append(number)) for number in STOPPING}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_is_a_request_and_the_second_is_not(handlers, number):
    with Stop() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), number)
        assert (stop.number, handlers) == (number, [])
        os.kill(os.getpid(), number)
        assert handlers == [number]
    os.kill(os.getpid(), number)
    assert handlers == [number, number]


def test_a_run_under_nohup_outlives_its_terminal(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
