"""Face and speech rows of a clip say the same time for what is seen and heard at the same moment."""

import av
import numpy as np
import pytest
from tiny_models import save_speech_model

from memofast.prepare.faces.detection import Face
from memofast.prepare.faces.extractors import FaceChoice
from memofast.prepare.run import extraction
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import parse_speech

EYES = np.array([12.0, 14.0]), np.array([28.0, 14.0])
RATE, EVENT, SECONDS = 25, 1.2, 2.0


def write_flash_and_click(path, audio_codec):
    """Dark and quiet, from 1.2 s on bright and loud."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=RATE)
        video.width, video.height, video.pix_fmt, video.bit_rate = 96, 80, "yuv420p", 2_000_000
        audio = container.add_stream(audio_codec, rate=16_000, layout="mono")
        for number in range(round(SECONDS * RATE)):
            grey = 220 if number >= EVENT * RATE else 60
            container.mux(
                video.encode(av.VideoFrame.from_ndarray(np.full((80, 96, 3), grey, np.uint8), format="rgb24"))
            )
        container.mux(video.encode())
        wave = 0.5 * np.random.default_rng(0).standard_normal(round(SECONDS * 16_000)).clip(-1, 1)
        wave[: round(EVENT * 16_000)] *= 0.02  # not silence, of which openSMILE makes odd rows
        for first in range(0, len(wave), 1024):
            samples = wave[None, first : first + 1024]
            planar = (samples * 32767).astype(np.int16) if audio_codec == "pcm_s16le" else samples.astype(np.float32)
            frame = av.AudioFrame.from_ndarray(planar, "s16" if audio_codec == "pcm_s16le" else "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, first
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


@pytest.fixture
def a_face_everywhere(monkeypatch):
    class Everywhere:
        name = "everywhere"

        def __call__(self, picture):
            crop = np.tile(np.arange(32, dtype=np.uint8), (64, 2)) + np.uint8(picture.mean())  # alike in dark and light
            return [Face(crop, 0.9, np.array([0.0, 0.0, 40.0, 40.0]), EYES)]

    monkeypatch.setattr(extraction, "find_faces", lambda *_: Everywhere())


def onset(values, times):
    """Between the last row below and the first above the middle of what there is: (from, to) seconds."""
    after = int(np.argmax(values > (values.min() + values.max()) / 2))
    return times[after - 1], times[after]


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "pcm_s16le"), (".mp4", "aac")])
@pytest.mark.parametrize("start", [0.0, 0.35])
@pytest.mark.parametrize("kind", ["logmel", "compare", "egemaps", "wav2vec2"])
def test_a_flash_and_a_click(suffix, codec, start, kind, a_face_everywhere, tmp_path):
    if kind in {"compare", "egemaps"}:
        pytest.importorskip("opensmile")
    text = kind
    if kind == "wav2vec2":
        folder = save_speech_model(
            tmp_path / "m", "wav2vec2", normalise=False, feat_extract_norm="layer", conv_bias=True
        )
        text = f"wav2vec2={folder},layer=conv"
    path = write_flash_and_click(tmp_path / f"clip{suffix}", codec)
    options = ExtractionOptions(FaceChoice("pixels"), None, parse_speech(text, 1), 30.0)
    (found,) = Extraction(options)([Clip("clip", path, path, start=start, end=SECONDS)])
    event = EVENT - start
    before, after = onset(found.faces.rows[:, 0], found.faces.times)
    assert before < event <= after + 1e-3 and after - before < 0.13
    rows = found.sound.rows[:, :1] if kind == "egemaps" else found.sound.rows  # its loudness; formants of noise wander
    change = np.abs(rows - np.median(rows[found.sound.times < event - 0.1], axis=0)).mean(1)
    before, after = onset(change, found.sound.times)
    assert abs((before + after) / 2 - event) < 0.025, (before, after, event)
