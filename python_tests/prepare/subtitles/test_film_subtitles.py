"""Subtitles of a film that lie beside its speech: real voices with silence between them."""

import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest

from memofast.prepare.media.decoding import SAMPLE_RATE, Span, decode
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.sources.clips import SourceOptions, read_sources
from memofast.prepare.speech.extractors import parse_speech

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed"),
]


def write_sound(path: Path, sound: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
        for first in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + 4096], "s16", "mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def film(folder: Path, voices: Path, shift: float) -> tuple[Path, list[float]]:
    """A sound of twelve sentences and a sidecar that is `shift` seconds too early; when the sentences really begin."""
    draw, pieces, begins, lines, now = np.random.default_rng(0), [], [], [], 0.0
    for number, path in enumerate(sorted(voices.rglob("*.flac"))[:12]):
        pause = draw.uniform(6, 14)
        ((_, excerpt),) = decode(path, [Span()], see=None)
        pieces += [np.zeros(round(pause * SAMPLE_RATE), np.float32), excerpt.sound]
        start, now = now + pause + 0.9, now + pause + len(excerpt.sound) / SAMPLE_RATE
        begins.append(start)
        times = [f"00:{int(t // 60):02}:{t % 60:06.3f}".replace(".", ",") for t in (start - shift, now - 0.9 - shift)]
        lines.append(f"{number + 1}\n{times[0]} --> {times[1]}\nKids are talking by the door.\n")
    path = folder / "film.flac"
    write_sound(path, np.concatenate(pieces))
    path.with_suffix(".srt").write_text("\n".join(lines))
    return path, begins


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_subtitles_are_moved_to_the_speech(tmp_path, real_data, shift):
    path, begins = film(tmp_path, real_data / "speech" / "ravdess16k", shift)
    clips = read_sources([str(path)], SourceOptions())
    extraction = Extraction(ExtractionOptions(None, None, parse_speech("logmel", None), 30.0, "silero"))
    found = list(extraction(clips))
    assert len(found) == 12
    moved = [[problem.reason for problem in extracted.problems] for extracted in found]
    assert moved == [["subtitles moved"] if shift else []] * 12
    starts = [extracted.clip.start for extracted in found]
    assert np.allclose(starts, begins, atol=0.3)
    assert [extracted.span.start for extracted in found] == starts  # what is looked at again
    assert all(extracted.spoken > 0.5 for extracted in found)


def test_energy_only_flags_them(tmp_path, real_data):
    path, begins = film(tmp_path, real_data / "speech" / "ravdess16k", 3.0)
    clips = read_sources([str(path)], SourceOptions())
    found = list(Extraction(ExtractionOptions(None, None, parse_speech("none", None), 30.0, "energy"))(clips))
    assert [[problem.reason for problem in extracted.problems] for extracted in found] == [["doubtful subtitles"]] * 12
    assert np.allclose([extracted.clip.start for extracted in found], np.array(begins) - 3.0, atol=0.01)
