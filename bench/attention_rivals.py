"""What PyTorch and flash-attn offer for attention, as contestants beside ours: of all rows, and of queries with rows of
their own.

Every rival takes a `Case` and the tensors of one input set, and returns the call to time. `padded_sdpa` and `eager` get
contiguous padded [B, H, S, D] inputs and a key mask [B, 1, 1, S] made beforehand: they pay for neither padding,
splitting nor unpadding, and padded rows of the output get a gradient of zero.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple

import torch
from contests import compiled, stage
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

KERNELS = {
    "cpu": ("FLASH_ATTENTION", "MATH"),
    "cuda": ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "FLASH_ATTENTION", "MATH"),
}


class Case(NamedTuple):
    """asked, lengths: queries and keys of each sequence, on the host; starts, offsets [B + 1] int32: where they lie, on
    the device."""

    asked: Tensor
    lengths: Tensor
    starts: Tensor
    offsets: Tensor
    p: float
    backward: bool

    @property
    def scores(self) -> int:
        return int((self.asked * self.lengths).sum())

    @property
    def limits(self) -> tuple[Tensor, Tensor, int, int]:
        """As kernels over packed rows want them."""
        return self.starts, self.offsets, int(self.asked.max()), int(self.lengths.max())


def pad(packed: Tensor, lengths: Tensor) -> Tensor:
    """[N, ..., H, D] to contiguous [..., B, H, S, D]."""
    padded = torch.nn.utils.rnn.pad_sequence(packed.split(lengths.tolist()), batch_first=True)
    return padded.movedim(1, -2).movedim(0, -4).contiguous()


def padded(case: Case, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, attend: Callable[..., Tensor]) -> Callable:
    leaves = [pad(q, case.asked), pad(k, case.lengths), pad(v, case.lengths)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    real = (torch.arange(int(case.lengths.max())) < case.lengths[:, None])[:, None, None].to(q.device)
    return stage(lambda: attend(*leaves, real, case.p), leaves, pad(grad, case.asked), case.backward)


def written_out(q: Tensor, k: Tensor, v: Tensor, real: Tensor, p: float) -> Tensor:
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~real, -1e4)
    return dropout(scores.float().softmax(-1).to(v.dtype), p) @ v


def sdpa(kernel: str | None = None) -> Callable[..., Tensor]:
    """`kernel`: one of PyTorch's by name, which refuses what it cannot do; None: PyTorch's choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attend(q: Tensor, k: Tensor, v: Tensor, real: Tensor, p: float) -> Tensor:
        with sdpa_kernel(getattr(SDPBackend, kernel)) if kernel else nullcontext():
            return scaled_dot_product_attention(q, k, v, attn_mask=real, dropout_p=p)

    return attend


def packed(case: Case, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, attend: Callable[..., Tensor]) -> Callable:
    leaves = [part.detach().contiguous().requires_grad_() for part in (q, k, v)]
    return stage(lambda: attend(*leaves), leaves, grad, case.backward)


def flash_varlen(case: Case, *tensors: Tensor) -> Callable:
    from flash_attn import flash_attn_varlen_func

    return packed(case, *tensors, lambda q, k, v: flash_attn_varlen_func(q, k, v, *case.limits, dropout_p=case.p))


def torch_varlen(case: Case, *tensors: Tensor) -> Callable:
    from torch.nn.attention.varlen import varlen_attn

    if case.p:
        raise NotImplementedError("torch.nn.attention.varlen has no dropout")
    return packed(case, *tensors, lambda q, k, v: varlen_attn(q, k, v, *case.limits))


def block_mask(case: Case):
    """Of all rows as one sequence for FlexAttention: each query sees the keys of its own sample."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sample_of_rows(offsets: Tensor) -> Tensor:
        rows = torch.arange(int(offsets[-1]), device=offsets.device, dtype=torch.int32)
        return torch.searchsorted(offsets[1:], rows, right=True)

    of_query, of_key = sample_of_rows(case.starts), sample_of_rows(case.offsets)
    sizes = len(of_query), len(of_key)
    return create_block_mask(
        lambda batch, head, query, key: of_query[query] == of_key[key], None, None, *sizes, device=of_key.device
    )


def flex(case: Case, mask: Callable, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, attend: Callable) -> Callable:
    """`attend`: compiled FlexAttention; `mask`: gives the one block mask of all input sets, as with another it would be
    compiled anew."""
    if case.p:
        raise NotImplementedError("FlexAttention has no dropout")
    seen = mask()
    leaves = [part.transpose(0, 1)[None].contiguous().requires_grad_(case.backward) for part in (q, k, v)]
    grad = grad.transpose(0, 1)[None].contiguous()
    return stage(lambda: attend(*leaves, block_mask=seen), leaves, grad, case.backward)


def rivals(case: Case, tensors: Callable[[int], tuple[Tensor, ...]], device: str) -> dict[str, Callable]:
    """Contestants by name. tensors: of the number of an input set, q [n, H, D], k and v [N, H, D], and the output's
    gradient."""
    from torch.nn.attention.flex_attention import flex_attention

    def over_padded_rows(attend):
        return lambda number: padded(case, *tensors(number), attend)

    found = {
        "eager": over_padded_rows(written_out),
        "compiled": over_padded_rows(compiled(written_out)),
        "padded_sdpa": over_padded_rows(sdpa()),
        **{f"padded_sdpa {kernel.lower()}": over_padded_rows(sdpa(kernel)) for kernel in KERNELS[device]},
    }
    if device == "cuda":  # elsewhere they have no backward pass, or no kernel
        attend, mask = compiled(flex_attention), cache(lambda: block_mask(case))
        found["flex"] = lambda number: flex(case, mask, *tensors(number), attend)
        found["flash_varlen"] = lambda number: flash_varlen(case, *tensors(number))
        found["torch_varlen"] = lambda number: torch_varlen(case, *tensors(number))
    return found
