import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.metrics.predictions import Predictions


def single():
    scores = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]], np.float32)
    return Predictions("single", ("a", "b", "c"), np.array([0, -1, 1]), scores, ("calm", "loud"))


def test_what_is_saved_comes_back(tmp_path):
    single().save(tmp_path / "p.npz")
    read = Predictions.load(tmp_path / "p.npz")
    assert (read.kind, read.ids, read.classes) == ("single", ("a", "b", "c"), ("calm", "loud"))
    np.testing.assert_array_equal(read.truth, single().truth)
    np.testing.assert_array_equal(read.scores, single().scores)


def test_known_and_named():
    known = single().known
    assert known.ids == ("a", "c") and known.named.tolist() == [0, 0]
    values = Predictions("regression", ("a", "b"), np.array([np.nan, 1.0], np.float32), np.zeros(2, np.float32))
    assert values.known.ids == ("b",)
    multi = Predictions("multi", ("a",), np.ones((1, 2), np.float32), np.array([[0.5, 0.2]], np.float32), ("x", "y"))
    assert multi.known.named.tolist() == [[1, 0]]


def test_wrong_shapes_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="single predictions of 1 samples"):
        Predictions("single", ("a",), np.zeros(1), np.zeros(1), ("x",))
    with pytest.raises(ValueError, match="not numbers"):
        Predictions("single", ("a",), np.array(["0"]), np.zeros((1, 1)), ("x",))
    (tmp_path / "p.npz").write_bytes(b"words")
    for name in ("p.npz", "none.npz"):
        with pytest.raises(MemofastError, match="holds no predictions"):
            Predictions.load(tmp_path / name)
