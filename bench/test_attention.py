"""Attention forward and backward, packed, against padded `scaled_dot_product_attention` in the same process.

Rules of the rival: queries, keys and values lie padded to the longest sequence as contiguous [B, H, S, D] tensors before the clock
starts (it pays neither for padding nor for splitting QKV nor for unpadding), with a boolean key mask [B, 1, 1, S] made beforehand;
padded output rows get the same gradient as real ones, as they would without unpadding. It chooses its own algorithm. Both sides
run forward and backward through autograd with a ready output gradient, on the same values; dropout draws from each side's own
generator. FLOP counts the five products of backward and the two of forward over real rows: 14 L^2 D per head.
"""

import pytest
import torch
from plain_ops import Nothing

from memofast.ops import attention

SAMPLES, HEADS, WIDTH = 32, 12, 64
LENGTHS = {
    "memobert": lambda g: sum(
        torch.randint(low, high + 1, (SAMPLES,), generator=g) for low, high in ((5, 30), (4, 64), (10, 64))
    ),
    "uniform": lambda g: torch.randint(32, 161, (SAMPLES,), generator=g),
    "all32": lambda g: torch.full((SAMPLES,), 32),
    "all160": lambda g: torch.full((SAMPLES,), 160),
}


def pad(packed: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """[N, ..., H, D] to contiguous [..., B, H, S, D]."""
    padded = torch.nn.utils.rnn.pad_sequence(packed.split(lengths), batch_first=True)
    return padded.movedim(1, -2).movedim(0, -4).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("kind", LENGTHS)
def test_attention(side_by_side, kind, p, dtype):
    generator = torch.Generator().manual_seed(1)
    lengths = LENGTHS[kind](generator)
    rows = int(lengths.sum())
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))).to(torch.int32)
    qkv = torch.randn(rows, 3, HEADS, WIDTH, generator=generator).to(dtype).requires_grad_()
    grad = torch.randn(rows, HEADS, WIDTH, generator=generator).to(dtype)
    random = {"rng": torch.tensor([1, 2]), "sample_keys": torch.arange(SAMPLES)}

    q, k, v = (part.requires_grad_() for part in pad(qkv.detach(), lengths.tolist()).unbind())
    padded_grad = pad(grad, lengths.tolist())
    mask = (torch.arange(int(lengths.max())) < lengths[:, None])[:, None, None, :]

    def ours():
        torch.autograd.grad(attention(qkv, offsets, p=p, **random), qkv, grad)

    def padded():
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        torch.autograd.grad(out, (q, k, v), padded_grad)

    flop = 14 * int((lengths**2).sum()) * WIDTH * HEADS
    target = {"padded_sdpa": 1.5 if dtype == torch.float32 else 2.0} if kind == "memobert" and p == 0 else None
    side_by_side(
        ours, {"padded_sdpa": padded}, rounds=15, target=target, rows=rows, longest=int(lengths.max()), flop=flop
    )


def test_call_of_attention(side_by_side):
    """One row of one head, forward with gradients: all is overhead."""
    qkv, offsets = torch.randn(1, 3, 1, 8, requires_grad=True), torch.tensor([0, 1], dtype=torch.int32)
    random = {"rng": torch.tensor([1, 2]), "sample_keys": torch.zeros(1, dtype=torch.int64)}
    operands = (qkv, offsets, None, *random.values())
    side_by_side(
        lambda: attention(qkv, offsets, p=0.1, **random), {"empty Function": lambda: Nothing.apply(0, *operands)}
    )
