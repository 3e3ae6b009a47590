"""Captions with several sentences, mixed labels, damaged feature files and a lexicon, from `import-npz`."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from runs import here

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.prepare.sources.npz import read_captions, read_npz, sentences_of_clips

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "glad", "red", "##ly", "sad", "now"]


@pytest.fixture
def export(tmp_path):
    """Starts the import of captions with faces of every clip; returns the process."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    (tmp_path / "faces").mkdir()
    random = np.random.default_rng(3)

    def start(captions, *options):
        (tmp_path / "captions.json").write_text(captions if isinstance(captions, str) else json.dumps(captions))
        for number, clip in enumerate(json.loads((tmp_path / "captions.json").read_text())):
            if not (tmp_path / "faces" / f"{clip}.npz").exists():
                features = random.standard_normal((number + 2, 5)).astype(np.float32)
                np.savez_compressed(tmp_path / "faces" / f"{clip}.npz", features=features)
        paths = ["--captions", "captions.json", "--vocab", "vocab.txt", "--visual", "faces", "--out", "out"]
        return here(tmp_path, "import-npz", *(tmp_path / one if "." in one or one in ("faces", "out") else one
                                             for one in paths), *options)  # fmt: skip

    return start


def test_two_sentences_of_a_clip_are_two_samples_with_its_features(tmp_path, export):
    told = export({"a": ["glad now", "redly sad"], "b": ["sad"], "c": ["red", "red", "now"]}, "--validation", "2")
    assert told.returncode == 0 and "note: 3 more sentences than clips" in told.stdout
    corpus = Corpus.open(tmp_path / "out")
    splits = {split: set(corpus.split(split).ids) for split in corpus.splits}
    assert splits["train"] | splits["validation"] == {"a#1", "a#2", "b", "c#1", "c#2", "c#3"}
    homes = {id.split("#")[0]: set() for ids in splits.values() for id in ids}
    for split, ids in splits.items():
        for id in ids:
            homes[id.split("#")[0]].add(split)
    assert all(len(home) == 1 for home in homes.values()) and len(splits["validation"]) >= 2
    text, visual = corpus.stores["text"], corpus.stores["visual"]
    assert text.read("a#1")["tokens"].tolist() == [2, 5, 9, 3]
    assert text.read("a#2")["tokens"].tolist() == [2, 6, 7, 8, 3]
    assert visual.rows_of == {"a#1": 2, "a#2": 2, "b": 3, "c#1": 4, "c#2": 4, "c#3": 4}
    (tmp_path / "splits.json").write_text('{"train": ["a", "c#1"], "test": ["b", "gone"]}')
    told = export({"a": ["glad now", "redly sad"], "b": ["sad"], "c": ["red", "red", "now"]},
                  "--splits", tmp_path / "splits.json")  # fmt: skip
    assert "note: 1 names of" in told.stdout and "note: 2 samples are in no split (first: c#2)" in told.stdout
    assert Corpus.open(tmp_path / "out").split("train").ids == ["a#1", "a#2", "c#1"]


def test_labels_one_and_one_as_text_are_one_class(tmp_path, export):
    captions = '{"a": {"txt": ["glad"], "label": 1}, "b": {"txt": ["sad"], "label": "1"},'
    captions += '"c": {"txt": ["red"], "label": 0}, "d": {"txt": ["now"], "label": NaN}}'
    assert export(captions).returncode == 0
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.classes["label"] == ["0", "1"]
    found = {id: int(corpus.stores["text"].read(id)["label"][0]) for id in "abcd"}
    assert found == {"a": 1, "b": 1, "c": 0, "d": -1}


def test_labels_that_differ_in_form_are_told_and_too_large_ones_refused(tmp_path, export):
    captions = {"a": {"txt": ["glad"], "label": "Joy"}, "b": {"txt": ["sad"], "label": "joy"}}
    assert "note: labels 'Joy' (1), 'joy' (1) differ" in export(captions).stdout
    wrong = {10**9: "no number from 0", 1.5: "no number from 0", "1000000000": "make 1000000001 classes"}
    for label, why in wrong.items():
        told = export({"a": {"txt": ["glad"], "label": label}, "b": {"txt": ["sad"], "label": 1}})
        assert told.returncode == 2 and why in told.stderr
        assert len(told.stderr.strip().split("\n")) == 1


