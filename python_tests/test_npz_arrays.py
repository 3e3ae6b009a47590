"""Arrays of `.npz` files of others: right values, and nothing taken for what a header merely declares."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from memofast.npz import ArraysTooLarge, npz_arrays

KINDS = {
    "bool": np.array([[True], [False]]),
    **{kind: np.arange(-3, 3).astype(kind).reshape(2, 3) for kind in ("i1", ">i4", "u8", "f2", "<f4", ">f8")},
    "text": np.array(["é", "long", "\U0001f600"]),
    "bytes": np.array([b"x\0y", b"z"]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "one": np.array("kind"),
    "none": np.zeros((0, 3), np.float16),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    save(tmp_path / "a.npz", **KINDS)
    found = npz_arrays(tmp_path / "a.npz", [*KINDS, "absent"])
    assert found.keys() == KINDS.keys()
    for name, values in KINDS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype and found[name].shape == values.shape


def written(path, data: bytes, **more):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", data)
        for name, values in more.items():
            archive.writestr(f"{name}.npy", values)
    return path


def npy(descr="'<f4'", shape="(2,)", data=b"\0" * 8, version=b"\x01\x00"):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little") + header + data


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (npy(shape=f"({1 << 50},)"), "takes over"),
        (npy(shape=f"({1 << 50}, 0)", data=b""), "takes over"),
        (npy(shape="(3,)"), "an array of 12 bytes ends after 8"),
        (npy(shape="(1,)"), "more bytes than its shape"),
        (npy(shape="(-2,)"), "no row of numbers"),
        (npy(shape="(2, True)"), "no row of numbers"),
        (npy(shape="(" * 300), "none of numpy's"),
        (npy(shape="(2,) if 1 else 2"), "none of numpy's"),
        (npy("'M8[Y/0]'"), r"values of the kind 'M8\[Y/0\]'"),
        (npy("'|O'"), "values of the kind"),
        (npy("[('a', '<f4')]"), "values of the kind"),
        (npy("'<U0'", shape=f"({1 << 40},)", data=b""), "values of the kind"),
        (npy("'<U1'", data=b"CCCC" * 2), "characters that do not exist"),
        (npy(version=b"\x02\x00")[:8] + b"\xff\xff\xff\x7f", "a header of 2147483647 bytes"),
        (b"no array at all", "magic"),
    ],
)
def test_headers_are_judged_first(tmp_path, data, told):
    with pytest.raises(ValueError, match=told):
        npz_arrays(written(tmp_path / "a.npz", data), ["a"])


def test_a_bomb_takes_no_memory(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(200 << 20, np.uint8))
    path = written(tmp_path / "a.npz", buffer.getvalue(), small=npy(data=np.float32([1.5, -2]).tobytes()))
    del buffer
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ArraysTooLarge, match=f"takes over {100 << 20} bytes"):
        npz_arrays(path, ["a"], 100 << 20)
    assert npz_arrays(path, ["small"], 100)["small"].tolist() == [1.5, -2]  # what is not asked for is not read
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_together_they_are_judged(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(60, np.uint8), b=np.zeros(60, np.uint8))
    assert npz_arrays(tmp_path / "a.npz", ["a", "b"], 120).keys() == {"a", "b"}
    with pytest.raises(ArraysTooLarge):
        npz_arrays(tmp_path / "a.npz", ["a", "b"], 119)


def test_damaged_archives(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.random.default_rng(0).integers(0, 256, 5000))
    whole = (tmp_path / "a.npz").read_bytes()
    for damaged in (b"", whole[:300], whole[:200] + bytes(100) + whole[300:]):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            npz_arrays(tmp_path / "b.npz", ["a"])
