"""How speed is measured: everything compared runs in one process, round by round in turn, on the same inputs.

pytest bench --benchmark-json=speed.json && python bench/report.py speed.json
"""

import contextlib
import math
import os
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import gpu_timing
import pytest
import torch

import memofast
from memofast import _C
from memofast.cpu import bf16_units

THREADS = int(os.environ.get("MEMOFAST_BENCH_THREADS", 2))
# of this process alone, for machines that others use; with one thread, as those that wait count too
_clock = time.process_time if os.environ.get("MEMOFAST_BENCH_CLOCK") == "process" else time.perf_counter
MOST_ROUNDS = int(os.environ.get("MEMOFAST_BENCH_ROUNDS", 100))  # fewer give a quicker and rougher run


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


_LEAST_SECONDS = 0.005  # a round of a quick function is several calls, as one alone would measure its cold start


def _calls(function: Callable[[], object]) -> int:
    return max(1, math.ceil(_LEAST_SECONDS / max(_seconds(function, 1), 1e-7)))


def _seconds(function: Callable[[], object], calls: int) -> float:
    start = _clock()
    for _ in range(calls):
        function()
    return (_clock() - start) / calls


def _summary(seconds: list[float]) -> dict[str, float]:
    low, *_, high = statistics.quantiles(seconds, n=5)
    return {"median": statistics.median(seconds), "p20": low, "p80": high}


