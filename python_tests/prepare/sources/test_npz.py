"""Feature files and captions of the original system."""

import json

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.prepare.sources.npz import FeatureFolder, import_rows, read_captions, read_npz
from memofast.store import FeatureStore


@pytest.fixture
def features(tmp_path) -> np.ndarray:
    """Of the file film_7.npz, whose confidence is 0, 1/4, 1/2, 3/4 in turn; film_2.npz is cut off."""
    random = np.random.default_rng(0)
    faces = tmp_path / "faces"
    faces.mkdir()
    rows = random.standard_normal((75, 342)).astype(np.float16)
    confidence = (np.arange(75) % 4 / 4).astype(np.float16)
    np.savez(faces / "film_7.npz", features=rows, confidence=confidence, frame_idxs=np.arange(75))
    whole = (faces / "film_7.npz").read_bytes()
    (faces / "film_2.npz").write_bytes(whole[: len(whole) // 2])
    return rows


def test_confidence_is_strict_and_the_first_rows_are_kept(tmp_path, features):
    path = tmp_path / "faces" / "film_7.npz"
    assert len(read_npz(path, 0.75, 36, 10)["rows"]) == 0
    np.testing.assert_array_equal(read_npz(path, 0.0, 5, 10)["times"], np.float32([1, 2, 3, 5, 6]) / np.float32(10))
    np.savez(path, features=features)
    assert len(read_npz(path, 0.75, 36, 10)["rows"]) == 36


def test_captions_with_labels(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"a": {"txt": ["hello there"], "label": "sad"}, "b": ["hello"]}))
    assert read_captions(tmp_path / "c.json") == {"a": ("hello there", "sad"), "b": ("hello", None)}


def test_captions_of_one_id_twice_are_refused(tmp_path):
    (tmp_path / "captions.json").write_text('{"a": ["red"], "b": ["now"], "a": ["blue"]}')
    with pytest.raises(MemofastError, match="'a' is there twice"):
        read_captions(tmp_path / "captions.json")


def test_folder_without_sound_files_is_refused(tmp_path, features):
    with pytest.raises(MemofastError, match=r"no file of .* can be used"):
        import_rows(FeatureFolder(tmp_path / "faces", 0, 9, 10), tmp_path / "v", ["film_2", "x"])
    with pytest.raises(MemofastError, match="no store"):
        FeatureStore.open(tmp_path / "v")
