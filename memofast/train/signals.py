"""Ctrl-C, SIGTERM and SIGHUP: finish the update at hand, save, and exit with 128 + the signal."""

from __future__ import annotations

import signal

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Context that turns the first SIGINT, SIGTERM or SIGHUP into a request; a second one ends the program at once.
    SIGHUP stays ignored where nohup says so.

    number: the signal received, 0 while there is none.
    """

    def __init__(self):
        self.number = 0

    def __enter__(self) -> Stop:
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        asking = STOPPING[:-1] if ignored else STOPPING
        self._before = {number: signal.signal(number, self._ask) for number in asking}
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
