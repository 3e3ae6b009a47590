"""Files that break off are told in every container, whole ones are not."""

import pytest
from films import Picture, Tone, number, write_film

from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import Span
from memofast.prepare.media.truncation import breaks_off

FILMS = {
    "wav": (None, Tone(seconds=4, codec="pcm_s16le"), {}),
    "aiff": (None, Tone(seconds=4, codec="pcm_s16be"), {}),
    "flac": (None, Tone(seconds=4, codec="flac"), {}),
    "mp3": (None, Tone(seconds=4, codec="libmp3lame"), {}),
    "opus": (None, Tone(seconds=4, codec="libopus", rate=48_000), {}),
    "ogg": (None, Tone(seconds=4, codec="flac"), {}),
    "aac": (None, Tone(seconds=4), {"format": "adts"}),
    "m4a": (None, Tone(seconds=4), {"movflags": "faststart"}),
    "avi": (Picture(4, "mpeg4"), Tone(seconds=4, codec="mp2"), {}),
    "mpg": (Picture(4, "mpeg2video", rate=25), Tone(seconds=4, codec="mp2"), {"format": "mpeg"}),
    "vob": (Picture(4, "mpeg2video", rate=25), Tone(seconds=4, codec="ac3", rate=48_000), {}),
    "mkv": (Picture(4), Tone(seconds=4), {}),
    "webm": (Picture(4, "libvpx"), Tone(seconds=4, codec="libopus", rate=48_000), {}),
    "mp4": (Picture(4), Tone(seconds=4), {"movflags": "faststart"}),
    "mov": (Picture(4, "mpeg4"), Tone(seconds=4, codec="pcm_s16le"), {"movflags": "faststart"}),
    "ts": (Picture(4), Tone(seconds=4), {}),
    "m2ts": (Picture(4), Tone(seconds=4), {}),
    "flv": (Picture(4, "flv"), Tone(seconds=4, codec="libmp3lame"), {}),
}


@pytest.mark.parametrize("suffix", FILMS)
def test_half_a_file_is_told_and_a_whole_one_is_not(tmp_path, suffix):
    picture, tone, options = FILMS[suffix]
    path = write_film(tmp_path / f"film.{suffix}", *filter(None, (picture, tone)), **options)
    ((_, whole),) = decode(path, [Span()], see=number)
    assert whole.complete and not whole.missing and len(whole.sound) / 16_000 == pytest.approx(4, abs=0.1)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 1])
    ((_, half),) = decode(path, [Span()], see=number)
    assert not half.complete and 0.5 < len(half.sound) / 16_000 < 3.6
    early, late = (excerpt for _, excerpt in sorted(decode(path, [Span(0.1, 0.4), Span(0.5, 3.9)], see=number)))
    assert early.complete and not late.complete  # only those clips are damaged that lack something


@pytest.mark.parametrize("suffix", ["wav", "avi", "mkv", "mp4", "ogg", "mpg", "flv", "mp3"])
def test_a_little_less_than_the_whole_is_told_too(tmp_path, suffix):
    picture, tone, options = FILMS[suffix]
    path = write_film(tmp_path / f"film.{suffix}", *filter(None, (picture, tone)), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.96)])
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert not excerpt.complete and excerpt.missing


def test_a_transport_stream_that_ends_between_packets(tmp_path):
    picture = Picture(4, size=(160, 120))  # of many packets each, for its noise
    path = write_film(tmp_path / "film.ts", picture, Tone(seconds=4))
    data = path.read_bytes()
    for share in (0.3, 0.5, 0.71):
        path.write_bytes(data[: int(share * len(data)) // 188 * 188])
        ((_, excerpt),) = decode(path, [Span()], see=number)
        assert not excerpt.complete


def test_sizes_of_writers_that_do_not_know_the_length_promise_nothing(tmp_path):
    path = write_film(tmp_path / "a.wav", Tone(seconds=1, codec="pcm_s16le"))
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f", b"\x00\x00\x00\x00"):
        data[4:8], data[place : place + 4] = size, size
        path.write_bytes(data)
        assert breaks_off(path, "wav") == ""


def test_what_is_no_container_of_these_is_not_judged(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"nothing of the kind")
    for format in ("wav", "aiff", "matroska,webm", "mpeg", "mpegts", "mp3", "srt"):
        assert breaks_off(path, format) == ""
