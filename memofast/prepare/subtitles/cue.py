"""One subtitle."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """Timed text, lines apart by `\\n`; `start` and `end` in seconds, None where it spans the whole file.

    problem: why it cannot be used, as a report says it.
    """

    start: float | None
    end: float | None
    text: str
    problem: str | None = None
