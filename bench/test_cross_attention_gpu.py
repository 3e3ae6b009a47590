"""Attention of the rows that a last layer's readers ask for, on a GPU, against attention of all rows, padded SDPA and packed kernels.

Rules: one row in seven of 64 and of 256 MEmoBERT-like samples is asked; forward alone, or forward and backward through autograd with a ready output
gradient. `all_rows` is our own attention of every row, of which the asked ones are taken. `padded_sdpa` gets contiguous padded inputs and a key
mask made beforehand; `flash_varlen` (flash-attn) and `torch_varlen` (torch.nn.attention.varlen, no dropout) read packed rows and are told the longest
lengths, as ours is; `triton` is our own other kernel. `gigabytes` counts queries, keys, values, output and their gradients once.
"""

import pytest
import torch
from gpu_cases import DTYPES, SAMPLES, STAGES, draw_lengths, offsets_of, stage
from test_attention import HEADS, WIDTH, pad
from test_cross_attention import asked_rows

from memofast.data.batch import rounded_length
from memofast.ops import attention, cross_attention


def contest(samples, p, dtype, backward, device):
    lengths = draw_lengths("memobert", samples)
    offsets = offsets_of(lengths)
    rows, starts = asked_rows(offsets)
    asked, total, longest = starts.diff(), int(offsets[-1]), rounded_length(int(lengths.max()))
    rows, starts, offsets = (x.to(device) for x in (rows, starts, offsets))
    random = {"rng": torch.tensor([1, 2], device=device), "sample_keys": torch.arange(samples, device=device)}

    def tensors(number):
        generator = torch.Generator(device).manual_seed(number)
        qkv = torch.randn(total, 3, HEADS, WIDTH, generator=generator, device=device).to(dtype)
        return qkv, torch.randn(len(rows), HEADS, WIDTH, generator=generator, device=device).to(dtype)

    def parts(number):
        qkv, grad = tensors(number)
        return qkv[rows, 0].contiguous().requires_grad_(), qkv[:, 1:].contiguous().requires_grad_(), grad

    def ours(number, backend):
        q, kv, grad = parts(number)
        options = {"p": p, "longest": longest, "backend": backend, **random}
        return stage(lambda: cross_attention(q, kv, starts, offsets, **options), (q, kv), grad, backward)

    def all_rows(number):
        qkv, grad = tensors(number)
        leaf = qkv.requires_grad_()
        options = {"p": p, "longest": longest, "backend": device, **random}
        return stage(lambda: attention(leaf, offsets, **options).index_select(0, rows), leaf, grad, backward)

    def padded_sdpa(number):
        q, kv, grad = parts(number)
        padded = pad(q.detach(), asked.tolist()).requires_grad_()
        k, v = (part.requires_grad_() for part in pad(kv.detach(), lengths.tolist()).unbind())
        real = (torch.arange(int(lengths.max())) < lengths[:, None])[:, None, None].to(device)
        return stage(
            lambda: torch.nn.functional.scaled_dot_product_attention(padded, k, v, attn_mask=real, dropout_p=p),
            (padded, k, v), pad(grad, asked.tolist()), backward,
        )  # fmt: skip

    def flash_varlen(number):
        from flash_attn import flash_attn_varlen_kvpacked_func

        q, kv, grad = parts(number)
        limits = starts, offsets, int(asked.max()), int(lengths.max())
        return stage(lambda: flash_attn_varlen_kvpacked_func(q, kv, *limits, dropout_p=p), (q, kv), grad, backward)

    def torch_varlen(number):
        from torch.nn.attention.varlen import varlen_attn

        if p:
            raise NotImplementedError("torch.nn.attention.varlen has no dropout")
        q, kv, grad = parts(number)
        k, v = (part.detach().contiguous().requires_grad_() for part in kv.unbind(1))
        limits = starts, offsets, int(asked.max()), int(lengths.max())
        return stage(lambda: varlen_attn(q, k, v, *limits), (q, k, v), grad, backward)

    row = HEADS * WIDTH * dtype.itemsize
    return {
        "ours": lambda number: ours(number, device),
        "rivals": {
            "all_rows": all_rows,
            "padded_sdpa": padded_sdpa,
            "flash_varlen": flash_varlen,
            "torch_varlen": torch_varlen,
            "triton": lambda number: ours(number, "triton"),
        },
        "bytes_of_one": 4 * total * row,
        "rows": len(rows),
        "longest": int(lengths.max()),
        "flop": (14 if backward else 4) * int((lengths * asked).sum()) * WIDTH * HEADS,
        "gigabytes": (2 + 3 * backward) * (len(rows) + total) * row / 1e9,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("passes", STAGES)
def test_cross_attention_gpu(on_gpu, passes, samples, p, dtype):
    on_gpu(**contest(samples, p, DTYPES[dtype], STAGES[passes], "cuda"))
