import copyreg
import os
import pickle
import struct
import time
from collections import OrderedDict

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.prepare.sources import restricted_pickle
from memofast.prepare.sources.pickled_arrays import let_go
from memofast.prepare.sources.restricted_pickle import read_pickle


def reading(tmp_path, data: bytes):
    (tmp_path / "f.pkl").write_bytes(data)
    return read_pickle(tmp_path / "f.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_come_back(tmp_path, protocol):
    contents = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "ids": np.array(["a", None, ["b", 1]], object),
        "bytes": np.array([b"x", b"yz"]),
        "scalar": np.float64(0.5),
        "plain": [1, 2.5, "é", b"\xff", None, True, (1,), {"k"}],
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(contents, protocol))
    found = read_pickle(tmp_path / "f.pkl")
    assert found["plain"] == contents["plain"] and found["scalar"] == 0.5
    for name in ("rows", "fortran", "ids", "bytes"):
        np.testing.assert_array_equal(found[name], contents[name])
        assert found[name].dtype == contents[name].dtype


class Command:
    def __reduce__(self):
        return os.system, ("touch harmed",)


class Evaluated:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize(
    ("contents", "named"),
    [
        (Command(), r"(posix|nt)\.system"),
        (Evaluated(), r"builtins\.eval"),
        (torch.zeros(2), r"torch\._utils\._rebuild_tensor_v2"),
        (OrderedDict(a=1), r"collections\.OrderedDict"),
        (getattr, r"builtins\.getattr"),
        (np.load, r"numpy\.load"),
    ],
)
def test_anything_else_is_refused_by_name_and_not_run(tmp_path, monkeypatch, contents, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": contents}))
    with pytest.raises(MemofastError, match=f"f.pkl is refused: it asks for {named}, and only numpy") as error:
        read_pickle(tmp_path / "f.pkl")
    assert "\n" not in str(error.value) and not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("contents", [b"", b"no pickle at all", pickle.dumps(np.arange(99))[:60]])
def test_damaged_files(tmp_path, contents):
    (tmp_path / "f.pkl").write_bytes(contents)
    with pytest.raises(MemofastError, match=r"f\.pkl is (damaged or no pickle|refused)"):
        read_pickle(tmp_path / "f.pkl")
    with pytest.raises(MemofastError, match="cannot be read"):
        read_pickle(tmp_path / "none.pkl")


ARRAYS = {
    "bool": np.array([[True, False, True]]),
    **{
        kind: np.arange(-3, 3).astype(kind).reshape(3, 2)
        for kind in ("i1", "<i2", ">i4", "i8", "u1", ">u2", "u4", "u8")
    },
    **{kind: np.linspace(-1, 2, 6).astype(kind).reshape(2, 3) for kind in ("f2", "<f4", ">f4", ">f8")},
    "text": np.array([["é", "long"], ["", "\U0001f600"]]),
    "swapped text": np.array(["ab", "c"]).astype(">U2"),
    "bytes": np.array([b"x\0y", b"\xff"]),
    "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "turned": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    "empty": np.zeros((0, 5, 7), np.float32),
    "one number": np.array(7.5),
    "objects": np.array([["a", 1.5], [None, b"b"]], object),
}


@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_kind_protocol_and_numpy(tmp_path, name, protocol, core):
    data = pickle.dumps({"a": ARRAYS[name]}, protocol)
    for module in ("multiarray", "numeric"):  # as numpy 1 and 2 name it, with and without its length before it
        new, old = f"numpy._core.{module}".encode(), f"{core}.{module}".encode()
        data = data.replace(bytes([len(new)]) + new, bytes([len(old)]) + old).replace(new, old)
    found = reading(tmp_path, data)["a"]
    np.testing.assert_array_equal(found, ARRAYS[name])
    assert found.dtype == ARRAYS[name].dtype or found.dtype.newbyteorder("=") == ARRAYS[name].dtype.newbyteorder("=")
    assert found.shape == ARRAYS[name].shape


def test_strings_and_arrays_of_python_2(tmp_path):
    rows = np.array([[1.5, -2], [3, 300]], "<f8")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L2L\nI2\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    )
    quoted = b"S" + repr(rows.tobytes())[1:].encode() + b"\n"
    counted = b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes()
    for data in (quoted, counted):
        found = reading(tmp_path, b"(dS'rows'\n" + array + data + b"tbsS'text'\nU\x03\xe4\xb8\xads.")
        np.testing.assert_array_equal(found["rows"], rows)
        assert found["text"] == "中".encode()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_large_arrays_stay_in_the_file(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(restricted_pickle, "_MOST_MEMORY", 10_000)
    rows = np.arange(40_000, dtype=">f4").reshape(200, 200)
    found = reading(tmp_path, pickle.dumps({"a": rows, "b": rows.T}, protocol))
    np.testing.assert_array_equal(found["a"], rows)
    np.testing.assert_array_equal(found["b"], rows.T)
    assert let_go(found["a"]) and let_go(found["b"][3:, 5]) and not let_go(rows)
    np.testing.assert_array_equal(found["a"], rows)


@pytest.mark.parametrize(
    "contents",
    [np.zeros(40_000, np.float32), ["x"] * 1000, "x" * 20_000, "\U0001f600" + "x" * 5000, [[]] * 1000],
)
def test_memory_has_a_budget(tmp_path, monkeypatch, contents):
    monkeypatch.setattr(restricted_pickle, "_MOST_MEMORY", 10_000)
    with pytest.raises(MemofastError, match=r"f\.pkl is refused: its values take over .* protocol 4"):
        reading(tmp_path, pickle.dumps(contents, 2))


class Asks:
    """Pickled as a call of `function` on `arguments`, and a state to set where there is one."""

    def __init__(self, function, *arguments, state=None):
        self.asked = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.asked


RECONSTRUCT, SCALAR = np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]
FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]
HUGE = 1 << 40