@pytest.fixture
def side_by_side(benchmark):
    """Time our function and its rivals in turn, in another order every round; each is called as often as fills 5 ms, at
    least once.

    `side_by_side(ours, rivals={name: function}, rounds=20, target={name: ratio}, beside=(name, ...), **facts)` records
    for every rival the median over rounds of (its time / our time in the same round) with the 20th and 80th percentile,
    in `extra_info` of the JSON. `beside`: rivals that are code of ours, or do less, and so are shown without a claim.
    pytest-benchmark's own row is our function.
    """

    def measure(
        ours: Callable[[], object],
        rivals: dict[str, Callable[[], object]],
        rounds: int = 20,
        target: dict[str, float] | None = None,
        beside: Sequence[str] = (),
        **facts: object,
    ) -> dict[str, dict[str, float]]:
        rounds, functions = min(rounds, MOST_ROUNDS), {"ours": ours} | rivals
        for function in functions.values():
            function()  # and once more in `_calls`: caches, pools and thread teams are filled before the first round
        calls = {name: _calls(function) for name, function in functions.items()}
        times: dict[str, list[float]] = {name: [] for name in functions}
        draw = random.Random(0)
        for _ in range(rounds):
            for name in draw.sample(list(functions), len(functions)):  # nobody always follows the same neighbour
                if calls[name] > 1:  # caches and threads are as it left them, not as the one before did
                    functions[name]()
                times[name].append(_seconds(functions[name], calls[name]))
        ratios = {
            name: _summary([rival / our for rival, our in zip(times[name], times["ours"], strict=True)])
            for name in rivals
        }
        benchmark.extra_info |= {
            "seconds": {name: _summary(values) for name, values in times.items()},
            "ratios": ratios,
            "target": target or {},
            "beside": list(beside),
            "facts": facts,
        }
        benchmark.pedantic(ours, rounds=max(3, rounds // 4), warmup_rounds=0)
        return ratios

    return measure


def _contestants(ours: Callable, rivals: dict[str, Callable], prepare: Callable) -> tuple[dict, dict[str, str]]:
    """What `prepare` makes of everybody's function of an input set's number, and why a rival cannot take part; ours has
    to."""
    # Beyond some compilations PyTorch would silently run the rest operation by operation: start anew, and refuse who
    # gets there.
    torch.compiler.reset()
    if hasattr(torch._dynamo.config, "fail_on_recompile_limit_hit"):
        torch._dynamo.config.fail_on_recompile_limit_hit = True
    ready, refused = {"ours": prepare(ours)}, {}
    for name, make in rivals.items():
        try:
            ready[name] = prepare(make)
        except Exception as error:  # of other people's code, which a row of ours should not depend on
            refused[name] = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return ready, refused


@pytest.fixture
def on_cpu(side_by_side, benchmark):
    """Time on the CPU what `on_gpu` times on a GPU: calls on one input set, after whatever they compile.

    `on_cpu(ours, rivals={name: make}, rounds=15, target={name: ratio}, beside=(name, ...), **facts)`; facts:
    `gigabytes` and `flop` of one call are what the report takes the floor from.
    """

    def measure(
        ours: Callable[[int], Callable[[], object]],
        rivals: dict[str, Callable[[int], Callable[[], object]]],
        bytes_of_one: int,
        rounds: int = 15,
        target: dict[str, float] | None = None,
        beside: Sequence[str] = (),
        **facts: object,
    ) -> None:
        def prepare(make: Callable[[int], Callable[[], object]]) -> Callable[[], object]:
            call = make(0)
            call()
            return call

        ready, refused = _contestants(ours, rivals, prepare)
        side_by_side(ready.pop("ours"), ready, rounds, target, beside, **facts)
        benchmark.extra_info["refused"] = refused

    return measure


@pytest.fixture
def on_gpu(benchmark):
    """Time our function and its rivals on the GPU, round by round in turn, over rotating inputs; see `gpu_timing`.

    `on_gpu(ours, rivals={name: make}, bytes_of_one=..., rounds=7, target={name: ratio}, beside=(name, ...), **facts)`:
    `ours` and each rival is a function of the number of an input set that returns the call to time. A rival that raises
    is recorded with its reason and not timed. Ratios are of GPU time. facts: as in `on_cpu`.
    """

    def measure(
        ours: Callable[[int], Callable[[], object]],
        rivals: dict[str, Callable[[int], Callable[[], object]]],
        bytes_of_one: int,
        rounds: int = 7,
        target: dict[str, float] | None = None,
        beside: Sequence[str] = (),
        **facts: object,
    ) -> None:
        rounds, copies = min(rounds, MOST_ROUNDS), gpu_timing.copies_beyond_cache(bytes_of_one)
        if gpu_timing.stay_in_cache(copies, bytes_of_one):
            facts["inputs"] = "in the L2 cache"
        timed, refused = _contestants(
            ours, rivals, lambda make: gpu_timing.Timed([make(number) for number in range(copies)])
        )
        times: dict[str, list[float]] = {name: [] for name in timed}
        calls: dict[str, list[float]] = {name: [] for name in timed}
        draw = random.Random(0)
        for _ in range(rounds):
            for name in draw.sample(list(timed), len(timed)):
                times[name].append(timed[name].gpu_seconds())
                calls[name].append(timed[name].call_seconds())
        benchmark.extra_info |= {
            "device": "gpu",
            "seconds": {name: _summary(values) for name, values in times.items()},
            "call_seconds": {name: _summary(values) for name, values in calls.items()},
            "method": {name: contestant.method for name, contestant in timed.items()},
            "ratios": {
                name: _summary([rival / our for rival, our in zip(times[name], times["ours"], strict=True)])
                for name in timed
                if name != "ours"
            },
            "refused": refused,
            "target": target or {},
            "beside": list(beside),
            "facts": facts,
        }
        benchmark.pedantic(timed["ours"].gpu_seconds, rounds=3, warmup_rounds=0)

    return measure


@pytest.fixture
def until_returned(benchmark):
    """Time on the host until steps on a GPU return, beside what `side_by_side` took of them: `until_returned({name:
    step})`, steps that do not wait."""

    def measure(steps: dict[str, Callable[[], object]], rounds: int = 10) -> None:
        times = {name: [gpu_timing.returned_seconds(step) for _ in range(rounds)] for name, step in steps.items()}
        benchmark.extra_info["call_seconds"] = {name: _summary(values) for name, values in times.items()}
        torch.cuda.synchronize()

    return measure


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    items.sort(key=lambda item: "test_ceilings" not in item.nodeid)  # before anything else, in the same process


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


_RIVALS = ("triton", "transformers", "flash-attn", "liger-kernel")


def _versions() -> dict[str, str]:
    """Of what is compared with and runs beside us, as far as it is installed."""
    found = {}
    for name in _RIVALS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if torch.cuda.is_available():
        found["CUDA"] = torch.version.cuda
        asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm", "--format=csv,noheader"]
        with contextlib.suppress(OSError):
            told = subprocess.run(asked, capture_output=True, text=True).stdout.strip().split("\n")[0].split(", ")
            found |= dict(zip(("driver", "clock at the end", "highest clock"), told, strict=False))
    return found


def _command() -> str:
    """What pytest was called with, folders of this machine left out."""
    chosen = [f"{name}={value} " for name, value in sorted(os.environ.items()) if name.startswith("MEMOFAST_BENCH_")]
    return f"{''.join(chosen)}pytest " + shlex.join(re.sub(r"(^|=)/.*/", r"\1", argument) for argument in sys.argv[1:])


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["memofast"] = {
        "cpu": f"{_cpu_name()}, bf16 instructions: {bf16_units() or 'none'}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": THREADS,
        "isa": _C.isa,
        "memofast": memofast.__version__,
        "build": _C.source_digest,
        "commit": _commit(),
        "command": _command(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "versions": _versions(),
    }
