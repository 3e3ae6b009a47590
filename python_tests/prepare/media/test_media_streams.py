"""Which of several tracks is read, and what is said of it."""

import av
import pytest
from av.stream import Disposition
from films import Picture, Tone, number, pitch, write_film

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import decode
from memofast.prepare.media.excerpts import Span, UnreadableMedia
from memofast.prepare.media.streams import StreamChoice, parse_track

DEFAULT, NONE = Disposition.default, Disposition(0)


def heard(path, **options):
    ((_, excerpt),) = decode(path, [Span()], see=None, **options)
    return pitch(excerpt.sound), excerpt.streams


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_default_track_is_heard_and_the_others_are_named(tmp_path, suffix):
    path = write_film(
        tmp_path / f"a.{suffix}", Picture(), Tone(2000, marks=NONE, language="fra"),
        Tone(700, marks=DEFAULT, language="eng"),
    )  # fmt: skip
    hz, told = heard(path)
    assert hz == pytest.approx(700, abs=2)
    assert told.startswith("sound track 2 (eng") and "is read, not 1 (fra" in told


@pytest.mark.parametrize(
    "aside",
    [
        {"marks": DEFAULT | Disposition.comment},
        {"marks": DEFAULT | Disposition.visual_impaired},
        {"marks": DEFAULT, "title": "Director's Commentary"},
        {"marks": DEFAULT, "title": "Audiokommentar"},
        {"marks": DEFAULT, "level": 0.0},
    ],
)
def test_commentary_and_silence_are_not_heard_even_where_they_are_default(tmp_path, aside):
    path = write_film(tmp_path / "a.mkv", Tone(2000, **aside), Tone(700, marks=NONE, title="Main"))
    assert heard(path)[0] == pytest.approx(700, abs=2)


def test_a_track_that_sounds_only_later_is_not_silent(tmp_path):
    path = write_film(
        tmp_path / "a.mkv", Tone(2000, 30, level=0.0, marks=DEFAULT), Tone(700, 30, quiet=20.0, marks=NONE)
    )
    assert heard(path)[0] == pytest.approx(700, abs=2)


def test_a_silent_film_sounds_by_its_commentary_alone(tmp_path):
    path = write_film(tmp_path / "a.mkv", Tone(700, marks=Disposition.comment), Tone(300, level=0.0, marks=DEFAULT))
    assert heard(path)[0] == pytest.approx(700, abs=2)


@pytest.mark.parametrize(
    ("tracks", "first"),
    [
        ([Picture(1, "mjpeg", 1, first=9, marks=NONE), Picture(first=40, marks=DEFAULT)], 40),
        ([Picture(1, "mjpeg", 1, first=9, size=(128, 128), marks=DEFAULT), Picture(first=40, marks=NONE)], 40),
        ([Picture(first=9, marks=NONE), Picture(first=40, marks=DEFAULT)], 40),
        ([Picture(first=9, marks=NONE), Picture(first=40, size=(128, 96), marks=NONE)], 40),
        ([Picture(1, "mjpeg", 1, first=9)], 9),
    ],
)
def test_the_film_is_seen_and_no_thumbnail(tmp_path, tracks, first):
    path = write_film(tmp_path / "a.mkv", *tracks, Tone())
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert excerpt.seen[0] == first
    assert ("picture track" in excerpt.streams) == (len(tracks) > 1)


def test_tracks_are_asked_for_by_number_or_language(tmp_path):
    path = write_film(
        tmp_path / "a.mkv", Picture(first=5, marks=DEFAULT), Picture(first=90, marks=NONE),
        Tone(2000, marks=DEFAULT, language="eng"), Tone(700, marks=NONE, language="fra"),
        Tone(1200, marks=NONE, language="fra"),
    )  # fmt: skip
    assert heard(path, streams=StreamChoice(sound="3"))[0] == pytest.approx(1200, abs=2)
    assert heard(path, streams=StreamChoice(sound="FRA"))[0] == pytest.approx(700, abs=2)
    ((_, excerpt),) = decode(path, [Span()], see=number, sound=False, streams=StreamChoice(picture="2", sound="9"))
    assert excerpt.seen[0] == 90 and "sound" not in excerpt.streams
    with pytest.raises(MemofastError, match=r"a\.mkv has no sound track '4', but 1: eng aac default; 2: fra aac; 3:"):
        heard(path, streams=StreamChoice(sound="4"))
    with pytest.raises(MemofastError, match="no sound track 'deu'"):
        heard(path, streams=StreamChoice(sound="deu"))


def test_a_file_of_one_track_of_each_kind_has_nothing_to_tell(tmp_path):
    path = write_film(tmp_path / "a.mkv", Picture(), Tone())
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert excerpt.streams == ""


@pytest.mark.parametrize("given", [None, "1", "12", "eng", "de", "pt-BR"])
def test_names_of_tracks(given):
    assert parse_track(given, "--audio-stream") == given


@pytest.mark.parametrize("given", ["0", "-1", "a:1", "", "commentary"])
def test_what_names_no_track_is_refused(given):
    with pytest.raises(MemofastError, match="--audio-stream is a number from 1 or a language"):
        parse_track(given, "--audio-stream")


def test_a_cover_is_no_film(tmp_path):
    path = write_film(tmp_path / "a.mp4", Picture(1, "mjpeg", 1, marks=Disposition.attached_pic), Tone(700))
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    ((_, excerpt),) = decode(path, [Span()], see=number)
    assert excerpt.seen == [] and pitch(excerpt.sound) == pytest.approx(700, abs=2)
    silent = write_film(tmp_path / "b.mp4", Picture(1, "mjpeg", 1, marks=Disposition.attached_pic))
    with pytest.raises(UnreadableMedia, match="holds neither picture nor sound"):
        list(decode(silent, [Span()], see=number))


@pytest.mark.parametrize(("pixel", "shape"), [("16/11", (64, 93)), ("1/2", (128, 64)), ("1/1", (64, 64))])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_anamorphic_pictures_are_unsqueezed(tmp_path, suffix, pixel, shape):
    path = write_film(tmp_path / f"a.{suffix}", Picture(1, pixel=pixel))
    ((_, excerpt),) = decode(path, [Span()], see=lambda frame: (frame.picture().shape, frame.grey().shape))
    assert set(excerpt.seen) == {((*shape, 3), shape)}
    assert ("unsqueezed" in excerpt.streams) == (pixel != "1/1")


def test_a_wide_picture_is_unsqueezed_before_it_is_scaled_down(tmp_path):
    path = write_film(tmp_path / "a.mp4", Picture(0.3, size=(720, 480), pixel="32/27"))
    ((_, excerpt),) = decode(path, [Span()], see=lambda frame: frame.picture().shape)
    assert excerpt.seen[0] == (360, 640, 3)
