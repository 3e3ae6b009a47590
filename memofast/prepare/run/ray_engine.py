"""Tasks on a Ray cluster: the machines share the disk of the corpus, and each task writes a shard of its own."""

import os
import pickle
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from memofast.errors import MemofastError
from memofast.prepare.run.shards import Task, Worker, WorkOrder

_IN_FLIGHT = 2  # tasks per processor
_LOOK_EVERY = 0.5  # seconds
_workers: dict[bytes, Worker] = {}  # of this process, which Ray gives one task after the other


def load_ray():
    """The `ray` module; raises MemofastError with the install command when it is absent."""
    try:
        import ray
    except ImportError:
        raise MemofastError('--engine ray needs Ray, which is not installed: pip install "memofast[ray]"') from None
    return ray


def run_ray(tasks: Iterable[Task], order: WorkOrder, workers: int) -> Iterator[tuple[Task | None, bool]]:
    """Work on every task on the cluster that RAY_ADDRESS names, else on `workers` processors of this machine; yields as
    `run_local` does.

    Raises: `MemofastError` where there is no such cluster, and where a shard that was written elsewhere is not seen
        here.
    """
    with connected(workers) as ray:
        shared = ray.put(order)
        work = ray.remote(num_cpus=1, max_retries=0)(_work)
        most = _IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
        suspects = yield from _run(ray, work, deque(tasks), shared, most)
        for task in suspects:  # its process ended; each file alone, so that only the guilty one is given up
            yield task, True
            for single in task.alone():
                guilty = yield from _run(ray, work, deque([single]), shared, 1)
                for one in guilty:
                    yield one, False


@contextmanager
def connected(workers: int) -> Iterator[Any]:
    """The `ray` module, connected to the cluster that RAY_ADDRESS names, else to `workers` processors of this machine.

    Raises: `MemofastError` where Ray is not installed, or there is no such cluster.
    """
    ray = load_ray()
    begun = not ray.is_initialized()
    if begun:
        _connect(ray, workers)
    try:
        yield ray
    finally:
        if begun:
            ray.shutdown()


def _connect(ray, workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    options = {"address": address} if address else {"num_cpus": workers}
    heeded = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, ValueError) as error:
        raise MemofastError(f"no Ray cluster at RAY_ADDRESS={address} ({error}); start one with `ray start`") from None
    finally:
        if signal.getsignal(signal.SIGTERM) is not heeded:  # Ray's handler exits with 15
            signal.signal(signal.SIGTERM, heeded)


def _run(ray, work, left: deque[Task], order, most: int) -> Iterator[tuple[Task | None, bool]]:
    """Returns the tasks whose process ended."""
    running, lost = {}, []
    while left or running:
        while left and len(running) < most:
            task = left.popleft()
            running[work.remote(task, order, os.getcwd())] = task
        done, _ = ray.wait(list(running), timeout=_LOOK_EVERY)
        for reference in done:
            task = running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.WorkerCrashedError:
                lost.append(task)
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            if not task.folder.is_dir():
                raise MemofastError(
                    f"{task.folder} was written on another machine; --out must lie on a disk they share"
                )
            yield task, True
        yield None, True
    return lost


def _work(task: Task, order: WorkOrder, folder: str) -> None:
    os.chdir(folder)  # paths may be relative to where the command was given
    name = pickle.dumps(order)
    if name not in _workers:
        _workers.clear()
        _workers[name] = Worker(order)
    for _ in _workers[name](task):
        pass