def test_damaged_files_are_told_and_dropped_where_asked(tmp_path, export):
    captions = {name: ["glad now"] for name in "abcdef"}
    export(captions)
    for path in (tmp_path / "out").rglob("*"):
        path.unlink() if path.is_file() else None
    path = tmp_path / "faces" / "b.npz"
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("features.npy").header_offset + 60
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 8] = bytes(255 - byte for byte in damaged[place : place + 8])
    path.write_bytes(damaged)
    (tmp_path / "faces" / "c.npz").write_bytes(b"")
    np.savez(tmp_path / "faces" / "d.npz", features=np.zeros((3, 5), np.float32), confidence=np.ones((3, 2)))
    np.savez(tmp_path / "faces" / "e.npz", features=np.full((3, 5), np.nan, np.float32))
    told = export(captions)
    assert told.returncode == 0 and "visual: 2 taken, " in told.stdout
    for reason in ("unreadable (", "1 confidence or frame_idxs not one number a row", "1 with values that are not"):
        assert reason in told.stdout
    assert sum(len(Corpus.open(tmp_path / "out").split(split)) for split in ("train",)) == 6
    told = export(captions, "--drop-missing")
    assert "note: 4 samples that lack features are in no split" in told.stdout
    assert Corpus.open(tmp_path / "out").split("train").ids == ["a", "f"]
    refused = json.loads((tmp_path / "out" / "import.json").read_text())["visual"]["refused"]
    assert sorted(name[-5] for names in refused.values() for name in names) == ["b", "c", "d", "e"]


def test_what_the_builders_of_databases_do_otherwise(tmp_path, export):
    captions = {"a": ["glad", "now sad"], "b": ["red"], "c": {"txt": ["now", "now"]}}
    export(captions)
    (tmp_path / "faces" / "b.npz").write_bytes(b"")
    told = export(captions)
    assert (
        "note: 2 more sentences than clips; each sentence is a sample with its clip's features (--sent" in told.stdout
    )
    assert "note: no word has an emotion class; the original's builders look words up in a lexicon" in told.stdout
    shutil.rmtree(tmp_path / "out")
    told = export(captions)
    assert "note: 1 samples without a usable file of faces stay; the original's builders leave them out" in told.stdout
    assert set(Corpus.open(tmp_path / "out").split("train").ids) == {"a#1", "a#2", "b", "c#1", "c#2"}
    told = export(captions, "--drop-faceless")
    assert "note: 1 samples that lack features are in no split" in told.stdout and "stay;" not in told.stdout
    assert Corpus.open(tmp_path / "out").split("train").ids == ["a#1", "a#2", "c#1", "c#2"]
    for kept, tokens in (("first", [2, 5, 3]), ("joined", [2, 5, 9, 8, 3])):
        shutil.rmtree(tmp_path / "out")
        assert export(captions, "--sentences", kept).returncode == 0
        corpus = Corpus.open(tmp_path / "out")
        assert corpus.split("train").ids == ["a", "b", "c"]
        assert corpus.stores["text"].read("a")["tokens"].tolist() == tokens
    told = export(captions, "--sentences", "last")
    assert told.returncode == 2 and "--sentences is each, first, joined, not 'last'" in told.stderr


def test_words_have_the_classes_of_a_lexicon(tmp_path, export):
    (tmp_path / "lexicon.tsv").write_text("glad\tjoy\nredly\tanger\nsad\tsadness\n")
    assert export({"a": ["now Glad, redly"], "b": ["now"]}, "--lexicon", tmp_path / "lexicon.tsv").returncode == 0
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.classes["lexicon"] == ["anger", "joy", "sadness"]
    record = corpus.stores["text"].read("a")
    assert record["tokens"].tolist() == [2, 9, 5, 1, 6, 7, 3]
    assert record["lexicon"].tolist() == [-1, -1, 1, 1, 0, 0, -1]


def test_what_is_cut_and_ids_that_no_store_takes_are_told(tmp_path, export):
    told = export({"a": ["glad " * 101], "b": ["sad"], "x\ny": ["red"]}, "--visual-rows", "3")
    assert told.returncode == 0, told.stderr
    assert "text: 2 taken, 1 with an id that no store takes (it has a line break), 1 cut after 100 words" in told.stdout
    assert "visual: 2 taken, 1 of 3 rows, where more are cut" in told.stdout


def test_halves_of_letters_and_vocabularies_that_lack_a_piece_are_told(tmp_path, export):
    told = export('{"a": ["glad \\ud800 now"], "b": ["sad"]}')
    assert told.returncode == 0 and "half of a surrogate pair" in told.stdout + told.stderr
    assert Corpus.open(tmp_path / "out").split("train").ids == ["b"]
    (tmp_path / "vocab.txt").write_text("\n".join(piece for piece in VOCABULARY if piece != "[UNK]"))
    told = export({"a": ["glad"]}, "--out", "other")
    assert told.returncode == 2 and "[UNK]" in told.stderr and len(told.stderr.splitlines()) == 1


def test_sentences_that_are_no_text(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"a": ["glad", 3]}')
    with pytest.raises(MemofastError, match="a sentence of 'a' is no text"):
        read_captions(path)
    path.write_text('{"a": ["glad", "sad"], "a#2": "now"}')
    with pytest.raises(MemofastError, match="'a#2' is there twice"):
        read_captions(path)
    path.write_text('{"a": "glad", "b": {"txt": "sad", "label": 2}}')
    read = sentences_of_clips(path)
    assert read.sentences == {"a": ("glad", None), "b": ("sad", "2")} and read.numbered


def test_soft_labels_of_one_dimension(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.zeros((3, 5), np.float32), soft_labels=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="soft_labels not a table"):
        read_npz(tmp_path / "a.npz", 0.0, 9, 1.0)
