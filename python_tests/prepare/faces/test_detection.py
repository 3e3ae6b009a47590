import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.prepare.faces import detection as faces
from memofast.prepare.media.decoding import Span, decode

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize("scale", [0.6, 1.0, 4.0])
@pytest.mark.parametrize("angle", [-25.0, 0.0, 40.0])
def test_eyes_land_at_their_places(scale, angle):
    right, left = (
        np.array([150.0, 160.0]),
        np.array([150.0, 160.0]) + 30 * scale * np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]),
    )
    picture = np.zeros((400, 420, 3), np.uint8)
    for eye in (right, left):
        cv2.circle(picture, (round(eye[0]), round(eye[1])), max(2, round(3 * scale)), (255, 255, 255), -1)
    crop = faces.align(cv2, picture, right, left)
    assert crop.shape == (64, 64) and crop.dtype == np.uint8
    half = faces.EYE_DISTANCE * faces.CROP / 2
    for sign in (-1, 1):
        expected = np.array([faces.CROP / 2 + sign * half, faces.EYE_HEIGHT * faces.CROP])
        side = crop.copy()
        side[:, 32:] *= sign > 0
        side[:, :32] *= sign < 0
        rows, columns = np.nonzero(side > 100)
        assert np.hypot(columns.mean() - expected[0], rows.mean() - expected[1]) < 2


def test_main_faces_are_large_and_sure():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 40, 40], [0, 0, 42, 42]], np.float32)
    assert faces.main_faces(boxes, np.array([0.99, 0.95, 0.6])).tolist() == [1, 2, 0]
    assert len(faces.main_faces(np.ones((20, 4)), np.ones(20))) == faces.MOST_FACES


def test_haar_finds_nothing_in_a_plain_picture():
    assert faces.Haar()(np.full((120, 160, 3), 90, np.uint8)) == []


def test_wrong_or_missing_model(tmp_path):
    with pytest.raises(MemofastError, match="memofast download yunet"):
        faces.YuNet(tmp_path / "none.onnx")
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"not a model")
    with pytest.raises(MemofastError, match=r"wrong\.onnx is not a YuNet model"):
        faces.YuNet(wrong)


def test_haar_is_chosen_with_a_warning():
    (note,) = faces.check_finder(None)
    assert "Haar" in note and "memofast download yunet" in note


@pytest.mark.real
def test_real_faces(real_data):
    yunet = faces.YuNet(real_data / "models" / "yunet_n_640_640.onnx", side=112)
    haar = faces.Haar()
    clip = real_data / "video" / "grid_s1" / "bbal8p.mpg"
    ((_, excerpt),) = decode(
        clip, [Span(0, 1)], see=lambda frame: (yunet(frame.picture()), haar(frame.picture())), sound=False
    )
    assert len(excerpt.seen) == 10 and all(both[0] and both[1] for both in excerpt.seen)
    for (by_yunet, *_), (by_haar, *_) in excerpt.seen:
        assert 0.6 < by_yunet.confidence <= 1 and 0 < by_haar.confidence <= 1
        likeness = np.corrcoef(by_yunet.crop.ravel(), by_haar.crop.ravel())[0, 1]
        assert likeness > 0.4  # both crops show the same face at about the same place
        assert by_yunet.fine.shape == (112, 112) and by_haar.fine is None
        smaller = cv2.resize(by_yunet.fine, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.abs(smaller.astype(int) - by_yunet.crop).mean() < 4  # the same piece of the picture, finer
    cartoon = real_data / "video" / "pyfeat_tests" / "no_face.mp4"
    ((_, excerpt),) = decode(cartoon, [Span(0, 1)], see=lambda frame: yunet(frame.picture()), sound=False)
    assert not any(excerpt.seen)
