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
