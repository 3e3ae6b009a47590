from pathlib import Path

import av
import pytest
from media import write_clip

from memofast.prepare.sources.clips import SourceOptions, read_sources
from memofast.prepare.subtitles.streams import stream_cues
from memofast.prepare.subtitles.timings import Cue

ENGLISH = (
    "1\n00:00:01,000 --> 00:00:03,000\nYes, <i>indeed</i>,\nit is.\n\n2\n00:00:04,000 --> 00:00:06,500\nGood bye.\n"
)
GERMAN = "1\n00:00:01,000 --> 00:00:02,000\nJa.\n"


def film(folder: Path, tracks: dict[str, str]) -> Path:
    """An mkv of eight seconds with a subtitle stream for each language."""
    plain, path = write_clip(folder / "plain.mkv", 8), folder / "film.mkv"
    inputs = [av.open(str(plain))]
    for language, text in tracks.items():
        sidecar = folder / f"{language}.txt.srt"
        sidecar.write_text(text)
        inputs.append(av.open(str(sidecar)))
    with av.open(str(path), "w") as target:
        pairs = [(given, stream) for given in inputs for stream in given.streams]
        copies = {id(stream): target.add_stream_from_template(stream) for _, stream in pairs}
        for language, given in zip(tracks, inputs[1:], strict=True):
            copies[id(given.streams[0])].metadata["language"] = language
        for given in inputs:
            for packet in given.demux():
                if packet.dts is not None:
                    packet.stream = copies[id(packet.stream)]
                    target.mux(packet)
    for given in inputs:
        given.close()
    plain.unlink()
    for sidecar in folder.glob("*.srt"):
        sidecar.unlink()
    return path


def test_the_longest_stream_or_the_one_in_a_language(tmp_path):
    path = film(tmp_path, {"ger": GERMAN, "eng": ENGLISH})
    english = [Cue(1.0, 3.0, "Yes, indeed,\nit is."), Cue(4.0, 6.5, "Good bye.")]
    assert stream_cues(path) == stream_cues(path, "eng") == english
    assert stream_cues(path, "ger") == [Cue(1.0, 2.0, "Ja.")]
    assert stream_cues(path, "fre") == english


def test_films_without_subtitles(tmp_path):
    assert stream_cues(write_clip(tmp_path / "a.mkv", 1)) == []
    (tmp_path / "b.mkv").write_bytes(b"no film")
    assert stream_cues(tmp_path / "b.mkv") == []


@pytest.mark.parametrize(("subtitles", "texts"), [("auto", ["Yes, indeed, it is.", "Good bye."]), ("sidecar", [None])])
def test_clips_of_a_film_are_its_sentences(tmp_path, subtitles, texts):
    path = film(tmp_path, {"eng": ENGLISH})
    clips = read_sources([str(path)], SourceOptions(subtitles=subtitles))
    assert [clip.text for clip in clips] == texts
    assert all(clip.subtitled == (subtitles == "auto") for clip in clips)


def test_a_sidecar_comes_first(tmp_path):
    path = film(tmp_path, {"eng": ENGLISH})
    path.with_suffix(".srt").write_text(GERMAN)
    assert [clip.text for clip in read_sources([str(path)], SourceOptions())] == ["Ja."]
