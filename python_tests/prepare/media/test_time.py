"""Where pictures and sound lie in time: sought, reordered, joined, and in formats that change."""

import numpy as np
import pytest
from films import Picture, Tone, number, pitch, write_film

from memofast.prepare.media.decoding import decode, length_of
from memofast.prepare.media.excerpts import SAMPLE_RATE, Span

FILMS = {
    "ts": (Picture(40, rate=5, gop=60, b_frames=2), Tone(seconds=40), None),
    "m2ts": (Picture(40, "mpeg2video", rate=25, gop=200), Tone(seconds=40, codec="ac3", rate=48_000), None),
    "mpg": (Picture(40, "mpeg2video", rate=25, gop=150, b_frames=2), Tone(seconds=40, codec="mp2"), "mpeg"),
    "avi": (Picture(40, rate=25, gop=150, b_frames=3), Tone(seconds=40, codec="mp2"), None),
    "mkv": (Picture(40, rate=25, gop=250, b_frames=3), Tone(seconds=40), None),
    "flv": (Picture(40, rate=25, gop=250), Tone(seconds=40), None),
}


@pytest.mark.parametrize("suffix", FILMS)
def test_sought_spans_hold_the_frames_that_reading_through_finds_there(tmp_path, suffix):
    picture, tone, format = FILMS[suffix]
    path = write_film(tmp_path / f"film.{suffix}", picture, tone, format=format)
    ((_, through),) = decode(path, [Span()], see=number)
    shown = dict(zip(through.seen, through.times, strict=True))
    spans = [Span(start, start + 1.2) for start in (13.7, 26.3, 38.1)]
    for index, excerpt in decode(path, spans, see=number):
        start, end = spans[index].start, spans[index].end
        found = dict(zip(excerpt.seen, np.array(excerpt.times) + start, strict=True))
        assert list(found) == [shot for shot, time in shown.items() if start <= time < end]
        assert [found[shot] for shot in found] == pytest.approx([shown[shot] for shot in found], abs=2e-3)
        assert excerpt.complete and len(excerpt.sound) == pytest.approx(1.2 * SAMPLE_RATE, abs=16)


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
def test_frames_that_are_decoded_out_of_order_are_seen_in_order(tmp_path, suffix):
    path = write_film(tmp_path / f"film.{suffix}", Picture(3, rate=25, gop=50, b_frames=3))
    ((_, excerpt),) = decode(path, [Span()], see=number, glance=lambda frame: None)
    assert len(excerpt.times) == 30
    assert [round(25 * time) for time in excerpt.times] == excerpt.seen


def joined(path, *parts, format=None):
    """Films one behind the other, byte by byte, each a list of tracks and the stamp that it begins at."""
    data = b"".join(
        write_film(path.with_name(f"{n}.{path.name}"), *tracks, format=format, start=start).read_bytes()
        for n, (tracks, start) in enumerate(parts)
    )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("first", "second"), [(0, 0), (500, 3), (0, 1000)], ids=["anew", "back", "ahead"])
def test_a_recording_follows_the_one_that_it_was_joined_to(tmp_path, first, second):
    path = joined(
        tmp_path / "film.ts",
        ([Picture(3, first=100, b_frames=2), Tone(500)], first),
        ([Picture(4, first=900, b_frames=2), Tone(800, 4)], second),
    )
    ((_, whole),) = decode(path, [Span()], see=number)
    assert whole.complete and [reason for reason, _ in whole.notes] == ["joined"]
    assert whole.seen == [*range(100, 130), *range(900, 940)]
    np.testing.assert_allclose(np.diff(whole.times), 0.1, atol=0.06)
    assert len(whole.sound) / SAMPLE_RATE == pytest.approx(7.1, abs=0.15)
    begin = whole.times[whole.seen.index(900)]
    for at, hz in ((begin - 0.6, 500), (begin + 0.1, 800), (6.2, 800)):
        assert pitch(whole.sound[round(at * SAMPLE_RATE) :][:8000]) == pytest.approx(hz, abs=4)


@pytest.mark.parametrize(
    ("suffix", "codecs", "format"),
    [("ts", ("libx264", "aac"), None), ("mpg", ("mpeg2video", "mp2"), "mpeg"), ("opus", (None, "libopus"), None)],
)
def test_spans_far_inside_joined_recordings(tmp_path, suffix, codecs, format):
    def film(seconds, hz, first):
        picture = [Picture(seconds, codecs[0], rate=25, first=first)] if codecs[0] else []
        return [*picture, Tone(hz, seconds, codecs[1], 48_000)], 0

    path = joined(tmp_path / f"film.{suffix}", film(14, 500, 0), film(15, 800, 2000), format=format)
    spans = [Span(12.5, 13.3), Span(16, 17), Span(27, 28)]
    for see in (number, None):
        for index, excerpt in decode(path, spans, see=see):
            assert pitch(excerpt.sound) == pytest.approx((500, 800, 800)[index], abs=4)
            assert bool(excerpt.notes) == (index > 0)
            if see and codecs[0]:
                assert excerpt.seen[0] == pytest.approx((312, 2050, 2325)[index], abs=5)


