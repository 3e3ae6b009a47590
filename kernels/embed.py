"""embed in Triton: one launch per modality and direction, and sums over rows that no two programs share.

The forward pass reads every row once and writes it to its place in the joint order, with the mean and 1 / deviation of
both norms. The
backward pass takes CHUNK rows of one modality per program: it leaves the gradient of content + position + type (and,
where rows are read by `source`, of the content) row by row in fp32, and one partial of every sum over its rows. What
remains is added in a fixed order: partials by chunk, positions by sample, words and projected rows by segments of a
stable sort by id. Nothing is atomic, so every run gives the same bits. Grids depend on shapes alone: CUDA graphs can
capture all launches.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from memofast.kernels.philox import draw, lanes16, stream_key
from memofast.ops import philox
from memofast.ops.embed_operands import FeatureRows, Operands, operands_of

WIDEST = 1024  # channels
NUMBERS = ("rows", "samples", "stride", "modality", "out_rows", "chunks", "site", "threshold", "keep_scale", "eps")
PURPOSE = tl.constexpr(int(philox.Purpose.DROPOUT))
CHUNK = tl.constexpr(64)  # rows of a partial sum
SUMS = tl.constexpr(5)  # partial sums of a chunk: mask, feature_gamma, content + position + type, gamma, beta
BEYOND = tl.constexpr(2**31 - 1)


@triton.constexpr_function
def padded(width):
    """Channels of a row in registers: a power of two that whole draws cover."""
    return max(16, triton.next_power_of_2(width))


@triton.jit
def channels(WIDTH: tl.constexpr):
    """The channels of a row in registers, and which of them exist."""
    channel = tl.arange(0, padded(WIDTH))
    return channel, channel < WIDTH


@triton.jit
def load_vector(values, WIDTH: tl.constexpr):
    """[1, padded(WIDTH)] fp32, zero past the width."""
    channel, real = channels(WIDTH)
    return tl.load(values + channel, mask=real, other=0.0).to(tl.float32)[None, :]


@triton.jit
def load_rows(values, row, exists, WIDTH: tl.constexpr):
    """[ROWS, padded(WIDTH)] fp32, zero where a row does not exist and past the width."""
    channel, real = channels(WIDTH)
    place = row.to(tl.int64)[:, None] * WIDTH + channel[None, :]
    return tl.load(values + place, mask=exists[:, None] & real[None, :], other=0.0).to(tl.float32)


@triton.jit
def store_rows(target, row, exists, values, WIDTH: tl.constexpr):
    """Write rows in the type of the tensor."""
    channel, real = channels(WIDTH)
    place = row.to(tl.int64)[:, None] * WIDTH + channel[None, :]
    tl.store(target + place, values.to(target.dtype.element_ty), mask=exists[:, None] & real[None, :])


@triton.jit
def sample_of(row, offsets, samples, stride):
    """The sample of each row, `samples` past the last one; `stride` is the largest power of two up to `samples`, or
    0."""
    sample = row * 0
    while stride > 0:
        later = sample + stride
        first = tl.load(offsets + later, mask=later <= samples, other=BEYOND)
        sample = tl.where(first <= row, later, sample)
        stride = stride // 2
    return sample


@triton.jit
def rows_within(offsets, sample, inside):
    """How many rows of a modality each sample has."""
    first = tl.load(offsets + sample, mask=inside, other=0)
    return tl.load(offsets + sample + 1, mask=inside, other=0) - first


@triton.jit
def places_of(row, own_offsets, offsets, earlier, earliest, samples, stride):
    """Of rows of a modality: their sample, whether there is one, their position in the modality, in the joint sample
    and in the batch."""
    sample = sample_of(row, own_offsets, samples, stride)
    inside = sample < samples
    position = row - tl.load(own_offsets + sample)
    joint = position
    if earlier is not None:
        joint += rows_within(earlier, sample, inside)
    if earliest is not None:
        joint += rows_within(earliest, sample, inside)
    return sample, inside, position, joint, tl.load(offsets + sample) + joint


@triton.jit
def contents_of(row, inside, index, content, mask, WIDTH: tl.constexpr):
    """The word, projected row or mask vector of each row, and which rows are masked."""
    read = row
    if index is not None:
        read = tl.load(index + row, mask=inside, other=0)
    masked = inside & (read < 0)
    values = load_rows(content, read, inside & (read >= 0), WIDTH)
    if mask is not None:
        values = tl.where(masked[:, None], load_vector(mask, WIDTH), values)
    return values, masked


@triton.jit
def normed(x, eps, WIDTH: tl.constexpr):
    """Normalised rows, their mean and 1 / deviation; x is zero past the width."""
    _, real = channels(WIDTH)
    mean = tl.sum(x, axis=1) / WIDTH
    centred = tl.where(real[None, :], x - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / WIDTH + eps)
    return centred * rstd[:, None], mean, rstd


@triton.jit
def normed_again(x, statistics, inside, WIDTH: tl.constexpr):
    """Normalised rows from what the forward pass kept, and their 1 / deviation; zero past the width."""
    _, real = channels(WIDTH)
    mean = tl.load(statistics, mask=inside, other=0.0)
    rstd = tl.load(statistics + 1, mask=inside, other=0.0)
    return tl.where(real[None, :], (x - mean[:, None]) * rstd[:, None], 0.0), rstd


@triton.jit
def norm_gradient(grad, x, rstd, WIDTH: tl.constexpr):
    """The gradient of a norm's input from that of its normalised rows x."""
    _, real = channels(WIDTH)
    mean = tl.sum(grad, axis=1) / WIDTH
    slope = tl.sum(grad * x, axis=1) / WIDTH
    return tl.where(real[None, :], rstd[:, None] * (grad - mean[:, None] - x * slope[:, None]), 0.0)


