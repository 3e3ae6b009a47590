"""Attention of the rows that a last layer's readers ask for, packed, against attention of all rows and what PyTorch and
flash-attn offer.

Rules: one row in seven of MEmoBERT-like samples is asked, as masked modelling does; forward alone, or forward and
backward through autograd with a ready output gradient, dropout from each side's own generator. `all_rows` is our own
attention of every row, of which the asked ones are taken; the others are those of test_attention.py, with queries of
their own. `flop` counts two products of forward and five of backward over real queries and keys; `gigabytes` queries,
keys, values, output and their gradients once. The projections, of which a last layer spares most queries, are not in
it.
"""

import pytest
import torch
from attention_rivals import Case, rivals
from contests import DTYPES, LENGTHS, SAMPLES, SAMPLES_ON_CPU, STAGES, dropout_of, offsets_of, stage
from test_attention import DROPOUT, HEADS, WIDTH

from memofast.data.batch import rounded_length
from memofast.ops import attention, cross_attention

ONE_IN = 7


def contest(samples, p, dtype, backward, device):
    lengths = LENGTHS["memobert"](samples)
    offsets = offsets_of(lengths)
    total, longest = int(offsets[-1]), int(lengths.max())
    rows = torch.arange(0, total, ONE_IN)
    starts = torch.searchsorted(rows, offsets.long()).to(torch.int32)
    asked = starts.diff()
    rows, starts, offsets = (x.to(device) for x in (rows, starts, offsets))
    case = Case(asked, lengths, starts, offsets, p, backward)
    options = {"p": p, "longest": rounded_length(longest), **dropout_of(samples, device)}

    def tensors(number):
        generator = torch.Generator(device).manual_seed(number)
        qkv = torch.randn(total, 3, HEADS, WIDTH, generator=generator, device=device).to(dtype)
        return qkv, torch.randn(len(rows), HEADS, WIDTH, generator=generator, device=device).to(dtype)

    def split(number):
        qkv, grad = tensors(number)
        return qkv[rows, 0], qkv[:, 1], qkv[:, 2], grad

    def ours(number, backend=device):
        qkv, grad = tensors(number)
        leaves = qkv[rows, 0].contiguous().requires_grad_(), qkv[:, 1:].contiguous().requires_grad_()
        return stage(
            lambda: cross_attention(*leaves, starts, offsets, backend=backend, **options), leaves, grad, backward
        )

    def all_rows(number):
        qkv, grad = tensors(number)
        leaf = qkv.requires_grad_()
        return stage(
            lambda: attention(leaf, offsets, backend=device, **options).index_select(0, rows), leaf, grad, backward
        )

    others = {"all_rows": all_rows, **rivals(case, split, device)}
    if device == "cuda":
        others["triton"] = lambda number: ours(number, "triton")
    row = HEADS * WIDTH * dtype.itemsize
    return {
        "ours": ours,
        "rivals": others,
        "beside": ("all_rows", "triton"),
        "bytes_of_one": 4 * total * row,
        "rows": len(rows),
        "longest": longest,
        "flop": (14 if backward else 4) * case.scores * WIDTH * HEADS,
        "gigabytes": (2 + 4 * backward) * (len(rows) + total) * row / 1e9,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", DROPOUT)
def test_cross_attention(on_cpu, p, dtype):
    on_cpu(**contest(SAMPLES_ON_CPU, p, DTYPES[dtype], True, "cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", DROPOUT)
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("passes", STAGES)
def test_cross_attention_gpu(on_gpu, passes, samples, p, dtype):
    on_gpu(**contest(samples, p, DTYPES[dtype], STAGES[passes], "cuda"))
