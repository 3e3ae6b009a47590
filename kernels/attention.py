"""attention in Triton: one program per (sequence, head), forward in one launch and backward in another.

Queries and keys are taken in blocks of BLOCK rows, so a sequence may have any length. The forward pass goes over the keys once per
block of queries with a running maximum and sum (online softmax) and keeps the log-sum-exp of every row. The backward pass computes
probabilities and dropout anew from it: by queries, for the row sums of probability * gradient and the gradient of q; then by keys,
for the gradients of k and v. No program touches another's rows, so nothing is added in memory and every run gives the same bits.
The grid depends on the numbers of samples and heads alone: CUDA graphs can capture both launches.
Source: Dao et al., "FlashAttention", NeurIPS 2022; Dao, "FlashAttention-2", 2023.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from memofast.kernels.philox import draw, lanes16, stream_key
from memofast.ops import philox

WIDEST = 128  # channels of a head
NUMBERS = ("rows", "samples", "heads", "site", "threshold", "scale", "keep_scale")  # one kernel serves all values
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
PURPOSE = tl.constexpr(int(philox.Purpose.ATTENTION_DROPOUT))


@triton.constexpr_function
def padded(width):
    """Channels of a block: a power of two that matrix units take."""
    return max(16, triton.next_power_of_2(width))


@triton.jit
def sequence_of(sample, offsets, lengths, rows, samples):
    """First row of a sequence, its length, and its room: rows up to the next one. Sample number `samples` is all room."""
    inside = sample < samples
    first = tl.load(offsets + sample)
    room = tl.load(offsets + sample + 1, mask=inside, other=rows) - first
    length = tl.where(inside, room, 0)
    if lengths is not None:
        length = tl.load(lengths + sample, mask=inside, other=0)
    return first.to(tl.int64), length, room


@triton.jit
def places(head, stride, begin, length, D: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers to rows [begin, begin + BLOCK) of one head, and which exist, [BLOCK, padded(D)]."""
    row, channel = tl.arange(0, BLOCK)[:, None], tl.arange(0, padded(D))[None, :]
    first = head + tl.to_tensor(begin).to(tl.int64) * stride
    return first + row * stride + channel, (begin + row < length) & (channel < D)


@triton.jit
def load(head, stride, begin, length, D: tl.constexpr, BLOCK: tl.constexpr):
    """A block of rows, zero outside the sequence and the channels."""
    place, exists = places(head, stride, begin, length, D, BLOCK)
    return tl.load(place, mask=exists, other=0.0)


@triton.jit
def store(head, stride, begin, length, values, D: tl.constexpr, BLOCK: tl.constexpr):
    """Write a block of rows in the type of the tensor."""
    place, exists = places(head, stride, begin, length, D, BLOCK)
    tl.store(place, values.to(head.dtype.element_ty), mask=exists)


@triton.jit
def dot(a, b):
    """Matrix product with fp32 sums; fp32 operands are not rounded."""
    if INTERPRETED:  # the interpreter multiplies bf16 as if its bits were integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def dropout_of(sample, samples, head, rng, sample_keys, site, threshold, keep_scale, DROPOUT: tl.constexpr):
    """What the keep factors of a (sequence, head) depend on; None where nothing is dropped."""
    if DROPOUT:
        key_low, key_high = stream_key(rng, PURPOSE, site)
        sample_key = tl.load(sample_keys + sample, mask=sample < samples, other=0)
        return key_low, key_high, sample_key, head << 16, threshold, keep_scale
    else:
        return None


@triton.jit
def keep_factors(dropout, query_begin, key_begin, BLOCK: tl.constexpr):
    """What a block of probabilities [queries, keys] is multiplied with: 0, or the keep scale. Layout: `attention_keep_mask`."""
    if dropout is None:
        return tl.full((BLOCK, BLOCK), 1.0, tl.float32)
    else:
        key_low, key_high, sample_key, head, threshold, keep_scale = dropout
        position = head | (query_begin + tl.arange(0, BLOCK))
        block = key_begin // 8 + tl.arange(0, BLOCK // 8)
        w0, w1, w2, w3 = draw(key_low, key_high, sample_key, position[:, None], block[None, :])
        return tl.where(lanes16(w0, w1, w2, w3) >= threshold, keep_scale, 0.0)


