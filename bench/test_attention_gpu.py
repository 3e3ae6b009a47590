"""Attention on a GPU, packed, against what PyTorch and flash-attn offer, in the same process on the same values.

Rules: every contestant computes the same sequences, forward alone or forward and backward through autograd with a ready output gradient; dropout
draws from its own generator. `eager` is softmax, dropout and products written out over padded inputs and a key mask, `compiled` that by
torch.compile. `padded_sdpa` gets contiguous padded [B, H, S, D] inputs and a key mask made beforehand, and pays for neither padding nor
unpadding. with a kernel's name only that kernel may run. `flash_varlen` (flash-attn) and `torch_varlen` (torch.nn.attention.varlen, no dropout) read packed
rows and are told the longest length, as ours is; `flex` is compiled FlexAttention over packed rows (no dropout). `triton` is our own other kernel. FLOP counts two products of forward and five of backward over real rows; bytes are those of
queries, keys, values, output and their gradients, read or written once.
"""

from contextlib import nullcontext

import pytest
import torch
from gpu_cases import SAMPLES, compiled, draw_lengths, offsets_of, stage
from test_attention import HEADS, LENGTHS, WIDTH, pad

from memofast.data.batch import rounded_length
from memofast.ops import attention


def sdpa(qkv, grad, lengths, p, backward, kernel=None):
    """`kernel`: one of PyTorch's kernels by name, which refuses what it cannot do; None: PyTorch's choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = (part.requires_grad_() for part in pad(qkv, lengths).unbind())
    real = torch.arange(max(lengths), device=qkv.device) < torch.tensor(lengths, device=qkv.device)[:, None]

    def forward():
        with sdpa_kernel(SDPBackend[kernel]) if kernel else nullcontext():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None], dropout_p=p)

    return stage(forward, (q, k, v), pad(grad, lengths), backward)


def written_out(qkv, grad, lengths, p, backward, through=lambda function: function):
    q, k, v = (part.requires_grad_() for part in pad(qkv, lengths).unbind())
    padding = torch.arange(max(lengths), device=qkv.device) >= torch.tensor(lengths, device=qkv.device)[:, None]

    def attend(q, k, v, padding):
        scores = (q @ k.mT * WIDTH**-0.5).masked_fill(padding[:, None, None], -1e4)
        return torch.nn.functional.dropout(scores.float().softmax(-1).to(v.dtype), p) @ v

    attend = through(attend)
    return stage(lambda: attend(q, k, v, padding), (q, k, v), pad(grad, lengths), backward)


def flash_varlen(qkv, grad, offsets, longest, p, backward):
    from flash_attn import flash_attn_varlen_qkvpacked_func

    leaf = qkv.requires_grad_()
    return stage(lambda: flash_attn_varlen_qkvpacked_func(leaf, offsets, longest, dropout_p=p), leaf, grad, backward)


def flex(qkv, grad, offsets, p, backward):
    """Compiled FlexAttention over all rows as one sequence, each row seeing those of its own sample; the block mask is made beforehand."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if p:
        raise NotImplementedError("FlexAttention has no dropout")
    rows = qkv.shape[0]
    sample = torch.searchsorted(offsets[1:], torch.arange(rows, device=qkv.device, dtype=torch.int32), right=True)

    def same_sample(batch, head, query, key):
        return sample[query] == sample[key]

    mask = create_block_mask(same_sample, None, None, rows, rows, device=qkv.device)
    attend = compiled(flex_attention)
    q, k, v = (part.transpose(0, 1)[None].contiguous().requires_grad_() for part in qkv.unbind(1))
    return stage(lambda: attend(q, k, v, block_mask=mask), (q, k, v), grad.transpose(0, 1)[None].contiguous(), backward)


def torch_varlen(qkv, grad, offsets, longest, p, backward):
    from torch.nn.attention.varlen import varlen_attn

    if p:
        raise NotImplementedError("torch.nn.attention.varlen has no dropout")
    q, k, v = (part.contiguous().requires_grad_() for part in qkv.unbind(1))
    return stage(lambda: varlen_attn(q, k, v, offsets, offsets, longest, longest), (q, k, v), grad, backward)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
def test_attention_gpu(on_gpu, backward, kind, samples, p, dtype):
    lengths = draw_lengths(kind, samples)
    rows, longest = int(lengths.sum()), int(lengths.max())
    offsets = offsets_of(lengths).to("cuda")
    random = {"rng": torch.tensor([1, 2], device="cuda"), "sample_keys": torch.arange(samples, device="cuda")}

    def tensors(number):
        generator = torch.Generator("cuda").manual_seed(number)
        shape = {"generator": generator, "device": "cuda"}
        return torch.randn(rows, 3, HEADS, WIDTH, **shape).to(dtype), torch.randn(rows, HEADS, WIDTH, **shape).to(dtype)

    def ours(number, backend="cuda"):
        qkv, grad = tensors(number)
        leaf = qkv.requires_grad_()
        return stage(
            lambda: attention(leaf, offsets, p=p, longest=rounded_length(longest), backend=backend, **random),
            leaf,
            grad,
            backward,
        )

    rivals = {
        "eager": lambda number: written_out(*tensors(number), lengths.tolist(), p, backward),
        "compiled": lambda number: written_out(*tensors(number), lengths.tolist(), p, backward, compiled),
        "padded_sdpa": lambda number: sdpa(*tensors(number), lengths.tolist(), p, backward),
        **{
            f"padded_sdpa {kernel.lower()}": lambda number, kernel=kernel: sdpa(
                *tensors(number), lengths.tolist(), p, backward, kernel
            )
            for kernel in ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "FLASH_ATTENTION", "MATH")
        },
        "flex": lambda number: flex(*tensors(number), offsets, p, backward),
        "flash_varlen": lambda number: flash_varlen(*tensors(number), offsets, longest, p, backward),
        "torch_varlen": lambda number: torch_varlen(*tensors(number), offsets, longest, p, backward),
        "triton": lambda number: ours(number, "triton"),
    }
    row = HEADS * WIDTH * dtype.itemsize
    passes = 4 + 8 * backward  # of the size of the output
    on_gpu(
        ours,
        rivals,
        bytes_of_one=4 * rows * row,
        target={"padded_sdpa": 3.0, "flash_varlen": 1.5}
        if p and kind == "memobert" and dtype == torch.bfloat16
        else None,
        rows=rows,
        longest=longest,
        flop=(14 if backward else 4) * int((lengths**2).sum()) * WIDTH * HEADS,
        gigabytes=passes * rows * row / 1e9,
    )