@triton.jit
def dropout_of(rng, sample_keys, site, threshold, keep_scale, DROPOUT: tl.constexpr):
    """What keep factors depend on; None where nothing is dropped."""
    if DROPOUT:
        key_low, key_high = stream_key(rng, PURPOSE, site)
        return key_low, key_high, sample_keys, threshold, keep_scale
    # a `return None` is not compiled by Triton 3.6


@triton.jit
def dropped(x, dropout, sample, inside, joint, WIDTH: tl.constexpr):
    """x times 0 or the keep scale. Layout: `hidden_keep_mask`."""
    if dropout is None:
        return x
    else:
        key_low, key_high, sample_keys, threshold, keep_scale = dropout
        sample_key = tl.load(sample_keys + sample, mask=inside, other=0)
        block = tl.arange(0, padded(WIDTH) // 8)
        w0, w1, w2, w3 = draw(key_low, key_high, sample_key[:, None], joint[:, None], block[None, :])
        return x * tl.where(lanes16(w0, w1, w2, w3) >= threshold, keep_scale, 0.0)


@triton.jit
def clear(out, statistics, row, past, WIDTH: tl.constexpr):
    """Write zero to rows and their statistics."""
    store_rows(out, row, past, tl.zeros((row.shape[0], padded(WIDTH)), tl.float32), WIDTH)
    place = row.to(tl.int64)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(statistics + place, tl.zeros((row.shape[0], 4), tl.float32), mask=past[:, None])


@triton.jit(do_not_specialize=NUMBERS)
def forward_rows(
    index, own_offsets, content, mask, position, feature_gamma, feature_beta, gamma, beta, types,
    offsets, earlier, earliest, rng, sample_keys, out, statistics, out_rows,
    rows, samples, stride, modality, site, threshold, keep_scale, eps,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Rows of one modality to out [out_rows, WIDTH] and statistics [out_rows, 4]; text also clears the rows past the
    last sample."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sample, inside, place, in_sample, joint = places_of(row, own_offsets, offsets, earlier, earliest, samples, stride)
    inside = inside & (row < rows)
    dropout = dropout_of(rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    x, _ = contents_of(row, inside, index, content, mask, WIDTH)
    kept = statistics + joint.to(tl.int64) * 4
    inner_mean = tl.zeros((ROWS,), tl.float32)
    inner_rstd = inner_mean
    if feature_gamma is not None:
        x, inner_mean, inner_rstd = normed(x, eps, WIDTH)
        x = x * load_vector(feature_gamma, WIDTH) + load_vector(feature_beta, WIDTH)
    x += load_rows(position, place, inside, WIDTH) + load_vector(types + modality * WIDTH, WIDTH)
    x, mean, rstd = normed(x, eps, WIDTH)
    x = x * load_vector(gamma, WIDTH) + load_vector(beta, WIDTH)
    tl.store(kept, mean, mask=inside)
    tl.store(kept + 1, rstd, mask=inside)
    tl.store(kept + 2, inner_mean, mask=inside)
    tl.store(kept + 3, inner_rstd, mask=inside)
    store_rows(out, joint, inside, dropped(x, dropout, sample, inside, in_sample, WIDTH), WIDTH)
    if modality == 0:
        past = (row >= tl.load(offsets + samples)) & (row < out_rows)
        clear(out, statistics, row, past, WIDTH)


@triton.jit
def store_sum(partials, number, values, WIDTH: tl.constexpr):
    """Write the sum of a chunk's rows [ROWS, padded(WIDTH)]."""
    channel, real = channels(WIDTH)
    place = (tl.program_id(0).to(tl.int64) * SUMS + number) * WIDTH + channel
    tl.store(partials + place, tl.sum(values, axis=0), mask=real)


@triton.jit(do_not_specialize=NUMBERS)
def backward_rows(
    index, own_offsets, content, mask, position, feature_gamma, feature_beta, gamma, beta, types,
    offsets, earlier, earliest, rng, sample_keys, grad, statistics, grad_total, grad_content, partials,
    rows, samples, stride, modality, site, threshold, keep_scale,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """grad of the joint rows to grad_total [rows, WIDTH] fp32, of content + position + type; to grad_content [rows,
    WIDTH], of the row that each row read (zero outside every sample; text has none: it is the total); and to partials
    [chunks, SUMS, WIDTH] fp32."""
    dropout = dropout_of(rng, sample_keys, site, threshold, keep_scale, DROPOUT)
    own_type = load_vector(types + modality * WIDTH, WIDTH)
    outer_gamma = load_vector(gamma, WIDTH)
    mask_sum = tl.zeros((ROWS, padded(WIDTH)), tl.float32)
    feature_gamma_sum, total_sum, gamma_sum, beta_sum = mask_sum, mask_sum, mask_sum, mask_sum
    first = tl.program_id(0) * CHUNK
    for begin in range(first, first + CHUNK, ROWS):
        row = begin + tl.arange(0, ROWS)
        sample, inside, place, in_sample, joint = places_of(
            row, own_offsets, offsets, earlier, earliest, samples, stride
        )
        inside = inside & (row < rows)
        known = statistics + joint.to(tl.int64) * 4
        x, masked = contents_of(row, inside, index, content, mask, WIDTH)
        feature, feature_rstd = x, x
        if feature_gamma is not None:
            feature, feature_rstd = normed_again(x, known + 2, inside, WIDTH)
            x = feature * load_vector(feature_gamma, WIDTH) + load_vector(feature_beta, WIDTH)
        x += load_rows(position, place, inside, WIDTH) + own_type
        x, rstd = normed_again(x, known, inside, WIDTH)
        d = dropped(load_rows(grad, joint, inside, WIDTH), dropout, sample, inside, in_sample, WIDTH)
        gamma_sum += d * x
        beta_sum += d
        d = norm_gradient(d * outer_gamma, x, rstd, WIDTH)
        total_sum += d
        store_rows(grad_total, row, inside, d, WIDTH)
        if feature_gamma is not None:
            feature_gamma_sum += d * feature
            d = norm_gradient(d * load_vector(feature_gamma, WIDTH), feature, feature_rstd, WIDTH)
            mask_sum += tl.where(masked[:, None], d, 0.0)
            store_rows(grad_content, row, row < rows, d, WIDTH)
    store_sum(partials, 0, mask_sum, WIDTH)
    store_sum(partials, 1, feature_gamma_sum, WIDTH)
    store_sum(partials, 2, total_sum, WIDTH)
    store_sum(partials, 3, gamma_sum, WIDTH)
    store_sum(partials, 4, beta_sum, WIDTH)


@triton.jit
def listed(values, row, exists, column, WIDTH: tl.constexpr):
    """Some columns of listed rows, [rows, columns], zero where a row does not exist."""
    place = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    return tl.load(values + place, mask=exists[:, None] & (column < WIDTH)[None, :], other=0.0)


@triton.jit(do_not_specialize=NUMBERS)
def add_chunks(partials, sums, chunks, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Every column of partials [chunks, WIDTH] fp32 added up: sums [WIDTH] fp32."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, chunks, ROWS):
        chunk = begin + tl.arange(0, ROWS)
        total += listed(partials, chunk, chunk < chunks, column, WIDTH)
    tl.store(sums + column, tl.sum(total, axis=0), mask=column < WIDTH)


@triton.jit(do_not_specialize=NUMBERS)
def add_positions(totals, own_offsets, grad, samples, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """grad [positions, WIDTH] fp32 of a position table: the rows at each position, sample by sample."""
    position = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, samples, ROWS):
        sample = begin + tl.arange(0, ROWS)
        row = tl.load(own_offsets + sample, mask=sample < samples, other=0) + position
        end = tl.load(own_offsets + sample + 1, mask=sample < samples, other=0)
        total += listed(totals, row, row < end, column, WIDTH)
    place = grad + position.to(tl.int64) * WIDTH + column
    tl.store(place, tl.sum(total, axis=0), mask=column < WIDTH)


@triton.jit(do_not_specialize=NUMBERS)
def add_segments(
    values, ids, order, own_offsets, grad, rows, samples, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Adds up the rows of each run of equal ids, in the order of a stable sort, and writes row `id` of grad [any,
    WIDTH].

    ids [rows] int32 sorted; order [rows] int64, where they stood. The program of a run's first place adds all of it.
    Negative ids and
    rows outside every sample are left out: these stand last in their run, as the sort is stable.
    """
    place = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    end = tl.load(own_offsets + samples)
    own = tl.load(ids + place)
    before = tl.load(ids + place - 1, mask=place > 0, other=-1)
    if (own >= 0) & (own != before) & (tl.load(order + place) < end):
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        found = place * 0 + ROWS
        begin = place
        while found == ROWS:
            at = begin + tl.arange(0, ROWS)
            row = tl.load(order + at, mask=at < rows, other=BEYOND)
            same = (tl.load(ids + at, mask=at < rows, other=-1) == own) & (row < end)
            total += listed(values, row, same, column, WIDTH)
            found = tl.sum(same.to(tl.int32), axis=0)
            begin += ROWS
        target = grad + own.to(tl.int64) * WIDTH + column
        tl.store(target, tl.sum(total, axis=0).to(grad.dtype.element_ty), mask=column < WIDTH)


GATHER = {"ROWS": 16, "COLUMNS": 128, "num_warps": 4}
NARROW = {"ROWS": 64, "COLUMNS": 32, "num_warps": 4}


def tile(width: int, backward: bool) -> dict:
    """Rows of a block, and warps of a program: as many rows as registers hold, which the sums of the backward pass
    share."""
    return {"ROWS": min(16, 2048 // padded(width)), "num_warps": 8 if backward else 4}


class Launch(NamedTuple):
    """What the launches of one call share: operands, and the arguments that do not differ between modalities."""

    operands: Operands
    shared: dict

    @classmethod
    def of(cls, tensors: tuple, p: float, site: int) -> "Launch":
        operands = operands_of(tensors)
        width, samples = operands.types.shape[1], operands.offsets.shape[0] - 1
        if width > WIDEST:
            raise ValueError(f"embed: backend 'triton' takes at most {WIDEST} channels, got {width}")
        shared = {
            "types": operands.types,
            "offsets": operands.offsets,
            "rng": operands.rng if p > 0 else None,
            "sample_keys": operands.sample_keys if p > 0 else None,
            "samples": samples,
            "stride": 1 << samples.bit_length() >> 1,
            "site": site,
            "threshold": philox.drop_threshold(p),
            "keep_scale": philox.keep_scale(p),
            "WIDTH": width,
            "DROPOUT": p > 0,
        }
        return cls(operands, shared)

    def modalities(self):
        """Number and operands of the modalities given."""
        return ((number, own) for number, own in enumerate(self.operands.modalities) if own is not None)

    def rows(self, kernel, programs: int, number: int, **others) -> None:
        """Run a kernel over the rows of one modality."""
        own = self.operands.modalities[number]
        earlier, earliest, *_ = [*(m.offsets for m in self.operands.modalities[:number] if m is not None), None, None]
        is_feature = isinstance(own, FeatureRows)
        kernel[(programs,)](
            index=own.source if is_feature else own.token_ids,
            own_offsets=own.offsets,
            content=own[0] if is_feature else own.word,
            mask=own.mask if is_feature else None,
            position=own.position,
            feature_gamma=own.feature_gamma if is_feature else None,
            feature_beta=own.feature_beta if is_feature else None,
            gamma=own.gamma,
            beta=own.beta,
            earlier=earlier,
            earliest=earliest,
            modality=number,
            rows=own[0].shape[0],
            **self.shared,
            **others,
            **tile(self.shared["WIDTH"], kernel is backward_rows),
        )


def forward(tensors: tuple, rows: int, p: float, eps: float, site: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(out, statistics) of the raw operator."""
    launch = Launch.of(tensors, p, site)
    types = launch.operands.types
    out = torch.empty((rows, types.shape[1]), dtype=dtype, device=types.device)
    statistics = torch.empty((rows, 4), dtype=torch.float32, device=types.device)
    results = {"out": out, "statistics": statistics, "out_rows": rows, "eps": eps}
    with torch.cuda.device_of(types):
        for number, own in launch.modalities():
            most = max(own[0].shape[0], rows if number == 0 else 0)
            if programs := triton.cdiv(most, tile(types.shape[1], False)["ROWS"]):
                launch.rows(forward_rows, programs, number, **results)
    return out, statistics


def backward(grad: Tensor, statistics: Tensor, tensors: tuple, p: float, site: int) -> tuple[Tensor, ...]:
    """Gradients of the word table and of the projected rows, and the sums over rows, as `embed_operands.sum_rows`
    orders them."""
    launch = Launch.of(tensors, p, site)
    types = launch.operands.types
    vectors = torch.zeros((3, SUMS.value, types.shape[1]), dtype=torch.float32, device=types.device)
    contents, positions = [torch.empty(0, dtype=torch.float32, device=types.device) for _ in range(3)], []
    with torch.cuda.device_of(types):
        for number, _ in launch.modalities():
            contents[number], position = modality_backward(launch, number, grad, statistics, vectors[number])
            positions.append(position)
    text, visual, speech = vectors
    return *contents, torch.cat((*positions, vectors[:, 2], text[3:], visual, speech))


def modality_backward(
    launch: Launch, number: int, grad: Tensor, statistics: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of a modality's contents and position table; its other sums over rows are written into `vectors` [SUMS,
    C]."""
    own, samples = launch.operands.modalities[number], launch.shared["samples"]
    ids, content = (own.source, own.projected) if isinstance(own, FeatureRows) else (own.token_ids, own.word)
    grad_position = torch.zeros_like(own.position, dtype=torch.float32)
    grad_content = torch.empty_like(content) if ids is None else torch.zeros_like(content)
    rows, width = own[0].shape[0], own.position.shape[1]
    if not rows:
        return grad_content, grad_position
    totals = torch.empty((rows, width), dtype=torch.float32, device=grad.device)
    read = grad_content if ids is None else torch.empty_like(totals) if number else totals
    chunks = triton.cdiv(rows, CHUNK.value)
    partials = torch.empty((chunks, SUMS.value * width), dtype=torch.float32, device=grad.device)
    results = {"grad_total": totals, "grad_content": read, "partials": partials}
    launch.rows(backward_rows, chunks, number, grad=grad, statistics=statistics, **results)
    summed = partials.shape[1]
    add_chunks[(triton.cdiv(summed, NARROW["COLUMNS"]),)](partials, vectors, chunks, WIDTH=summed, **NARROW)
    columns = triton.cdiv(width, GATHER["COLUMNS"])
    if own.position.shape[0]:
        grid = (own.position.shape[0], columns)
        add_positions[grid](totals, own.offsets, grad_position, samples, WIDTH=width, **GATHER)
    if ids is not None:
        ids, order = torch.sort(ids, stable=True)
        add_segments[(rows, columns)](read, ids, order, own.offsets, grad_content, rows, samples, WIDTH=width, **GATHER)
    return grad_content, grad_position
