"""What the operators' benchmarks share: batches, and how a contestant is called.

The file of an operator has a function `contest(..., device)` that gives what the fixtures `on_cpu` and `on_gpu` take,
so that both devices see the
same contestants under the same rules: 32 samples on a CPU, 64 and 256 on a GPU.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SAMPLES_ON_CPU = 32
SAMPLES = [64, 256]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STAGES = {"forward": False, "both": True}  # name -> whether backward runs too
# Rows of a MEmoBERT-like sample, text with [CLS] and [SEP], each number as likely: 100 in the mean and 160 at most,
# which the targets are set for.
RANGES = {"text": (8, 32), "visual": (16, 64), "speech": (16, 64)}
LONGEST = sum(high for _, high in RANGES.values())


def draw_by_modality(samples: int, ranges: dict[str, tuple[int, int]] = RANGES, seed: int = 1) -> dict[str, Tensor]:
    """Rows of MEmoBERT-like samples, [samples] of each modality."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(low, high + 1, (samples,), generator=generator) for name, (low, high) in ranges.items()}


def room_of(samples: int) -> dict[str, int]:
    """Rows of each modality that a run makes room for in a micro-batch: the mean and three deviations of their sum,
    rounded up to 128 with the spare row of a captured step."""
    found = {}
    for name, (low, high) in RANGES.items():
        mean, variance = (low + high) / 2, ((high - low + 1) ** 2 - 1) / 12
        found[name] = -(-math.ceil(samples * mean + 3 * math.sqrt(samples * variance)) // 128) * 128
    found["text"] -= 1
    return found


LENGTHS = {
    "memobert": lambda samples: sum(draw_by_modality(samples).values()),
    "uniform": lambda samples: torch.randint(32, 161, (samples,), generator=torch.Generator().manual_seed(1)),
    "all32": lambda samples: torch.full((samples,), 32),
    "all160": lambda samples: torch.full((samples,), 160),
}


def offsets_of(lengths: Tensor) -> Tensor:
    """[B] to [B + 1] int32, where each sequence starts."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def dropout_of(samples: int, device: str) -> dict[str, Tensor]:
    """What an operator of ours draws its dropout from."""
    return {"rng": torch.tensor([1, 2], device=device), "sample_keys": torch.arange(samples, device=device)}


def stage(
    forward: Callable[[], Tensor], inputs: Sequence[Tensor] | Tensor, grad: Tensor, backward: bool
) -> Callable[[], object]:
    """A call of forward alone, or of both."""
    if not backward:
        return torch.no_grad()(forward)
    return lambda: torch.autograd.grad(forward(), inputs, grad)


def compiled(function: Callable) -> Callable:
    """By torch.compile for the very shapes; once for all inputs of a contest."""
    return torch.compile(function, dynamic=False)


def liger_layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    from liger_kernel.transformers.functional import liger_layer_norm

    return liger_layer_norm(x, gamma, beta, eps)
