"""Fine-tunings of a sweep in processes of this machine: each on its GPU and threads, and ended with it."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from runs import environment

from memofast.train import sweep_processes
from memofast.train.sweep_processes import Resources, run_local


class Child:
    """A process that ends when its test says so."""

    def __init__(self, code):
        self.returncode, self.ended, self.stdin = code, False, SimpleNamespace(close=lambda: None)
        self.told = []

    def poll(self):
        return self.returncode if self.ended else None

    def terminate(self):
        self.told.append("terminate")

    def wait(self):
        self.told.append("wait")


@pytest.fixture
def children(monkeypatch):
    """By folder, with the GPU that each was given."""
    made = {}

    def begin(folder, threads, gpu):
        made[folder] = (Child(len(made)), threads, gpu)
        return made[folder][0]

    monkeypatch.setattr(sweep_processes, "start", begin)
    return made


def test_workers_take_the_gpus_in_turn(children):
    running = run_local(list("abcd"), Resources(3, 2, ("4", "7")))
    assert [next(running) for _ in range(3)] == [("a", None), ("b", None), ("c", None)]
    assert {name: of[1:] for name, of in children.items()} == {"a": (2, "4"), "b": (2, "7"), "c": (2, "4")}
    children["b"][0].ended = True
    assert [next(running), next(running)] == [("b", 1), ("d", None)] and children["d"][2] == "7"
    running.close()
    assert [children[name][0].told for name in "abcd"] == [["terminate", "wait"], [], *[["terminate", "wait"]] * 2]


def test_processes_of_this_machine(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 12)
    assert Resources.here(0, "cpu", None) == Resources(1, 12, ())
    assert Resources.here(5, "cpu", None) == Resources(5, 2, ()) and Resources.here(5, "cpu", 3).threads == 3
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Resources.here(0, "auto", None) == Resources(3, 4, ("0", "1", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert Resources.here(0, "auto", None).gpus == ("2", "5")
    assert Resources.here(1, "auto", None).describe() == "1 process of 12 threads, on GPUs 2, 5"


def test_a_child_ends_with_its_parent(tmp_path):
    (tmp_path / "long.py").write_text("import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(60)\n")
    line = [sys.executable, "-m", "memofast.train.child_command", "long", "--resume", "x"]
    path = os.pathsep.join((str(tmp_path), environment()["PYTHONPATH"]))
    child = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment() | {"PYTHONPATH": path}
    )
    assert child.stdout.readline() == b"['--resume', 'x']\n" and child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=20) in (-signal.SIGTERM, 128 + signal.SIGTERM)
