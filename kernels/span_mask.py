"""span_mask in Triton: one program per sample chooses its rows, a second launch lists the targets in row order.

Bit for bit the reference of memofast/ops/span_mask.py. Random words are drawn again wherever they are needed (a draw is
cheaper than keeping it), so a sample may have any number of rows and no memory is shared between the threads of a
program. Spans are written in position order, each up to where the next one starts, so that no row is written twice.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from memofast.kernels.philox import draw, stream_key

SPAN, INDEPENDENT, SINGLE_SPAN, MIXED = (tl.constexpr(code) for code in range(4))
BEYOND = tl.constexpr(2**63 - 1)
EIGHT_TENTHS, NINE_TENTHS = tl.constexpr((8 << 32) // 10), tl.constexpr((9 << 32) // 10)

SIZES = (
    "samples",
    "rows",
    "capacity",
    "purpose",
    "site",
    "numerator",
    "denominator",
    "length",
)  # one kernel serves all values


@triton.jit
def words_of(key_low, key_high, sample_key, index, block):
    """Word index % 4 of draw (index // 4, block), [BLOCK] int64."""
    w0, w1, w2, w3 = draw(key_low, key_high, sample_key, index // 4, block)
    word = tl.where(index % 4 < 2, tl.where(index % 4 == 0, w0, w1), tl.where(index % 4 == 2, w2, w3))
    return word.to(tl.int64)


@triton.jit
def below(word, n):
    """A uniform integer in [0, n)."""
    return ((word.to(tl.int64) * n) >> 32).to(tl.int32)


@triton.jit
def next_ordered(key_low, key_high, sample_key, block, candidates, bound, BLOCK: tl.constexpr):
    """The smallest (word, index), as word << 31 | index, that is at least `bound`."""
    best = bound * 0 + BEYOND
    for base in range(0, candidates, BLOCK):
        index = base + tl.arange(0, BLOCK)
        ordered = (words_of(key_low, key_high, sample_key, index, block) << 31) | index
        ordered = tl.where((index < candidates) & (ordered >= bound), ordered, BEYOND)
        best = tl.minimum(best, tl.min(ordered, axis=0))
    return best


@triton.jit
def next_start(key_low, key_high, sample_key, candidates, after, last, n, BLOCK: tl.constexpr):
    """The first candidate past `after` whose (word, index) is at most `last`; n where there is none."""
    best = n
    for base in range(0, candidates, BLOCK):
        index = base + tl.arange(0, BLOCK)
        ordered = (words_of(key_low, key_high, sample_key, index, 0) << 31) | index
        start = tl.where((index < candidates) & (index > after) & (ordered <= last), index, n)
        best = tl.minimum(best, tl.min(start, axis=0))
    return best


@triton.jit
def write_segment(source, first, begin, end, targets_end, shift, reading, BLOCK: tl.constexpr):
    """Rows [begin, end) of a sample: targets up to `targets_end`, which read `shift` rows on where `reading`;
    themselves after it."""
    for base in range(begin, end, BLOCK):
        row = base + tl.arange(0, BLOCK)
        target = tl.where(reading, -2 - (first + row + shift), -1)
        tl.store(source + first + row, tl.where(row < targets_end, target, first + row), mask=row < end)


@triton.jit(do_not_specialize=SIZES)
def choose_rows(
    offsets, sample_keys, rng, selected, source, counts, samples, rows, purpose, site, numerator, denominator, length,
    KIND: tl.constexpr, DICE: tl.constexpr, ORIGINAL: tl.constexpr, SELECT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    sample = tl.program_id(0)
    inside = sample < samples
    first = tl.load(offsets + sample)
    n = tl.load(offsets + sample + 1, mask=inside, other=rows) - first
    sample_key = tl.load(sample_keys + sample, mask=inside, other=0)
    masked = inside & (n > 0)
    if SELECT:
        masked = masked & (tl.load(selected + sample, mask=inside, other=0) != 0)
    key_low, key_high = stream_key(rng, purpose, site)
    w0, w1, w2, w3 = draw(key_low, key_high, sample_key, sample * 0, 2)
    targets = n * 0
    single = below(w0, n)
    span = n * 0 + 1
    done = n < 0
    if KIND == INDEPENDENT:
        if masked:
            threshold = (numerator.to(tl.int64) << 32) // denominator
            for base in range(0, n, BLOCK):
                row = base + tl.arange(0, BLOCK)
                chosen = (words_of(key_low, key_high, sample_key, row, 0) < threshold) & (row < n)
                tl.store(source + first + row, tl.where(chosen, -1, first + row), mask=row < n)
                targets += tl.sum(chosen.to(tl.int32), axis=0)
            done = targets > 0
    elif KIND == SINGLE_SPAN:
        wanted = (n.to(tl.int64) * numerator // denominator).to(tl.int32)
        starts = n - wanted + (0 if ORIGINAL else 1)
        if (wanted > 0) & (starts > 0):
            single = below(w0, starts)
            span = wanted
    else:
        if KIND == MIXED:
            numerator = 1 + below(w2, 9)
            denominator = 10
            length = 1 + below(w3, length)
        candidates = n - length + (-1 if ORIGINAL else 1)
        spans = tl.minimum(
            n.to(tl.int64) * numerator // (length.to(tl.int64) * denominator), candidates.to(tl.int64)
        ).to(tl.int32)
        reading = done
        if DICE:
            dice = w1.to(tl.int64)
            reading = dice >= EIGHT_TENTHS
            spans = tl.where(dice >= NINE_TENTHS, 0, spans)
        if masked & (spans > 0):
            last = sample_key * 0 - 1
            for _ in range(0, spans):
                last = next_ordered(key_low, key_high, sample_key, 0, candidates, last + 1, BLOCK)
            start = next_start(key_low, key_high, sample_key, candidates, -1, last, n, BLOCK)
            write_segment(source, first, 0, start, 0, 0, False, BLOCK)
            replacing = sample_key * 0 - 1
            for _ in range(0, spans):
                following = next_start(key_low, key_high, sample_key, candidates, start, last, n, BLOCK)
                shift = n * 0
                if reading:
                    replacing = next_ordered(key_low, key_high, sample_key, 1, candidates, replacing + 1, BLOCK)
                    shift = (replacing & 0x7FFFFFFF).to(tl.int32) - start
                end = tl.minimum(start + length, following)
                write_segment(source, first, start, following, end, shift, reading, BLOCK)
                targets += end - start
                start = following
            done = targets > 0
    if masked & (targets == 0):
        write_segment(source, first, 0, single, 0, 0, False, BLOCK)
        write_segment(source, first, single, n, single + span, 0, False, BLOCK)
        targets = span
    if masked == 0:
        write_segment(source, first, 0, n, 0, 0, False, BLOCK)
    tl.store(counts + sample, targets, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def list_targets(offsets, source, counts, indices, count, overflow, samples, capacity, BLOCK: tl.constexpr):
    sample = tl.program_id(0)
    before = sample * 0
    total = sample * 0
    for base in range(0, samples, BLOCK):
        other = base + tl.arange(0, BLOCK)
        targets = tl.load(counts + other, mask=other < samples, other=0)
        total += tl.sum(targets, axis=0)
        before += tl.sum(tl.where(other < sample, targets, 0), axis=0)
    for base in range(total + sample * BLOCK, capacity, (samples + 1) * BLOCK):
        slot = base + tl.arange(0, BLOCK)
        tl.store(indices + slot, slot * 0, mask=slot < capacity)
    if sample == samples:
        tl.store(count, total)
        tl.store(overflow, (total > capacity).to(tl.int32))
    else:
        first = tl.load(offsets + sample)
        end = tl.load(offsets + sample + 1)
        for base in range(first, end, BLOCK):
            row = base + tl.arange(0, BLOCK)
            read = tl.load(source + row, mask=row < end, other=0)
            target = (read < 0).to(tl.int32)
            slot = before + tl.cumsum(target, axis=0) - 1
            tl.store(indices + slot, row, mask=(target > 0) & (slot < capacity))
            tl.store(source + row, -2 - read, mask=(row < end) & (read < -1))
            before += tl.sum(target, axis=0)


def span_mask(
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    selected: Tensor | None,
    rows: int,
    capacity: int,
    p,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the raw operator returns: (source, indices, count, overflow). p: `memofast.ops.span_mask.SpanParameters`."""
    samples = sample_keys.numel()
    source, indices, count, overflow, counts = (
        torch.empty(size, dtype=torch.int32, device=offsets.device) for size in (rows, capacity, 1, 1, samples)
    )
    with torch.cuda.device_of(offsets):
        choose_rows[(samples + 1,)](
            offsets, sample_keys, rng, sample_keys if selected is None else selected.view(torch.uint8), source, counts,
            samples, rows, p.purpose, p.site, p.numerator, p.denominator, p.length,
            KIND=p.kind, DICE=bool(p.dice), ORIGINAL=bool(p.original), SELECT=selected is not None,
            BLOCK=64, num_warps=1,
        )  # fmt: skip
        list_targets[(samples + 1,)](
            offsets, source, counts, indices, count, overflow, samples, capacity, BLOCK=64, num_warps=1
        )
    return source, indices, count, overflow
