"""Targets of a mask: which packed rows a loss is taken on, as an index list of a length that is known without a device sync."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import library

RATIO_LIMIT = 1000


def check_ratio(owner: str, name: str, ratio: tuple[int, int]) -> None:
    """Raise `ValueError` unless `ratio` is (numerator, denominator) with 0 <= numerator <= denominator <= 1000."""
    whole = isinstance(ratio, tuple) and len(ratio) == 2 and all(type(part) is int for part in ratio)
    if not (whole and 0 <= ratio[0] <= ratio[1] and 1 <= ratio[1] <= RATIO_LIMIT):
        raise ValueError(
            f"{owner}: {name} must be (numerator, denominator), integers with 0 <= numerator <= denominator <= {RATIO_LIMIT}, got {ratio!r}"
        )


def threshold(ratio: tuple[int, int]) -> int:
    """A 32-bit word is chosen where it is less than this: floor(2^32 numerator / denominator)."""
    return (ratio[0] << 32) // ratio[1]


def capacity(rows: int, mean: float, variance: float) -> int:
    """Entries of a fixed-size index list: mean + 8 sigma, at most `rows`, rounded up to 128."""
    wanted = min(rows, math.ceil(mean + 8 * math.sqrt(variance)))
    return (wanted + 127) // 128 * 128


def compact(is_target: Tensor, capacity: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """The target rows in ascending order.

    Args: is_target [rows] bool; capacity None: as many entries as targets (waits for the device).
    Returns: indices [capacity] int32 (unused entries 0), count [1] int32 (all targets), overflow [1] int32 (1: more targets than entries).
    """
    count = is_target.sum(dtype=torch.int32).reshape(1)
    if capacity is None:
        return is_target.nonzero().flatten().to(torch.int32), count, torch.zeros_like(count)
    slots = torch.where(is_target, is_target.cumsum(0) - 1, capacity).clamp(max=capacity)
    rows = torch.arange(is_target.numel(), dtype=torch.int32, device=is_target.device)
    indices = torch.zeros(capacity + 1, dtype=torch.int32, device=is_target.device).scatter_(0, slots, rows)
    return indices[:capacity].clone(), count, (count > capacity).to(torch.int32)


def list_all(run: Callable, capacity: int | None, expected: int, device: torch.device):
    """`run(entries)` with the entries asked for; on a CPU in eager mode, where none are, with as many as there are targets.

    Args: run returns a NamedTuple with `indices` and `count`; expected: entries where `capacity` is None.
    """
    masked = run(expected if capacity is None else capacity)
    if capacity is not None or device.type != "cpu" or torch.compiler.is_compiling():
        return masked
    count = masked.count.item()
    if count > expected:
        masked = run(count)
    return masked._replace(indices=masked.indices[:count])


def check_batch(operator: str, offsets: Tensor, sample_keys: Tensor, rng: Tensor, selected: Tensor | None) -> None:
    """Raise `ValueError` unless the description of a packed batch has its documented types, shapes and device."""
    samples = sample_keys.numel()
    device = offsets.device
    library.check_tensor(operator, "sample_keys", sample_keys, shape=(None,), dtype=torch.int64, device=device)
    library.check_tensor(operator, "offsets", offsets, shape=(samples + 1,), dtype=torch.int32)
    library.check_tensor(operator, "rng", rng, shape=(2,), dtype=torch.int64, device=device)
    if selected is not None:
        library.check_tensor(operator, "selected", selected, shape=(samples,), dtype=torch.bool, device=device)


class Listing:
    """The memory that a kernel lists targets in, and what it is told about the batch."""

    def __init__(self, offsets, sample_keys, rng, selected, rows, capacity, purpose, site):
        samples = sample_keys.numel()
        new = offsets.new_empty
        self.indices, self.count, self.overflow = new(capacity), new(1), new(1)
        self._workspace = new(samples) if offsets.is_cuda else None
        point = library.pointer
        self.batch = _C.MaskedBatch(
            point(offsets), point(sample_keys), point(rng), point(selected), point(self.indices), point(self.count),
            point(self.overflow), point(self._workspace), samples, rows, capacity, purpose, site,
        )  # fmt: skip
