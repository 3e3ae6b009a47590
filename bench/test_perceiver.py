"""The folded Perceiver against transformers': label logits, a training step and full decode, at its published size.

Rules: one thread, CPU seconds of this process, in one run and in turn; weights and inputs by the rule of the golden
values, and logits compared before anything is timed. transformers is asked for the label alone, the way that spares it
most: its encoder, then the decoder with the label's query. A training step is forward, cross entropy, backward and
AdamW, with transformers' dropout of .1 in both. Memory is what the process has at most above what it had before, each
contestant in a process of its own.

    MEMOFAST_BENCH_THREADS=1 pytest bench/test_perceiver.py --benchmark-json=perceiver.json
    python bench/test_perceiver.py             # tables of medians and ratios, as bench/results/perceiver.md shows them
    python bench/test_perceiver.py --only memory --precisions fp32 --rounds 3
    python bench/test_perceiver.py --only bounds   # of bf16, on a CPU that has no units for it
"""

import argparse
import ctypes
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "python_tests" / "model" / "perceiver"))
import perceiver_rule as rule

from memofast.model.perceiver.layers import Dropout

CLIPS = (1, 8)
PRECISIONS = ("fp32", "bf16")
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mkldnn_linear"}
SIZE = os.environ.get("MEMOFAST_BENCH_SIZE", "real")  # tiny, middle or real


def autocast(precision: str):
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def contestants(clips: int, precision: str, training: bool, which: tuple[str, ...] = ("transformers", "ours")) -> dict:
    """By name a call that gives logits, or makes a training step."""
    theirs = rule.theirs(SIZE)
    given, labels = rule.inputs(theirs, clips), torch.arange(clips) % 6
    made = {"transformers": (theirs, lambda: rule.label_only(theirs, given))}
    if "ours" in which:
        ours = rule.ours(theirs)
        pixels = rule.patches_of(given["image"].permute(0, 1, 3, 4, 2))
        rng, keys = torch.tensor([1, 2]), torch.arange(clips)

        def answer():
            dropout = Dropout(0.1, rng, keys) if training else None
            return ours.window_logits(pixels, given["audio"][..., 0], dropout)

        made["ours"] = ours, answer
    found = {}
    for name in which:
        model, call = made[name]
        found[name] = step(model.train(), call, labels, precision) if training else logits(call, precision)
    return found


def logits(call, precision: str):
    def run():
        with torch.no_grad(), autocast(precision):
            return call().float()

    return run


def step(model: nn.Module, call, labels: torch.Tensor, precision: str):
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-6, fused=True)

    def run():
        with autocast(precision):
            loss = F.cross_entropy(call().float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.detach()

    return run


def timed(calls: dict, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            seconds[name].append(time.process_time() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compared(clips: int, precision: str, rounds: int) -> tuple[dict[str, float], float]:
    """Median seconds of label logits, and how far the logits of both are from each other at most."""
    calls = contestants(clips, precision, training=False)
    answers = [call() for call in calls.values()]
    return timed(calls, rounds), float((answers[0] - answers[1]).abs().max())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("clips", CLIPS)
@pytest.mark.parametrize("name", ["transformers", "ours"])
def test_label_logits(benchmark, name, clips, precision):
    benchmark.group = f"label logits, {clips} clips, {precision}"
    benchmark.pedantic(contestants(clips, precision, False, (name,))[name], rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["transformers", "ours"])
def test_training_step(benchmark, name, precision):
    benchmark.group = f"training step, 1 clip, {precision}"
    benchmark.pedantic(contestants(1, precision, True, (name,))[name], rounds=3, warmup_rounds=1)


@pytest.mark.skipif(SIZE == "tiny", reason="a tiny model's time is that of its calls")
def test_marks():
    """The marks of label logits: five times transformers in fp32, with the same answers."""
    seconds, apart = compared(1, "fp32", 3)
    assert apart < 1e-5 and seconds["transformers"] > 5 * seconds["ours"], (seconds, apart)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(name: str, clips: int, precision: str, training: bool) -> float:
    """MiB above what the process had with model and inputs, at most, in a process of its own."""
    arguments = [name, str(clips), precision, str(int(training))]
    told = subprocess.run(
        [sys.executable, __file__, "--measure", *arguments], capture_output=True, text=True, check=True
    )
    return float(told.stdout.split()[-1])


def measure(name: str, clips: str, precision: str, training: str) -> None:
    call = contestants(int(clips), precision, training == "1", (name,))
    # what building the models freed goes back, and the highest water so far is forgotten
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_now()
    call[name]()
    print(peak_now() - before)


def peak_now() -> float:
    """MiB: the highest since it was forgotten."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return peak()


def parts(name: str, precision: str) -> tuple[float, float]:
    """CPU seconds of the matrix products of one clip's label logits, and of all else."""
    call = contestants(1, precision, False, (name,))[name]
    if precision == "fp32":  # where bf16 has no units a call takes minutes
        call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        call()
    seconds = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    products = sum(seconds.pop(key, 0.0) for key in PRODUCTS)
    return products, sum(seconds.values())


def bounds() -> None:
    """What bf16 comes to on a CPU that multiplies it so many times as fast as fp32: products of fp32 over that, and all
    else as bf16 has it here."""
    found = {(name, p): parts(name, p) for name in ("transformers", "ours") for p in PRECISIONS}
    print("| | products, fp32 | all else, fp32 | products, bf16 | all else, bf16 |\n" + "| --- " * 5 + "|")
    for name in ("transformers", "ours"):
        print(f"| {name} |" + "".join(f" {s:.3f} s |" for p in PRECISIONS for s in found[name, p]))
    print("\n| bf16 products as fast as fp32's, times | transformers | ours | ratio |\n" + "| --- " * 4 + "|")
    for faster in (1, 2, 4, 8, 16, float("inf")):
        theirs, ours = (found[name, "fp32"][0] / faster + found[name, "bf16"][1] for name in ("transformers", "ours"))
        print(f"| {faster} | {theirs:.3f} s | {ours:.3f} s | {theirs / ours:.1f} |")


def tables(only: str | None, rounds: int, precisions: list[str]) -> None:
    print("| what | clips | precision | transformers | ours | ratio | logits apart |\n" + "| --- " * 7 + "|")
    for precision in precisions:
        for training in (False, True) if only in (None, "memory") else ():
            found = {name: memory_of(name, 1, precision, training) for name in ("transformers", "ours")}
            row(f"memory of {'a training step' if training else 'label logits'}", 1, precision, found, "MiB", "")
        for clips in CLIPS if only in (None, "logits") else ():
            seconds, apart = compared(clips, precision, rounds)
            row("label logits", clips, precision, seconds, "s", f"{apart:.1e}")
        if only in (None, "step"):
            row("training step", 1, precision, timed(contestants(1, precision, True), rounds), "s", "")


def row(what: str, clips: int, precision: str, found: dict[str, float], unit: str, apart: str) -> None:
    theirs, ours = found["transformers"], found["ours"]
    digits = 3 if unit == "s" else 0
    cells = [what, clips, precision, f"{theirs:.{digits}f} {unit}", f"{ours:.{digits}f} {unit}", f"{theirs / ours:.1f}"]
    print("| " + " | ".join(map(str, [*cells, apart])) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["logits", "step", "memory", "bounds"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--measure", nargs=4)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("MEMOFAST_BENCH_THREADS", 1)))
    if asked.measure:
        measure(*asked.measure)
    elif asked.only == "bounds":
        bounds()
    else:
        tables(asked.only, asked.rounds, asked.precisions)
