"""attention in Triton: one program per (sequence, head), forward in one launch and backward in another.

Queries and keys are taken in blocks of BLOCK rows, so a sequence may have any length. The forward pass goes over the
keys once per block of queries with a running maximum and sum (online softmax) and keeps the log-sum-exp of every row.
The backward pass computes
probabilities and dropout anew from it: by queries, for the row sums of probability * gradient and the gradient of q;
then by keys, for the gradients of k and v. No program touches another's rows, so nothing is added in memory and every
run gives the same bits.
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
NUMBERS = (
    "rows",
    "queries",
    "samples",
    "heads",
    "site",
    "threshold",
    "scale",
    "keep_scale",
)  # one kernel serves all values
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
PURPOSE = tl.constexpr(int(philox.Purpose.ATTENTION_DROPOUT))


@triton.constexpr_function
def padded(width):
    """Channels of a block: a power of two that matrix units take."""
    return max(16, triton.next_power_of_2(width))


@triton.jit
def sequence_of(sample, offsets, lengths, rows, samples):
    """First row of a sequence, its length, and its room: rows up to the next one. Sample number `samples` is all
    room."""
    inside = sample < samples
    first = tl.load(offsets + sample)
    room = tl.load(offsets + sample + 1, mask=inside, other=rows) - first
    length = tl.where(inside, room, 0)
    if lengths is not None:
        length = tl.load(lengths + sample, mask=inside, other=0)
    return first.to(tl.int64), length, room


@triton.jit
def queries_of(sample, query_offsets, queries, samples, first, length, room):
    """`sequence_of` for queries: the keys' own place, or rows of their own, of which none are used where there is no
    key."""
    if query_offsets is None:
        return first, length, room
    else:
        first, asked, room = sequence_of(sample, query_offsets, None, queries, samples)
        return first, tl.where(length > 0, asked, 0), room


@triton.jit
def parts_of(qkv, kv, query, key, head, width, D: tl.constexpr):
    """Pointers to a head of queries, keys and values from rows `query` and `key` on, and the strides of queries and of
    keys."""
    if kv is None:
        q = qkv + query * 3 * width + head * D
        return q, q + width, q + 2 * width, 3 * width, 3 * width
    else:
        k = kv + key * 2 * width + head * D
        return qkv + query * width + head * D, k, k + width, width, 2 * width


@triton.jit
def places(head, stride, begin, length, D: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers to rows [begin, begin + BLOCK) of one head, and which exist, [BLOCK, padded(D)]."""
    row, channel = tl.arange(0, BLOCK)[:, None], tl.arange(0, padded(D))[None, :]
    first = head + tl.cast(begin, tl.int64) * stride
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
    # a `return None` is not compiled by Triton 3.6


