"""How a child ended, and what is wrong with that."""

import os
import signal

import children
import pytest


@pytest.fixture(autouse=True)
def orphans():
    children.adopt()
    yield
    children.adopt(False)


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("memofast x: one line\n", 2, None),
        ("memofast x: one line\nand another\n", 2, "1 lines told at exit code 2, the last 'and another'"),
        ("", 2, "0 lines told at exit code 2, the last 'no word'"),
        ("memofast x: a fault\n", 1, "exit code 1: memofast x: a fault"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(said, code, fault, tmp_path):
    def work():
        os.write(2, said.encode())
        raise SystemExit(code)

    assert children.start(work, tmp_path).end().fault() == fault


def test_a_process_that_outlives_its_parent_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "PATIENCE", 0.2)

    def work():
        if not os.fork():
            signal.pause()

    assert children.start(work, tmp_path).end().fault() == "processes survive it"
