"""Corpora of raw rows: their pixels are the aligned crops, their samples the decoded sound, however the work went."""

import json
import wave

import numpy as np
import pytest
import torch
from films import Picture, Tone, write_film
from runs import here

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces import detection
from memofast.prepare.faces.extractors import DenseFaceExtractor, FaceChoice, parse_face
from memofast.prepare.media.decoding import Span, decode
from memofast.prepare.run import extraction, pipeline
from memofast.prepare.run.settings import Settings

EYES = np.array([41.0, 30.0]), np.array([66.0, 35.0])  # not level
BOX = np.array([20.0, 10.0, 60.0, 70.0])
TABLE = "id,file,text,label\na,a.mkv,red now,glad\nb,b.mkv,blue,sad\nc,c.wav,now,sad\nd,d.wav,reds,glad\n"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]
cv2 = pytest.importorskip("cv2")


class SamePlace:
    """Sees a face at the same place of every picture, as the real finders cut it."""

    name = "same"

    def __init__(self, _yunet, colour=False, side=detection.CROP):
        self.asked = colour, side

    def __call__(self, picture):
        return [detection._face(cv2, picture, EYES, 0.75, BOX, *self.asked)]


@pytest.fixture(autouse=True)
def same_place(monkeypatch):
    monkeypatch.setattr(extraction, "find_faces", SamePlace)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two films, two sounds, a table of them, `vocab.txt` and the DenseFaces `d` and `e`."""
    folder = tmp_path_factory.mktemp("raw")
    for number, name in enumerate("ab"):
        tracks = (
            Picture(0.5 + 0.3 * number, size=(112, 96), first=3 + number),
            Tone(400.0 + 50 * number, 0.7, level=0.5),
        )
        write_film(folder / f"{name}.mkv", *tracks)
    for seed, name in enumerate("cd"):
        samples = np.random.default_rng(seed).integers(-9000, 9000, 2005 + 400 * seed).astype("<i2")
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000), file.writeframes(samples.tobytes())
        np.save(folder / f"{name}.npy", samples)
    (folder / "table.csv").write_text(TABLE)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    for seed, name in enumerate("de"):
        torch.manual_seed(seed)
        save_denseface(
            folder / name, DenseNet(3).state_dict(), DenseFaceMeta(("calm", "glad", "sad"), 120.0, 60.0, side=24)
        )
    return folder


def prepare(folder, out, *options, speech="raw", face="raw"):
    line = ["table.csv", "--out", out, "--vocab", "vocab.txt", "--voice", "none", "--speaker", "most-seen"]
    return here(folder, "prepare", *line, "--workers", 1, "--face", face, "--speech", speech, *options)


def done(folder, out, *options, **rows):
    result = prepare(folder, out, *options, **rows)
    assert result.returncode == 0, result.stderr
    return Corpus.open(out)


def refusal(result):
    assert result.returncode == 2, result.stderr
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def corpora(folder, tmp_path_factory):
    """Of faces 64 pixels wide with soft labels and raw sound; of 112 and frames side by side."""
    out = tmp_path_factory.mktemp("corpora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "find_faces", SamePlace)
        small = done(folder, out / "small", face="raw,labels=d")
        return small, done(folder, out / "large", face="raw,side=112", speech="logmel,stack=4")


def pictures_at(path, times):
    ((_, excerpt),) = decode(path, [Span(0, 9)], see=lambda frame: frame.picture(), sound=False)
    assert np.allclose(excerpt.times, times, atol=1e-5)
    return excerpt.seen


@pytest.mark.parametrize("id", ["a", "b"])
def test_pixels_are_those_of_the_aligned_crops(corpora, folder, id):
    for corpus, side in zip(corpora, (64, 112), strict=True):
        record = corpus.stores["visual"].read(id)
        expected = [
            detection.align(cv2, picture, *EYES, side)
            for picture in pictures_at(folder / f"{id}.mkv", record["times"].ravel())
        ]
        assert record["rows"].dtype == np.uint8 and len(record["rows"]) in (5, 8)
        assert np.array_equal(record["rows"].reshape(-1, side, side), expected)
        assert record["confidence"].ravel().tolist() == [0.75] * len(expected)
    small, large = (corpus.stores["visual"].read(id)["rows"] for corpus in corpora)
    enlarged = cv2.resize(small[0].reshape(64, 64), (112, 112))
    assert np.abs(large[0].reshape(112, 112).astype(int) - enlarged).mean() > 3  # finer than that


@pytest.fixture(scope="module")
def ready(folder, tmp_path_factory):
    """The corpus of a DenseFace's rows, and the crops that it saw, by film."""
    seen, called = [], DenseFaceExtractor.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "find_faces", SamePlace)
        patch.setattr(
            DenseFaceExtractor,
            "__call__",
            lambda self, faces: seen.append([face.crop for face in faces]) or called(self, faces),
        )
        return done(folder, tmp_path_factory.mktemp("ready") / "ready", face="denseface=d", speech="none"), seen