@triton.jit
def keep_factors(dropout, query_begin, key_begin, BLOCK: tl.constexpr):
    """What a block of probabilities [queries, keys] is multiplied with: 0, or the keep scale. Layout:
    `attention_keep_mask`."""
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
    qkv, kv, out, lse, query_offsets, offsets, lengths, rng, sample_keys, rows, queries, samples, heads,
    site, threshold, scale, keep_scale,
    D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """qkv [rows, 3, heads, D], or queries [queries, heads, D] and kv [rows, 2, heads, D], to out [queries, heads, D]
    and lse [queries, heads] fp32, the log-sum-exp of the scores."""
    sample, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    first, length, room = sequence_of(sample, offsets, lengths, rows, samples)
    query, asked, query_room = queries_of(sample, query_offsets, queries, samples, first, length, room)
    dropout = dropout_of(sample, samples, head, rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    width = heads * D
    q, k, v, q_stride, k_stride = parts_of(qkv, kv, query, first, head, width, D)
    out += query * width + head * D
    lse += query * heads + head

    for query_begin in range(0, asked, BLOCK):
        q_rows = load(q, q_stride, query_begin, asked, D, BLOCK)
        maximum = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        weighted = tl.zeros(q_rows.shape, tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, k_stride, key_begin, length, D, BLOCK)
            v_rows = load(v, k_stride, key_begin, length, D, BLOCK)
            scores = scores_of(q_rows, k_rows, scale, key_begin, length, BLOCK)
            higher = tl.maximum(maximum, tl.max(scores, axis=1))
            shrink = tl.exp(maximum - higher)
            exponential = tl.exp(scores - higher[:, None])
            total = total * shrink + tl.sum(exponential, axis=1)
            kept = exponential * keep_factors(dropout, query_begin, key_begin, BLOCK)
            weighted = weighted * shrink[:, None] + dot(kept.to(v_rows.dtype), v_rows)
            maximum = higher
        store(out, width, query_begin, asked, weighted / total[:, None], D, BLOCK)
        row = query_begin + tl.arange(0, BLOCK)
        tl.store(lse + row * heads, maximum + tl.log(total), mask=row < asked)

    for begin in range(asked, query_room, BLOCK):
        row = begin + tl.arange(0, BLOCK)
        store(out, width, begin, query_room, tl.zeros((BLOCK, padded(D)), tl.float32), D, BLOCK)
        tl.store(lse + row * heads, tl.zeros((BLOCK,), tl.float32), mask=row < query_room)


@triton.jit
def probabilities(q, k, v, grad, lse, scale, dropout, query_begin, key_begin, length, BLOCK: tl.constexpr):
    """A block of softmax [queries, keys], the same after dropout, and the gradient of the softmax."""
    probability = tl.exp(scores_of(q, k, scale, key_begin, length, BLOCK) - lse[:, None])
    kept = keep_factors(dropout, query_begin, key_begin, BLOCK)
    return probability, probability * kept, dot(grad, tl.trans(v)) * kept


@triton.jit(do_not_specialize=NUMBERS)
def attention_backward(
    qkv, kv, grad, grad_qkv, grad_kv, lse, shifts, query_offsets, offsets, lengths, rng, sample_keys,
    rows, queries, samples, heads, site, threshold, scale, keep_scale,
    D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """grad [queries, heads, D] of the output to grad_qkv and grad_kv, which lie as qkv and kv.

    The gradient of scores is probability * (gradient of probability - shift), where shift is the sum of the product of
    the two over a query's keys; shifts [queries, heads] fp32 hands it from the first part to the second.
    """
    sample, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    first, length, room = sequence_of(sample, offsets, lengths, rows, samples)
    dropout = dropout_of(sample, samples, head, rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    query, asked, query_room = queries_of(sample, query_offsets, queries, samples, first, length, room)
    width = heads * D
    q, k, v, q_stride, k_stride = parts_of(qkv, kv, query, first, head, width, D)
    grad_q, grad_k, grad_v, q_stride, k_stride = parts_of(grad_qkv, grad_kv, query, first, head, width, D)
    grad += query * width + head * D
    lse += query * heads + head
    shifts += query * heads + head

    for query_begin in range(0, asked, BLOCK):
        row = query_begin + tl.arange(0, BLOCK)
        q_rows = load(q, q_stride, query_begin, asked, D, BLOCK)
        grad_rows = load(grad, width, query_begin, asked, D, BLOCK)
        lse_rows = tl.load(lse + row * heads, mask=row < asked, other=float("inf"))
        shift = tl.zeros((BLOCK,), tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, k_stride, key_begin, length, D, BLOCK)
            v_rows = load(v, k_stride, key_begin, length, D, BLOCK)
            probability, _, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            shift += tl.sum(probability * grad_probability, axis=1)
        tl.store(shifts + row * heads, shift, mask=row < asked)
        total = tl.zeros(q_rows.shape, tl.float32)
        for key_begin in range(0, length, BLOCK):
            k_rows = load(k, k_stride, key_begin, length, D, BLOCK)
            v_rows = load(v, k_stride, key_begin, length, D, BLOCK)
            probability, _, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            grad_scores = probability * (grad_probability - shift[:, None])
            total += dot(grad_scores.to(k_rows.dtype), k_rows)
        store(grad_q, q_stride, query_begin, asked, total * scale, D, BLOCK)

    tl.debug_barrier()  # a shift is read by other threads than wrote it

    for key_begin in range(0, length, BLOCK):
        k_rows = load(k, k_stride, key_begin, length, D, BLOCK)
        v_rows = load(v, k_stride, key_begin, length, D, BLOCK)
        k_total = tl.zeros(k_rows.shape, tl.float32)
        v_total = tl.zeros(v_rows.shape, tl.float32)
        for query_begin in range(0, asked, BLOCK):
            row = query_begin + tl.arange(0, BLOCK)
            q_rows = load(q, q_stride, query_begin, asked, D, BLOCK)
            grad_rows = load(grad, width, query_begin, asked, D, BLOCK)
            lse_rows = tl.load(lse + row * heads, mask=row < asked, other=float("inf"))
            shift = tl.load(shifts + row * heads, mask=row < asked, other=0.0)
            probability, dropped, grad_probability = probabilities(
                q_rows, k_rows, v_rows, grad_rows, lse_rows, scale, dropout, query_begin, key_begin, length, BLOCK
            )
            v_total += dot(tl.trans(dropped.to(grad_rows.dtype)), grad_rows)
            grad_scores = probability * (grad_probability - shift[:, None])
            k_total += dot(tl.trans(grad_scores.to(q_rows.dtype)), q_rows)
        store(grad_k, k_stride, key_begin, length, k_total * scale, D, BLOCK)
        store(grad_v, k_stride, key_begin, length, v_total, D, BLOCK)

    zeros = tl.zeros((BLOCK, padded(D)), tl.float32)
    for begin in range(asked, query_room, BLOCK):
        store(grad_q, q_stride, begin, query_room, zeros, D, BLOCK)
    for begin in range(length, room, BLOCK):
        store(grad_k, k_stride, begin, room, zeros, D, BLOCK)
        store(grad_v, k_stride, begin, room, zeros, D, BLOCK)


def tile(width: int, dtype: torch.dtype, backward: bool) -> dict:
    """Rows of a block, and warps of a program: as many rows as registers hold."""
    wide = width > 64
    if dtype == torch.float32:
        return {"BLOCK": 32, "num_warps": 8 if wide or backward else 4, "num_stages": 1}
    return {"BLOCK": 32 if wide and backward else 64, "num_warps": 8 if wide and not backward else 4, "num_stages": 1}


def launch(kernel, operands, results, query_offsets, offsets, lengths, rng, sample_keys, site, p, scale) -> None:
    """One program for every (sequence, head), and one per head for the rows past the last sequence."""
    qkv, kv = operands
    heads, width = qkv.shape[-2:]
    if width > WIDEST:
        raise ValueError(f"attention: backend 'triton' takes heads of at most {WIDEST} channels, got {width}")
    rows, samples = (qkv if kv is None else kv).shape[0], offsets.shape[0] - 1
    with torch.cuda.device_of(offsets):
        kernel[((samples + 1) * heads,)](
            qkv, kv, *results, query_offsets, offsets, lengths, rng, sample_keys,
            rows, qkv.shape[0], samples, heads, site,
            philox.drop_threshold(p), scale, philox.keep_scale(p), D=width, DROPOUT=p > 0,
            **tile(width, qkv.dtype, kernel is attention_backward),
        )  # fmt: skip


def forward(qkv: Tensor, kv: Tensor | None, *options) -> tuple[Tensor, Tensor]:
    """(out, lse); `options` of the raw operator: query_offsets, offsets, lengths, rng, sample_keys, site, p, scale."""
    rows, heads, width = qkv.shape[0], *qkv.shape[-2:]
    out = torch.empty((rows, heads, width), dtype=qkv.dtype, device=qkv.device)
    lse = torch.empty((rows, heads), dtype=torch.float32, device=qkv.device)
    launch(attention_forward, (qkv, kv), (out, lse), *options)
    return out, lse


def backward(grad: Tensor, lse: Tensor, qkv: Tensor, kv: Tensor | None, *options) -> list[Tensor]:
    """The gradient of qkv, or those of q and kv, from that of `out`."""
    grads = [None if rows is None else torch.empty_like(rows) for rows in (qkv, kv)]
    launch(attention_backward, (qkv, kv), (grad, *grads, lse, torch.empty_like(lse)), *options)
    return [found for found in grads if found is not None]
