"""Memory for the tensors of one batch: one aligned block, recycled when the last tensor on it is gone."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from memofast import _C

TYPE_IDS = {
    torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int32: 3, torch.int64: 4, torch.uint8: 5,
    torch.int16: 6,
}  # fmt: skip
_ALIGNMENT = 256


def allocate(shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]], pin: bool = False) -> dict[str, Tensor]:
    """Uninitialised tensors by name, carved from one block.

    Args: shapes: name -> (shape, dtype). pin: page-locked memory of torch's own recycling allocator, which knows of
        copies in flight.
    """
    ends, total = {}, 0
    for name, (shape, dtype) in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        ends[name] = (total, size)
        total += (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    block = torch.empty(total, dtype=torch.uint8, pin_memory=True) if pin else _C.BatchBuffer(total)
    tensors = {}
    for name, (shape, dtype) in shapes.items():
        start, size = ends[name]
        if size == 0:
            tensors[name] = torch.empty(shape, dtype=dtype)
        elif pin:
            tensors[name] = block[start : start + size].view(dtype).view(shape)
        else:
            flat = torch.frombuffer(block, dtype=dtype, count=size // dtype.itemsize, offset=start)
            tensors[name] = flat.view(shape)
    return tensors
