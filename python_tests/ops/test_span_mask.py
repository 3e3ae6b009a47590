import itertools
import math
from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memofast import _C
from memofast.ops import SpanPolicy, span_mask, span_mask_reference
from memofast.ops.philox import Purpose
from memofast.ops.span_mask import BACKENDS, parameters_of

DEVICES = {"reference": "cpu", "cpu": "cpu", "cuda": "cuda", "triton": "cuda"}
FAST = [
    pytest.param(name, marks=pytest.mark.gpu if DEVICES[name] == "cuda" else ())
    for name in BACKENDS
    if name != "reference"
]
ODD = [0, 1, 2, 3, 15, 16, 17, 33, 63, 100, 129, 160, 0, 64, 36]
POLICIES = [
    SpanPolicy(),
    SpanPolicy(ratio=(3, 20), length=7, original=True),
    SpanPolicy(ratio=(1, 1), length=2),
    SpanPolicy(dice=True),
    SpanPolicy(ratio=(1, 2), length=5, dice=True, original=True),
    SpanPolicy("independent", ratio=(3, 20)),
    SpanPolicy("independent", ratio=(1, 1)),
    SpanPolicy("independent", ratio=(0, 1)),
    SpanPolicy("single_span", ratio=(3, 10)),
    SpanPolicy("single_span", ratio=(1, 1)),
    SpanPolicy("single_span", ratio=(9, 10), original=True),
    SpanPolicy("mixed", length=6),
    SpanPolicy("mixed", length=5, dice=True, original=True),
]


def batch(lengths, first_key=-3):
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    keys = (torch.arange(len(lengths)) + first_key) * 0x9E3779B97F4A7C1
    return offsets, keys


def rng(seed=2**40 + 5, step=17):
    return torch.tensor([seed, step])


def run(lengths, policy, *, spare=3, site=5, **options):
    offsets, keys = batch(lengths)
    return span_mask(offsets, keys, rng(), policy, rows=sum(lengths) + spare, site=site, **options)


def per_sample(lengths, policy, **options):
    """[samples, n] bool masked and [samples, n] source within the sample, of samples of one length."""
    n = lengths[0]
    source = run(lengths, policy, spare=0, **options).source.reshape(-1, n)
    return source == -1, source - torch.arange(len(lengths))[:, None] * n


def close(rate, expected, trials):
    return (rate - expected).abs() <= 6 * (expected * (1 - expected) / trials).sqrt() + 1e-9


def assert_same(ours, theirs):
    for name, a, b in zip(ours._fields, ours, theirs, strict=True):
        assert a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()), name


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_equals_reference(backend, policy, poisoned_memory):
    offsets, keys = (tensor.to(DEVICES[backend]) for tensor in batch(ODD))
    rows = sum(ODD) + 5
    for selected in (None, torch.arange(len(ODD), device=offsets.device) % 3 != 1):
        for capacity in (None, 7, 1024):
            options = dict(
                rows=rows, site=1 << 20, purpose=Purpose.VALIDATION_MASK, selected=selected, capacity=capacity
            )
            state = rng().to(offsets.device)
            ours = span_mask(offsets, keys, state, policy, backend=backend, **options)
            if capacity is None and backend != "cpu":
                options["capacity"] = policy.capacity(rows, len(ODD))
            assert_same(ours, span_mask_reference(offsets, keys, state, policy, **options))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name == "cpu"])
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 90), max_size=12),
    kind=st.sampled_from(["span", "independent", "single_span", "mixed"]),
    ratio=st.tuples(st.integers(0, 20), st.just(20)),
    length=st.integers(1, 12),
    dice=st.booleans(),
    original=st.booleans(),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_equals_reference_anywhere(backend, lengths, kind, ratio, length, dice, original, seed):
    policy = SpanPolicy(kind, ratio, length, dice and kind in ("span", "mixed"), original)
    offsets, keys = batch(lengths, seed % 1000)
    options = dict(rows=sum(lengths), site=9)
    ours = span_mask(offsets, keys, rng(seed), policy, backend=backend, **options)
    assert_same(ours, span_mask_reference(offsets, keys, rng(seed), policy, **options))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_outputs_describe_one_another(policy):
    lengths = ODD * 20
    masked = run(lengths, policy)
    rows = torch.arange(masked.source.numel(), dtype=torch.int32)
    changed = (masked.source != rows).nonzero().flatten()
    assert torch.isin(changed, masked.indices).all()
    assert masked.count.item() == masked.indices.numel() and masked.overflow.item() == 0
    assert (masked.indices[1:] > masked.indices[:-1]).all()
    offsets, _ = batch(lengths)
    inside = (masked.indices[:, None] >= offsets[:-1]) & (masked.indices[:, None] < offsets[1:])
    assert torch.equal(inside.any(0), offsets[1:] > offsets[:-1])  # every sample with rows has a target
    read = masked.source[masked.source >= 0]
    home = torch.searchsorted(offsets[1:], rows[masked.source >= 0], right=True)
    assert torch.equal(torch.searchsorted(offsets[1:], read, right=True), home)  # nothing is read from another sample


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_sample_does_not_depend_on_its_batch(policy):
    offsets, keys = batch(ODD)
    together = span_mask(offsets, keys, rng(), policy, rows=sum(ODD), site=1).source.split(ODD)
    order = torch.randperm(len(ODD), generator=torch.Generator().manual_seed(1)).tolist()
    lengths = [ODD[i] for i in order]
    shuffled = span_mask(batch(lengths)[0], keys[order], rng(), policy, rows=sum(ODD), site=1).source.split(lengths)
    for place, i in enumerate(order):
        alone = span_mask(
            torch.tensor([0, ODD[i]], dtype=torch.int32), keys[i : i + 1], rng(), policy, rows=ODD[i], site=1
        )
        for source, first in ((together[i], offsets[i]), (shuffled[place], sum(lengths[:place]))):
            assert torch.equal(torch.where(source < 0, -1, source - first), alone.source)


