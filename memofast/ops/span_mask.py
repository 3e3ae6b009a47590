"""span_mask: which feature rows (faces, speech) are masked, by independent, span, single-span or mixed-ratio policy."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memofast import _C
from memofast.ops import backends, faults, library, row_lists
from memofast.ops.philox import Purpose, below, draw, rows_of, stream_key

KINDS = {"span": 0, "independent": 1, "single_span": 2, "mixed": 3}
BACKENDS = ("reference", "cpu", "cuda", "triton")


@dataclass(frozen=True)
class SpanPolicy:
    """How the rows of one sample are chosen; n is their number. A sample with rows always gets at least one masked row.

    kind: `independent`: each row with probability `ratio`;
        `span`: K = floor(n ratio / length) distinct spans of `length` rows, which may overlap;
        `single_span`: one span of floor(n ratio) rows;
        `mixed`: as `span`, with a ratio of 1/10 .. 9/10 and a length of 1 .. `length` drawn per sample (`ratio` is not
        used). Where this chooses nothing, one uniformly random row is masked.
    ratio: (numerator, denominator), denominator at most 1000.
    length: rows of a span (`mixed`: of the longest).
    dice: of samples that got spans, 80 % are masked as above; in 10 % each span reads the rows of another span of the
    sample, and its rows are targets; in 10 % the spans are dropped and one random row is masked.
    original: the original's edge rules: spans never reach the last two rows (`single_span`: the last one).

    Source: MEmoBERT's frame, span and single-span tasks; `dice` is their form of before November 2021, after
        Mockingjay.
    """

    kind: str = "span"
    ratio: tuple[int, int] = (1, 5)
    length: int = 3
    dice: bool = False
    original: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"SpanPolicy: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        row_lists.check_ratio("SpanPolicy", "ratio", self.ratio)
        if type(self.length) is not int or not 1 <= self.length <= 2**15:
            raise ValueError(f"SpanPolicy: length must be an integer from 1 to 32768, got {self.length!r}")
        if self.dice and self.kind not in ("span", "mixed"):
            raise ValueError(f"SpanPolicy: dice belongs to spans, not to kind {self.kind!r}")

    def capacity(self, rows: int, samples: int) -> int:
        """Entries that the targets of `rows` packed rows need; only `independent` can exceed it, beyond 8 sigma."""
        share = 0.9 if self.kind == "mixed" else self.ratio[0] / self.ratio[1]
        variance = rows * share * (1 - share) if self.kind == "independent" else 0.0
        return row_lists.capacity(rows, rows * share + samples, variance)


class SpanParameters(NamedTuple):
    """A policy and which use of it, in integers, as the raw operator takes them; kernels read them by these names."""

    kind: int
    numerator: int
    denominator: int
    length: int
    dice: int
    original: int
    purpose: int
    site: int


class MaskedRows(NamedTuple):
    """Masked feature rows.

    source [rows] int32: the packed row whose feature to read, -1 for the mask vector; itself where nothing is masked.
    indices [entries] int32: target rows, ascending; unused entries are 0.
    count [1] int32: number of targets. overflow [1] int32: 1 where they are more than `indices` holds.
    """

    source: Tensor
    indices: Tensor
    count: Tensor
    overflow: Tensor


def span_mask(
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    policy: SpanPolicy,
    *,
    rows: int,
    site: int,
    purpose: Purpose = Purpose.MASK,
    selected: Tensor | None = None,
    capacity: int | None = None,
    backend: str = "auto",
) -> MaskedRows:
    """Choose the feature rows to mask; a sample's rows depend on (rng, purpose, site, its key, its length) alone.

    Args:
        offsets: [B+1] int32, first row of each sample in its modality.
        sample_keys: [B] int64. rng: [2] int64, run seed and update number.
        rows: packed rows of the modality; those past `offsets[-1]` read themselves.
        site: which use this is (objective and modality), so that uses do not share numbers.
        selected: [B] bool, samples to mask; None means all.
        capacity: entries of `indices`; None: exactly the targets on a CPU in eager mode, `policy.capacity` otherwise.
    Returns: `MaskedRows`. Bit-identical on all backends.
    Raises: `ValueError` for a wrong type, shape, device or backend.
    """
    chosen = backend_for(offsets, sample_keys, rng, selected, backend)
    if not isinstance(policy, SpanPolicy):
        raise ValueError(f"span_mask: policy must be a SpanPolicy, got {type(policy).__name__}")
    parameters = parameters_of(policy, purpose, site)
    operands = offsets, sample_keys, rng, selected, rows
    if capacity is None:
        if offsets.is_cpu and type(offsets) is Tensor and library.is_eager():
            return MaskedRows(*_run(*operands, None, parameters, chosen))
        capacity = policy.capacity(rows, sample_keys.numel())
    row_lists.check_targets("span_mask", rows, capacity)
    return MaskedRows(*_raw(*operands, capacity, [*parameters], chosen))


def backend_for(
    offsets: Tensor, sample_keys: Tensor, rng: Tensor, selected: Tensor | None, backend: str = "auto"
) -> str:
    """The backend that `span_mask` takes for these operands, which are checked."""
    if not row_lists.batch_fits(offsets, sample_keys, rng, selected):
        row_lists.check_batch("span_mask", offsets, sample_keys, rng, selected)
    automatic = backends.automatic("span_mask", offsets)
    chosen = library.resolve("span_mask", backend, automatic, BACKENDS)
    if chosen != automatic:
        library.require_device("span_mask", chosen, offsets)
    return chosen


def span_mask_reference(
    offsets: Tensor,
    sample_keys: Tensor,
    rng: Tensor,
    policy: SpanPolicy,
    *,
    rows: int,
    site: int,
    purpose: Purpose = Purpose.MASK,
    selected: Tensor | None = None,
    capacity: int | None = None,
) -> MaskedRows:
    """The specification of `span_mask`, in plain PyTorch.

    Words are draws of (rng, purpose, site, sample key) at (position, block); row j of a sample is a candidate to be
    chosen, or to start a span, by word j % 4 at (j // 4, 0), and to start a replacing span by word j % 4 at (j // 4,
    1). Of K distinct starts the candidates with the smallest (word, j) are taken. At (0, 2): word 0 is the single row,
    or the single span's start, word 1 the dice, word 2 the ratio and word 3 the length of `mixed`. In position order,
    the i-th span reads the replacing span whose (word, j) is the i-th smallest; where spans overlap, the later one
    decides.
    """
    device = offsets.device
    sample, position = rows_of(offsets, rows)
    begins = offsets.to(torch.int64)
    lengths = torch.cat((begins[1:] - begins[:-1], begins.new_zeros(1)))  # rows past the end belong to an empty sample
    keys = torch.cat((sample_keys, sample_keys.new_zeros(1)))
    key = stream_key(rng, purpose, site)
    zero = torch.zeros_like(keys)
    whole = draw(key, keys, zero, zero + 2)  # [B+1, 4]
    on = lengths > 0
    if selected is not None:
        on &= torch.cat((selected, selected.new_zeros(1)))

    def words(block: int) -> Tensor:
        quads = draw(key, keys[sample], position // 4, torch.full_like(position, block))
        return quads.gather(1, (position % 4)[:, None])[:, 0]

    row = torch.arange(rows, device=device)
    single = below(whole[:, 0], lengths)
    numerator, denominator = policy.ratio
    span = zero + policy.length
    count = zero
    replaced = zero.to(torch.bool)
    if policy.kind == "independent":
        masked = words(0) < row_lists.threshold(policy.ratio)
        count = zero.scatter_add(0, sample, masked.to(torch.int64))
    elif policy.kind == "single_span":
        span = lengths * numerator // denominator
        start = below(whole[:, 0], lengths - span + (0 if policy.original else 1))
        count = torch.where(lengths - span >= (1 if policy.original else 0), span, 0)
        masked = (position >= start[sample]) & (position < (start + span)[sample])
    else:
        if policy.kind == "mixed":
            numerator, denominator = 1 + below(whole[:, 2], 9), 10
            span = 1 + below(whole[:, 3], policy.length)
        candidates = (lengths - span + (-1 if policy.original else 1)).clamp(min=0)
        count = torch.minimum(lengths * numerator // (denominator * span), candidates)
        if policy.dice:
            replaced = (whole[:, 1] >= row_lists.threshold((8, 10))) & (whole[:, 1] < row_lists.threshold((9, 10)))
            count = torch.where(whole[:, 1] < row_lists.threshold((9, 10)), count, 0)
        rank, _ = _ranks(words(0), sample, position, candidates, begins)
        chosen = rank < count[sample]
        latest = torch.where(chosen, row, -1).cummax(0).values if rows else row
        masked = (latest >= row - position) & (row - latest < span[sample])
    masked = torch.where(count[sample] > 0, masked, position == single[sample]) & on[sample]
    source = torch.where(masked, -1, row)
    if policy.dice:
        _, by_rank = _ranks(words(1), sample, position, candidates, begins)
        before = chosen.cumsum(0) - 1
        ordinal = (
            before - torch.where(position == 0, before - chosen.to(torch.int64) + 1, 0).cummax(0).values
            if rows
            else row
        )
        begin = row - position
        reading = begin + by_rank[(begin + ordinal).clamp(0, max(rows - 1, 0))] + row - latest
        source = torch.where(masked & (replaced & (count > 0))[sample], reading, source)
    return MaskedRows(source.to(torch.int32), *row_lists.compact(masked, capacity))


def _ranks(
    words: Tensor, sample: Tensor, position: Tensor, candidates: Tensor, begins: Tensor
) -> tuple[Tensor, Tensor]:
    """Rank of each row's (word, position) among its sample's candidates, and, stored from each sample's first row on,
    the positions in rank order."""
    outside = (position >= candidates[sample]).to(torch.int64)
    order = torch.argsort((words << 31) | position, stable=True)
    order = order[torch.argsort(outside[order], stable=True)]
    order = order[torch.argsort(sample[order], stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=order.device)
    return rank - begins[sample], position[order]


def parameters_of(policy: SpanPolicy, purpose: int, site: int) -> SpanParameters:
    """Policy, purpose and site as the raw operator takes them."""
    numerator, denominator = policy.ratio
    return SpanParameters(
        KINDS[policy.kind], numerator, denominator, policy.length, policy.dice, policy.original, purpose, site
    )


def _policy_of(p: SpanParameters) -> SpanPolicy:
    kind = row_lists.kind_of("span_mask", KINDS, p.kind)
    return SpanPolicy(kind, (p.numerator, p.denominator), p.length, bool(p.dice), bool(p.original))


def _implementation(*arguments):
    *operands, parameters, backend = arguments
    return _run(*operands, row_lists.parameters("span_mask", SpanParameters, parameters), backend)


def _check(offsets, sample_keys, rng, selected, rows, capacity, parameters, backend) -> None:
    row_lists.check_batch("span_mask", offsets, sample_keys, rng, selected)


def _run(offsets, sample_keys, rng, selected, rows, capacity, p, backend):
    row_lists.check_targets("span_mask", rows, capacity)
    if backend in ("reference", "triton"):  # kernels in C++ check the same
        policy = _policy_of(p)
        row_lists.check_use("span_mask", offsets, rows, p.purpose, p.site)
    if backend == "reference":
        options = dict(rows=rows, site=p.site, purpose=p.purpose, selected=selected, capacity=capacity)
        return tuple(span_mask_reference(offsets, sample_keys, rng, policy, **options))
    if backend == "triton":
        from memofast.kernels import span_mask as kernels

        return kernels.span_mask(offsets, sample_keys, rng, selected, rows, capacity, p)
    source = offsets.new_empty(rows)
    operands = offsets, sample_keys, rng, selected, source, p
    if backend == "cuda":
        *listed, workspace = row_lists.list_on_cuda(sample_keys, capacity)
        status = _C.span_mask_on_cuda(*operands, *listed, workspace, library.stream(offsets))
        faults.check_status("span_mask", status, (offsets, sample_keys, rng, selected))
        return source, *listed
    found = _C.span_mask(*operands)
    if found < 0:
        faults.check_status("span_mask", found, (offsets, sample_keys, rng, selected))
    return source, *row_lists.listed(source, found, True, capacity)


def _fake(offsets, sample_keys, rng, selected, rows, capacity, parameters, backend):
    new = offsets.new_empty
    return new(rows), new(capacity), new(1), new(1)


_raw = library.define(
    "span_mask(Tensor offsets, Tensor sample_keys, Tensor rng, Tensor? selected, int rows, int capacity, int[] "
    "parameters, str backend)"
    " -> (Tensor source, Tensor indices, Tensor count, Tensor overflow)",
    _implementation,
    _fake,
    BACKENDS,
    _check,
    integer=True,
)
