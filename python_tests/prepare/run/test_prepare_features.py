"""Extractors through the whole command: what stands in the stores, and that it does not depend on how often or by how
many it was done."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from media import write_clip
from tiny_models import save_bert, save_speech_model, save_vit

from memofast.data.corpus import Corpus
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.prepare.faces.detection import Face
from memofast.prepare.run import extraction, pipeline, pixel_normalisation
from memofast.store import FeatureStore

EYES = np.array([12.0, 14.0]), np.array([28.0, 14.0])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now", "##s"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a DenseFace `d`, a classifier of faces `v`, a HuBERT `h`, a BERT `b` and `vocab.txt`."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_denseface(folder / "d", DenseNet(3).state_dict(), DenseFaceMeta(("calm", "glad", "sad"), 120.0, 60.0))
    save_vit(folder / "v", ("calm", "glad"))
    save_speech_model(folder / "h", "hubert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    save_bert(folder / "b", WORDS)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate("abcd"):
        write_clip(folder / f"{name}.mp4", 1.0 + 0.2 * number)
        (folder / f"{name}.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,{number}00\nred blues{' now' * number}\n")
    return folder


@pytest.fixture(autouse=True)
def a_face_everywhere(request, monkeypatch):
    if "real" in request.keywords:
        return

    class Everywhere:
        name = "everywhere"

        def __init__(self, colour):
            self.colour = colour

        def __call__(self, picture):
            crop = np.tile(np.arange(64, dtype=np.uint8), (64, 1)) + np.uint8(picture.mean())
            colour = np.tile(crop[:, :, None], (2, 2, 3)) if self.colour else None
            return [Face(crop, 0.75, np.array([0.0, 0.0, 40.0, 40.0]), EYES, colour=colour)]

    monkeypatch.setattr(extraction, "find_faces", lambda yunet, colour, side: Everywhere(colour))


@pytest.fixture
def prepare(monkeypatch, clips, models):
    """Runs the command on the clips and returns its exit code."""
    from memofast.cli import run
    from memofast.prepare.command import main

    def prepare(out, *options, media=clips):
        arguments = [media, "--out", out, "--vocab", models / "vocab.txt", "--voice", "none", "--workers", 1]
        arguments += ["--speaker", "most-seen", *options]
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run(main, "prepare")
        return ended.value.code or 0

    return prepare


def digests(out):
    return json.loads((out / "report.json").read_text())["digests"]


def rows(out, id="a_0001"):
    return Corpus.open(out).stores["visual"].read(id)["rows"]


def test_other_extractors_fill_the_stores(prepare, models, tmp_path):
    out = tmp_path / "o"
    speech = f"hubert={models / 'h'},layer=2"
    assert prepare(out, "--face", f"model={models / 'v'}", "--speech", speech) == 0
    visual, speech = (FeatureStore.open(out / name).meta for name in ("visual", "speech"))
    assert visual["extractor"] == "vit cls, faces by everywhere" and visual["columns"]["rows"][1] == 16
    assert visual["classes"] == {"soft_labels": ["calm", "glad"]} and visual["normalisation"].startswith("32x32")
    assert speech["extractor"] == "hubert layer 2, mean of 3" and "z-normed" in speech["normalisation"]
    assert len(visual["fingerprint"]) == len(speech["fingerprint"]) == 32
    corpus = Corpus.open(out)
    assert corpus.targets >= {"soft_labels"}
    times = corpus.stores["speech"].read("a_0001")["times"]
    np.testing.assert_allclose(np.asarray(times).ravel()[:2], [0.0325, 0.0925], atol=1e-6)


def test_a_model_without_classes_gives_no_soft_labels(prepare, models, tmp_path):
    assert prepare(tmp_path / "o", "--face", f"model={models / 'v'},labels=no", "--speech", "none") == 0
    corpus = Corpus.open(tmp_path / "o")
    assert corpus.modalities == ("text", "visual") and not corpus.targets


def test_face_none_says_nothing_and_leaves_faces_out(prepare, tmp_path, capsys):
    assert prepare(tmp_path / "o", "--face", "none") == 0
    assert "--face" not in capsys.readouterr().err
    assert Corpus.open(tmp_path / "o").modalities == ("text", "speech")
    assert prepare(tmp_path / "p") == 0
    assert "no --face, so the faces of 4 clips are left out" in " ".join(capsys.readouterr().err.split())


def test_pixels_of_the_corpus_are_fixed_before_the_first_row(prepare, models, clips, tmp_path, monkeypatch):
    face = ["--face", f"denseface={models / 'd'}"]
    assert prepare(tmp_path / "model", *face) == 0
    out = tmp_path / "o"
    assert prepare(out, *face, "--face-normalisation", "corpus") == 0
    pixels = json.loads((out / "prepare.json").read_text())["face_pixels"]
    assert pixels["clips"] == 4 and pixels["faces"] == json.loads((out / "report.json").read_text())["rows"]["visual"]
    crop = np.tile(np.arange(64.0), (64, 1))
    assert crop.mean() + 40 < pixels["mean"] < crop.mean() + 80 and crop.std() <= pixels["std"] < crop.std() + 10
    said = FeatureStore.open(out / "visual").meta["normalisation"]
    assert said == f"pixels (x - {pixels['mean']:.4f}) / {pixels['std']:.4f}, of this corpus"
    assert not np.allclose(rows(out), rows(tmp_path / "model"))

    more = tmp_path / "more"  # a later run uses the numbers that are there, whatever clips it has
    shutil.copytree(clips, more)
    write_clip(more / "e.mp4", 4.0)
    before = rows(out)
    monkeypatch.setattr(pixel_normalisation, "_measure", lambda *_: pytest.fail("measured again"))
    assert prepare(out, *face, "--face-normalisation", "corpus", media=more) == 0
    assert np.array_equal(rows(out), before) and rows(out, "e").shape[1] == 342
    assert json.loads((out / "prepare.json").read_text())["face_pixels"] == pixels


def test_interrupted_while_measuring_or_after(prepare, models, tmp_path, monkeypatch):
    options = ["--face", f"denseface={models / 'd'},layer=trans1+last", "--face-normalisation", "corpus"]
    assert prepare(tmp_path / "whole", *options) == 0
    out, real, ended = tmp_path / "o", pipeline.ENGINES["local"], []

    def stops(*given):
        for task, whole in real(*given):
            yield task, whole
            if task is not None:
                ended.append(task)
                raise KeyboardInterrupt

    monkeypatch.setitem(pipeline.ENGINES, "local", stops)
    assert prepare(out, *options) == 130 and "face_pixels" not in json.loads((out / "prepare.json").read_text())
    calls = iter([real, stops])
    monkeypatch.setitem(pipeline.ENGINES, "local", lambda *given: next(calls)(*given))
    assert prepare(out, *options) == 130 and "face_pixels" in json.loads((out / "prepare.json").read_text())
    monkeypatch.setitem(pipeline.ENGINES, "local", real)
    assert prepare(out, *options) == 0
    assert len(ended) == 2 and digests(out) == digests(tmp_path / "whole")
    assert not (out / "pixels").exists()


def test_a_corpus_without_faces_keeps_the_numbers_of_the_model(prepare, models, tmp_path, monkeypatch, capsys):
    blind = type("Blind", (), {"name": "blind", "__call__": lambda *_: []})
    monkeypatch.setattr(extraction, "find_faces", lambda *_: blind())
    assert prepare(tmp_path / "o", "--face", f"denseface={models / 'd'}", "--face-normalisation", "corpus") == 0
    assert "no face in 4 sampled clips" in " ".join(capsys.readouterr().err.split())
    assert "of this corpus" not in FeatureStore.open(tmp_path / "o" / "visual").meta["normalisation"]


def test_text_features_lie_beside(prepare, models, tmp_path, monkeypatch):
    from transformers import BertModel

    out = tmp_path / "o"
    assert prepare(out, "--text-features", f"model={models / 'b'}") == 0
    store = FeatureStore.open(out / "text_features")
    assert store.meta["extractor"] == "bert, pieces" and store.rows_of["d_0001"] == 6  # red blue ##s now now now
    model = BertModel.from_pretrained(models / "b").eval()
    with torch.no_grad():
        expected = model(torch.tensor([[2, 5, 6, 8, 3]])).last_hidden_state[0, 1:-1]
    np.testing.assert_allclose(store.read("a_0001")["rows"], expected, atol=2e-3)
    corpus = Corpus.open(out)
    assert corpus.modalities == ("text", "speech") and corpus.streams["text_features"][1] == "text"
    monkeypatch.setattr("memofast.prepare.text.features.TextEncoder.__call__", lambda *_: pytest.fail("encoded again"))
    assert prepare(out, "--text-features", f"model={models / 'b'}") == 0
    assert digests(out)["text_features"] == store.meta["digest"]


def test_text_features_by_sentence_and_by_more_workers(models, tmp_path):
    from memofast.prepare.text.features import parse_text_features, write_text_features

    sentences = [(str(number), "red blues " + "now " * (number % 9)) for number in range(70)] + [("none", "")]
    metas = [
        write_text_features(
            tmp_path / str(workers),
            sentences,
            parse_text_features(f"model={models / 'b'},rows=sentence"),
            "cpu",
            workers,
            {},
        )
        for workers in (1, 2)
    ]
    assert metas[0]["digest"] == metas[1]["digest"] and metas[0]["counts"] == {"records": 71, "rows": 70}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--face", "haar"], "--face is denseface=FILE, model=FOLDER, raw, frames or none"),
        (["--face", "model={models}"], "no model at"),
        (["--face", "model={models}/h"], "sees no pictures"),
        (["--face", "denseface={models}/d,layer=4"], "layer is last, trans1, trans2"),
        (["--face-normalisation", "corpus"], "is for --face denseface=FILE"),
        (["--face", "denseface={models}/none", "--face-normalisation", "corpus"], "no DenseFace file"),
        (["--face-normalisation", "mine"], "--face-normalisation is model or corpus"),
        (["--speech", "wav2vec2={models}/h"], "use --speech hubert="),
        (["--device", "tpu", "--speech", "hubert={models}/h"], "--device is auto, cpu or cuda"),
        (["--text-features", "{models}/b"], "--text-features is model=FOLDER"),
        (["--text-features", "model={models}/h"], "no tokenizer"),
        (["--text-features", "model={models}/v"], "no tokenizer"),
    ],
)
def test_mistakes_end_with_one_line(prepare, models, tmp_path, capsys, options, says):
    assert prepare(tmp_path / "o", *(option.format(models=models) for option in options)) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prepare: ")]
    assert len(told) == 1 and says in told[0]
    assert not (tmp_path / "o" / "corpus.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_no_gpu(prepare, models, tmp_path, capsys):
    assert prepare(tmp_path / "o", "--device", "cuda", "--speech", f"hubert={models / 'h'}") == 2
    assert "PyTorch sees no GPU" in capsys.readouterr().err


def test_other_extractors_are_refused_in_a_begun_folder(prepare, models, tmp_path, capsys):
    assert prepare(tmp_path / "o", "--speech", f"hubert={models / 'h'}") == 0
    assert prepare(tmp_path / "o", "--speech", f"hubert={models / 'h'},layer=1") == 2
    assert "speech 'hubert layer last', not 'hubert layer 1'" in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.slow
def test_real_faces_by_one_worker_and_two(real_data, models, prepare, tmp_path):
    media = tmp_path / "grid"
    media.mkdir()
    for path in sorted((real_data / "video" / "grid_s1").glob("*.mpg"))[:2]:
        (media / path.name).symlink_to(path)
    yunet = real_data / "models" / "yunet_n_640_640.onnx"
    options = ["--face", f"denseface={models / 'd'}", "--face-normalisation", "corpus", "--yunet", yunet]
    options += ["--speech", f"hubert={models / 'h'}", "--max-seconds", "1", "--speaker", "active", "--voice", "auto"]
    for workers in (1, 2):
        assert prepare(tmp_path / str(workers), *options, "--workers", workers, media=media) == 0
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert Corpus.open(tmp_path / "1").modalities == ("text", "visual", "speech")
