"""Feature files and captions of the original system."""

import json
import zipfile

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


def test_bombs_and_headers_are_counted_and_left_out(tmp_path):
    """The header of the second declares 2^50 rows; the third unpacks to a gigabyte."""
    faces = tmp_path / "faces"
    faces.mkdir()
    np.savez(
        faces / "sound.npz", features=np.arange(6, dtype=np.float32).reshape(3, 2), confidence=np.float32([1, 0, 1])
    )
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 50}, 2)}}\n".encode()
    with zipfile.ZipFile(faces / "wide.npz", "w") as archive:
        archive.writestr("features.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(faces / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 28}, 1)}}\n".encode()
        with archive.open("features.npy", "w", force_zip64=True) as file:
            file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
            for _ in range(64):
                file.write(bytes(1 << 24))
    np.savez(faces / "text.npz", features=np.zeros((3, 2)), confidence=np.array(["a", "b", "c"]))
    np.savez(faces / "objects.npz", features=np.array([[None]], object))
    (faces / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 437\n")
    folder = FeatureFolder(faces, 0.5, 9, 10)
    outcome = import_rows(folder, tmp_path / "v", ["sound", "wide", "bomb", "text", "objects", "pointer"])
    assert outcome.taken == 1 and outcome.refused == {
        "unreadable (ArraysTooLarge)": [str(faces / "wide.npz"), str(faces / "bomb.npz")],
        "columns that are no numbers": [str(faces / "text.npz")],
        "unreadable (ValueError)": [str(faces / "objects.npz")],
        "Git LFS pointers": [str(faces / "pointer.npz")],
    }
    assert FeatureStore.open(tmp_path / "v").read("sound")["rows"].tolist() == [[0, 1], [4, 5]]


@pytest.mark.parametrize("label", [10**9, 65_536, -1, 1.5, True, [1], {}])
def test_captions_with_labels_that_are_no_classes(tmp_path, label):
    (tmp_path / "c.json").write_text(json.dumps({"a": {"txt": ["hello"], "label": label}}))
    with pytest.raises(MemofastError, match=r"label .* of 'a' is no name and no number from 0 to 65535"):
        read_captions(tmp_path / "c.json")


def test_captions_nested_without_end(tmp_path):
    for text in ("[" * 200_000, '{"a":' * 200_000):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(MemofastError, match=r"captions .* nested too deeply"):
            read_captions(tmp_path / "c.json")
