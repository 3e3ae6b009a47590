"""Films predicted by a model whose network makes rows of raw faces: prepared as its corpus was, answered as evaluation
answers."""

import json
from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from media import write_clip
from runs import here

import memofast
from memofast.data import Corpus, Split
from memofast.errors import MemofastError
from memofast.inference import films
from memofast.inference.preparation import keep_preparation
from memofast.inference.samples import pack_samples
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces import detection
from memofast.prepare.run import extraction

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]
SIZES = {
    "vocab_size": len(WORDS), "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "initializer_range": 0.5, "id2label": {0: "glad", 1: "sad", 2: "calm"},
}  # fmt: skip
FACE = {"network": "denseface", "side": 24, "mean": 90.0, "std": 60.0}


class Striped:
    """Sees in every picture brighter than 50 a face as bright, with stripes across."""

    name = "striped"

    def __init__(self, _yunet=None, _colour=False, side=detection.CROP):
        self.side = side

    def __call__(self, picture):
        if picture.mean() <= 50:
            return []
        crops = [
            (np.arange(side * side).reshape(side, side) % 97 + picture.mean() / 4).astype(np.uint8)
            for side in (detection.CROP, self.side)
        ]
        eyes = np.array([12.0, 14.0]), np.array([28.0, 14.0])
        return [detection.Face(crops[0], 0.75, np.array([0.0, 0.0, 40.0, 40.0]), eyes, fine=crops[1])]


@pytest.fixture(autouse=True)
def striped(monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", Striped)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of raw faces, and a run as fine-tuning on it leaves one; the face's file is gone when films are read."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "source").mkdir()
    write_clip(folder / "source" / "glad.mp4", 1.3)
    write_clip(folder / "source" / "sad.mp4", 0.9, sound=False)
    (folder / "source" / "glad.srt").write_text("1\n00:00:00,100 --> 00:00:01,200\nRed now.\n")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    save_denseface(folder / "d", DenseNet(3).state_dict(), DenseFaceMeta(("calm", "glad", "sad"), 120.0, 60.0, side=24))
    line = ["source", "--out", "corpus", "--vocab", "vocab.txt", "--voice", "energy", "--speaker", "most-seen"]
    line += ["--face", "raw,side=112,labels=d", "--speech", "logmel,stack=4", "--workers", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "find_faces", Striped)
        result = here(folder, "prepare", *line, "--label-pattern", "(glad|sad)")
    assert result.returncode == 0, result.stderr
    (folder / "d").unlink()
    corpus = Corpus.open(folder / "corpus")
    sizes = SIZES | {"speech_width": corpus.width("speech"), "face": FACE | {"crop": 112}}
    MemoBertForEmotion(MemoBertConfig(**sizes)).save_pretrained(folder / "run" / "model")
    keep_preparation(corpus, ("lva",), folder / "run" / "model", None)
    return folder


@pytest.fixture(scope="module")
def opened(made):
    return memofast.load(made / "run", device="cpu")


@pytest.fixture
def predictor(opened):
    """One whose parts a test may change."""
    return copy(opened)


def scores(prediction):
    return np.array([prediction["probabilities"][name] for name in ("glad", "sad", "calm")])


def test_a_film_is_answered_as_evaluation_answers_its_corpus(made, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "draw_timeline", lambda *_: None)
    assert Corpus.open(made / "corpus").raw == {"visual"}
    model, corpus = opened.model, Corpus.open(made / "corpus")
    split = Split.of_ids(corpus, "all", list(corpus.stores["text"].ids))
    space = label_space_of(model)
    wanted, unseen = (
        dict(zip(split.ids, predict_split(model, split, space, condition=c).scores, strict=True)) for c in ("lva", "la")
    )
    result = here(made, "predict", "source", "--model", "run", "--out", tmp_path / "out", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == sorted(wanted) == ["glad_0001", "sad"]
    for row in rows:
        np.testing.assert_allclose(scores(row), wanted[row["id"]], atol=1e-5)
        assert not np.allclose(wanted[row["id"]], unseen[row["id"]], atol=1e-3)  # the faces matter
    assert rows[0]["modalities"] == ["text", "visual", "speech"] and rows[1]["modalities"] == ["visual"]


def test_raw_rows_are_given_as_they_are_stored(made, predictor):
    rows = Corpus.open(made / "corpus").stores["visual"].read("sad")["rows"]
    (found,), (same,) = (predictor.predict(features={"visual": given}) for given in (rows, rows.astype(np.int64)))
    assert found.probabilities == same.probabilities
    (darker,) = predictor.predict(features={"visual": rows // 2})
    assert not np.allclose(scores(vars(darker)), scores(vars(found)), atol=1e-3)
    for wrong in (rows.astype(np.float32), rows.astype(np.int16) + 200, rows.astype(np.int16) - 200):
        with pytest.raises(MemofastError, match="visual features are kept as uint8, and must be whole numbers from 0"):
            predictor.predict(features={"visual": wrong})
    with pytest.raises(MemofastError, match=r"must be \[rows, 12544\], got \[3, 4096\]"):
        predictor.predict(features={"visual": rows[:3, :4096]})


def test_streams_of_samples_are_packed_as_they_are_stored(predictor):
    predictor.widths = {"sound": 320, "glove": 5}
    predictor.model = SimpleNamespace(
        raw={"sound"}, streams={"sound": "speech", "glove": "text"}, longest={}, reads={}, context=None
    )
    rows = np.random.default_rng(0).integers(-32768, 32768, (3, 320))
    samples = [predictor._sample(None, given, "features") for given in ({}, {"sound": rows})]
    packed = pack_samples(samples).streams
    assert packed["sound"].values.dtype == torch.int16 and packed["glove"].values.dtype == torch.float32
    assert np.array_equal(packed["sound"].values, rows) and packed["sound"].offsets.tolist() == [0, 0, 3]
    with pytest.raises(MemofastError, match="sound features are kept as int16, and must be whole numbers from -32768"):
        predictor._sample(None, {"sound": rows / 32768}, "features")


def test_other_rows_than_the_training_had_are_refused(made, predictor):
    known = predictor.preparation
    assert known.settings["face"] == "raw side 112, labels denseface" and known.settings["speech"] == "logmel stack 4"
    assert known.of_store("visual", "dtype") == "uint8"
    for change, told in (
        ({"face": "raw side 64"}, "reads visual rows 12544 wide, those of raw side 64 are 4096"),
        ({"speech": "logmel stack 3"}, "reads speech rows 320 wide, those of logmel are 240"),
    ):
        predictor.preparation = replace(known, settings=known.settings | change)
        with pytest.raises(MemofastError, match=told):
            predictor.predict(video=made / "source" / "glad.mp4")
