"""prepare.json: what it says is checked, and never taken for unknown where it is damaged."""

import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.run.settings import SETTINGS, keep_settings, read_settings

SAID = {
    "max_seconds": 30, "face": "denseface layer trans1+last", "face_normalisation": "corpus", "speech": "logmel",
    "speech_mean": 6, "speech_functionals": None, "voice": "energy", "speaker": "active", "audio_stream": "2",
    "face_pixels": {"mean": 120.5, "std": 40.0, "faces": 3, "clips": 2}, "detector": "yunet \udc80.onnx", "more": [1],
}  # fmt: skip


def test_what_was_said_comes_back(tmp_path):
    assert read_settings(tmp_path) == {}
    keep_settings(tmp_path, SAID)
    assert read_settings(tmp_path) == SAID
    keep_settings(tmp_path, {"max_seconds": 30})
    with pytest.raises(MemofastError, match="was begun with speech_mean 6, not 7; use the same options or another"):
        keep_settings(tmp_path, {"speech_mean": 7})


@pytest.mark.parametrize(
    "changed",
    [
        {"max_seconds": "30"}, {"max_seconds": -1}, {"face": 3}, {"face": "smile layer last"}, {"speech_mean": 0},
        {"face": "denseface layer trans1+x"}, {"speech": "noise"}, {"speech": ["logmel"]}, {"speech_mean": 6.0},
        {"speech_functionals": "1+x"}, {"voice": {}}, {"speaker": "nobody"}, {"audio_stream": 2}, {"face_pixels": [1]},
        {"face_pixels": {"mean": 1.0}}, {"face_pixels": {"mean": 1.0, "std": 0.0, "faces": 1, "clips": 1}},
        {"face_pixels": {"mean": float("nan"), "std": 1.0, "faces": 1, "clips": 1}},
    ],
)  # fmt: skip
def test_odd_settings_are_refused(tmp_path, changed):
    (tmp_path / SETTINGS).write_text(json.dumps(SAID | changed))
    for call in (lambda: read_settings(tmp_path), lambda: keep_settings(tmp_path, SAID)):
        with pytest.raises(MemofastError, match=f"{SETTINGS} is not what a corpus was prepared with") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff{}", b"[" * 100_000])
def test_settings_that_are_no_object_are_refused(tmp_path, data):
    (tmp_path / SETTINGS).write_bytes(data)
    with pytest.raises(MemofastError, match=f"{SETTINGS} is not what"):
        read_settings(tmp_path)
