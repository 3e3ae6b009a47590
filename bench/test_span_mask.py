"""span_mask against a Python loop: span masks of the faces and of the speech of 1,000 samples.

The rival is the original's way with its avoidable costs left out: per sample, `random.sample` draws the starts, a list of booleans
is filled, the fallback frame is drawn where nothing was masked; one flat list becomes one tensor for the whole batch, where the original
makes one a sample. Both sides deliver the row to read for every row and the target rows, as int32. The target is set for all masks of a batch, in bench/test_token_mask.py.
"""

import random

import masking_inputs as inputs
import pytest
import torch

from memofast.ops import SpanPolicy, span_mask

CASES = {"visual": (inputs.VISUAL, (1, 5)), "speech": (inputs.SPEECH, (3, 20))}


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


@pytest.mark.parametrize("modality", CASES)
def test_span_mask(side_by_side, modality):
    bounds, ratio = CASES[modality]
    sizes = inputs.lengths(bounds, seed=2)
    offsets, keys, rng = inputs.offsets(sizes), inputs.sample_keys(), torch.tensor([1, 2])
    rows, policy, draw = sum(sizes), SpanPolicy(ratio=ratio), random.Random(3)

    side_by_side(
        lambda: span_mask(offsets, keys, rng, policy, rows=rows, site=1),
        {"python loop": lambda: python_loop(sizes, ratio[0] / ratio[1], 3, draw)},
        rounds=60,
        samples=inputs.SAMPLES,
        rows=rows,
    )


def test_call_of_span_mask(side_by_side):
    """The call on an empty batch is all overhead; the rival is the least that any operator costs: one PyTorch addition."""
    offsets, keys = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int64)
    rng, policy, one = torch.tensor([1, 2]), SpanPolicy(), torch.ones(1)
    side_by_side(
        lambda: span_mask(offsets, keys, rng, policy, rows=0, site=1), {"torch add": lambda: one + one}, rounds=500
    )
