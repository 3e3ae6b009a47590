"""Settings of a sweep as fine-tunings in processes of their own: several at once here, or on a Ray cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from memofast.devices import choose_device
from memofast.errors import MemofastError

Ended = Generator[
    tuple[Path, int | None], None, None
]  # a folder with None when it begins, with its exit code at the end
LOG = "log.txt"  # in the folder of a setting
_LOOK_EVERY = 0.05  # seconds
_RAY_LOOKS_EVERY = 0.5


@dataclass(frozen=True)
class Resources:
    """workers: processes at once. threads: of each. gpus: names as CUDA_VISIBLE_DEVICES takes them, which the workers
    take in turn; none: on CPUs."""

    workers: int
    threads: int
    gpus: tuple[str, ...]

    @classmethod
    def here(cls, workers: int, device: str, threads: int | None) -> Resources:
        """Of this machine. workers: 0 for one, or one per GPU; device, threads: of the recipe's `train`; no threads:
        PyTorch's are divided."""
        gpus: tuple[str, ...] = ()
        if choose_device(device, "train.device") == "cuda":
            named = os.environ.get("CUDA_VISIBLE_DEVICES")
            gpus = tuple(named.split(",") if named else map(str, range(torch.cuda.device_count())))
        workers = workers or max(1, len(gpus))
        return cls(workers, threads or max(1, torch.get_num_threads() // workers), gpus)

    def describe(self) -> str:
        where = f"GPUs {', '.join(self.gpus)}" if self.gpus else "the CPU"
        at_once = "1 process" if self.workers == 1 else f"{self.workers} processes at once"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{at_once} of {threads}, on {where}"


def run_local(folders: Sequence[Path], resources: Resources) -> Ended:
    """Run the fine-tunings of these folders, which hold their recipes, in their order.

    Yields: a folder with None when it begins, with its exit code when it ends, that of a signal negative. Where the
    iteration is left early, what still runs is told to save and waited for.
    """
    left, free = deque(folders), list(range(resources.workers))
    running: dict[int, tuple[Path, subprocess.Popen]] = {}  # by place, which has a GPU
    try:
        while left or running:
            while left and free:
                folder, place = left.popleft(), free.pop(0)
                gpu = resources.gpus[place % len(resources.gpus)] if resources.gpus else None
                running[place] = folder, start(folder, resources.threads, gpu)
                yield folder, None
            for place, (folder, process) in list(running.items()):
                if process.poll() is not None:
                    del running[place]
                    free.append(place)
                    process.stdin.close()
                    yield folder, process.returncode
            time.sleep(_LOOK_EVERY)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def start(folder: Path, threads: int, gpu: str | None = None) -> subprocess.Popen:
    """A fine-tuning that goes on in its folder, logs there, and ends with this process. It is in a session of its own,
    so that Ctrl-C reaches this process alone, which passes it on."""
    line = [sys.executable, "-m", "memofast.train.child_command", "memofast.finetune", "--resume", str(folder)]
    chosen = {"OMP_NUM_THREADS": str(threads)} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    with open(folder / LOG, "ab") as log:
        return subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | chosen, start_new_session=True
        )


def run_ray(folders: Sequence[Path], workers: int, device: str, threads: int) -> Ended:
    """As `run_local`, on the cluster that RAY_ADDRESS names, else on `workers` processors of this machine (0: all). A
    setting takes `threads` processors, and a GPU where the cluster has some and `device` is not cpu.

    Raises: `MemofastError` where there is no such cluster, none of its machines has so many processors, and where the
        folders are not seen by all of them.
    """
    from memofast.prepare.run.ray_engine import connected

    if not folders:
        return
    with connected(workers or os.cpu_count() or 1) as ray:
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        gpus = int(device != "cpu" and any(machine.get("GPU", 0) for machine in machines))
        if device == "cuda" and not gpus:
            raise MemofastError("train.device is cuda, but the Ray cluster has no GPU; write train.device=auto")
        if not any(machine.get("CPU", 0) >= threads and machine.get("GPU", 0) >= gpus for machine in machines):
            raise MemofastError(
                f"no machine of the Ray cluster has {threads} free processors"
                f"{' beside a GPU' if gpus else ''}; lower train.threads"
            )
        work = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_on_a_machine)
        running = {work.remote(str(folder.resolve()), os.getcwd(), threads): folder for folder in folders}
        while running:
            for reference in ray.wait(list(running), timeout=_RAY_LOOKS_EVERY)[0]:
                folder = running.pop(reference)
                try:
                    yield folder, ray.get(reference)
                except ray.exceptions.WorkerCrashedError:
                    yield folder, -9
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None


def _on_a_machine(folder: str, working: str, threads: int) -> int:
    """Runs on the cluster, which has chosen the GPU. Returns: the exit code."""
    if not Path(folder).is_dir():
        raise MemofastError(f"{folder} is not there on every machine; start the sweep on a disk they share")
    os.chdir(working)
    return start(Path(folder), threads).wait()