def test_soft_labels_and_pixels_are_those_of_denseface(corpora, ready):
    ready, seen = ready[0].stores["visual"], ready[1]
    raw = corpora[0].stores["visual"]
    for id, crops in zip("ab", seen, strict=True):
        one, other = raw.read(id), ready.read(id)
        assert np.array_equal(one["rows"].reshape(-1, 64, 64), crops)
        assert np.array_equal(one["soft_labels"], other["soft_labels"]) and one["soft_labels"].any()
    assert raw.meta["classes"] == {"soft_labels": ["calm", "glad", "sad"]}
    assert raw.meta["labeller"] == {"name": "denseface", "fingerprint": ready.meta["fingerprint"]}


def test_samples_are_those_of_the_sound(corpora, folder):
    store = corpora[0].stores["speech"]
    for id in "cd":
        samples, rows = np.load(folder / f"{id}.npy"), store.read(id)["rows"]
        assert np.array_equal(rows.reshape(-1)[: len(samples)], samples)
        assert rows.shape == (-(-len(samples) // 320), 320) and not rows.reshape(-1)[len(samples) :].any()
    ((_, excerpt),) = decode(folder / "b.mkv", [Span(0, 9)], see=None)
    heard = store.read("b")["rows"].reshape(-1)[: len(excerpt.sound)]
    assert np.array_equal(heard, (excerpt.sound * 32768).round()) and np.abs(heard).max() > 12_000


def test_what_stores_say_of_their_rows(corpora):
    small, large = corpora
    assert small.raw == {"visual", "speech"} and large.raw == {"visual"}
    visual, speech = (small.stores[name].meta for name in ("visual", "speech"))
    assert (visual["extractor"], visual["normalisation"]) == ("raw side 64, faces by same", "none")
    assert visual["fingerprint"] == "raw-1-eyes-0.36-0.4-side-64"
    assert (speech["extractor"], speech["fingerprint"]) == ("raw, 16 bit samples", "raw-1-16000-320")
    assert large.stores["visual"].meta["fingerprint"].endswith("side-112") and large.width("visual") == 112 * 112
    assert large.stores["speech"].meta["extractor"] == "logmel, stack of 4" and large.width("speech") == 320


def test_interrupted_work_goes_on_to_the_same_stores(corpora, folder, tmp_path, monkeypatch):
    real = pipeline.ENGINES["local"]

    def stops(*given):
        for task, whole in real(*given):
            yield task, whole
            if task is not None:
                raise KeyboardInterrupt

    monkeypatch.setitem(pipeline.ENGINES, "local", stops)
    assert prepare(folder, tmp_path / "o", face="raw,labels=d").returncode == 130
    monkeypatch.setitem(pipeline.ENGINES, "local", real)
    assert "was begun with face 'raw side 64, labels denseface', not 'raw side 112'" in refusal(
        prepare(folder, tmp_path / "o", face="raw,side=112")
    )
    assert "holds labeller {'name': 'denseface'" in refusal(prepare(folder, tmp_path / "o", face="raw,labels=e"))
    done(folder, tmp_path / "o", face="raw,labels=d")
    digests = [json.loads((out / "report.json").read_text())["digests"] for out in (tmp_path / "o", corpora[0].path)]
    assert digests[0] == digests[1]


def test_samples_beyond_16_bits_are_told(folder, tmp_path, monkeypatch):
    whole = extraction.decode

    def louder(*given, **options):
        for index, excerpt in whole(*given, **options):
            excerpt.sound[[3, 5, 8]] = 1.25, -1.5, -1.0
            yield index, excerpt

    monkeypatch.setattr(extraction, "decode", louder)
    done(folder, tmp_path / "o", face="none")
    told = json.loads((tmp_path / "o" / "report.json").read_text())["problems"]["clipped"]
    assert told["count"] == 4 and told["clips"][2]["detail"].startswith("2 of 2,005 samples, in ")


def test_choices_of_raw_faces():
    for text in ("raw", "raw,side=64", "raw,side=112", "raw,side=112,labels=d,e"):
        choice = parse_face(text)
        assert FaceChoice.described(str(choice), choice.path) == choice
        assert Settings(max_seconds=1.0, face=str(choice)).face == str(choice)
    assert (choice.side, str(choice.path), str(choice)) == (112, "d,e", "raw side 112, labels denseface")
    assert FaceChoice.described(str(choice), None) == FaceChoice("raw", side=112)  # nobody needs the labels
    wrong = {
        "raw,side=63": "side is 64 or 112, not '63'", "raw,side=": "not ''", "raw,labels=": "labels is a DenseFace",
        "raw,layer=last": "no setting 'layer'", "raw=x": "or none, not 'raw=x'",
    }  # fmt: skip
    for text, told in wrong.items():
        with pytest.raises(MemofastError, match=told):
            parse_face(text)
    for wrong in ("raw", "raw side 63", "raw side 64, labels", "raw side 112 layer last"):
        with pytest.raises(ValueError, match="faces that there are"):
            Settings(max_seconds=1.0, face=wrong)


def test_what_raw_rows_cannot_be_is_refused_before_anything_is_written(folder, corpora, tmp_path):
    for file, told in {"none": "no DenseFace file at none", "vocab.txt": "not a DenseFace"}.items():
        assert told in refusal(prepare(folder, tmp_path / "o", face=f"raw,labels={file}"))
    wrong = (
        ("--face-normalisation", "corpus", "raw faces stay as they are"),
        ("--speech-mean", 2, "leave --speech-mean out"),
        ("--speech-functionals", "1+2", "leave --speech-functionals out"),
    )
    for option, value, told in wrong:
        assert told in refusal(prepare(folder, tmp_path / "o", option, value))
    assert not (tmp_path / "o").exists()
    small, _ = corpora
    for modality, dtype in (("visual", "uint8"), ("speech", "int16")):
        told = refusal(here(folder, "normalise", small.path, "--modality", modality))
        assert f"{modality} rows of corpus {small.path} are raw ({dtype})" in told
    assert not list(small.path.glob("*-by-*"))


def test_raw_rows_are_not_mixed_with_ready_ones_nor_read_as_such(corpora, ready, folder):
    (small, _), (ready, _) = corpora, ready
    told = refusal(
        here(folder, "pretrain", "memobert-joint", f"corpora.0.path={small.path}", f"corpora.1.path={ready.path}")
    )
    assert f"visual rows are raw in corpus {small.path} and ready in {ready.path}; prepare both alike" in told
    told = refusal(here(folder, "finetune", f"corpus={small.path}", "model.face.network=denseface"))
    assert f"corpus {small.path} has raw speech, of which model.family memobert makes no rows" in told
