import numpy as np
import pytest

from memofast.prepare.faces.detection import Face, MouthSamples, YuNet
from memofast.prepare.faces.mouths import MouthWatch
from memofast.prepare.faces.speaking import Scores, active_speaker, correlation, mouth_of, score, sound_bands
from memofast.prepare.faces.tracks import Seen, Track, main_persons, thumbnail
from memofast.prepare.media.decoding import SAMPLE_RATE, Frame, Span, decode

pytest.importorskip("cv2")
HOP = 0.032
SECONDS = 4.0


def syllables(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """[25 per second] in 0..1: how far a mouth that speaks is open."""
    draws = np.random.default_rng(seed).random(round(seconds * 5))
    return np.interp(np.arange(round(seconds * 25)) / 5, np.arange(len(draws)), draws)


def voice(opening: np.ndarray) -> np.ndarray:
    """Noise as loud as the mouth is open, 16 kHz."""
    loudness = np.interp(
        np.arange(len(opening) * SAMPLE_RATE // 25) / SAMPLE_RATE * 25, np.arange(len(opening)), opening
    )
    noise = np.random.default_rng(0).standard_normal(len(loudness))
    return (0.1 * 10 ** (2 * loudness - 2) * noise).astype(np.float32)


def mouth(opening: np.ndarray, start: float = 0.0) -> MouthSamples:
    samples = MouthSamples()
    for number, value in enumerate(opening):
        samples.add(start + number / 25, 100 * value, 30 * value)
        if number:
            samples.add_step(start + number / 25, 20 * value)
    return samples


def person(samples: MouthSamples) -> Track:
    eyes = np.zeros(2), np.ones(2)
    return Track([0], [Face(np.zeros((64, 64), np.uint8), 0.9, np.zeros(4), eyes, samples)])


def test_a_mouth_fits_its_own_sound_best():
    openings = [syllables(seed) for seed in range(6)]
    bands = [sound_bands(voice(opening)) for opening in openings]
    table = np.array([[correlation(mouth(opening), other) for other in bands] for opening in openings])
    assert (table.argmax(0) == np.arange(6)).all() and np.diag(table).min() > 0.7


def test_a_sound_that_lags_fits_too():
    opening = syllables(1)
    late = np.concatenate((np.zeros(3), opening[:-3]))  # 120 ms
    assert correlation(mouth(opening), sound_bands(voice(late))) > 0.7


def test_the_person_whose_mouth_goes_with_the_sound_is_chosen():
    opening = syllables(3)
    others = [person(mouth(syllables(seed))) for seed in (4, 5)]
    speaker = person(mouth(opening))
    spoken = np.ones(round(SECONDS / HOP), bool)
    for persons in ([speaker, *others], [*others, speaker]):
        chosen, scores = active_speaker(persons, Span(0, SECONDS), voice(opening), spoken, HOP)
        assert chosen is speaker and scores.correlation > 0.7 and scores.matches == scores.moves > 0


def test_nobody_speaks_whose_mouth_is_still_or_moves_in_silence():
    still = MouthSamples()
    for number in range(100):
        still.add(number / 25, 0.0, 1.0)
        still.add_step(number / 25, 0.1)
    sound, everywhere = voice(syllables(3)), np.ones(125, bool)
    assert active_speaker([person(still)], Span(0, SECONDS), sound, everywhere, HOP) == (None, None)
    moving = person(mouth(syllables(3)))
    assert active_speaker([moving], Span(0, SECONDS), sound, ~everywhere, HOP) == (None, None)
    assert active_speaker([moving], Span(0, SECONDS), None, None, HOP)[0] is moving
    assert active_speaker([], Span(0, SECONDS), sound, everywhere, HOP) == (None, None)


def test_samples_outside_the_span_do_not_count():
    samples = mouth(syllables(2), start=10.0)
    inside = mouth_of(person(samples), Span(11.0, 12.0))
    assert min(inside.times) >= 0 and max(inside.times) < 1.0 and len(inside.times) == 25
    assert min(inside.moved) >= 0 and max(inside.moved) < 1.0


def test_less_than_a_second_has_no_correlation():
    opening = syllables(2)
    short = mouth(opening[:20])
    assert correlation(short, sound_bands(voice(opening))) is None
    assert correlation(MouthSamples(), sound_bands(voice(opening))) is None
    assert correlation(mouth(opening), sound_bands(np.zeros(0, np.float32))) is None
    assert score(MouthSamples(), None, None, HOP) == Scores(0, 0, None)


class Painted:
    """A frame in which a mouth is open by so many rows."""

    def __init__(self, opened: int, time: float, shift: int = 0):
        self.time = time
        self._grey = np.full((128, 128), 150, np.uint8)
        self._grey[92 : 92 + opened, 50:78] = 20
        self._grey = np.roll(self._grey, shift, 1)

    def grey(self):
        return self._grey


def test_opening_and_motion_of_a_painted_mouth():
    eyes = np.array([38.4, 46.0]), np.array([89.6, 46.0])
    watch = MouthWatch()
    found = Face(np.zeros((64, 64), np.uint8), 0.9, np.zeros(4), eyes)
    frames = [Painted(opened, number / 25) for number, opened in enumerate([0, 0, 12, 12, 0])]
    watch.see([found], frames[0].grey(), frames[0].time)
    for frame in frames[1:4]:
        watch.glance(frame.grey(), frame.time)
    later = Face(np.zeros((64, 64), np.uint8), 0.9, np.zeros(4), eyes)
    watch.see([later], frames[4].grey(), frames[4].time)
    mouth = found.mouth
    assert mouth.times == [0.0, 0.04, 0.08, 0.12] and later.mouth.times == [0.16]
    assert mouth.dark[2] - mouth.dark[1] > 100 and mouth.contrast[2] > mouth.contrast[1]
    assert mouth.moved == [0.04, 0.08, 0.12, 0.16] and later.mouth.moved == []
    assert mouth.motion[0] == mouth.motion[2] == 0 and min(mouth.motion[1], mouth.motion[3]) > 5


def roc_area(matching: np.ndarray, other: np.ndarray) -> float:
    return float((matching[:, None] > other[None]).mean() + 0.5 * (matching[:, None] == other[None]).mean())


@pytest.mark.real
@pytest.mark.slow
def test_real_mouths_are_told_from_those_of_other_clips(real_data):
    yunet, watch = YuNet(real_data / "models" / "yunet_n_640_640.onnx"), MouthWatch()

    def see(frame: Frame) -> Seen:
        seen = Seen(yunet(frame.picture()), thumbnail(frame.picture()))
        watch.see(seen.faces, frame.grey(), frame.time)
        return seen

    mouths, bands = [], []
    span = Span(0.0, 10.0)
    for clip in sorted((real_data / "video" / "styletalk" / "source_video").glob("*.mp4")):
        sound = clip.with_suffix(".wav")
        glance = lambda frame: watch.glance(frame.grey(), frame.time)  # noqa: E731
        ((_, excerpt),) = decode(clip, [span], see=see, glance=glance, sound=False)
        ((_, heard),) = decode(sound if sound.is_file() else clip, [span], see=None)
        mouths.append(mouth_of(main_persons(excerpt.seen)[0], span))
        bands.append(sound_bands(heard.sound))
    table = np.array([[correlation(one, other) for other in bands] for one in mouths])
    own = np.eye(len(table), dtype=bool)
    assert len(table) == 6 and roc_area(table[own], table[~own]) > 0.75
