import contextlib
import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from media import write_clip

from memofast.prepare.run.corpus_stores import CorpusStores, StorePlan
from memofast.prepare.run.extraction import ExtractionOptions
from memofast.prepare.run.shards import WorkOrder, make_tasks
from memofast.prepare.run.workers import run_local
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import parse_speech


def kill_readers(pipe: Path, stop: threading.Event) -> None:
    """Kill every worker that opens `pipe`, until `stop` is set. Opening it for writing succeeds once there is a
    reader."""
    while not stop.wait(0.02):
        try:
            writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
            continue
        while not (readers := [child for child in multiprocessing.active_children() if holds(child.pid, pipe)]):
            time.sleep(0.01)
        for child in readers:
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        os.close(writer)


def holds(pid: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(os.path.realpath(entry) == str(path) for entry in Path(f"/proc/{pid}/fd").iterdir())
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see which worker reads the file")
def test_a_file_that_ends_its_worker_is_given_up_alone(tmp_path):
    pipe = (tmp_path / "deadly.mkv").resolve()
    os.mkfifo(pipe)
    good = [write_clip(tmp_path / f"{name}.mkv", 1.0, picture=False) for name in "abcd"]
    files = [[Clip(path.stem, sound=path)] for path in [good[0], pipe, *good[1:]]]
    plan = StorePlan(speech={"width": 80, "columns": ("times",)})
    order = WorkOrder(ExtractionOptions(None, None, parse_speech("logmel", None), 30.0), plan, None)
    tasks = make_tasks(files, tmp_path / "shards", (), workers=1)
    assert len(tasks) == 5
    given_up = []
    stop = threading.Event()
    killer = threading.Thread(target=kill_readers, args=(pipe, stop), daemon=True)
    killer.start()
    try:
        with CorpusStores(tmp_path / "corpus", plan, None) as stores:
            for task, ended in run_local(tasks, order, workers=2):
                if task and task.folder.is_dir():
                    stores.take(task.folder)
                given_up += [] if ended else [clip.id for clip in task.clips]
            assert sorted(id for id in stores.journal.outcomes if stores.done(id)) == ["a", "b", "c", "d"]
            assert len(stores.speech) == 4
    finally:
        stop.set()
        killer.join()
    assert given_up == ["deadly"]


def _exit_code(worker: multiprocessing.Process) -> int | None:
    """The pool may be reaping it in a thread of its own, and until that is told there is no code."""
    end = time.monotonic() + 120
    while (code := worker.exitcode) is None and time.monotonic() < end:
        time.sleep(0.02)
    return code


def test_workers_end_without_a_word_and_with_their_program(tmp_path, capfd):
    pipes = [tmp_path / f"{name}.mkv" for name in "abc"]  # whoever reads one waits for ever
    for pipe in pipes:
        os.mkfifo(pipe)
    files = [[Clip(pipe.stem, sound=pipe)] for pipe in pipes]
    order = WorkOrder(ExtractionOptions(None, None, parse_speech("logmel", None), 30.0), StorePlan(), None)
    running = run_local(make_tasks(files, tmp_path / "shards", (), workers=2), order, 2)
    next(running)
    first, second = multiprocessing.active_children()
    os.kill(first.pid, signal.SIGINT)  # while it still imports
    assert _exit_code(first) == 130
    running.close()
    assert _exit_code(second) is not None and not multiprocessing.active_children()
    assert capfd.readouterr().err == ""
