"""Tasks on local processes: bounded work in flight, and a file that ends its process is named and left behind."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_sentinel

from memofast.prepare.run.shards import Task, Worker, WorkOrder

_IN_FLIGHT = 2  # tasks per worker
_LOOK_EVERY = 0.5  # seconds
_worker: Worker | None = None


def run_local(tasks: Iterable[Task], order: WorkOrder, workers: int) -> Iterator[tuple[Task | None, bool]]:
    """Work on every task; yields `(task, whether it came to its end)` as tasks end, and `(None, True)` in between as a
    sign of life.

    A task that did not come to its end is of one file, which ended the process that read it. One worker works in this
    process.
    """
    left = deque(tasks)
    if workers <= 1 or len(left) <= 1:
        worker = Worker(order)
        for task in left:
            for _ in worker(task):
                yield None, True
            yield task, True
        return
    while left:
        suspects = yield from _pool(left, order, workers)
        for task in suspects:  # one of them ended a worker: each file alone, so that only the guilty one is given up
            yield task, True  # what it has done so far
            for single in task.alone():
                yield from _alone(single, order)


def _pool(left: deque[Task], order: WorkOrder, workers: int) -> Iterator[tuple[Task | None, bool]]:
    """Work until nothing is left or a worker dies; returns the tasks that were in flight then."""
    with _executor(order, workers) as executor:
        running: dict[Future, Task] = {}
        try:
            while left or running:
                while left and len(running) < _IN_FLIGHT * workers:
                    running[_submit(executor, left[0])] = left[0]
                    left.popleft()  # only now: a pool that just broke takes nothing
                done, _ = wait(running, _LOOK_EVERY, FIRST_COMPLETED)
                for future in done:
                    future.result()
                    yield running.pop(future), True
                yield None, True
        except BrokenProcessPool:
            return list(running.values())
    return []


def _alone(task: Task, order: WorkOrder) -> Iterator[tuple[Task, bool]]:
    with _executor(order, 1) as executor:
        try:
            _submit(executor, task).result()
            yield task, True
        except BrokenProcessPool:
            yield task, False


@contextmanager
def _executor(order: WorkOrder, workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose workers are ended where this process is: their shards stand a kill."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(order,)) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _submit(executor: ProcessPoolExecutor, task: Task) -> Future:
    """Hand a task to the pool, which may start a worker: Ctrl-C waits there until the worker can end without a word."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(_work, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(order: WorkOrder) -> None:
    global _worker
    signal.signal(signal.SIGINT, lambda number, _frame: os._exit(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(order)


def _end_with_parent() -> None:
    """A worker whose parent was killed has no one to report to."""
    wait_for_sentinel([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work(task: Task) -> None:
    for _ in _worker(task):
        pass
