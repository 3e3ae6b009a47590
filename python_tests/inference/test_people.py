"""Real people side by side in one film: who is known again."""

import av
import numpy as np
import pytest
import torch

from memofast.inference.watching import watch
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces import detection as faces
from memofast.prepare.faces.extractors import FaceChoice
from memofast.prepare.run import extraction
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice

RATE, SECONDS = 25, 1.0


def pictures(path, count):
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [frame.to_ndarray(format="rgb24")[:288, :360] for frame, _ in zip(frames, range(count), strict=False)]


@pytest.mark.real
def test_people_who_change_sides_keep_their_numbers(real_data, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", faces.find_faces)
    torch.manual_seed(0)
    save_denseface(
        tmp_path / "face.safetensors", DenseNet(2).state_dict(), DenseFaceMeta(("calm", "glad"), 120.0, 60.0)
    )
    count = int(RATE * SECONDS)
    one, other = (
        pictures(real_data / "video" / name, 2 * count) for name in ("grid_s1/bbal8p.mpg", "grid_multi/lbax4n.mpg")
    )
    sides = [(one[:count], other[:count]), (other[count:], one[count:])]
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=RATE)
        video.width, video.height, video.pix_fmt, video.bit_rate = 720, 288, "yuv420p", 4_000_000
        for left, right in sides:
            for pair in zip(left, right, strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.concatenate(pair, 1)), format="rgb24")
                container.mux(video.encode(frame))
        container.mux(video.encode())
    (yunet,) = (real_data / "models").glob("*yunet*.onnx")
    face = FaceChoice("denseface", tmp_path / "face.safetensors")
    options = ExtractionOptions(face, yunet, SpeechChoice("none", None, 1), 30.0)
    film = tmp_path / "film.mp4"
    clips = [Clip(f"u{n}", film, film, n * SECONDS, (n + 1) * SECONDS) for n in range(2)]
    found = list(watch(Extraction(options), clips, others=True))
    people = [{utterance.shown.track, *(other.track for other in utterance.others)} for utterance in found]
    assert people == [{1, 2}, {1, 2}]
    crops = [
        {person.track: np.mean(person.crops, 0) for person in (utterance.shown, *utterance.others)}
        for utterance in found
    ]
    for number in (1, 2):
        alike = [np.corrcoef(crops[0][number].ravel(), crops[1][track].ravel())[0, 1] for track in (number, 3 - number)]
        assert alike[0] > alike[1] + 0.1
    rows = [utterance.others[0].rows for utterance in found]
    assert all(len(each) >= 9 and np.isfinite(each).all() for each in rows) and not np.allclose(rows[0][0], rows[1][0])
