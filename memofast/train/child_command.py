"""A command as a child, which ends in order when the process that started it is gone: `python -m
memofast.train.child_command MODULE ARGUMENTS...`, with a pipe that nobody writes into as its standard input."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    """Whatever ends the parent, kill -9 too, closes its end of the pipe."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # which saves


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
