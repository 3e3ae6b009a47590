"""Targets of a mask: which packed rows a loss is taken on, as an index list of a length that is known without a device
sync."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import faults, library

RATIO_LIMIT = 1000


def check_ratio(owner: str, name: str, ratio: tuple[int, int]) -> None:
    """Raise `ValueError` unless `ratio` is (numerator, denominator) with 0 <= numerator <= denominator <= 1000."""
    whole = isinstance(ratio, tuple) and len(ratio) == 2 and all(type(part) is int for part in ratio)
    if not (whole and 0 <= ratio[0] <= ratio[1] and 1 <= ratio[1] <= RATIO_LIMIT):
        raise ValueError(
            f"{owner}: {name} must be (numerator, denominator), integers with 0 <= numerator <= "
            f"denominator <= {RATIO_LIMIT}, got {ratio!r}"
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
    Returns: indices [capacity] int32 (unused entries 0), count [1] int32 (all targets), overflow [1] int32 (1: more
        targets than entries).
    """
    count = is_target.sum(dtype=torch.int32).reshape(1)
    if capacity is None:
        return is_target.nonzero().flatten().to(torch.int32), count, torch.zeros_like(count)
    slots = torch.where(is_target, is_target.cumsum(0) - 1, capacity).clamp(max=capacity)
    rows = torch.arange(is_target.numel(), dtype=torch.int32, device=is_target.device)
    indices = torch.zeros(capacity + 1, dtype=torch.int32, device=is_target.device).scatter_(0, slots, rows)
    return indices[:capacity].clone(), count, (count > capacity).to(torch.int32)


def listed(values: Tensor, found: int, negative: bool, capacity: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """`compact` of the rows whose value is negative, or is not: `found` rows of what a mask's kernel on the CPU
    wrote."""
    new = values.new_empty
    indices, count, overflow = new(found if capacity is None else capacity), new(1), new(1)
    faults.check_status(
        "list_targets", _C.list_targets(values, negative, indices, count, overflow), named=[("values", values)]
    )
    return indices, count, overflow


def list_on_cuda(sample_keys: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Empty (indices, count, overflow) for a mask's kernel on a GPU to write, and a workspace of one number a
    sample."""
    samples = sample_keys.numel()
    return tuple(sample_keys.new_empty(size, dtype=torch.int32) for size in (capacity, 1, 1, samples))


def check_targets(operator: str, rows: int, capacity: int | None) -> None:
    """Raise a `ValueError` for what is no number of rows, or of entries for their targets."""
    library.check_count(operator, "rows", rows)
    if capacity is not None:
        library.check_count(operator, "capacity", capacity)


def check_use(operator: str, offsets: Tensor, rows: int, purpose: int, site: int) -> None:
    """Raise a `ValueError` for offsets of the CPU, a purpose or a site that fit nothing."""
    library.check_site(operator, purpose)
    library.check_site(operator, site)
    if offsets.is_cpu:  # a GPU would be waited for
        library.spans(operator, offsets, rows)


def kind_of(operator: str, kinds: Iterable[str], number: int) -> str:
    """A policy's kind by its number. Raises: `ValueError` for another one."""
    named = tuple(kinds)
    if not 0 <= number < len(named):
        raise ValueError(f"{operator}: the policy's kind must be from 0 to {len(named) - 1}, got {number}")
    return named[number]


def parameters(operator: str, kind: type, numbers: list[int]) -> tuple:
    """The numbers of a raw operator as the named tuple `kind`. Raises: `ValueError` where they are more or fewer."""
    if len(numbers) != len(kind._fields):
        raise ValueError(f"{operator}: parameters are {', '.join(kind._fields)}; got {len(numbers)} numbers")
    return kind(*numbers)


def check_batch(operator: str, offsets: Tensor, sample_keys: Tensor, rng: Tensor, selected: Tensor | None) -> None:
    """Raise `ValueError` unless the description of a packed batch has its documented types, shapes and device."""
    library.require_tensor(operator, "offsets", offsets)
    library.require_tensor(operator, "sample_keys", sample_keys)
    samples, device = sample_keys.numel(), offsets.device
    library.check_tensor(operator, "sample_keys", sample_keys, shape=(None,), dtype=torch.int64, device=device)
    library.check_tensor(operator, "offsets", offsets, shape=(samples + 1,), dtype=torch.int32)
    library.check_tensor(operator, "rng", rng, shape=(2,), dtype=torch.int64, device=device)
    if selected is not None:
        library.check_tensor(operator, "selected", selected, shape=(samples,), dtype=torch.bool, device=device)


def batch_fits(offsets: Tensor, sample_keys: Tensor, rng: Tensor, selected: Tensor | None) -> bool:
    """What `check_batch` checks, in a fraction of its time."""
    return (
        isinstance(offsets, Tensor)
        and isinstance(sample_keys, Tensor)
        and isinstance(rng, Tensor)
        and offsets.dtype is torch.int32
        and sample_keys.dtype is rng.dtype is torch.int64
        and offsets.dim() == sample_keys.dim() == 1
        and offsets.numel() == sample_keys.numel() + 1
        and rng.shape == (2,)
        and offsets.device == sample_keys.device == rng.device
        and offsets.is_contiguous()
        and sample_keys.is_contiguous()
        and rng.is_contiguous()
        and selected is None
    )
