"""Masks of several modalities at once: what each mask gives alone."""

import pytest
import test_span_mask as span_cases
import test_token_mask as token_cases
import torch

from memofast.errors import DeviceError
from memofast.ops import RowsToMask, SpanPolicy, TokenPolicy, WordsToMask, masks, span_mask, token_mask
from memofast.ops.masks import faults
from memofast.ops.philox import Purpose

KEYS = (torch.arange(len(span_cases.ODD)) - 3) * 0x9E3779B97F4A7C1
RNG = span_cases.rng()


def wanted(capacity=512):
    """Words of every kind, and spans of three kinds, over the same samples; some masks leave samples out."""
    selected = torch.arange(len(KEYS)) % 3 != 1
    text = token_cases.batch(token_cases.ODD, spare=5)
    text = {name: text[name] for name in ("token_ids", "word_ids", "offsets", "emotion")}
    offsets, _ = span_cases.batch(span_cases.ODD)
    rows = int(offsets[-1]) + 3
    return [
        *(
            WordsToMask(policy=TokenPolicy(kind), site=i, capacity=capacity, **text)
            for i, kind in enumerate(token_cases.KINDS)
        ),
        RowsToMask(offsets, rows, SpanPolicy(dice=True), 7, capacity=capacity),
        RowsToMask(offsets, rows, SpanPolicy("independent"), 8, selected, capacity),
        RowsToMask(offsets, rows, SpanPolicy("mixed", length=6), 9, capacity=capacity),
    ]


def one_by_one(asked, device="cpu", **options):
    for x in asked:
        arguments = x._asdict()
        if isinstance(x, RowsToMask):
            place, policy = arguments.pop("offsets"), arguments.pop("policy")
            yield span_mask(place, KEYS.to(device), RNG.to(device), policy, **arguments, **options)
        else:
            yield token_mask(sample_keys=KEYS.to(device), rng=RNG.to(device), **arguments, **options)


def assert_same(got, expected):
    expected = list(expected)
    assert [type(x) for x in got] == [type(x) for x in expected]
    for mine, theirs in zip(got, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("backend", ["auto", "cpu", "reference"])
@pytest.mark.parametrize("capacity", [None, 7, 512])
def test_equal_masks_alone(backend, capacity, poisoned_memory):
    asked = wanted(capacity)
    got = masks(asked, KEYS, RNG, purpose=Purpose.VALIDATION_MASK, backend=backend)
    assert_same(got, one_by_one(asked, purpose=Purpose.VALIDATION_MASK))
    assert masks([], KEYS, RNG) == []


def test_refusals():
    words, *_, rows = wanted()
    with pytest.raises(ValueError, match="token_mask: sample_keys must be"):
        masks([words, rows._replace(offsets=rows.offsets.long())], KEYS.int(), RNG)
    with pytest.raises(ValueError, match=r"span_mask: offsets must be torch\.int32"):
        masks([words, rows._replace(offsets=rows.offsets.long())], KEYS, RNG)
    with pytest.raises(ValueError, match="token_mask: policy kind 'emotion_word' needs emotion"):
        masks([words._replace(policy=TokenPolicy("emotion_word"), emotion=None)], KEYS, RNG)
    with pytest.raises(ValueError, match="span_mask: backend 'cuda' needs cuda tensors"):
        masks([rows], KEYS, RNG, backend="cuda")
    with pytest.raises(ValueError, match="not one of auto, reference"):
        masks([rows], KEYS, RNG, backend="cudnn")


def test_a_fault_names_the_operands():
    with pytest.raises(DeviceError, match=r"^masks: .*\(0\.offsets \[16\] int32 on cpu\)"):
        faults.check_status("masks", -8, named=[("0.offsets", wanted()[-1].offsets)])


@pytest.mark.gpu
def test_on_a_gpu():
    asked = [type(x)(*(v.cuda() if isinstance(v, torch.Tensor) else v for v in x)) for x in wanted()]
    got = masks(asked, KEYS.cuda(), RNG.cuda())
    assert_same([type(x)(*(v.cpu() for v in x)) for x in got], one_by_one(wanted()))
    graph = torch.cuda.CUDAGraph()
    keys, rng = KEYS.cuda(), RNG.cuda()
    with torch.cuda.graph(graph):
        captured = masks(asked, keys, rng)
    rng += 1
    graph.replay()
    assert_same(captured, masks(asked, keys, rng))
