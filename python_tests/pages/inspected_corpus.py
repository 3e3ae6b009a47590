"""Prepares what a test has made, with a small DenseFace of random weights."""

import sys
from pathlib import Path

import pytest
import torch

from memofast.cli import run
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.command import main

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]


def prepare(folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch, *options: object) -> Path:
    """The corpus at `folder/corpus`, made of a table or folder in this process."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    torch.manual_seed(0)
    meta = DenseFaceMeta(("calm", "glad", "sad"), 120.0, 60.0)
    save_denseface(folder / "face.safetensors", DenseNet(3).state_dict(), meta)
    line = ["prepare", source, "--out", folder / "corpus", "--vocab", folder / "vocab.txt", "--voice", "energy"]
    line += ["--face", f"denseface={folder / 'face.safetensors'}", "--workers", 1, *options]
    monkeypatch.setattr(sys, "argv", [str(part) for part in line])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    assert not ended.value.code
    return folder / "corpus"
