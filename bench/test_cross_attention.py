"""Attention of the rows that a last layer's readers ask for, packed, against attention of all rows and against padded SDPA.

Rules: one row in seven of 32 MEmoBERT-like samples is asked, as masked modelling does. `all_rows` is our own attention of every row, of which the
asked ones are taken; `padded_sdpa` gets contiguous padded queries [B, H, Q, D], keys and values [B, H, S, D] and a key mask [B, 1, 1, S] made
beforehand. All run forward and backward through autograd with a ready output gradient, dropout from each side's own generator. FLOP counts
five products of backward and two of forward over real queries and keys. The projections, of which a last layer spares most queries, are not in it.
"""

import pytest
import torch
from test_attention import HEADS, LENGTHS, SAMPLES, WIDTH, pad

from memofast.ops import attention, cross_attention

ONE_IN = 7


def asked_rows(offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every seventh row [n] int64, and the first of each sample [B + 1] int32."""
    rows = torch.arange(0, int(offsets[-1]), ONE_IN)
    return rows, torch.searchsorted(rows, offsets.long()).to(torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("p", [0.0, 0.1])
def test_cross_attention(side_by_side, p, dtype):
    generator = torch.Generator().manual_seed(1)
    lengths = LENGTHS["memobert"](generator)
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    rows, starts = asked_rows(offsets)
    qkv = torch.randn(int(offsets[-1]), 3, HEADS, WIDTH, generator=generator).to(dtype).requires_grad_()
    q, kv = (x.detach().contiguous().requires_grad_() for x in (qkv[rows, 0], qkv[:, 1:]))
    grad = torch.randn(len(rows), HEADS, WIDTH, generator=generator).to(dtype)
    random = {"rng": torch.tensor([1, 2]), "sample_keys": torch.arange(SAMPLES)}

    padded_q = pad(q.detach(), starts.diff().tolist()).requires_grad_()
    k, v = (part.requires_grad_() for part in pad(kv.detach(), lengths.tolist()).unbind())
    padded_grad = pad(grad, starts.diff().tolist())
    mask = (torch.arange(int(lengths.max())) < lengths[:, None])[:, None, None, :]

    def ours():
        torch.autograd.grad(cross_attention(q, kv, starts, offsets, p=p, **random), (q, kv), grad)

    def all_rows():
        out = attention(qkv, offsets, p=p, **random).index_select(0, rows)
        torch.autograd.grad(out, qkv, grad)

    def padded():
        out = torch.nn.functional.scaled_dot_product_attention(padded_q, k, v, attn_mask=mask, dropout_p=p)
        torch.autograd.grad(out, (padded_q, k, v), padded_grad)

    scores = int((lengths * starts.diff()).sum())
    rivals = {"all_rows": all_rows, "padded_sdpa": padded}
    side_by_side(ours, rivals, rounds=15, rows=len(rows), longest=int(lengths.max()), flop=14 * scores * WIDTH * HEADS)
