"""The operators as eager PyTorch writes them over packed rows, dropout from PyTorch's own generator: what a rung of the
ladder runs before ours.

Each takes the arguments of its operator in `memofast.ops`, so that a model runs with any of them in place of ours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.batch import pad_rows, unpad_rows
from memofast.ops.embed_reference import embed_reference


def bias_gelu(x: Tensor, bias: Tensor, **_) -> Tensor:
    return F.gelu(x + bias.to(x.dtype))


def dropout_add_norm(x, residual, gamma, beta, *, bias, p, eps, **_) -> Tensor:
    z = residual + F.dropout(x + bias.to(x.dtype), p)
    return F.layer_norm(z.float(), gamma.shape, gamma, beta, eps).to(x.dtype)


def embed(text, types, offsets, *, p, rng=None, sample_keys=None, site=0, **options) -> Tensor:
    return F.dropout(embed_reference(text, types, offsets, **options), p)


def attention(qkv: Tensor, offsets: Tensor, *, p: float, **_) -> Tensor:
    """SDPA over padded sequences with a key mask, and back."""
    lengths = offsets.diff()
    q, k, v = pad_rows(qkv, offsets).permute(2, 0, 3, 1, 4)
    real = torch.arange(q.shape[2], device=qkv.device) < lengths[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :], dropout_p=p)
    return unpad_rows(out.transpose(1, 2), lengths)


def cross_attention(q: Tensor, kv: Tensor, query_offsets: Tensor, offsets: Tensor, *, p: float, **_) -> Tensor:
    """The same of queries with rows of their own."""
    lengths, asked = offsets.diff(), query_offsets.diff()
    k, v = pad_rows(kv, offsets).permute(2, 0, 3, 1, 4)
    real = torch.arange(k.shape[2], device=kv.device) < lengths[:, None]
    padded = pad_rows(q, query_offsets).transpose(1, 2)
    out = F.scaled_dot_product_attention(padded, k, v, attn_mask=real[:, None, None, :], dropout_p=p)
    out = unpad_rows(out.transpose(1, 2), asked)
    return F.pad(out, (0, 0, 0, 0, 0, q.shape[0] - out.shape[0]))


class Nothing(torch.autograd.Function):
    """What PyTorch asks of any operator in Python with a gradient: keep the operands, return an output."""

    @staticmethod
    def forward(ctx, *operands: Tensor | None) -> Tensor:
        ctx.save_for_backward(*operands)
        return torch.empty_like(operands[0])

    @staticmethod
    def backward(ctx, grad: Tensor):
        raise NotImplementedError("only its call is measured")