def test_sound_that_changes_rate_and_layout_goes_on(tmp_path):
    path = joined(
        tmp_path / "film.ts",
        ([Picture(3), Tone(500, rate=48_000, layout="mono")], 0),
        ([Picture(3), Tone(900, rate=44_100, layout="stereo")], 3),
    )
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert len(excerpt.sound) / SAMPLE_RATE == pytest.approx(6, abs=0.2)
    assert [round(pitch(excerpt.sound[at : at + 16_000])) for at in (8000, 28_000, 52_000, 76_000)] == [500] * 2 + [
        900
    ] * 2
    assert excerpt.complete and np.abs(excerpt.sound).max() < 0.4


def test_sound_without_stamps_is_counted_where_its_rate_changes(tmp_path):
    path = joined(
        tmp_path / "sound.aac", ([Tone(500, 6)], 0), ([Tone(900, 6, rate=48_000, layout="stereo")], 0), format="adts"
    )
    ((_, excerpt),) = decode(path, [Span()], see=None)
    assert len(excerpt.sound) / SAMPLE_RATE == pytest.approx(12, abs=0.15)
    loud = np.abs(excerpt.sound[100_000:180_000]).reshape(-1, 400).max(1)
    assert loud.min() > 0.2  # no holes
    assert pitch(excerpt.sound[150_000:166_000]) == pytest.approx(900, abs=2)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts", "mpg"])
def test_a_film_whose_stamps_begin_late_is_whole(tmp_path, suffix):
    picture = Picture(8, "mpeg2video", rate=25) if suffix == "mpg" else Picture(8)
    tone = Tone(500, 8, "mp2") if suffix == "mpg" else Tone(500, 8)
    path = write_film(tmp_path / f"film.{suffix}", picture, tone, format="mpeg" if suffix == "mpg" else None, start=5)
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert excerpt.complete and not excerpt.notes
    assert len(excerpt.sound) / SAMPLE_RATE == pytest.approx(8, abs=0.2) and len(excerpt.times) == 80
    assert excerpt.times[0] == pytest.approx(0, abs=0.3)


def test_how_long_the_last_picture_is_seen(tmp_path):
    slides = write_film(tmp_path / "slides.mp4", Picture(8, rate=1, options={"tune": "stillimage"}), Tone(seconds=8))
    ((_, excerpt),) = decode(slides, [Span()], see=number)
    assert excerpt.times[-1] == pytest.approx(7, abs=0.1) and excerpt.picture_end == pytest.approx(8, abs=0.1)
    assert excerpt.complete
    ((_, part),) = decode(slides, [Span(1.5, 4.25)], see=number)
    assert part.picture_end == 2.75 and part.goes_on


@pytest.mark.parametrize(("seconds", "goes_on"), [(3.0, False), (3.02, False), (3.5, True)])
def test_whether_a_file_goes_on_behind_a_span(tmp_path, seconds, goes_on):
    path = write_film(tmp_path / "a.wav", Tone(seconds=seconds, codec="pcm_s16le"))
    ((_, excerpt),) = decode(path, [Span(0, 3)], see=None)
    assert excerpt.goes_on == goes_on and len(excerpt.sound) == 3 * SAMPLE_RATE


def test_how_long_a_file_is(tmp_path):
    tone = Tone(500, 6, "pcm_s16le")
    assert length_of(write_film(tmp_path / "a.wav", tone)) == pytest.approx(6, abs=1e-3)
    assert length_of(write_film(tmp_path / "late.mkv", Picture(6), Tone(500, 6), start=5)) == pytest.approx(6, abs=0.2)
    part = [Picture(4), Tone(500, 4)], 0
    assert length_of(joined(tmp_path / "two.ts", part, part)) == pytest.approx(8, abs=0.2)
    assert length_of(joined(tmp_path / "far.ts", part, (part[0], 3000))) == pytest.approx(8, abs=0.2)
    assert length_of(write_film(tmp_path / "a.aac", Tone(500, 6), format="adts")) == pytest.approx(6, abs=0.1)
    assert length_of(tmp_path / "nothing.mkv") is None
