"""What a whole step needs beside time: operations of its model, memory at its peak, launches of kernels."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from memofast.data.batch import PackedBatch
from memofast.model import MemoBertConfig

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")


def step_flop(config: MemoBertConfig, batch: PackedBatch, targets: int, predicted: int) -> int:
    """Operations of forward and backward of one objective over the real rows of a batch, a multiplication and an
    addition counted as two.

    targets: rows that its head is taken of; predicted: numbers that the head says of each, as the size of the
    vocabulary. The products of the projections, of every layer, of attention and of the head at its targets. Backward
    is twice forward, but for the projections, whose inputs have no gradient. Nothing counts that only pads or computes
    anew; the rows that a last layer may leave out do count.
    """
    width, inner = config.hidden_size, config.intermediate_size
    lengths = batch.offsets.diff().long()
    layer = 2 * int(lengths.sum()) * (4 * width**2 + 2 * width * inner) + 4 * int((lengths**2).sum()) * width
    head = 2 * targets * (width**2 + width * predicted)
    features = sum(
        int(getattr(batch, f"{name}_offsets")[-1]) * config.feature_width(name) for name in ("visual", "speech")
    )
    return 3 * (config.num_hidden_layers * layer + head) + 2 * 2 * width * features


def memory_and_launches(step: Callable[[], object], device: str) -> dict[str, int]:
    """Of one call. peak_bytes: what PyTorch allocated on the device in it, at its most, beyond what lay there before.
    launches: calls that start kernels, on a GPU alone."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, profile_memory=True) as seen:
        step()
    events = seen.profiler.kineto_results.events()
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    held = peak = 0
    for event in sorted(
        (e for e in events if e.name() == "[memory]" and e.device_type() == kind), key=lambda e: e.start_ns()
    ):
        held += event.nbytes()
        peak = max(peak, held)
    facts = {"peak_bytes": peak}
    if on_gpu:
        facts["launches"] = sum(event.name().startswith(_LAUNCHES) for event in events)
    return facts


def pool_bytes(pool: tuple[int, int]) -> int:
    """Device memory of a CUDA graph pool, which a replay uses without allocating it."""
    return sum(s["total_size"] for s in torch.cuda.memory_snapshot() if s["segment_pool_id"] == pool)
