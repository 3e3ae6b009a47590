"""How speed is measured: everything compared runs in one process, round by round in turn, on the same inputs.

pytest bench --benchmark-json=speed.json && python bench/report.py speed.json
"""

import contextlib
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import gpu_timing
import pytest
import torch

import memofast
from memofast import _C
from memofast.cpu import bf16_units

THREADS = 2


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
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def _summary(seconds: list[float]) -> dict[str, float]:
    low, *_, high = statistics.quantiles(seconds, n=5)
    return {"median": statistics.median(seconds), "p20": low, "p80": high}


@pytest.fixture
def side_by_side(benchmark):
    """Time our function and its rivals in turn, round by round; each is called as often as fills 5 ms, at least once.

    `side_by_side(ours, rivals={name: function}, rounds=20, target={name: ratio}, **facts)` records for every rival the median over
    rounds of (its time / our time in the same round) with the 20th and 80th percentile, in `extra_info` of the JSON.
    pytest-benchmark's own row is our function.
    """

    def measure(
        ours: Callable[[], object],
        rivals: dict[str, Callable[[], object]],
        rounds: int = 20,
        target: dict[str, float] | None = None,
        **facts: object,
    ) -> dict[str, dict[str, float]]:
        functions = {"ours": ours} | rivals
        for function in functions.values():  # twice: caches, pools and thread teams are filled before the first round
            function()
            function()
        calls = {name: _calls(function) for name, function in functions.items()}
        times: dict[str, list[float]] = {name: [] for name in functions}
        names = list(functions)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                times[name].append(_seconds(functions[name], calls[name]))
        ratios = {
            name: _summary([rival / our for rival, our in zip(times[name], times["ours"], strict=True)])
            for name in rivals
        }
        benchmark.extra_info |= {
            "seconds": {name: _summary(values) for name, values in times.items()},
            "ratios": ratios,
            "target": target or {},
            "facts": facts,
        }
        benchmark.pedantic(ours, rounds=max(3, rounds // 4), warmup_rounds=0)
        return ratios

    return measure


@pytest.fixture
def on_gpu(benchmark):
    """Time our function and its rivals on the GPU, round by round in turn, over rotating inputs; see `gpu_timing`.

    `on_gpu(ours, rivals={name: make}, bytes_of_one=..., rounds=7, target={name: ratio}, **facts)`: `ours` and each rival is a function of the
    number of an input set that returns the call to time. A rival that raises is recorded with its reason and not timed. Ratios are
    of GPU time. facts: `bytes` and `flop` of one call are what the report takes the floor from.
    """

    def measure(
        ours: Callable[[int], Callable[[], object]],
        rivals: dict[str, Callable[[int], Callable[[], object]]],
        bytes_of_one: int,
        rounds: int = 7,
        target: dict[str, float] | None = None,
        **facts: object,
    ) -> None:
        copies = gpu_timing.copies_beyond_cache(bytes_of_one)
        timed, refused = {}, {}
        for name, make in {"ours": ours, **rivals}.items():
            try:
                timed[name] = gpu_timing.Timed([make(number) for number in range(copies)])
            except (RuntimeError, ValueError, NotImplementedError, ImportError) as error:
                if name == "ours":
                    raise
                refused[name] = str(error).strip().splitlines()[0][:200]
        times: dict[str, list[float]] = {name: [] for name in timed}
        calls: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(rounds):
            for name, contestant in timed.items():
                times[name].append(contestant.gpu_seconds())
                calls[name].append(contestant.call_seconds())
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
            "facts": facts,
        }
        benchmark.pedantic(timed["ours"].gpu_seconds, rounds=3, warmup_rounds=0)

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
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError):
            found["driver"] = subprocess.run(asked, capture_output=True, text=True).stdout.strip().split("\n")[0]
    return found


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["memofast"] = {
        "cpu": f"{_cpu_name()}, bf16 instructions: {bf16_units() or 'none'}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": THREADS,
        "isa": _C.isa,
        "memofast": memofast.__version__,
        "build": _C.source_digest,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "versions": _versions(),
    }
