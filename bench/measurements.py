"""What a run of `pytest bench` measured, read back from its JSON."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_DTYPES = ("fp32", "bf16", "fp16")
# The tests of what a benchmark measures, where they are not of its own name.
_VOUCHING = {"loader": "loading", "prepare": "decoding", "predict": "predictor"}
_STEPS = ("ladder", "step", "learning", "fed_step", "objectives")
_OF_A_STEP = ("attention", "cross_attention", "embed", "dropout_add_norm", "bias_gelu", "losses")
_WITHOUT_GPU_TESTS = {"losses"}


def vouching(file: str, name: str, on_gpu: bool) -> tuple[str, ...]:
    """The test files that vouch for a row, without `test_`."""
    if file in _STEPS:
        return (*_OF_A_STEP, "captured_step") if on_gpu else _OF_A_STEP
    if name.startswith("all_masks"):
        return ("span_mask", "token_mask")
    if name.startswith("call["):
        return (name.removeprefix("call[").split("-")[0],)
    return (_VOUCHING.get(file, file),)


def unvouched(tests: tuple[str, ...], passed: set[str]) -> str:
    """Why nothing is claimed of what these test files vouch for; empty where all passed."""
    missing = [f"test_{name}" for name in tests if name not in passed]
    return f"withheld: {', '.join(missing)} did not pass on this build" if missing else ""


@dataclass
class Measurement:
    """One comparison.

    tests: the test files that vouch for it, without `test_`; target: ratio by rival, or to the `fastest` that took
    part; summaries are {median, p20, p80}, in seconds or ratios, by contestant; beside: contestants that are code of
    ours, or do less.
    """

    name: str
    tests: tuple[str, ...]
    on_gpu: bool
    seconds: dict[str, dict]
    ratios: dict[str, dict]
    target: dict[str, float]
    facts: dict[str, object]
    beside: list[str] = field(default_factory=list)
    call_seconds: dict[str, dict] = field(default_factory=dict)
    method: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def wanted(self, rival: str) -> float:
        """The ratio aimed at."""
        of_fastest = self.target.get("fastest", 0) if rival == self.fastest_rival else 0
        return max(self.target.get(rival, 0), of_fastest)

    def ratio_to(self, rival: str) -> dict | None:
        """The ratio to a rival, or to the `fastest`; None where it did not take part."""
        return self.ratios.get(self.fastest_rival if rival == "fastest" else rival)

    @property
    def fastest_rival(self) -> str | None:
        """By its median time; None where nobody else took part."""
        rivals = [name for name in self.ratios if name not in self.beside]
        return min(rivals, key=lambda name: self.seconds[name]["median"], default=None)

    @property
    def dtype(self) -> str:
        return next((dtype for dtype in _DTYPES if dtype in self.name), "bf16" if "rungs" in self.facts else "fp32")


@dataclass
class Learning:
    """Losses of one comparison, update by update, by contestant; update u trains objective u modulo their number."""

    name: str
    objectives: list[str]
    curves: dict[str, list[float]]
    tests: tuple[str, ...]
    on_gpu: bool

    def of(self, objective: str, who: str) -> list[float]:
        return self.curves[who][self.objectives.index(objective) :: len(self.objectives)]


@dataclass
class Run:
    """machine: what conftest.py says about it; ceilings: name -> (rate in 10^9 per second, unit); noise: name -> ratio
    of a product to itself."""

    machine: dict
    date: str
    ceilings: dict[str, tuple[float, str]]
    measurements: list[Measurement]
    learning: list[Learning] = field(default_factory=list)
    noise: dict[str, dict] = field(default_factory=dict)

    def floor(self, measured: Measurement) -> float | None:
        """Seconds that the work needs at least: its bytes at the copy rate or its operations at the matrix rate; None
        where unknown."""
        copy = self.ceilings.get("gpu_copy" if measured.on_gpu else "copy", (None, ""))[0]
        rate = self.matrix_rate(measured.on_gpu, measured.dtype)
        needs = []
        if copy and (gigabytes := measured.facts.get("gigabytes")):
            needs.append(gigabytes / copy)
        if rate and (flop := measured.facts.get("flop")):
            needs.append(flop / 1e9 / rate)
        return max(needs, default=None)

    def matrix_rate(self, on_gpu: bool, dtype: str) -> float | None:
        """The highest rate of matrix products that was measured, in 10^9 operations per second; on a GPU that of
        bf16."""
        kind, dtype = ("gpu_matrix_product[", "") if on_gpu else ("matrix_product[", dtype)
        return max(
            (rate for name, (rate, _) in self.ceilings.items() if name.startswith(kind) and dtype in name), default=None
        )


def read_run(path: Path) -> Run:
    data = json.loads(path.read_text())
    found, ceilings, learning, noise = [], {}, [], {}
    for entry in data["benchmarks"]:
        name, info = entry["name"].removeprefix("test_"), entry["extra_info"]
        file = re.sub(r"^.*test_|(_gpu)?\.py$", "", entry["fullname"].split("::")[0])
        on_gpu = info.get("device") == "gpu"
        tests = vouching(file, name, on_gpu)
        if "ceiling" in info:
            ceilings[name] = (info["ceiling"]["rate"], info["ceiling"]["unit"])
        elif "curves" in info:
            learning.append(Learning(name, info["objectives"], info["curves"], tests, on_gpu))
        elif name.startswith(("noise", "gpu_noise")):
            (noise[name],) = info["ratios"].values()
        elif "ratios" in info:
            optional = {key: info[key] for key in ("beside", "call_seconds", "method", "refused") if key in info}
            found.append(
                Measurement(
                    name,
                    tests,
                    on_gpu,
                    info["seconds"],
                    info["ratios"],
                    info["target"],
                    info["facts"],
                    **optional,
                )
            )
    return Run(data["machine_info"].get("memofast", {}), data["datetime"][:10], ceilings, found, learning, noise)


def read_runs(paths: list[Path]) -> Run:
    """Several runs of one build on one machine as one: of a row that several have, the last; of a ceiling, the first.

    Raises: `ValueError` for runs of different builds or machines.
    """
    first, *others = (read_run(path) for path in paths)
    for path, run in zip(paths[1:], others, strict=True):
        for fact in ("build", "cpu", "gpu"):
            if run.machine.get(fact) != first.machine.get(fact):
                raise ValueError(
                    f"{path}: its {fact} is {run.machine.get(fact)}, that of {paths[0]} {first.machine.get(fact)}"
                )
    rows = {measured.name: measured for run in (first, *others) for measured in run.measurements}
    ceilings = {name: rate for run in (*reversed(others), first) for name, rate in run.ceilings.items()}
    learning = {one.name: one for run in (first, *others) for one in run.learning}
    noise = {name: summary for run in (*reversed(others), first) for name, summary in run.noise.items()}
    commands = dict.fromkeys(run.machine.get("command", "") for run in (first, *others))
    machine = first.machine | {"command": "`, `".join(commands)}
    return Run(machine, first.date, ceilings, list(rows.values()), list(learning.values()), noise)


class Error(NamedTuple):
    """Largest errors against fp64 in one test, ours and plain PyTorch's in the same type, and what ours may be."""

    ours: float
    plain: float
    allowed: float

    @property
    def share(self) -> float:
        return self.ours / self.allowed


