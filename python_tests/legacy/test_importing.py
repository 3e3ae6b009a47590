"""Databases of the original system as a corpus: what comes in, how a stopped import goes on, what stays untouched."""

import shutil
import subprocess
import sys

import lmdb
import numpy as np
from legacy_databases import (
    FACES,
    ID,
    RECORDS,
    SPEECH,
    feature_database,
    framed,
    packed,
    pieces,
    refused,
    sound,
    text,
    text_database,
)

from memofast.data import Corpus
from memofast.store import FeatureWriter


def test_texts_faces_and_speech_are_joined_by_clip(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    for _ in range(2):  # again: nothing changes
        told = sound(case("films_trn.db"))
        assert "text: 4 taken\nvisual: 4 taken, 1 without rows\nspeech: 4 taken" in told
        assert "note: 1 more sentences than clips" in told and "corpus out at out: train 4" in told
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.split("train").ids == ["c#1", "a#1", "b", "a#2"]  # in the order of the database
    store, visual, speech = (corpus.stores[one] for one in ("text", "visual", "speech"))
    found = store.read("a#1")
    assert found["tokens"].tolist() == [2, ID["storm"], ID[","], ID["i"], ID["storm"], ID[","], 3]
    assert found["words"].tolist() == [-1, 0, 0, 1, 2, 2, -1]
    assert found["lexicon"].tolist() == [-1, 4, 4, -1, 4, 4, -1]
    assert found["label"].tolist() == [0] and bytes(found["utf8"]) == b"storm, i storm,"
    assert store.read("c#1")["lexicon"].tolist() == [-1, -1, 2, 2, -1]
    assert corpus.classes["label"] == ["0", "1", "2", "3"]
    assert visual.rows_of == {"a#1": 3, "a#2": 3, "b": 0, "c#1": 5} and speech.rows_of["b"] == 3
    for id, file in (("a#1", "a.npz"), ("a#2", "a.npz"), ("c#1", "c#1.npz")):
        rows = visual.read(id)
        for ours, theirs in (("rows", "features"), ("confidence", "confidence"), ("soft_labels", "soft_labels")):
            assert rows[ours].tobytes() == FACES[file][theirs].tobytes()
        np.testing.assert_allclose(rows["times"], FACES[file]["frame_idxs"].astype(float) / 10)
    assert speech.read("b")["rows"].tobytes() == SPEECH["b.npz"]["features"].tobytes()
    assert (tmp_path / "out/vocab.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()


def test_a_clip_without_faces_has_the_originals_row_of_zeros_where_asked(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    told = sound(case("films_trn.db", options=["--zero-face-row"]))
    assert "visual: 4 taken, 1 with a row of zeros for no face" in told and "speech: 4 taken\n" in told
    found = Corpus.open(tmp_path / "out").stores["visual"].read("b")
    assert found["rows"].tolist() == [[0] * 6] and found["soft_labels"].tolist() == [[1, *[0] * 7]]
    assert "other databases" in refused(case("films_trn.db"))  # without the rows it is another corpus


def test_pseudo_labels_polarities_prompts_and_logits(tmp_path, case):
    soft = np.array([0.1, 0.2, 0.3, 0.15, 0.25], np.float32)
    logits = np.array([-1.25, 3e-5, 2, 0.1, -7], np.float32)
    words = pieces("so", "un ##happy", ".")
    text_database(tmp_path / "films_val3k.db", [
        text("a.npz", "so", "un ##happy", ".", soft_labels=packed(soft), logits=packed(logits),
             target=packed(np.array(2)), pos_ids=[0, 1, 2, 3], word_senti_ids=[2, 0, 1, 2, 0],
             text_labels=[[-1], [-1, ID["sad"]], [-1]], fake_label=3, ground_truth_emo=packed(np.int64(1)), mood="new"),
        {"img_fname": "b.npz", "input_ids": [ID["i"], ID["un"], ID["##happy"]],
         "soft_labels": [packed(v) for v in soft], "target": 2,
         "emo_input_ids": [ID["un"]], "emo_labels": [[b"negemo", b"anx"]]},
    ])  # fmt: skip
    assert words == [[7], [10, 11], [14]]
    told = sound(case("films_val3k.db"))
    assert "text: 2 taken, 1 with more word_senti_ids than word pieces, cut, 1 with further classes" in told
    assert "kept as streams of the corpus: fake_label, ground_truth_emo, logits, pos_ids, text_labels, word" in told
    assert "note: 1 records have a field 'mood' that memofast knows no place for" in told
    assert "note: 1 texts say nothing of words (flat input_ids)" in told
    assert "corpus out at out: validation 2" in told
    corpus = Corpus.open(tmp_path / "out")
    first, second = (corpus.stores["text"].read(id) for id in "ab")
    assert first["emotions"].tobytes() == second["emotions"].tobytes() == soft.tobytes()
    assert first["label"].tolist() == [2] and corpus.classes["label"][2] == "surprise"
    streams = {name: store.read("a")["rows"] for name, (store, _) in corpus.streams.items()}
    assert streams["logits"].tobytes() == logits.tobytes()
    assert streams["pos_ids"].tolist() == [4, 0, 1, 2, 3, 4]
    assert streams["word_senti_ids"].tolist() == [2, 2, 0, 1, 2, 2]
    assert streams["text_labels"].tolist() == [-1, -1, -1, ID["sad"], -1, -1]
    assert streams["fake_label"].tolist() == [3] and streams["ground_truth_emo"].tolist() == [1]
    assert "b" not in corpus.streams["logits"][0].rows_of
    assert second["words"].tolist() == [-1, 0, 1, 1, -1]  # ## goes on with the word before it
    assert corpus.classes["lexicon"] == ["posemo", "negemo", "anx", "anger", "sad", "affect"]
    assert second["lexicon"].tolist() == [-1, -1, 2, -1, -1]
    split = corpus.split("validation").reading(["pos_ids", "text_labels"])
    batch = split.pack([0, 1])
    assert batch.streams["text_labels"].values[:6, 0].tolist() == [-1, -1, -1, ID["sad"], -1, -1]


def test_names_of_classes(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    options = ["--classes", "anger,happy,neutral,sad", "--lexicon-classes", "a,b,c,d,e"]
    sound(case("films_trn.db", options=options))
    classes = Corpus.open(tmp_path / "out").classes
    assert classes["label"] == ["anger", "happy", "neutral", "sad"] and classes["lexicon"] == list("abcde")
    shutil.rmtree(tmp_path / "out")
    assert "--classes names 3 classes, but there is a target of class 3" in refused(
        case("films_trn.db", options=["--classes", "x,y,z"])
    )
    assert "--lexicon-classes names 2" in refused(case("films_trn.db", options=["--lexicon-classes", "x,y"]))
    assert not (tmp_path / "out").exists()


def test_longer_numbers_are_rounded_and_told(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    long = {name: arrays | {"features": arrays["features"] + np.float64(1e-9)} for name, arrays in FACES.items()}
    feature_database(tmp_path / "long/feat_th0.5_max36_min10", long)
    told = sound(case("films_trn.db", face="long"))
    assert "note: numbers of 2 clips of feat_th0.5_max36_min10 are of 64 bits, and kept as float32" in told
    found = Corpus.open(tmp_path / "out").stores["visual"].read("c#1")["rows"]
    assert np.array_equal(found, long["c#1.npz"]["features"].astype(np.float32))


def test_compressed_databases_pictures_and_the_folder_above(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    feature_database(tmp_path / "zip/feat_th0.5_max36_min10_compressed", FACES)
    random = np.random.default_rng(7)
    images = {
        name: {"features": random.standard_normal((n, 4, 3)).astype(np.float16), "frame_idxs": np.arange(n, dtype="f2")}
        for n, name in enumerate(FACES, 1)
    }
    images["b.npz"] = {"features": np.array([], np.float16), "frame_idxs": np.array([], np.float16)}
    feature_database(tmp_path / "raw/feat_th0.5_max36_min10", images)
    told = sound(case("films_trn.db", face="zip", options=["--raw-faces", "raw/feat_th0.5_max36_min10/"]))
    assert "raw_faces: 4 taken, 1 without rows" in told
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.stores["visual"].read("c#1")["rows"].tobytes() == FACES["c#1.npz"]["features"].tobytes()
    store, modality = corpus.streams["raw_faces"]
    assert modality == "visual" and store.width == 12 and store.meta["extractor"] == "pictures of 4 x 3 in rows"
    assert store.read("a#2")["rows"].tobytes() == images["a.npz"]["features"].tobytes()
    assert store.rows_of["b"] == 0
    shutil.rmtree(tmp_path / "out")
    assert "which --raw-faces takes" in refused(case("films_trn.db", face="raw"))
    assert "rows of numbers" in refused(case("films_trn.db", options=["--raw-faces", "fc"]))
    (tmp_path / "zip/feat_th0.5_max36_min10_compressed/data.mdb").write_bytes(b"")
    assert "truncated or no LMDB file" in refused(case("films_trn.db", face="zip/feat_th0.5_max36_min10_compressed"))


def test_a_database_that_is_open_elsewhere_is_one_line(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    code = "import lmdb, sys; e = lmdb.open(sys.argv[1]); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "films_trn.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        assert f"films_trn.db is open in process {other.pid}: end that" in refused(case("films_trn.db"))
        other.communicate("\n")
    with lmdb.open(str(tmp_path / "fc/feat_th0.5_max36_min10"), readonly=True):
        assert "is open in process" in refused(case("films_trn.db"))
    sound(case("films_trn.db"))


def test_a_database_that_is_written_to_meanwhile_is_one_line(tmp_path, case, monkeypatch):
    text_database(tmp_path / "films_trn.db", RECORDS)
    put, folder = FeatureWriter.put, tmp_path / "fc/feat_th0.5_max36_min10"

    def meanwhile(self, id, *values, **columns):
        put(self, id, *values, **columns)
        with lmdb.open(str(folder)) as database, database.begin(write=True) as transaction:
            transaction.put(b"new", b"")

    monkeypatch.setattr(FeatureWriter, "put", meanwhile)
    assert "feat_th0.5_max36_min10 was written to while it was read" in refused(case("films_trn.db"))
    assert not (tmp_path / "out/corpus.json").exists()


def test_a_folder_that_nobody_may_write_stays_as_it_is(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/**/*")}
    for folder in ("films_trn.db", "fc/feat_th0.5_max36_min10", "sp/feat_th1.0_max64_min10"):
        (tmp_path / folder).chmod(0o500)
    sound(case("films_trn.db"))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/**/*") if "out" not in path.parts}


def test_an_import_that_was_stopped_goes_on(tmp_path, case, monkeypatch):
    text_database(tmp_path / "films_trn.db", RECORDS)
    sound(case("films_trn.db"))
    wanted = {one: store.meta["digest"] for one, store in Corpus.open(tmp_path / "out").stores.items()}
    shutil.rmtree(tmp_path / "out")
    put, count = FeatureWriter.put, iter(range(99))

    def stopped(self, id, *values, **columns):
        if next(count) == 5:
            raise KeyboardInterrupt
        put(self, id, *values, **columns)

    monkeypatch.setattr(FeatureWriter, "put", stopped)
    assert case("films_trn.db").returncode == 130 and not (tmp_path / "out/corpus.json").exists()
    again = []
    monkeypatch.setattr(FeatureWriter, "put", lambda self, id, *v, **c: (again.append(id), put(self, id, *v, **c)))
    assert "visual: 4 taken, 1 without rows\nspeech: 4 taken" in sound(case("films_trn.db"))
    assert len(again) == 3  # of eight
    assert {one: store.meta["digest"] for one, store in Corpus.open(tmp_path / "out").stores.items()} == wanted
    with lmdb.open(str(tmp_path / "films_trn.db")) as database, database.begin(write=True) as transaction:
        transaction.put(b"2", framed(RECORDS[2]))
    assert "of databases that changed" in refused(case("films_trn.db"))


def test_a_missing_extra_is_named(tmp_path, case, monkeypatch):
    text_database(tmp_path / "films_trn.db", RECORDS)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    assert "`memofast info` says what is missing" in refused(case("films_trn.db"))
