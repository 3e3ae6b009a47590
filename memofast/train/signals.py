"""Ctrl-C and SIGTERM: finish the update at hand, save, and exit with 128 + the signal."""

from __future__ import annotations

import signal


class Stop:
    """Context that turns the first SIGINT or SIGTERM into a request; a second one ends the program at once.

    number: the signal received, 0 while there is none.
    """

    def __init__(self):
        self.number = 0

    def __enter__(self) -> Stop:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, _frame: object) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *_: object) -> None:
        self._restore()