@triton.jit
def scores_of(q, k, scale, key_begin, length, BLOCK: tl.constexpr):
    """scale q k^T, [queries, keys], minus infinity past the last key."""
    key = key_begin + tl.arange(0, BLOCK)
    return tl.where((key < length)[None, :], dot(q, tl.trans(k)) * scale, float("-inf"))


@triton.jit(do_not_specialize=NUMBERS)
def attention_forward(
    qkv, out, lse, offsets, lengths, rng, sample_keys, rows, samples, heads, site, threshold, scale, keep_scale,
    D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """qkv [rows, 3, heads, D] to out [rows, heads, D] and lse [rows, heads] fp32, the log-sum-exp of the scores."""
    sample, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    first, length, room = sequence_of(sample, offsets, lengths, rows, samples)
    dropout = dropout_of(sample, samples, head, rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    width = heads * D
    q = qkv + first * 3 * width + head * D
    k, v = q + width, q + 2 * width
    out += first * width + head * D
    lse += first * heads + head

    for query_begin in range(0, length, BLOCK):
        q_rows = load(q, 3 * width, query_begin, length, D, BLOCK)
        maximum = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        weighted = tl.zeros(q_rows.shape, tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, 3 * width, key_begin, length, D, BLOCK)
            v_rows = load(v, 3 * width, key_begin, length, D, BLOCK)
            scores = scores_of(q_rows, k_rows, scale, key_begin, length, BLOCK)
            higher = tl.maximum(maximum, tl.max(scores, axis=1))
            shrink = tl.exp(maximum - higher)
            exponential = tl.exp(scores - higher[:, None])
            total = total * shrink + tl.sum(exponential, axis=1)
            kept = exponential * keep_factors(dropout, query_begin, key_begin, BLOCK)
            weighted = weighted * shrink[:, None] + dot(kept.to(v_rows.dtype), v_rows)
            maximum = higher
        store(out, width, query_begin, length, weighted / total[:, None], D, BLOCK)
        query = query_begin + tl.arange(0, BLOCK)
        tl.store(lse + query * heads, maximum + tl.log(total), mask=query < length)

    for begin in range(length, room, BLOCK):
        row = begin + tl.arange(0, BLOCK)
        store(out, width, begin, room, tl.zeros((BLOCK, padded(D)), tl.float32), D, BLOCK)
        tl.store(lse + row * heads, tl.zeros((BLOCK,), tl.float32), mask=row < room)


@triton.jit
def probabilities(q, k, v, grad, lse, scale, dropout, query_begin, key_begin, length, BLOCK: tl.constexpr):
    """A block of softmax [queries, keys], the same after dropout, and the gradient of the softmax."""
    probability = tl.exp(scores_of(q, k, scale, key_begin, length, BLOCK) - lse[:, None])
    kept = keep_factors(dropout, query_begin, key_begin, BLOCK)
    return probability, probability * kept, dot(grad, tl.trans(v)) * kept


@triton.jit(do_not_specialize=NUMBERS)
def attention_backward(
    qkv, grad, grad_qkv, lse, shifts, offsets, lengths, rng, sample_keys, rows, samples, heads, site, threshold, scale, keep_scale,
    D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """grad [rows, heads, D] of the output to grad_qkv [rows, 3, heads, D].

    The gradient of scores is probability * (gradient of probability - shift), where shift is the sum of the product of the two over
    a query's keys; shifts [rows, heads] fp32 hands it from the first part to the second.
    """
    sample, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    first, length, room = sequence_of(sample, offsets, lengths, rows, samples)
    dropout = dropout_of(sample, samples, head, rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    width = heads * D
    q = qkv + first * 3 * width + head * D
    k, v = q + width, q + 2 * width
    grad_q = grad_qkv + first * 3 * width + head * D
    grad_k, grad_v = grad_q + width, grad_q + 2 * width
    grad += first * width + head * D
    lse += first * heads + head
    shifts += first * heads + head

    for query_begin in range(0, length, BLOCK):
        query = query_begin + tl.arange(0, BLOCK)
        q_rows = load(q, 3 * width, query_begin, length, D, BLOCK)
        grad_rows = load(grad, width, query_begin, length, D, BLOCK)
        lse_rows = tl.load(lse + query * heads, mask=query < length, other=float("inf"))
        shift = tl.zeros((BLOCK,), tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, 3 * width, key_begin, length, D, BLOCK)
            v_rows = load(v, 3 * width, key_begin, length, D, BLOCK)
            probability, _, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            shift += tl.sum(probability * grad_probability, axis=1)
        tl.store(shifts + query * heads, shift, mask=query < length)
        total = tl.zeros(q_rows.shape, tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, 3 * width, key_begin, length, D, BLOCK)
            v_rows = load(v, 3 * width, key_begin, length, D, BLOCK)
            probability, _, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            grad_scores = probability * (grad_probability - shift[:, None])
            total += dot(grad_scores.to(k_rows.dtype), k_rows)
        store(grad_q, 3 * width, query_begin, length, total * scale, D, BLOCK)

    tl.debug_barrier()  # a shift is read by other threads than wrote it

    for key_begin in range(0, length, BLOCK):
        k_rows = load(k, 3 * width, key_begin, length, D, BLOCK)
        v_rows = load(v, 3 * width, key_begin, length, D, BLOCK)
        k_total = tl.zeros(k_rows.shape, tl.float32)
        v_total = tl.zeros(v_rows.shape, tl.float32)
        for query_begin in range(0, length, BLOCK):
            query = query_begin + tl.arange(0, BLOCK)
            q_rows = load(q, 3 * width, query_begin, length, D, BLOCK)
            grad_rows = load(grad, width, query_begin, length, D, BLOCK)
            lse_rows = tl.load(lse + query * heads, mask=query < length, other=float("inf"))
            shift = tl.load(shifts + query * heads, mask=query < length, other=0.0)
            probability, dropped, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            v_total += dot(tl.trans(dropped.to(grad_rows.dtype)), grad_rows)
            grad_scores = probability * (grad_probability - shift[:, None])
            k_total += dot(tl.trans(grad_scores.to(q_rows.dtype)), q_rows)
        store(grad_k, 3 * width, key_begin, length, k_total * scale, D, BLOCK)
        store(grad_v, 3 * width, key_begin, length, v_total, D, BLOCK)

    zeros = tl.zeros((BLOCK, padded(D)), tl.float32)
    for begin in range(length, room, BLOCK):
        store(grad_q, 3 * width, begin, room, zeros, D, BLOCK)
        store(grad_k, 3 * width, begin, room, zeros, D, BLOCK)
        store(grad_v, 3 * width, begin, room, zeros, D, BLOCK)


def tile(width: int, dtype: torch.dtype, backward: bool) -> dict:
    """Rows of a block, and warps of a program: as many rows as registers hold."""
    wide = width > 64
    if dtype == torch.float32:
        return {"BLOCK": 32, "num_warps": 8 if wide or backward else 4, "num_stages": 1}
    return {"BLOCK": 32 if wide and backward else 64, "num_warps": 8 if wide and not backward else 4, "num_stages": 1}


def launch(kernel, tensors, offsets, lengths, rng, sample_keys, site, p, scale) -> None:
    """One program for every (sequence, head), and one per head for the rows past the last sequence."""
    qkv = tensors[0]
    rows, _, heads, width = qkv.shape
    if width > WIDEST:
        raise ValueError(f"attention: backend 'triton' takes heads of at most {WIDEST} channels, got {width}")
    samples = offsets.shape[0] - 1
    with torch.cuda.device_of(offsets):
        kernel[((samples + 1) * heads,)](
            *tensors, offsets, lengths, rng, sample_keys, rows, samples, heads, site, philox.drop_threshold(p), scale,
            philox.keep_scale(p), D=width, DROPOUT=p > 0, **tile(width, qkv.dtype, kernel is attention_backward),
        )  # fmt: skip


def forward(qkv: Tensor, *options) -> tuple[Tensor, Tensor]:
    """(out, lse); `options` of the raw operator: offsets, lengths, rng, sample_keys, site, p, scale."""
    rows, _, heads, width = qkv.shape
    out = torch.empty((rows, heads, width), dtype=qkv.dtype, device=qkv.device)
    lse = torch.empty((rows, heads), dtype=torch.float32, device=qkv.device)
    launch(attention_forward, (qkv, out, lse), *options)
    return out, lse


def backward(grad: Tensor, qkv: Tensor, lse: Tensor, *options) -> Tensor:
    """The gradient of qkv from that of `out`."""
    grad_qkv, shifts = torch.empty_like(qkv), torch.empty_like(lse)
    launch(attention_backward, (qkv, grad, grad_qkv, lse, shifts), *options)
    return grad_qkv
