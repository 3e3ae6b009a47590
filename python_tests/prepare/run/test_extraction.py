"""What is extracted of a clip carries who was seen and, where it is asked for, what was heard."""

import math

import numpy as np
import pytest
from media import write_clip

from memofast.prepare.faces.detection import Face
from memofast.prepare.faces.extractors import FaceChoice
from memofast.prepare.run import extraction
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice

NO_SPEECH = SpeechChoice("none", None, 1)


class TwoPeople:
    """A finder that sees a large face of grey level 10 and a small one of 20, far apart, in every picture."""

    name = "two"

    def __call__(self, picture):
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [
            Face(np.full((64, 64), level, np.uint8), 0.75, np.array([left, 0.0, side, side]), eyes)
            for level, left, side in ((10, 0.0, 60.0), (20, 200.0, 30.0))
        ]


@pytest.fixture
def film(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", lambda *_: TwoPeople())
    write_clip(tmp_path / "film.mp4", 1.5)
    return Clip("film", tmp_path / "film.mp4", tmp_path / "film.mp4", start=0.5)


def extracted_of(film, face="pixels", everybody=False, **options):
    face = face and FaceChoice(face)
    extractors = Extraction(ExtractionOptions(face, None, NO_SPEECH, math.inf, **options))
    (found,) = extractors([film], everybody=everybody)
    assert not found.problems, found.problems
    return found


def test_the_person_whose_face_was_taken_and_the_others(film):
    found = extracted_of(film)
    assert found.faces is found.person.rows
    assert {face.crop[0, 0] for face in found.person.track.faces} == {10}
    assert found.faces.rows[:, 0].tolist() == [10 * 64 * 64] * len(found.person.times)
    np.testing.assert_array_equal(found.faces.times, np.float32(found.person.times))
    (other,) = found.others
    assert {face.crop[0, 0] for face in other.track.faces} == {20} and other.rows is None
    assert found.heard is None


def test_rows_of_everybody_where_they_are_asked_for(film):
    found = extracted_of(film, everybody=True)
    (other,) = found.others
    assert found.faces.rows[0, 0] == 10 * 64 * 64 and other.rows.rows[0, 0] == 20 * 64 * 64
    assert len(other.rows.rows) == len(other.times) == len(other.rows.confidence)


def test_nobody_speaks_and_all_are_others(film, monkeypatch):
    monkeypatch.setattr(Extraction, "_speaker", lambda *_: None)
    extractors = Extraction(ExtractionOptions(FaceChoice("pixels"), None, NO_SPEECH, math.inf))
    (found,) = extractors([film], everybody=True)
    assert (
        found.faces is None and found.person is None and [p.reason for p in found.problems] == ["nobody visible speaks"]
    )
    assert [person.rows.rows[0, 0] for person in found.others] == [10 * 64 * 64, 20 * 64 * 64]


def test_crops_alone_have_no_columns(film):
    found = extracted_of(film, face="crops")
    assert found.faces.rows.shape == (len(found.person.times), 0) and found.faces.soft_labels is None


def test_what_was_heard_where_it_is_asked_for(film):
    found = extracted_of(film, face=None, keep_sound=True)
    assert len(found.heard.wave) == pytest.approx(16_000, abs=2000) and found.heard.activity is None
    spoken = extracted_of(film, face=None, keep_sound=True, voice="energy")
    assert spoken.heard.activity.mean() == pytest.approx(spoken.spoken) and spoken.heard.hop > 0


def test_without_it_the_sound_is_not_decoded(film):
    assert extracted_of(film).heard is None
    assert extracted_of(film, voice="energy").heard is None
