import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memofast import _C
from memofast.ops import SpanPolicy, TokenPolicy, philox, span_mask, token_mask

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
RNG = torch.tensor([0x0123456789ABCDEF, 2**33 + 7])
KEY = (0x9A4F146C, 0x9F545A9E)  # of RNG, purpose MASK, site (2, 3)
SAMPLE = -0x123456789ABCDEF


def words(*values):
    return tuple(torch.tensor(value, dtype=torch.int64) for value in values)


def test_known_answers_of_random123():
    ones, zero = 0xFFFFFFFF, 0
    cases = [
        ((zero,) * 2, (zero,) * 4, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((ones,) * 2, (ones,) * 4, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for key, counter, expected in cases:
        assert philox.philox(words(*key), words(*counter)).tolist() == expected


def test_known_stream_key():
    key = philox.stream_key(RNG, philox.Purpose.MASK, philox.site(2, 3))
    assert tuple(word.item() for word in key) == KEY


@pytest.mark.parametrize(
    "position, block, expected",
    [
        (5, 3, [0x258F72ED, 0x261F9644, 0xFD79CA2E, 0xE043FCC5]),
        (
            11 << 16 | 40,
            2,
            [0x78DB3572, 0xD84B0BF8, 0x7EAAEC9D, 0x1FC97E47],
        ),  # attention: head 11, query 40, keys 16..23
    ],
)
def test_known_draws(position, block, expected):
    draw = philox.draw(words(*KEY), torch.tensor(SAMPLE), torch.tensor(position), torch.tensor(block))
    assert draw.tolist() == expected


def test_known_lanes_and_ranges():
    draw = torch.tensor([0x258F72ED, 0x261F9644, 0xFD79CA2E, 0xE043FCC5])
    assert philox.lanes16(draw).tolist() == [29421, 9615, 38468, 9759, 51758, 64889, 64709, 57411]
    assert philox.below(draw, 30).tolist() == [4, 4, 29, 26]
    assert philox.below(draw, 2**31 - 1).tolist() == [315079030, 319802145, 2126308630, 1881276001]


def test_known_hidden_keep_mask():
    keys, offsets = torch.tensor([42, -7]), torch.tensor([0, 2, 3], dtype=torch.int32)
    keep = philox.hidden_keep_mask(RNG, philox.site(2, 3), keys, offsets, rows=4, width=20, p=0.3)
    rows = ["".join("01"[kept] for kept in row) for row in keep.tolist()]
    assert rows == ["01111111010110101100", "11001001111111110111", "11010111110101111101", "0" * 20]


OFFSETS = torch.tensor([0, 12, 12, 40], dtype=torch.int32)
KEYS = torch.tensor([3, -4, 5])


@pytest.mark.parametrize(
    "policy, expected",
    [
        (SpanPolicy(), [9, 34, 35, 36]),
        (SpanPolicy("independent"), [4, 9, 13, 16, 20, 25, 27, 34, 36]),
        (SpanPolicy("single_span"), [8, 9, 16, 17, 18, 19, 20]),
        (SpanPolicy("mixed", length=6), [3, 4, 5, 6, 7, 8, 20, 21, 25, 26, 27, 28, 34, 35, 36, 37]),
    ],
    ids=str,
)
def test_known_span_masks(policy, expected):
    masked = span_mask(OFFSETS, KEYS, RNG, policy, rows=40, site=philox.site(0, 9))
    assert masked.indices.tolist() == expected


@pytest.mark.parametrize(
    "kind, indices, seen",
    [
        ("whole_word", [4, 5, 10, 38], [103, 103, 103, 2038]),
        ("token", [2, 5, 8, 25, 28], [103, 103, 103, 2025, 103]),
        ("emotion_word", [5, 10, 15, 20, 25, 30], [103, 15555, 103, 103, 103, 103]),
        ("whole_word_emotion", [4, 5, 10, 34, 35], [103, 103, 103, 103, 103]),
    ],
)
def test_known_token_masks(kind, indices, seen):
    row = torch.arange(40, dtype=torch.int32)
    position = torch.where(row < 12, row, row - 12)
    words = torch.where(
        (position == 0) | (row == 11) | (row == 39), -1, torch.where(row < 12, position // 2, (row - 12) // 2)
    )
    emotion = torch.where(row % 5 == 0, 1, -1).int()
    masked = token_mask(
        row + 2000, words.int(), OFFSETS, KEYS, RNG, TokenPolicy(kind), site=philox.site(0, 8), emotion=emotion
    )
    assert masked.indices.tolist() == indices
    assert masked.token_ids[masked.indices.long()].tolist() == seen


@given(seed=INT64, step=INT64, purpose=st.integers(0, 255), site=UINT32, sample=INT64, position=UINT32, block=UINT32)
def test_kernels_draw_the_same_words(seed, step, purpose, site, sample, position, block):
    key = philox.stream_key(torch.tensor([seed, step]), purpose, site)
    assert _C.stream_key(seed, step, purpose, site) == tuple(word.item() for word in key)
    draw = philox.draw(key, *(torch.tensor(value) for value in (sample, position, block)))
    *ours, lanes = _C.philox(*_C.stream_key(seed, step, purpose, site), sample, position, block)
    assert ours == draw.tolist() and lanes == philox.lanes16(draw).tolist()


@given(seed=INT64, step=INT64, purpose=st.integers(0, 255), site=UINT32, samples=st.lists(INT64, max_size=5))
def test_words_of_samples_are_those_of_position_and_block_0(seed, step, purpose, site, samples):
    rng, keys = torch.tensor([seed, step]), torch.tensor(samples, dtype=torch.int64)
    zero = torch.zeros(1, dtype=torch.int64)
    words = philox.draw(philox.stream_key(rng, purpose, site), keys, zero, zero)
    strided = torch.stack((keys, keys + 1), 1)[:, 0]
    assert torch.equal(philox.sample_words(rng, purpose, site, strided), words)


@given(word=UINT32, n=st.integers(0, 2**31 - 1))
def test_kernels_take_ranges_alike(word, n):
    assert _C.below(word, n) == philox.below(torch.tensor(word), n).item()


def test_keep_scale_is_the_inverse_of_the_share_kept():
    assert philox.drop_threshold(0.1) == 6554  # 0.1 is 6553.6 of 65536
    assert philox.keep_scale(0.1) == 65536 / 58982
    assert philox.keep_scale(0.0) == 1.0
    for p, message in ((1.0, "must lie in"), (-0.1, "must lie in"), (0.999999, "keeps nothing")):
        with pytest.raises(ValueError, match=message):
            philox.keep_scale(p)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 8), (7, 13), (2, 300), (50, 32), (0, 5)])
def test_keep_factors_are_the_mask_times_its_scale(rows, width, poisoned_memory):
    keys, offsets = torch.tensor([SAMPLE, 0, 2**62]), torch.arange(4, dtype=torch.int32) * rows
    for p in (0.0, 0.3):
        keep = philox.hidden_keep_mask(RNG, 77, keys, offsets, 3 * rows, width, p).view(3, rows, width)
        factors = philox.keep_factors(RNG, 77, keys, rows, width, p)
        assert torch.equal(factors, keep * torch.tensor(philox.keep_scale(p)))


def test_keep_factors_of_wrong_operands():
    with pytest.raises(ValueError, match="must be int64 on one device"):
        philox.keep_factors(RNG.float(), 0, torch.tensor([1]), 2, 3, 0.5)
