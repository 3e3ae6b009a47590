"""What is said of cases that share a process, and of one that ends it."""

import os
import signal
import time

import children
import hundreds
import pytest

from memofast.errors import MemofastError


def test_each_case_is_told_of_and_one_that_ends_its_process_is_at_fault(tmp_path):
    processes = tmp_path / "processes"

    def read(number):
        with processes.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if number == 7:
            raise MemofastError("no such file; check the path")
        if number == 11:
            raise KeyError("classes")
        if number == 120:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 130:
            raise SystemExit(2)
        if number == 131:
            raise TwoLines("")

    outcome = hundreds.each_in_turn(range(5, 135), lambda number: hundreds.outcome_of(lambda: read(number)), tmp_path)
    assert outcome.counts == {"read": 125, "refused": 2} and outcome.count == 130
    assert sorted(outcome.faults) == [11, 120, 131]
    assert outcome.faults[11] == "KeyError at ?: \"'classes'\""
    assert outcome.faults[120].startswith("ends by SIGSEGV") and "more than a line" in outcome.faults[131]
    assert len(set(processes.read_text().split())) == 3  # a hundred, up to 120, the rest


def test_what_hangs_is_ended_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "SECONDS", 1)
    outcome = hundreds.each_in_turn(range(2), lambda number: time.sleep(number * 20) or "read", tmp_path)
    assert outcome.counts == {"read": 1} and "TimeoutError" in outcome.faults[1]


def test_too_much_memory_is_a_fault(tmp_path):
    def read(number):
        bytes((4 << 30) * number)
        return "read"

    outcome = hundreds.each_in_turn(range(2), read, tmp_path)
    assert outcome.counts == {"read": 1} and outcome.faults[1].startswith("MemoryError")


class TwoLines(MemofastError):
    """An error whose line breaks are not escaped, as those of others are."""

    def __str__(self):
        return "one line\nand another"


@pytest.fixture(autouse=True)
def orphans():
    children.adopt()
    yield
    children.adopt(False)
