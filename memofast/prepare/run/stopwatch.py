"""Where the time of a preparation goes, by part of the work."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """seconds: by part, each without the parts timed inside it. media: seconds of picture or sound that were worked
    on."""

    def __init__(self):
        self.seconds: Counter[str] = Counter()
        self.media = 0.0
        self._inside = [0.0]

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            self.seconds[part] += spent - self._inside.pop()
            self._inside[-1] += spent

    def timed(self, part: str, items: Iterator[T]) -> Iterator[T]:
        """The items, the time to come by each counted as `part`."""
        end = object()
        while True:
            with self(part):
                item = next(items, end)
            if item is end:
                return
            yield item

    def as_json(self) -> dict:
        return {"seconds": dict(self.seconds), "media": self.media}

    def add(self, other: dict) -> None:
        """Add what `as_json` of another stopwatch gave."""
        self.seconds.update(other["seconds"])
        self.media += other["media"]
