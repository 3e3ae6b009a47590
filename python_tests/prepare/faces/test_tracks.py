import numpy as np
import pytest

from memofast.prepare.faces.detection import Face, YuNet
from memofast.prepare.faces.tracks import Seen, main_persons, overlap, shot_cuts, thumbnail, track_faces
from memofast.prepare.media.decoding import Span, decode

pytest.importorskip("scipy")


def face(person: int, x: float, frame: int = 0, y: float = 50.0, size: float = 40.0) -> Face:
    """Each person is a pattern of their own, a little noisy in every frame."""
    pattern = np.random.default_rng(person).integers(40, 200, (8, 8)).repeat(8, 0).repeat(8, 1)
    noise = np.random.default_rng((person, frame)).integers(-20, 20, (64, 64))
    box = np.array([x, y, size, size])
    return Face(
        (pattern + noise).astype(np.uint8), 0.9, box, (box[:2] + 0.3 * size, box[:2] + np.array([0.7, 0.3]) * size)
    )


def shot(frames: list[list[Face]], grey: float = 100.0) -> list[Seen]:
    return [Seen(faces, np.full((16, 16), grey, np.float32)) for faces in frames]


def test_two_people_who_pass_each_other():
    seen = shot([[face(1, 10.0 * t, t), face(2, 200 - 10.0 * t, t)] for t in range(20)])
    one, two = track_faces(seen)
    assert one.frames == two.frames == list(range(20))
    crops = [np.corrcoef(track.faces[0].crop.ravel(), track.faces[-1].crop.ravel())[0, 1] for track in (one, two)]
    assert min(crops) > 0.8


def test_a_face_lost_for_a_moment_is_the_same_and_later_another_track():
    frames = [[face(1, 50, t)] if t not in (4, 5) else [] for t in range(10)]
    (track,) = track_faces(shot(frames))
    assert track.frames == [0, 1, 2, 3, 6, 7, 8, 9]


def test_two_people_who_come_and_leave_together():
    frames = [[face(1, 20, t), face(2, 150, t)] if t < 3 or t > 12 else [face(3, 90, t, y=150)] for t in range(16)]
    assert track_faces(shot(frames))[0].frames == list(range(3, 13))


def test_people_are_the_same_over_shots():
    left, right = [[face(1, 20, t)] for t in range(6)], [[face(2, 150, t)] for t in range(5)]
    seen = shot(left, 60) + shot(right, 160) + shot([[face(1, 90, t)] for t in range(6, 9)], 60)
    assert shot_cuts(seen) == [6, 11]
    persons = track_faces(seen)
    assert [track.frames for track in persons] == [[0, 1, 2, 3, 4, 5, 11, 12, 13], [6, 7, 8, 9, 10]]


def test_the_person_seen_most_is_the_main_one():
    frames = [[face(2, 150, t, size=80)] + ([face(1, 20, t)] if t % 4 else []) for t in range(12)]
    assert len(main_persons(shot(frames))[0].frames) == 12
    frames = [[face(1, 20, t), face(2, 150, t, size=80)] for t in range(12)]
    assert main_persons(shot(frames))[0].faces[0].box[2] == 80
    assert main_persons(shot([[face(1, 20)]] + [[]] * 9)) == []
    assert main_persons(shot([[]] * 9)) == [] == main_persons([])


def test_overlap():
    box = np.array([0.0, 0.0, 10.0, 10.0])
    assert overlap(box, box) == 1 and overlap(box, box + np.array([20.0, 0, 0, 0])) == 0
    assert overlap(box, np.array([5.0, 0.0, 10.0, 10.0])) == pytest.approx(1 / 3)


def test_order_of_detections_does_not_matter():
    frames = [[face(1, 10.0 * t, t), face(2, 200 - 10.0 * t, t)] for t in range(20)]
    turned = [found[::-1] if number % 2 else found for number, found in enumerate(frames)]
    tracks = [[track.faces[-1].box.tolist() for track in track_faces(shot(part))] for part in (frames, turned)]
    assert sorted(tracks[0]) == sorted(tracks[1])


@pytest.mark.real
def test_real_clips_of_one_person_give_one_track(real_data):
    yunet = YuNet(real_data / "models" / "yunet_n_640_640.onnx")
    clips = sorted((real_data / "video" / "grid_multi").glob("*.mpg"))[:3]
    for clip in clips:
        pictures = lambda frame: Seen(yunet(frame.picture()), thumbnail(frame.picture()))  # noqa: E731
        ((_, excerpt),) = decode(clip, [Span(0, 2)], see=pictures, sound=False)
        assert shot_cuts(excerpt.seen) == []
        assert [len(track.frames) for track in track_faces(excerpt.seen)] == [20]
