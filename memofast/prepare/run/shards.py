"""Work in pieces: the clips of some files become a shard, a folder of small stores, wherever the work is done.

A shard outlives the process that writes it: what a killed one had committed is taken into the corpus by the next run.
"""

import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import FiniteFloat

from memofast.files import write_json
from memofast.prepare.run.corpus_stores import JOURNAL, CorpusStores, StorePlan
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.run.stopwatch import Stopwatch
from memofast.prepare.sources.clips import Clip
from memofast.prepare.text.word_pieces import WordPieces, read_lexicon
from memofast.schemas import Name, Schema, read_described

SHARDS = "shards"
TIMES = "times.json"
_MOST_CLIPS = 32  # per shard, where files hold fewer
_TASKS = 4  # per worker, at least, so that none waits long for the last
# clips; below the stores' own batch, so that the text record, which marks a clip as done, is never first on disk
_COMMIT_EVERY = 200
_COMMIT_AFTER = 5.0  # seconds


@dataclass(frozen=True)
class Vocabulary:
    """Where the tokenizer and the lexicon lie."""

    path: Path
    lexicon: Path | None = None

    def open(self) -> WordPieces:
        return WordPieces(self.path, read_lexicon(self.lexicon) if self.lexicon else None)


@dataclass(frozen=True)
class WorkOrder:
    """What every worker has to know."""

    extraction: ExtractionOptions
    plan: StorePlan
    vocabulary: Vocabulary | None


@dataclass(frozen=True)
class Task:
    """Files, each as all of its clips, to be worked into the shard at `folder`; clips in `done` need no work."""

    folder: Path
    files: list[list[Clip]]
    done: frozenset[str] = frozenset()

    @property
    def clips(self) -> list[Clip]:
        """The clips that need work."""
        return [clip for file in self.files for clip in file if clip.id not in self.done]

    def alone(self) -> Iterator["Task"]:
        """A task for each file."""
        for number, file in enumerate(self.files):
            yield replace(self, folder=self.folder.with_name(f"{self.folder.name}-{number}"), files=[file])


def make_tasks(files: list[list[Clip]], folder: Path, done: Container[str], workers: int) -> list[Task]:
    """Tasks of up to 32 clips, in the order of the files; a film of more sentences is one alone."""
    files = [file for file in files if any(clip.id not in done for clip in file)]
    size = min(_MOST_CLIPS, max(1, sum(map(len, files)) // (_TASKS * max(1, workers))))
    groups: list[list[list[Clip]]] = []
    room = 0
    for file in files:
        if len(file) > room:
            groups.append([])
            room = size
        groups[-1].append(file)
        room -= len(file)
    return [_task(group, folder / f"{number:06}", done) for number, group in enumerate(groups)]


def _task(files: list[list[Clip]], folder: Path, done: Container[str]) -> Task:
    return Task(folder, files, frozenset(clip.id for file in files for clip in file if clip.id in done))


class Worker:
    """Extractors and tokenizer of one process, opened once."""

    def __init__(self, order: WorkOrder):
        self.order = order
        self.extraction = Extraction(order.extraction)
        self.pieces = order.vocabulary.open() if order.vocabulary else None

    def __call__(self, task: Task) -> Iterator[None]:
        """Write the task's shard, clip by clip. Raises `MemofastError` where its stores cannot be written."""
        watch = self.extraction.watch = Stopwatch()
        with CorpusStores(task.folder, self.order.plan, self.pieces) as stores:
            waiting, last = 0, time.monotonic()
            for file in task.files:
                for result in self.extraction(file, task.done):
                    with watch("writing"):
                        stores.add(result)
                        waiting += 1
                        if waiting >= _COMMIT_EVERY or time.monotonic() - last > _COMMIT_AFTER:
                            stores.commit()
                            waiting, last = 0, time.monotonic()
                    yield
        write_json(task.folder / TIMES, watch.as_json())


class _Times(Schema):
    seconds: dict[Name, FiniteFloat]
    media: FiniteFloat


def times_of(shard: Path) -> dict:
    """What the stopwatch of a shard says; nothing where its worker did not come to the end."""
    path = shard / TIMES
    if not path.is_file():
        return Stopwatch().as_json()
    return read_described(path, _Times, "the times of a shard", "delete it, it only tells where time went")


def clips_in(shard: Path) -> int:
    """Clips that a shard in the making has brought to the disk."""
    try:
        return (shard / JOURNAL).read_bytes().count(b'{"id"')
    except OSError:
        return 0