def array(shape, dtype, data, function=RECONSTRUCT):
    return Asks(function, np.ndarray, (0,), b"b", state=(1, shape, dtype, False, data))


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (Asks(np.dtype, "M8[Y/0]"), r"the dtype 'M8\[Y/0\]'"),
        (Asks(np.dtype, "i4, ("), "the dtype 'i4, "),
        (Asks(np.dtype, "c8"), "the dtype 'c8'"),
        (Asks(np.dtype, "V16"), "the dtype 'V16'"),
        (Asks(np.dtype, "f16"), "'f16', which has no such size"),
        (Asks(np.dtype, "U0"), "'U0', which has no such size"),
        (Asks(np.dtype, [("a", "f4")]), "a dtype without a name"),
        (Asks(np.dtype, "f4", state=(3, "<", None, ("a",), {}, 4, 4, 0)), "fields, parts or metadata"),
        (Asks(np.dtype, "f4", state=(3, "?", None, None, None, -1, -1, 0)), "contradict one another"),
        (Asks(np.dtype, "U2", state=(3, "<", None, None, None, 800, 4, 8)), "contradict one another"),
        (
            array((2,), Asks(np.dtype, "O8", state=(3, "|", None, None, None, -1, -1, 0)), b"C" * 16),
            "2 objects without",
        ),
        (Asks(SCALAR, Asks(np.dtype, "f8"), b"C" * 7), r"shape \[\] and 8 bytes an element, with 7 bytes"),
        (array((2, 3), np.dtype("f4"), b"C" * 20), r"shape \[2, 3\] and 4 bytes an element, with 20 bytes"),
        (array((HUGE, 2), np.dtype("f4"), b"C" * 20), "larger than any file"),
        (array((0, HUGE, 2), np.dtype("f4"), b""), "larger than any file"),
        (array((-1,), np.dtype("f4"), b"C" * 20), "whose shape is no row"),
        (array((1,) * 40, np.dtype("i1"), b"C"), "whose shape is no row"),
        (array((1,), np.dtype("U1"), b"CCCC"), "characters that do not exist"),
        (array((1,), np.dtype(">U1"), b"\x00\x11\x00\x00"), "characters that do not exist"),
        (Asks(FROM_BUFFER, b"C" * 8, np.dtype("f8"), (1,), "K", (1,)), "an order that does not exist"),
        (Asks(FROM_BUFFER, b"C" * 8, np.dtype("O"), (1,), "C"), "objects without their list"),
        (Asks(np.ndarray, (HUGE,), "f8", b"C" * 8, 0, (0,)), "no function of the list"),
        (Asks(bytearray, HUGE), "no text in latin1"),
        (Asks(set, "ab"), "a set of something that is no list"),
        (Asks(RECONSTRUCT, np.ndarray, (0,), b"b", 1), "other arguments than numpy"),
        (np.ma.zeros(2), "numpy.ma.core._mareconstruct"),
        (np.datetime64("2020-01-01"), "the dtype 'M8'"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "the dtype 'V8'"),
        (Asks(copyreg._reconstructor, object, object, None), "copyreg._reconstructor"),
        ({(1, 2): 3}, "keys that are no text"),
        ({(1 << 61) - 1: 3}, "keys that are no text"),
        ([1 << 200], "a number of 26 bytes"),
    ],
)
def test_crafted_pickles_are_refused_by_what_they_ask(tmp_path, contents, told):
    with pytest.raises(MemofastError, match=told) as error:
        reading(tmp_path, pickle.dumps({"train": contents}))
    assert "\n" not in str(error.value)


