"""Preparation: decoding kept frames only against reading every frame, and DenseFace extraction.

The rival of decoding is OpenCV as it is commonly used: `VideoCapture.read` for every frame, keeping the first of each
tenth of a second. Both give BGR pictures of the same clip; sound is left out on both sides. The clip is 4 s of 1280x720
H.264 at 30 frames per second with moving texture, scaled by neither side. The rival of extraction is the same network
called image by image, as the original did.
"""

import av
import cv2
import numpy as np
import pytest
import torch

from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces.denseface import DenseFace
from memofast.prepare.media import decoding

RATE, SECONDS = 30, 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    texture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    texture = cv2.resize(texture, (1600, 900), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(RATE * SECONDS):
            x, y = number % 300, (number * 2) % 170
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[y : y + 720, x : x + 1280]), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_every_frame(path):
    capture = cv2.VideoCapture(str(path))
    kept, last = [], -1
    while True:
        there, picture = capture.read()
        if not there:
            return kept
        slot = int(capture.get(cv2.CAP_PROP_POS_MSEC) / 100 + 1e-4)
        if slot > last:
            last = slot
            kept.append(picture)


def decode_kept(path):
    ((_, excerpt),) = decoding.decode(path, [decoding.Span()], see=lambda frame: frame.picture(), sound=False)
    return excerpt.seen


def test_decode_kept_frames(side_by_side, clip, monkeypatch):
    monkeypatch.setattr(decoding, "LONGEST_SIDE", 1280)
    ours, theirs = decode_kept(clip), read_every_frame(clip)
    assert ours[0].shape == theirs[0].shape and abs(len(ours) - len(theirs)) <= 1
    side_by_side(
        lambda: decode_kept(clip),
        {"opencv, every frame": lambda: read_every_frame(clip)},
        rounds=5,
        target={"opencv, every frame": 1.3},
        frames=RATE * SECONDS,
        kept=len(ours),
    )


def test_denseface_extraction(side_by_side, tmp_path):
    save_denseface(tmp_path / "d", DenseNet(7).state_dict(), DenseFaceMeta(tuple("abcdefg"), 120.0, 60.0))
    model = DenseFace(tmp_path / "d")
    crops = np.random.default_rng(0).integers(0, 255, (32, 64, 64), dtype=np.uint8)

    def one_by_one():
        return [model(crops[i : i + 1]) for i in range(len(crops))]

    torch.set_num_threads(1)  # as extraction runs: one thread per worker
    side_by_side(lambda: model(crops), {"image by image": one_by_one}, rounds=3, images=len(crops))
