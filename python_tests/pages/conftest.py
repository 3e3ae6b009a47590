"""A small corpus out of generated clips, with faces, voices, labels, and clips that were dropped."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from inspected_corpus import prepare
from media import write_clip

from memofast.prepare.faces.detection import Face
from memofast.prepare.run import extraction

TABLE = """id,file,start,end,text,label
whole,a.mp4,,,red blue now,glad
part,b.mp4,0.5,1.5,red now,sad
mute,mute.mp4,,,,sad
heard,heard.wav,,,now now now now,glad
quiet,silent.mp4,,,blue,sad
broken,broken.mp4,,,,glad
"""


class Bright:
    """A finder that sees a face in every picture brighter than 50, as bright as the picture."""

    name = "bright"

    def __call__(self, picture):
        crop, box = np.full((64, 64), picture.mean().round(), np.uint8), np.array([0.0, 0.0, 40.0, 40.0])
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [Face(crop, 0.75, box, eyes)] if picture.mean() > 50 else []


@pytest.fixture
def bright_faces(monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", lambda *_: Bright())


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inspected_media")
    write_clip(folder / "a.mp4", 3.2, quiet=1.0)
    write_clip(folder / "b.mp4", 2.0, quiet=1.0)
    write_clip(folder / "mute.mp4", 1.0, sound=False)
    write_clip(folder / "heard.wav.mkv", 1.0, picture=False, quiet=0.5).rename(folder / "heard.wav")
    write_clip(folder / "silent.mp4", 1.0, level=0.0)
    (folder / "broken.mp4").write_bytes(b"no media" * 100)
    (folder / "table.csv").write_text(TABLE)
    return folder


@pytest.fixture(scope="session")
def prepared_once(media_folder, tmp_path_factory) -> Path:
    """The corpus; `quiet` was dropped by --min-speech, `broken` for want of anything."""
    options = ["--speaker", "most-seen", "--min-speech", 0.01]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "find_faces", lambda *_: Bright())
        return prepare(tmp_path_factory.mktemp("inspected"), media_folder / "table.csv", patch, *options)


@pytest.fixture
def prepared(prepared_once, bright_faces, tmp_path) -> Path:
    """A copy of the corpus, and of what it was prepared with, of the test's own."""
    shutil.copytree(prepared_once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / prepared_once.name