def test_operations_that_declare_much_take_nothing(tmp_path):
    assert reading(tmp_path, b"\x80\x02Nr\xff\xff\xff\xff.") is None  # a memo of 2^32 places
    for declared in (b"\x8e" + struct.pack("<Q", 1 << 62), b"\x8d" + struct.pack("<Q", 1 << 40), b"T\xff\xff\xff\xff"):
        with pytest.raises(MemofastError, match="bytes are declared"):
            reading(tmp_path, b"\x80\x04" + declared + b"x.")


def test_state_and_instances_reach_no_object(tmp_path):
    for data, told in (
        (b"c_codecs\nencode\n}b.", "the state of something that is no array"),
        (b"c_codecs\nencode\nN}(V__defaults__\nNu\x86b.", "the state of something that is no array"),
        (b"cbuiltins\nset\n)\x81.", "asks for NEWOBJ"),
        (b"cpandas.core.frame\nDataFrame\n)\x81}b.", "asks for pandas.core.frame.DataFrame, and only numpy"),
        (b"\x8c\x12scipy.sparse._csr\n\x8c\x0acsr_matrix\x93.", "asks for scipy.sparse._csr"),
        (b"(ibuiltins\nset\n.", "asks for INST"),
        (b"P1\n.", "asks for PERSID"),
        (b"\x82\x01.", "asks for EXT1"),
        (b"\x97.", "asks for NEXT_BUFFER"),
        (b"cos\x1b[2J\nsystem\n.", r"asks for os\\x1b\[2J.system"),
        (b"N.N.", "2 bytes follow the end"),
    ):
        with pytest.raises(MemofastError, match=told):
            reading(tmp_path, data)


def test_a_tuple_of_tuples_is_no_key(tmp_path):
    """It would be hashed 2^60 times."""
    began = time.monotonic()
    with pytest.raises(MemofastError, match="keys that are no text"):
        reading(tmp_path, b"\x80\x02})" + b"2\x86" * 60 + b"Ns.")
    assert time.monotonic() - began < 5


def test_a_pointer_of_git_lfs(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    with pytest.raises(MemofastError, match=r"f\.pkl is a Git LFS pointer, not the file of 12345 bytes"):
        reading(tmp_path, pointer)
