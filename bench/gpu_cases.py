"""What the benchmarks on a GPU share: batches as on the CPU, of 64 and of 256 samples, and how a contestant is called.

Each file has a function `contest(..., device)` that gives what the fixture `on_gpu` takes; on the CPU it runs too, which is how it is tested.
"""

from collections.abc import Callable, Sequence

import torch
from test_attention import LENGTHS
from torch import Tensor

SAMPLES = [64, 256]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
STAGES = {"forward": False, "both": True}  # name -> whether backward runs too


def draw_lengths(kind: str, samples: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.cat([LENGTHS[kind](generator) for _ in range(-(-samples // 32))])[:samples]


def offsets_of(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def stage(
    forward: Callable[[], Tensor], inputs: Sequence[Tensor] | Tensor, grad: Tensor, backward: bool
) -> Callable[[], object]:
    """A call of forward alone, or of both."""
    if not backward:
        return torch.no_grad()(forward)
    return lambda: torch.autograd.grad(forward(), inputs, grad)


def compiled(function: Callable) -> Callable:
    """By torch.compile for the very shapes; what earlier cases compiled is forgotten, as PyTorch falls back to eager beyond a limit."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def liger_layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    from liger_kernel.transformers.functional import liger_layer_norm

    return liger_layer_norm(x, gamma, beta, eps)
