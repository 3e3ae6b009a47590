"""Records that somebody damaged or made up: one phrase each, before memory is taken."""

import tracemalloc

import lz4.frame
import msgpack
import numpy as np
import pytest
from legacy_databases import framed, packed

from memofast.legacy.values import Damaged, array, integer, row, text, unframe, unpack

HALF = np.arange(6, dtype=np.float16).reshape(2, 3)


def made(**changed) -> dict:
    """The dict of an array, some of it changed; None: left out."""
    found = packed(HALF) | {name.encode(): value for name, value in changed.items()}
    return {name: value for name, value in unpacked(found).items() if value is not None}


def unpacked(value):
    return msgpack.unpackb(msgpack.packb(value), raw=True, strict_map_key=False)


def test_arrays_come_out_as_they_went_in():
    for values in (HALF, HALF[:0], np.array(3), np.array([[True, False]]), np.arange(3, dtype=">f4"), np.float32(0.1)):
        found = array(unpacked(packed(values)))
        assert found.dtype == values.dtype and found.shape == values.shape
        assert found.tobytes() == values.tobytes()
    assert array(made(type="|b1", data=b"\x02\x00\xff\x01\x00\x00")).tolist() == [
        [True, False, True],
        [True, False, False],
    ]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"type": "|O"}, "not of numbers"),
        ({"type": "O", "kind": b"O"}, "not of numbers"),
        ({"kind": b"V"}, "not of numbers"),
        ({"type": [["a", "<f4"]]}, "not of numbers"),
        ({"type": "<f2\n"}, "not of numbers"),
        ({"type": "<f3"}, "not of numbers"),
        ({"type": "<M8[s]"}, "not of numbers"),
        ({"type": None}, "not of numbers"),
        ({"type": 7}, "not of numbers"),
        ({"shape": [3, 3]}, "not that of their bytes"),
        ({"shape": [-2, -3]}, "without a shape"),
        ({"shape": [2.0, 3]}, "without a shape"),
        ({"shape": [True, 6]}, "without a shape"),
        ({"shape": "23"}, "without a shape"),
        ({"shape": [1] * 9}, "without a shape"),
        ({"shape": None}, "without a shape"),
        ({"shape": [0, 1 << 40], "data": b""}, "not that of their bytes"),
        ({"shape": [1 << 62, 1 << 62]}, "not that of their bytes"),
        ({"data": "text" * 3}, None),  # bytes as well, as older msgpack writes them
        ({"data": [0] * 12}, "no arrays"),
        ({"data": None}, "no arrays"),
        ({"nd": None}, "no arrays"),
    ],
)
def test_what_is_no_array_of_numbers(changed, why):
    if why is None:
        assert array(made(**changed)).shape == (2, 3)
        return
    with pytest.raises(Damaged, match=why):
        array(made(**changed))


def test_numbers_in_every_coat():
    for value in (3, b"3", packed(np.array(3)), packed(np.array([[3]], np.int16)), packed(np.uint8(3))):
        assert integer(unpacked(value)) == 3
    for wrong in (
        3.0,
        True,
        None,
        b"three",
        b"\xff",
        [3],
        packed(np.float32(3)),
        packed(np.arange(2)),
        1 << 40,
        b"9" * 30,
    ):
        with pytest.raises(Damaged, match="no whole ones"):
            integer(unpacked(wrong))
    for value in ([0.25, 0.75], packed(np.array([[0.25, 0.75]])), [packed(np.float32(0.25)), packed(np.array([0.75]))]):
        assert row(unpacked(value)).tolist() == [0.25, 0.75] and row(unpacked(value)).dtype == np.float32
    for wrong in (packed(np.array(0.5)), [], [[0.5]], [True], ["a"], packed(np.zeros((2, 2))), [1e300]):
        with pytest.raises(Damaged):
            row(unpacked(wrong))
    with pytest.raises(Damaged, match="not finite"):
        row(unpacked(packed(np.array([1.0, np.nan]))))
    with pytest.raises(Damaged, match="no text"):
        text(b"\xff\xfe")


def test_frames_that_are_cut_damaged_or_bombs():
    whole = framed({"a": 1})
    assert unpack(unframe(whole)) == {"a": 1}
    for wrong, why in (
        (b"", "cut short"), (whole[:-6], "cut short"), (whole[:3], "cut short"), (b"junk" * 9, "no lz4"),
        (whole + b"more", "bytes after"), (bytes(5 << 20), "over 4 MiB"),
    ):  # fmt: skip
        with pytest.raises(Damaged, match=why):
            unframe(wrong)
    bomb = lz4.frame.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(Damaged, match="over 4 MiB"):
        unframe(bomb)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"\xc1", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x01\x02", b"\x81\x90\x01",
        b"\xc7\x05\x01abcde", b"\xdc\x40\x00" * 1000, b"\xc6\xff\xff\xff\xff", b"\x81\xa1a", b"\x81\x01\x01",
    ],
)  # fmt: skip
def test_what_is_no_msgpack(wrong):
    with pytest.raises(Damaged, match="no msgpack"):
        unpack(wrong)


def test_what_is_no_record():
    for wrong in (msgpack.packb([1, 2]), msgpack.packb(None), msgpack.packb("text")):
        with pytest.raises(Damaged, match="no msgpack of fields"):
            unpack(wrong)
    with pytest.raises(Damaged, match="names that are no text"):
        unpack(msgpack.packb({b"\xff": 1}))
