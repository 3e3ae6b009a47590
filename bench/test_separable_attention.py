"""Attention of folded queries over the rows of a grid, against plain PyTorch that makes the rows and the scores.

Rules: a multimodal Perceiver's pictures, 784 latents over 16 x 56 x 56 rows of 48 pixels, one clip; forward alone, or
forward and backward with ready gradients of what is gathered. `plain` has the rows in memory, a softmax over all of
them, and what autograd makes of it.
"""

import pytest
import torch
from contests import STAGES, stage

from memofast.ops import separable_attention
from memofast.ops.separable_attention import grid_rows

LATENTS, PIXELS, GRID = 784, 48, (16, 56, 56)


def plain(queries, pixels, shift, scale):
    rows = grid_rows(pixels, shift, GRID) * scale[..., None]
    scores = queries @ rows.mT
    used = scores.softmax(-1)
    return used @ rows, used.sum(-1), scores.logsumexp(-1)


def contest(backward):
    columns, count = PIXELS + 1 + sum(GRID), GRID[0] * GRID[1] * GRID[2]

    def contestant(function):
        def make(number):
            generator = torch.Generator().manual_seed(number)
            queries = torch.randn(LATENTS, columns, generator=generator) * columns**-0.5
            pixels = torch.randn(1, count, PIXELS, generator=generator)
            shift, scale = torch.randn(1, count, generator=generator), torch.rand(1, count, generator=generator) + 0.5
            leaves = [leaf.requires_grad_() for leaf in (queries, shift, scale)]
            grads = torch.randn(1, LATENTS, columns, generator=generator)
            return stage(lambda: function(queries, pixels, shift, scale)[0], leaves, grads, backward)

        return make

    size = count * (PIXELS + 2) * 4
    return {
        "ours": contestant(lambda *tensors: separable_attention(*tensors, GRID, backend="cpu")),
        "rivals": {"plain": contestant(plain)},
        "bytes_of_one": size,
        "gigabytes": size / 1e9,
        "flop": (5 if backward else 2) * 2 * LATENTS * count * PIXELS,
    }


@pytest.mark.parametrize("passes", STAGES)
def test_separable_attention(on_cpu, passes):
    on_cpu(**contest(STAGES[passes]), rounds=5)