def test_seed_step_purpose_and_site_each_change_the_mask():
    offsets, keys = batch([50] * 20)
    draws = [
        span_mask(offsets, keys, rng(seed, step), SpanPolicy(), rows=1000, site=site, purpose=purpose).source
        for seed, step, site, purpose in [
            (1, 1, 1, 3),
            (2, 1, 1, 3),
            (1, 2, 1, 3),
            (1, 1, 2, 3),
            (1, 1, 1, 4),
            (1 + 2**33, 1, 1, 3),
        ]
    ]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("n, ratio, length", [(36, (1, 5), 3), (64, (3, 20), 3), (20, (1, 2), 5)])
def test_span_positions_follow_their_formula(n, ratio, length, original):
    samples = 100_000
    masked, _ = per_sample([n] * samples, SpanPolicy(ratio=ratio, length=length, original=original))
    starts = n - length + (-1 if original else 1)
    spans = min(n * ratio[0] // ratio[1] // length, starts)
    row = torch.arange(n)
    covering = row.clamp(max=starts - 1) - (row - length + 1).clamp(min=0) + 1
    free = torch.tensor([math.comb(starts - max(c, 0), spans) / math.comb(starts, spans) for c in covering.tolist()])
    assert close(masked.float().mean(0), 1 - free, samples).all()
    assert masked.sum(1).max() <= spans * length and masked.sum(1).min() >= length
    if original:
        assert not masked[:, -2:].any()


@pytest.mark.parametrize(
    "n, ratio, expected", [(14, (1, 5), 1), (15, (1, 5), 3), (19, (3, 20), 1), (20, (3, 20), 3), (2, (1, 1), 1)]
)
def test_short_samples_get_one_row_and_then_one_span(n, ratio, expected):
    for original in (False, True):
        masked, _ = per_sample([n] * 5000, SpanPolicy(ratio=ratio, original=original))
        assert (masked.sum(1) == expected).all()
        if expected == 1:
            assert close(masked.float().mean(0), torch.tensor(1 / n), 5000).all()
        else:
            assert (masked.int().diff(dim=1).abs().sum(1) <= 2).all()  # one run
            assert masked[:, -1].any() == (not original)


def test_mean_masked_share_of_the_defaults():
    faces, _ = per_sample([36] * 20_000, SpanPolicy())
    speech, _ = per_sample([64] * 20_000, SpanPolicy(ratio=(3, 20)))
    assert 5.5 / 36 < faces.float().mean() <= 6 / 36
    assert 8.3 / 64 < speech.float().mean() <= 9 / 64


@pytest.mark.parametrize("n", [3, 36])
def test_independent_rows_and_their_fallback(n):
    samples, p = 100_000, 0.15
    masked, _ = per_sample([n] * samples, SpanPolicy("independent", ratio=(3, 20)))
    none = (1 - p) ** n
    assert close(masked.float().mean(0), torch.tensor(p + none / n), samples).all()
    assert close((masked.sum(1) == 1).float().mean(), torch.tensor(n * p * (1 - p) ** (n - 1) + none), samples)


@pytest.mark.parametrize("original", [False, True])
def test_single_span_has_one_length_and_uniform_starts(original):
    n, samples = 36, 50_000
    masked, _ = per_sample([n] * samples, SpanPolicy("single_span", ratio=(3, 10), original=original))
    starts = n - 10 + (0 if original else 1)
    begins = torch.bincount(masked.int().argmax(1), minlength=n) / samples
    assert (masked.sum(1) == 10).all() and (masked.int().diff(dim=1).abs().sum(1) <= 2).all()
    assert close(begins[:starts], torch.tensor(1 / starts), samples).all() and not begins[starts:].any()


def test_mixed_draws_ratio_and_length_per_sample():
    n, samples = 40, 100_000
    masked, _ = per_sample([n] * samples, SpanPolicy("mixed", length=1))
    sizes = (
        torch.bincount(masked.sum(1), minlength=n) / samples
    )  # spans of one row never overlap: floor(40 k / 10) rows
    assert close(sizes[torch.arange(4, 37, 4)], torch.tensor(1 / 9), samples).all() and sizes.sum() == sizes[4::4].sum()
    masked, _ = per_sample([10] * samples, SpanPolicy("mixed", length=6))
    one_run_of_6 = (masked.sum(1) == 6).float().mean()
    assert 0.02 < one_run_of_6 < 0.2


def test_dice_masks_replaces_or_drops():
    n, samples = 36, 100_000
    masked, source = per_sample([n] * samples, SpanPolicy(dice=True))
    row = torch.arange(n)
    replaced = ~masked.any(1)
    assert close(replaced.float().mean(), torch.tensor(0.1), samples)
    assert close((masked.sum(1) == 1).float().mean(), torch.tensor(0.1), samples)
    shift = (source - row)[replaced]
    assert ((source[replaced] >= 0) & (source[replaced] < n)).all()
    assert ((shift != 0).sum(1) <= 6).all() and ((shift != 0).sum(1) >= 3).float().mean() > 0.95
    together = run([n] * samples, SpanPolicy(dice=True), spare=0)
    assert (
        together.count.item()
        == masked.sum() + torch.isin(torch.arange(n * samples).reshape(-1, n)[replaced], together.indices).sum()
    )


def test_unselected_samples_are_left_alone():
    lengths = [40] * 50
    selected = torch.arange(50) % 2 == 0
    everything, some = run(lengths, SpanPolicy()), run(lengths, SpanPolicy(), selected=selected)
    keep = selected.repeat_interleave(40)
    rows = torch.arange(2000, dtype=torch.int32)
    assert torch.equal(some.source[:2000], torch.where(keep, everything.source[:2000], rows))
    assert torch.equal(some.indices, everything.indices[keep[everything.indices.long()]])


def test_capacity_and_overflow():
    masked = run([36] * 100, SpanPolicy(), capacity=256)
    exact = run([36] * 100, SpanPolicy())
    assert exact.count.item() > 256 and masked.count.item() == exact.count.item() and masked.overflow.item() == 1
    assert torch.equal(masked.indices, exact.indices[:256])
    assert SpanPolicy().capacity(3600, 100) == 896 and SpanPolicy("mixed").capacity(100, 100) == 128


def test_threads_do_not_change_the_mask():
    lengths = ODD * 500
    before = torch.get_num_threads()
    try:
        for policy in (SpanPolicy(dice=True), SpanPolicy("independent")):
            torch.set_num_threads(1)
            alone = run(lengths, policy)
            for threads in (2, 3):
                torch.set_num_threads(threads)
                assert_same(run(lengths, policy), alone)
    finally:
        torch.set_num_threads(before)
    offsets, keys = batch(lengths)
    reference = span_mask_reference(offsets, keys, rng(), policy, rows=sum(lengths) + 3, site=5)
    assert_same(alone, reference)


def test_empty_batch_and_no_rows():
    assert run([], SpanPolicy(), spare=0).source.shape == (0,)
    assert run([], SpanPolicy(), spare=2).source.tolist() == [0, 1]
    assert run([0, 0], SpanPolicy(dice=True), spare=0).indices.shape == (0,)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if DEVICES[name] == "cpu"])
