import random

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import record


@pytest.fixture
def columns():
    return {
        "rows": np.arange(15, dtype=np.float16).reshape(5, 3),
        "times": np.linspace(0, 1, 5, dtype=np.float32),
        "soft_labels": np.eye(5, 8, dtype=np.float16),
    }


def test_decodes_what_was_encoded(columns):
    found = record.decode(record.encode(5, columns), "record")
    assert found.keys() == columns.keys()
    for name, values in columns.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_layout_is_fixed():
    value = record.encode(2, {"rows": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float16), "label": np.array([7])})
    assert value.hex(" ", 8) == (
        "4d46435201000200 0200000048000000"  # MFCR, version 1, 2 columns, 2 rows, 72 bytes
        " 0100020003000000 300000000c000000"  # rows: float16, width 3, at 48, 12 bytes
        " 0900040000000000 4000000008000000"  # label: int64, no rows, at 64, 8 bytes
        " 003c004000420044 0045004600000000 0700000000000000"
    )


def test_no_rows_and_no_bytes():
    value = record.encode(0, {"rows": np.zeros((0, 342), np.float16), "utf8": np.zeros(0, np.uint8)})
    found = record.decode(value, "record")
    assert found["rows"].shape == (0, 342)
    assert found["utf8"].shape == (0,)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda value: value[:-1], "truncated"),
        (lambda value: value[:10], "truncated"),
        (lambda value: b"JUNK" + value[4:], "not a memofast record"),
        (lambda value: value[:4] + b"\x02" + value[5:], "version 2"),
        (lambda value: value[:20] + b"\x04" + value[21:], "corrupt in column rows"),  # width 3 becomes 4
        (lambda value: value[:24] + b"\xff\xff" + value[26:], "corrupt in column rows"),  # offset out of the record
    ],
)
def test_unsound_record_is_refused(columns, break_it, says):
    with pytest.raises(MemofastError, match=says) as caught:
        record.decode(break_it(record.encode(5, columns)), "record 'a' of store s")
    assert str(caught.value).startswith("record 'a' of store s")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (16 + 12, 25, "corrupt in column utf8"),  # more bytes than there are
        (32 + 12, 7, "corrupt in column label"),  # not whole values
        (32, 8, "corrupt in column utf8"),  # the second column is named as the first
    ],
)
def test_column_without_rows_that_is_unsound_is_refused(place, value, says):
    whole = bytearray(record.encode(2, {"utf8": np.arange(3, dtype=np.uint8), "label": np.array([7])}))
    whole[place] = value
    if place == 32:
        whole[34] = 5  # uint8, so that bytes are whole values
    with pytest.raises(MemofastError, match=says):
        record.decode(bytes(whole), "record")


def test_damaged_records_are_refused_or_whole(columns):
    dice, whole, refused = random.Random(3), record.encode(5, columns), 0
    for _ in range(3000):
        value = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 5])):
            value[dice.randrange(70)] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])
        if dice.random() < 0.2:
            value = value[: dice.randrange(len(value))]
        try:
            assert sum(array.nbytes for array in record.decode(bytes(value), "record 'a'").values()) < len(whole)
        except MemofastError as error:
            refused += 1
            assert str(error).startswith("record 'a'") and "\n" not in str(error)
    assert 1000 < refused < 3000
