"""span_mask: masks of the faces and of the speech of 1,000 samples on a CPU, of 64 and of 256 on a GPU, at fixed
capacity.

Rules: every contestant gets offsets, sample keys and the random state on the device, and delivers the row to read for
every row and the target rows as int32, without the host learning their number. `eager` is our reference, vectorised
PyTorch; `compiled` is that by torch.compile; `triton` is our own other kernel on a GPU. All four give the same bits.
`python loop`, on a CPU, is the original's way with its avoidable costs left out: per sample, `random.sample` draws the
starts, a list of booleans is filled, the fallback frame is drawn where nothing was masked; one flat list becomes one
tensor for the whole batch, where the original makes one a sample. Targets are set for all masks of a batch, in
test_token_mask.py. `gigabytes` counts offsets, keys, rows and targets once; there is no arithmetic on floating numbers.
"""

import random
from functools import partial

import masking_inputs as inputs
import pytest
import torch
from contests import SAMPLES, compiled

from memofast.ops import SpanPolicy, span_mask, span_mask_reference

RATIOS = {"visual": (1, 5), "speech": (3, 20)}


def python_loop(sizes: list[int], ratio: float, length: int, draw: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    masks = []
    for n in sizes:
        mask = [False] * n
        starts = n - length + 1
        spans = min(int(n * ratio // length), starts)
        if spans > 0:
            for start in draw.sample(range(starts), spans):
                mask[start : start + length] = [True] * length
        else:
            mask[draw.randrange(n)] = True
        masks += mask
    mask = torch.tensor(masks, dtype=torch.bool)
    target = mask.nonzero()[:, 0].to(torch.int32)
    return torch.where(mask, -1, torch.arange(len(masks), dtype=torch.int32)), target


def contest(samples, modality, device):
    ratio = RATIOS[modality]
    sizes = inputs.lengths(modality)[:samples]
    rows, policy = sum(sizes), SpanPolicy(ratio=ratio)
    options = {"rows": rows, "site": 1, "capacity": policy.capacity(rows, samples)}

    def contestant(function, **extra):
        def make(number):
            batch = inputs.offsets(sizes), inputs.sample_keys()[:samples], torch.tensor([1, number])
            batch = [tensor.to(device) for tensor in batch]
            return lambda: function(*batch, policy, **options, **extra)

        return make

    size = 4 * (samples + 1) + 8 * samples + 4 * (rows + options["capacity"])
    rivals = {"eager": contestant(span_mask_reference), "compiled": contestant(compiled(span_mask_reference))}
    if device == "cuda":
        rivals["triton"] = contestant(span_mask, backend="triton")
    else:
        rivals["python loop"] = lambda number: partial(
            python_loop, sizes, ratio[0] / ratio[1], policy.length, random.Random(number)
        )
    return {
        "ours": contestant(span_mask, backend=device),
        "rivals": rivals,
        "beside": ("triton",),
        "bytes_of_one": size,
        "samples": samples,
        "rows": rows,
        "gigabytes": size / 1e9,
    }


@pytest.mark.parametrize("modality", RATIOS)
def test_span_mask(on_cpu, modality):
    on_cpu(**contest(inputs.SAMPLES, modality, "cpu"), rounds=20)


@pytest.mark.gpu
@pytest.mark.parametrize("modality", RATIOS)
@pytest.mark.parametrize("samples", SAMPLES)
def test_span_mask_gpu(on_gpu, samples, modality):
    on_gpu(**contest(samples, modality, "cuda"))


def test_call_of_span_mask(side_by_side):
    """The call on an empty batch is all overhead; the rival is the least that any operator costs: one PyTorch
    addition."""
    offsets, keys = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int64)
    rng, policy, one = torch.tensor([1, 2]), SpanPolicy(), torch.ones(1)
    side_by_side(
        lambda: span_mask(offsets, keys, rng, policy, rows=0, site=1), {"torch add": lambda: one + one}, rounds=500
    )
