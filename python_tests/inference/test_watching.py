"""Utterances out of what was extracted: who was seen, a few crops of each, and nothing of the rest kept."""

from pathlib import Path

import numpy as np
import pytest

from memofast.inference.watching import watch
from memofast.prepare.faces.detection import Face
from memofast.prepare.faces.tracks import Track
from memofast.prepare.media.decoding import Span
from memofast.prepare.run.extraction import Extracted, FaceRows, Person
from memofast.prepare.sources.clips import Clip

FILM = Path("film.mp4")
random = np.random.default_rng(0)
ANN, BEN = (random.integers(0, 255, (64, 64)).astype(np.uint8) for _ in range(2))


def person(crop, count, level=None):
    face = Face(crop, 0.5, np.zeros(4), (np.zeros(2), np.zeros(2)))
    rows = None if level is None else FaceRows(np.full((count, 3), level, np.float32), None, None, None)
    return Person(Track(list(range(count)), [face] * count), [0.1 * frame for frame in range(count)], rows)


SEEN = {"0": ((ANN, 40), (BEN, 8)), "1": ((BEN, 9), (ANN, 30)), "2": (None, (BEN, 5))}


def extraction(file, everybody):
    """By the last digit of a clip's id: Ann's face is taken, or Ben's, or nobody's."""
    for clip in file:
        taken, others = SEEN[clip.id[-1]]
        found = Extracted(clip, span=Span(clip.start, clip.end), seconds=clip.end - clip.start)
        if taken:
            found.person = person(*taken, 1.0)
            found.faces = found.person.rows
        found.others = [person(*others, 2.0 if everybody else None)]
        yield found


@pytest.fixture
def clips():
    return [Clip(f"u{n}", FILM, FILM, 4.0 * n, 4.0 * (n + 1)) for n in range(3)]


def test_persons_keep_their_numbers_over_a_file(clips):
    found = list(watch(extraction, clips, others=True))
    assert [utterance.track for utterance in found] == [1, 2, None]
    assert [[other.track for other in utterance.others] for utterance in found] == [[2], [1], [2]]
    first, second = found[0].shown, found[0].others[0]
    assert len(first.times) == len(first.crops) == 10 and first.times[0] == 0.0  # 2.5 a second
    assert len(second.times) == 8 and second.rows.tolist() == [[2.0] * 3] * 8 and first.rows is None
    assert found[1].shown.times[0] == 4.0 and found[1].shown.times[-1] == pytest.approx(4.8)
    assert all(utterance.extracted.person is None and not utterance.extracted.others for utterance in found)
    assert found[0].extracted.faces.rows[0, 0] == 1.0


def test_which_track_was_read_is_among_the_notes(clips):
    def read(file, everybody):
        yield Extracted(file[0], streams="sound track 2 (eng) is read, not 1 (fra)")

    (found,) = watch(read, clips[:1])
    assert found.notes == ["sound track 2 (eng) is read, not 1 (fra)"]


def test_others_are_known_again_though_nobody_asked_for_them(clips):
    found = list(watch(extraction, clips))
    assert [utterance.track for utterance in found] == [1, 2, None]
    assert not any(utterance.others for utterance in found)


def test_every_file_has_people_of_its_own(clips):
    other = Clip("v1", Path("b.mp4"), None, 0.0, 4.0)
    assert [utterance.track for utterance in watch(extraction, [*clips[:2], other])] == [1, 2, 1]


def test_what_cannot_be_played_is_handed_on(clips):
    found = list(
        watch(extraction, [Clip("words", text="red"), Clip("lost", FILM, problem="missing file: x"), clips[0]])
    )
    assert [utterance.clip.id for utterance in found] == ["words", "lost", "u0"]
    assert found[1].notes == ["missing file (x)"] and found[0].shown is None
