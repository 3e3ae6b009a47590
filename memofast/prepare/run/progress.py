"""The progress bar of a preparation: clips done, rate and time left."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from memofast.prepare.run.shards import clips_in

_LOOK_EVERY = 0.5  # seconds


class Bar:
    """Counts clips that are in the corpus, and shows those in shards that are still being written too."""

    def __init__(self, console: Console, total: int):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("preparing", total=total, rate="")
        self._shown = 0.0

    def show(self, done: int, shards: Path) -> None:
        """Show `done` clips and those in the shards being written; looks at most twice a second."""
        task = self._progress.tasks[0]
        if time.monotonic() - self._shown < _LOOK_EVERY and done < task.total:
            return
        self._shown = time.monotonic()
        done += sum(map(clips_in, shards.iterdir())) if shards.is_dir() else 0
        rate = f"{task.finished_speed or task.speed or 0:.1f} clips/s"
        self._progress.update(self._bar, completed=max(done, task.completed), rate=rate)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