def test_registration(backend):
    offsets, keys = batch([36, 0, 5])
    for selected in (None, torch.tensor([True, False, True])):
        parameters = [*parameters_of(SpanPolicy(dice=True), 3, 7)]
        arguments = (offsets, keys, rng(), selected, 45, 128, parameters, backend)
        torch.library.opcheck(torch.ops.memofast.span_mask.default, arguments)


def test_kernels_read_parameters_by_their_names():
    offsets, keys = batch(ODD)
    given = parameters_of(SpanPolicy("mixed", length=6, dice=True, original=True), 3, 5)
    turned = namedtuple("Turned", reversed(given._fields))(**given._asdict())
    straight, other = offsets.new_empty(sum(ODD)), offsets.new_empty(sum(ODD))
    found = _C.span_mask(offsets, keys, rng(), None, straight, given)
    assert found == _C.span_mask(offsets, keys, rng(), None, other, turned) > 0 and torch.equal(straight, other)
    less = namedtuple("Less", given._fields[:3])(*given[:3])
    with pytest.raises(AttributeError, match="purpose"):
        _C.span_mask(offsets, keys, rng(), None, other, less)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_raw_operator_refuses_what_its_kernel_cannot_read(place):
    offsets, keys = batch(ODD)
    operands = [offsets, keys, rng(), torch.ones(len(keys), dtype=torch.bool)]
    operands[place] = operands[place][:-1]
    with pytest.raises(ValueError, match=r"span_mask: \w+ must have shape \[\d+\], got"):
        torch.ops.memofast.span_mask(*operands, sum(ODD), 128, [*parameters_of(SpanPolicy(), 3, 5)], "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_a_captured_mask_follows_the_update(backend):
    offsets, keys, state = (tensor.cuda() for tensor in (*batch(ODD), rng()))
    options = dict(rows=sum(ODD), site=7, capacity=512, backend=backend)
    before = span_mask(offsets, keys, state, SpanPolicy(), **options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = span_mask(offsets, keys, state, SpanPolicy(), **options)
    state += 1
    graph.replay()
    assert_same(captured, span_mask(offsets, keys, state, SpanPolicy(), **options))
    assert not torch.equal(captured.source, before.source)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_breaks(dynamic):
    compiled = torch.compile(run_flat, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for lengths in ([36, 5, 0], [64, 20, 31, 7]):
        offsets, keys = batch(lengths)
        masked = compiled(offsets, keys, rng(), sum(lengths))
        exact = run_flat(offsets, keys, rng(), sum(lengths))
        assert torch.equal(masked.source, exact.source) and torch.equal(masked.count, exact.count)
        assert torch.equal(masked.indices[: exact.count.item()], exact.indices) and masked.indices.numel() % 128 == 0


def run_flat(offsets, keys, state, rows):
    return span_mask(offsets, keys, state, SpanPolicy("independent"), rows=rows, site=3)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(offsets=torch.tensor([0, 4])), "offsets must be torch.int32, got torch.int64"),
        (dict(offsets=torch.tensor([0, 2, 4], dtype=torch.int32)), r"offsets must have shape \[2\], got \[3\]"),
        (dict(sample_keys=torch.tensor([1.0])), "sample_keys must be torch.int64"),
        (dict(rng=torch.zeros(3, dtype=torch.int64)), r"rng must have shape \[2\]"),
        (dict(selected=torch.tensor([1])), "selected must be torch.bool"),
        (
            dict(offsets=torch.tensor([0, 5], dtype=torch.int32)),
            "offsets must start at 0, never decrease, and end within the rows given",
        ),
        (dict(offsets=torch.tensor([1, 4], dtype=torch.int32)), "offsets must start at 0"),
        (dict(backend="cuda"), "backend 'cuda' needs cuda tensors, got cpu"),
        (dict(backend="fast"), "backend 'fast' is not one of auto, reference"),
    ],
)
def test_refusals(change, message):
    arguments = dict(offsets=torch.tensor([0, 4], dtype=torch.int32), sample_keys=torch.tensor([1]), rng=rng())
    arguments |= change
    with pytest.raises(ValueError, match=message):
        span_mask(policy=SpanPolicy(), rows=4, site=0, **arguments)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(kind="spans"), "kind must be one of span, independent, single_span, mixed, got 'spans'"),
        (dict(ratio=0.2), r"ratio must be \(numerator, denominator\)"),
        (dict(ratio=(3, 2)), "ratio must be"),
        (dict(length=0), "length must be an integer from 1"),
        (dict(kind="independent", dice=True), "dice belongs to spans"),
    ],
)
def test_policy_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        SpanPolicy(**options)