def errors(path: Path, passed: set[str], on_gpu: bool) -> dict[tuple[str, str], Error]:
    """By test file and kind (`forward float32`) the error nearest to what is allowed, of the tests in a JUnit XML that
    ran on a GPU, or elsewhere."""
    worst: dict[tuple[str, str], Error] = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = _file_of(case)
        if name not in passed or name not in _OF_A_STEP or _ran_on_gpu(case) != on_gpu:
            continue
        for told in case.iter("property"):
            if told.get("name", "").startswith("error "):
                found = Error(*map(float, told.get("value").split()))
                key = name, told.get("name").removeprefix("error ")
                worst[key] = max(worst.get(key, found), found, key=lambda error: error.share)
    return worst


def _file_of(case: ElementTree.Element) -> str:
    return case.get("classname", "").rsplit(".", 1)[-1].removeprefix("test_")


def _ran_on_gpu(case: ElementTree.Element) -> bool:
    return any(told.get("name") == "device" and told.get("value") == "gpu" for told in case.iter("property"))


def tested(path: Path, run: Run) -> set[str]:
    """Test files (`attention`, `embed`, ...) of a JUnit XML that ran on the run's build without a failure.

    A file that vouches for a row on a GPU counts only if a test of it marked `gpu` ran, where it has such tests.
    """
    suites = ElementTree.parse(path).getroot()
    builds = {p.get("value") for p in suites.iter("property") if p.get("name") == "build"}
    if builds != {run.machine.get("build")}:
        return set()
    passed, failed, on_gpu = set(), set(), set()
    for case in suites.iter("testcase"):
        name = _file_of(case)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is None:
            passed.add(name)
            if _ran_on_gpu(case):
                on_gpu.add(name)
    on_gpus = [row for row in (*run.measurements, *run.learning) if row.on_gpu]
    needs_gpu = {name for row in on_gpus for name in row.tests} - _WITHOUT_GPU_TESTS
    return {name for name in passed - failed if name not in needs_gpu or name in on_gpu}
