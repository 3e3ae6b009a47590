"""Clips made on the spot, the corpus prepared from them, and small models of random weights that say how their corpus
was made."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media import write_clip

from memofast.cli import run
from memofast.data import Corpus
from memofast.inference.preparation import keep_preparation
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.command import main
from memofast.prepare.faces.detection import Face
from memofast.prepare.run import extraction

CLASSES = ("calm", "glad", "sad")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]
SMALL = {
    "vocab_size": len(WORDS), "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "initializer_range": 0.5, "id2label": dict(enumerate(CLASSES)),
}  # fmt: skip
SUBTITLES = """1
00:00:00,200 --> 00:00:01,700
Red now.

2
00:00:01,800 --> 00:00:03,100
Blue reds.
"""


class Bright:
    """A finder that sees a face in every picture brighter than 50, as bright as the picture, with a pattern of its
    own."""

    name = "bright"

    def __call__(self, picture):
        crop = (np.arange(4096).reshape(64, 64) % 97 + picture.mean() / 4).astype(np.uint8)
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [Face(crop, 0.75, np.array([0.0, 0.0, 40.0, 40.0]), eyes)] if picture.mean() > 50 else []


class Pair(Bright):
    """Beside the face of every bright picture a second one, striped the other way; sides: which of the two are seen."""

    def __init__(self, sides=(0, 1)):
        self.sides = sides

    def __call__(self, picture):
        first = super().__call__(picture)
        second = [
            replace(face, crop=face.crop.T.copy(), box=face.box + np.array([50.0, 0, -10, -10])) for face in first
        ]
        return [face for side, faces in enumerate((first, second)) if side in self.sides for face in faces]


@pytest.fixture
def pair_of_faces(monkeypatch):
    """Films show two people from here on; called with sides, only those."""

    def show(sides=(0, 1)):
        monkeypatch.setattr(extraction, "find_faces", lambda *_: Pair(sides))

    show()
    return show


@pytest.fixture(autouse=True)
def bright_faces(monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", lambda *_: Bright())


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "film.mp4", 3.4)
    (folder / "film.srt").write_text(SUBTITLES)
    write_clip(folder / "mute.mp4", 2.0, sound=False)
    write_clip(folder / "dark.mp4", 0.3)  # ends before its picture is bright enough for a face
    write_clip(folder / "long.mp4", 14.0, quiet=5.0)
    write_clip(folder / "heard.mkv", 1.0, picture=False).rename(folder / "heard.wav")
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """face, another face, vocab."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    for seed, name in enumerate(("face", "other")):
        torch.manual_seed(seed)
        save_denseface(folder / f"{name}.safetensors", DenseNet(3).state_dict(), DenseFaceMeta(CLASSES, 120.0, 60.0))
    return {"vocab": folder / "vocab.txt", "face": folder / "face.safetensors", "other": folder / "other.safetensors"}


@pytest.fixture(scope="session")
def prepared_once(media, files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    source = folder / "source"
    source.mkdir()
    for name, link in {"film.mp4": "glad.mp4", "film.srt": "glad.srt", "mute.mp4": "sad.mp4"}.items():
        (source / link).symlink_to(media / name)
    line = ["prepare", source, "--out", folder / "corpus", "--vocab", files["vocab"], "--voice", "energy"]
    line += ["--face", f"denseface={files['face']}", "--speaker", "most-seen", "--workers", 1]
    line += ["--label-pattern", "(glad|sad)"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "find_faces", lambda *_: Bright())
        patch.setattr(sys, "argv", [str(part) for part in line])
        with pytest.raises(SystemExit) as ended:
            run(main, "prepare")
    assert not ended.value.code
    return folder


@pytest.fixture
def prepared(prepared_once, tmp_path) -> Path:
    """The corpus of the film's two sentences and of the mute clip; a copy of the test's own, with its sources."""
    shutil.copytree(prepared_once, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "corpus"


@pytest.fixture
def make_model(prepared, files, tmp_path):
    """Saves a model as fine-tuning on the corpus does, with its vocabulary."""

    def make(*conditions: str, name: str = "run", vocabulary: bool = True, **changes) -> Path:
        corpus = Corpus.open(prepared)
        torch.manual_seed(3)
        widths = {f"{modality}_width": corpus.width(modality) for modality in ("visual", "speech")}
        MemoBertForEmotion(MemoBertConfig(**SMALL | widths | changes)).save_pretrained(tmp_path / name / "model")
        keep_preparation(corpus, conditions or ("lva",), tmp_path / name / "model", None)
        if not vocabulary:
            (tmp_path / name / "model" / "vocab.txt").unlink()
        return tmp_path / name

    return make


@pytest.fixture
def model(make_model) -> Path:
    return make_model()
