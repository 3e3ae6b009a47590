"""Media files spread over processes: bounded work in flight, and a file that ends its process is named and left behind."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel

from memofast.errors import MemofastError
from memofast.prepare.extraction import Extracted, Extraction, ExtractionOptions
from memofast.prepare.report import Problem
from memofast.prepare.sources import Clip

_IN_FLIGHT = 2  # files per worker
_extraction: Extraction | None = None


def extract(files: list[list[Clip]], options: ExtractionOptions, workers: int) -> Iterator[list[Extracted]]:
    """Rows of every file's clips, file by file as they are done. One worker works in this process."""
    if workers <= 1 or len(files) <= 1:
        extraction = Extraction(options)
        for clips in files:
            yield _guarded(extraction, clips)
        return
    left = deque(files)
    while left:
        suspects = yield from _pool(left, options, workers)
        for clips in suspects:  # one of them ended a worker: each alone, so that only the guilty one is given up
            yield from _alone(clips, options)


def _pool(left: deque, options: ExtractionOptions, workers: int) -> Iterator[list[Extracted]]:
    """Work until nothing is left or a worker dies; returns the files that were in flight then."""
    with _executor(options, workers) as executor:
        running: dict[Future, list[Clip]] = {}
        try:
            while left or running:
                while left and len(running) < _IN_FLIGHT * workers:
                    clips = left.popleft()
                    running[executor.submit(_work, clips)] = clips
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    del running[future]
                    yield result
        except BrokenProcessPool:
            return [clips for future, clips in running.items() if clips]
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return []


def _alone(clips: list[Clip], options: ExtractionOptions) -> Iterator[list[Extracted]]:
    with _executor(options, 1) as executor:
        try:
            yield executor.submit(_work, clips).result()
        except BrokenProcessPool:
            detail = f"decoding {clips[0].picture or clips[0].sound} ended the process"
            yield [Extracted(clip, problems=[Problem("crashed", detail)]) for clip in clips]


def _executor(options: ExtractionOptions, workers: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(options,))


def _start(options: ExtractionOptions) -> None:
    global _extraction
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _extraction = Extraction(options)


def _end_with_parent() -> None:
    """A worker whose parent was killed has no one to report to."""
    wait_for_sentinel([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(clips: list[Clip]) -> list[Extracted]:
    return _guarded(_extraction, clips)


def _guarded(extraction: Extraction, clips: list[Clip]) -> list[Extracted]:
    """One file's clips; whatever goes wrong inside becomes a problem of these clips and not of the run."""
    try:
        return extraction(clips)
    except MemofastError as error:
        return [Extracted(clip, problems=[Problem("failed", str(error))]) for clip in clips]
    except Exception as error:
        detail = f"{clips[0].picture or clips[0].sound}: {type(error).__name__}: {error}"
        return [Extracted(clip, problems=[Problem("failed", detail)]) for clip in clips]
