"""Records with bytes changed, cut and added: gathered or refused, and nothing outside them is read."""

import random

import numpy as np
import pytest

from memofast import _C
from memofast.store import record

ROWS, WIDTH = 5, 7
FLOAT32, FLOAT16, INT32, INT64 = 0, 2, 3, 4


def features() -> tuple[bytes, list]:
    rows = np.arange(ROWS * WIDTH, dtype=np.float16).reshape(ROWS, WIDTH)
    whole = record.encode(ROWS, {"rows": rows, "soft_labels": np.full((ROWS, 3), 0.25, np.float32)})
    return whole, [("rows", WIDTH, 8, FLOAT32), ("soft_labels", 3, 3, FLOAT32)]


def words() -> tuple[bytes, list]:
    pieces = np.arange(ROWS, dtype=np.int32)
    columns = {"tokens": pieces, "words": pieces - 1, "label": np.array([2]), "emotions": np.ones(4, np.float32)}
    wanted = [("tokens", 1, 1, INT32), ("words", 1, 1, INT32), ("label", 0, 1, INT64), ("emotions", 0, 4, FLOAT32)]
    return record.encode(ROWS, columns), wanted


def mutated(whole: bytes, draw: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(draw.choice((1, 1, 2, 4))):
        head = min(len(data), 16 + 16 * 4)
        match draw.randrange(5):
            case 0:
                del data[draw.randrange(len(data)) :]
            case 1:
                data[draw.randrange(head)] = draw.randrange(256)
            case 2:
                data += draw.randbytes(draw.randrange(1, 40))
            case 3:  # a number of the header or of a column
                at = draw.randrange(0, max(head - 3, 1), 4)
                value = draw.choice((0, 1, ROWS, len(data), len(data) + 1, 2**31, 2**32 - 1))
                data[at : at + 4] = value.to_bytes(4, "little")
            case 4:  # a header that says what is there
                data[12:16] = len(data).to_bytes(4, "little")
        if not data:
            break
    return bytes(data)


def gathered(data: bytes, wanted: list) -> list[np.ndarray] | None:
    """What is copied out of one record, into memory of just the right size; None where it is refused."""
    kept = np.frombuffer(data, np.uint8).copy()  # where a sanitizer sees reads past it
    bytes_of = {FLOAT32: np.float32, FLOAT16: np.float16, INT32: np.int32, INT64: np.int64}
    outputs = [np.empty((ROWS if width else 1, padded), bytes_of[kind]) for _, width, padded, kind in wanted]
    numbers = [np.array([value], np.int64) for value in (kept.ctypes.data, len(data), ROWS, 0)]
    columns = [
        (record.NAMES[name], width, padded, kind, output.ctypes.data)
        for (name, width, padded, kind), output in zip(wanted, outputs, strict=True)
    ]
    bad = _C.gather_records(*(number.ctypes.data for number in numbers), 1, columns)
    assert bad in (-1, 0)
    return outputs if bad < 0 else None


@pytest.mark.parametrize("kind", [features, words])
def test_a_whole_record_is_gathered(kind):
    whole, wanted = kind()
    first, second, *_ = gathered(whole, wanted)
    if kind is features:
        assert first[:, :WIDTH].ravel().tolist() == list(range(ROWS * WIDTH)) and not first[:, WIDTH:].any()
        assert (second == 0.25).all()
    else:
        assert first.ravel().tolist() == [0, 1, 2, 3, 4] and second.ravel().tolist() == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize("kind", [features, words])
def test_damaged_records_are_gathered_or_refused(kind):
    whole, wanted = kind()
    outcomes = [gathered(mutated(whole, random.Random(number)), wanted) for number in range(400)]
    refused = sum(outcome is None for outcome in outcomes)
    assert 100 < refused < 400


def test_rows_and_widths_whose_product_wraps_are_refused():
    """2^31 rows of 2^31 values of 4 bytes are 0 bytes modulo 2^64."""
    data = bytearray(features()[0])
    data[8:12] = (2**31).to_bytes(4, "little")
    data[18:20] = FLOAT32.to_bytes(2, "little")
    data[20:32] = b"".join(value.to_bytes(4, "little") for value in (2**31, 48, 0))
    kept, out = np.frombuffer(data, np.uint8), np.zeros(4, np.float32)
    numbers = [np.array([value], np.int64) for value in (kept.ctypes.data, len(data), 2**31, 0)]
    columns = [(record.NAMES["rows"], 2**31, 2**31, FLOAT32, out.ctypes.data)]
    assert _C.gather_records(*(number.ctypes.data for number in numbers), 1, columns) == 0
