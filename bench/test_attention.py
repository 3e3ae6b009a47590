"""Attention, packed, against what PyTorch and flash-attn offer, in the same process on the same values.

Rules: every contestant computes the same sequences, forward alone or forward and backward through autograd with a ready
output gradient; dropout draws from its own generator. `eager` is softmax, dropout and products written out over padded
inputs and a key mask, `compiled` that by torch.compile. `padded_sdpa` is `scaled_dot_product_attention` over padded
inputs; with a kernel's name only that kernel may run. On a GPU, `flash_varlen` (flash-attn) and `torch_varlen`
(torch.nn.attention.varlen, no dropout) read packed rows and are told the longest length, as ours is; `flex` is compiled
FlexAttention over packed rows (no dropout); `triton` is our own other kernel. `flop` counts two products of forward and
five of backward over real rows; `gigabytes` queries, keys, values, output and their gradients, read or written once.
"""

import pytest
import torch
from attention_rivals import Case, rivals
from contests import DTYPES, LENGTHS, SAMPLES, SAMPLES_ON_CPU, STAGES, dropout_of, offsets_of, stage

from memofast.data.batch import rounded_length
from memofast.ops import attention

HEADS, WIDTH = 12, 64
DROPOUT = [0.0, 0.1]


def contest(samples, kind, p, dtype, backward, device):
    lengths = LENGTHS[kind](samples)
    rows, longest = int(lengths.sum()), int(lengths.max())
    offsets = offsets_of(lengths).to(device)
    case = Case(lengths, lengths, offsets, offsets, p, backward)
    options = {"p": p, "longest": rounded_length(longest), **dropout_of(samples, device)}

    def tensors(number):
        generator = torch.Generator(device).manual_seed(number)
        shape = {"generator": generator, "device": device}
        return torch.randn(rows, 3, HEADS, WIDTH, **shape).to(dtype), torch.randn(rows, HEADS, WIDTH, **shape).to(dtype)

    def split(number):
        qkv, grad = tensors(number)
        return *qkv.unbind(1), grad

    def ours(number, backend=device):
        qkv, grad = tensors(number)
        leaf = qkv.requires_grad_()
        return stage(lambda: attention(leaf, offsets, backend=backend, **options), leaf, grad, backward)

    others = rivals(case, split, device)
    if device == "cuda":
        others["triton"] = lambda number: ours(number, "triton")
    row = HEADS * WIDTH * dtype.itemsize
    return {
        "ours": ours,
        "rivals": others,
        "beside": ("triton",),
        "bytes_of_one": 4 * rows * row,
        "rows": rows,
        "longest": longest,
        "flop": (14 if backward else 4) * case.scores * WIDTH * HEADS,
        "gigabytes": (4 + 8 * backward) * rows * row / 1e9,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", DROPOUT)
@pytest.mark.parametrize("kind", LENGTHS)
def test_attention(on_cpu, kind, p, dtype):
    target = {"padded_sdpa": 1.5 if dtype == "fp32" else 2.0} if kind == "memobert" and p == 0 else None
    on_cpu(**contest(SAMPLES_ON_CPU, kind, p, DTYPES[dtype], True, "cpu"), target=target)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", DROPOUT)
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("passes", STAGES)
def test_attention_gpu(on_gpu, passes, kind, samples, p, dtype):
    target = {"padded_sdpa": 3.0, "fastest": 1.5} if p and kind == "memobert" and dtype == "bf16" else None
    on_gpu(**contest(samples, kind, p, DTYPES[dtype], STAGES[passes], "cuda"), target=target)
