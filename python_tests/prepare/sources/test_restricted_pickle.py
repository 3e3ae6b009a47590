import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from memofast.errors import MemofastError
from memofast.prepare.sources.restricted_pickle import read_pickle


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
