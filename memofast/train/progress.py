"""Progress of a run: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Args: updates: of the whole run; done: before this process; visible: False on all ranks but the first; name:
    shown before the bar."""

    def __init__(self, updates: int, done: int, visible: bool = True, name: str = "pretrain"):
        self._console = Console(stderr=True, quiet=not visible)
        self._updates, self._done, self._start = updates, done, time.monotonic()
        self._bar = Bar(
            TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(), TextColumn("left"), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=updates, completed=done, shown="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def show(self, step: int, loss: float, rate: float, memory: float) -> None:
        """Loss and samples per second of the last updates, and the most memory so far in GiB."""
        shown = f"loss {loss:.4f} · {rate:.0f} samples/s · {memory:.1f} GiB"
        self._bar.update(self._task, completed=step, shown=shown)
        if not self._console.is_terminal:
            left = (time.monotonic() - self._start) / max(step - self._done, 1) * (self._updates - step)
            self.say(f"update {step}/{self._updates} · {shown} · {_clock(left)} left")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
