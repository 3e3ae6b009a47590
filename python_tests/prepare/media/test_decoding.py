from itertools import count

import numpy as np
import pytest
from media import write_clip

from memofast.prepare.media.decoding import SAMPLE_RATE, Span, UnreadableMedia, decode
from memofast.prepare.media.sound import SoundTrack


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", 3.0)


def grey(frame):
    return round(float(frame.picture().mean())) - 40


def test_keeps_ten_frames_a_second_and_the_sound(clip):
    ((index, excerpt),) = decode(clip, [Span()], see=grey)
    assert index == 0 and excerpt.complete
    assert len(excerpt.times) == 30
    np.testing.assert_allclose(excerpt.times, np.arange(30) / 10, atol=0.04)
    frames = np.round(np.array(excerpt.times) * 25)
    assert np.abs(frames - np.array(excerpt.seen)).max() <= 2  # grey values survive YUV and compression to within 2
    assert abs(len(excerpt.sound) / SAMPLE_RATE - 3.0) < 0.05
    assert 0.25 < np.abs(excerpt.sound[4000:-4000]).max() < 0.35


def test_only_kept_frames_are_seen(clip):
    calls = []
    list(decode(clip, [Span(0, 1)], see=lambda frame: calls.append(frame.picture().shape)))
    assert calls == [(80, 96, 3)] * 10


def test_frames_between_are_glanced_at(clip):
    kept, between = [], []
    list(decode(clip, [Span(1, 2)], see=lambda frame: kept.append(frame), glance=lambda frame: between.append(frame)))
    times = sorted(frame.time for frame in kept + between)
    np.testing.assert_allclose(times, 1 + np.arange(25) / 25, atol=1e-3)
    assert len(kept) == 10
    assert all(frame.grey().shape == (80, 96) for frame in between)
    assert abs(float(kept[0].grey().mean()) - float(kept[0].picture().mean())) <= 2


def test_spans_share_one_pass_and_agree_with_their_own(clip):
    spans = [Span(2.0, 3.0), Span(0.5, 1.5), Span(1.0, 2.2)]
    together = dict(decode(clip, spans, see=grey))
    assert sorted(together) == [0, 1, 2]
    for index, span in enumerate(spans):
        ((_, alone),) = decode(clip, [span], see=grey)
        assert alone.times == together[index].times and alone.seen == together[index].seen
        np.testing.assert_array_equal(alone.sound, together[index].sound)
        assert abs(len(alone.sound) - (span.end - span.start) * SAMPLE_RATE) <= 0.05 * SAMPLE_RATE


def test_far_spans_are_reached_by_seeking(tmp_path):
    path = write_clip(tmp_path / "long.mp4", 24.0, rate=10, size=(32, 32))
    _, (_, late) = sorted(decode(path, [Span(0, 1), Span(20, 21)], see=grey))
    assert len(late.times) == 10
    assert all(abs(value - 200 % 200) <= 12 for value in late.seen)  # frame 200 and the nine after it
    assert abs(len(late.sound) - SAMPLE_RATE) < 0.05 * SAMPLE_RATE
    crossings = np.count_nonzero(np.diff(np.signbit(late.sound[1000:-1000])))
    assert abs(crossings / (len(late.sound) - 2000) * SAMPLE_RATE / 2 - 440) < 5


@pytest.mark.parametrize(("picture", "sound"), [(True, False), (False, True)])
def test_one_track_alone(tmp_path, picture, sound):
    path = write_clip(tmp_path / "one.mp4", 1.0, picture=picture, sound=sound)
    ((_, excerpt),) = decode(path, [Span()], see=grey)
    assert (len(excerpt.times) == 10) == picture
    assert (excerpt.sound is not None) == sound


def test_large_pictures_are_scaled_down(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", 0.2, size=(1280, 320), sound=False)
    ((_, excerpt),) = decode(path, [Span()], see=lambda frame: frame.picture().shape)
    assert excerpt.seen[0] == (160, 640, 3)


def test_span_beyond_the_end_is_empty(clip):
    ((_, excerpt),) = decode(clip, [Span(8, 9)], see=grey)
    assert excerpt.times == [] and len(excerpt.sound) == 0


def test_what_is_not_media_is_refused(tmp_path):
    text = tmp_path / "not.mp4"
    text.write_text("just words " * 500)
    for path in (text, tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(UnreadableMedia, match=path.name):
            list(decode(path, [Span()], see=grey))


def test_truncated_file_gives_what_it_has_and_says_so(tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", 4.0)
    cut = tmp_path / "cut.mkv"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * 0.5)])
    ((_, excerpt),) = decode(cut, [Span()], see=grey)
    assert 5 <= len(excerpt.times) < 40
    assert not excerpt.complete


def test_truncated_index_is_unreadable(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", 1.0)
    whole.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(UnreadableMedia):
        list(decode(whole, [Span()], see=grey))


def test_sound_of_a_form_that_cannot_be_converted_is_missing_and_the_rest_is_there(clip, monkeypatch):
    ((_, whole),) = decode(clip, [Span()], see=grey)
    take, frames = SoundTrack.take, count()

    def odd(self, frame, time):
        if next(frames) == 3:
            frame.sample_rate = 0  # as a damaged frame says
        return take(self, frame, time)

    monkeypatch.setattr(SoundTrack, "take", odd)
    ((_, excerpt),) = decode(clip, [Span()], see=grey)
    assert whole.complete and not excerpt.complete
    assert excerpt.times == whole.times and 0.9 < len(excerpt.sound) / len(whole.sound) <= 1
