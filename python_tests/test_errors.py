"""What goes wrong is told in one line, whatever names hold."""

import pickle

import pytest

from memofast.errors import MemofastError, nearest


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a\nb", r"a\nb"), ("a\r\x0c\x1b[31m", r"a\r\x0c\x1b[31m"), ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("Größe \u00e9", "Größe \u00e9"), (r"C:\new", r"C:\new"),
    ],
)  # fmt: skip
def test_ends_of_lines_are_escaped(name, told):
    error = MemofastError(f"no file {name}: check the path")
    assert str(error) == f"no file {told}: check the path" and len(str(error).splitlines()) == 1
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_nearest_name_is_offered():
    assert nearest("trian", ["train", "test"]) == "; did you mean train?"
    assert nearest("x", ["train", "test"], "--") == "; there are --train, --test"
