"""Several databases at once: splits, parts of splits, folds by folders and by lists of names."""

import json
import shutil

import numpy as np
from legacy_databases import (
    RECORDS,
    feature_database,
    features,
    refused,
    sound,
    text,
    text_database,
)

from memofast.data import Corpus
from memofast.data.folds import read_fold


def test_several_databases_become_splits(tmp_path, case):
    trn = [*RECORDS, text("e.npz", "no", "storm", target=1)]
    feature_database(tmp_path / "fc2/feat_th0.5_max36_min10", {"e.npz": features(1, seed=9), "f.npz": features(2)})
    text_database(tmp_path / "films_all_trn3k.db", trn[3:])
    text_database(tmp_path / "films_all_trn.db", trn)
    text_database(tmp_path / "films_all_val3k.db", [text("d.npz", "i", "am", target=0)])
    text_database(tmp_path / "other.db", [text("f.npz", "no")])
    names = ["films_all_trn3k.db", "films_all_trn.db", "films_all_val3k.db"]
    told = sound(case(*names, "test=other.db", options=["--face", "fc2"]))
    assert "corpus out at out: train 5, validation 1, test 1, train3k 2" in told
    assert "speech: 5 taken, 2 without a record of their clip" in told
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.description["splits"]["train3k"]["part_of"] == "train"
    assert corpus.split("train3k").ids == ["a#2", "e"] and corpus.split("test").ids == ["f"]
    assert corpus.stores["visual"].read("e")["rows"].tobytes() == features(1, seed=9)["features"].tobytes()
    shutil.rmtree(tmp_path / "out")
    assert "which split is other.db?" in refused(case("other.db", "films_all_trn.db"))
    text_database(tmp_path / "films_all_tst.db", [trn[0], text("f.npz", "no")])
    assert "sample 'c#1' is in split train and again in films_all_tst.db" in refused(case(*names, "films_all_tst.db"))
    text_database(tmp_path / "films_all_tst.db", [text("a.npz", "happy")])
    assert "sentences of clip 'a' are in split train and in test" in refused(case(*names, "films_all_tst.db"))
    text_database(tmp_path / "films_all_tst.db", [trn[0] | {"target": 2}])
    assert "has another record of a sentence of 'c#1'" in refused(case(*names, "films_all_tst.db"))
    assert "is named twice" in refused(case(names[0], f"./{names[0]}"))


def test_folders_of_folds_and_lists_of_names(tmp_path, case):
    words = {"a": "so", "b": "no", "c": "i", "d": "am"}
    labelled = [text(f"{name}.npz", word, target=n) for n, (name, word) in enumerate(words.items())]
    for fold, (trn, val, tst) in enumerate([("ab", "c", "d"), ("cd", "a", "b")], 1):
        for part, names in (("trn", trn), ("val", val), ("tst", tst)):
            chosen = [labelled["abcd".index(name)] for name in names]
            text_database(tmp_path / f"txt_db/{fold}/{part}_wwm.db", chosen)
    databases = [f"txt_db/{fold}/{part}_wwm.db" for fold in (1, 2) for part in ("trn", "val", "tst")]
    feature_database(tmp_path / "four/feat_x", {f"{name}.npz": features(2) for name in "abcd"})
    told = sound(case(*databases, face="four", speech=None))
    assert "note: 2 folds, as scheme cv; train, validation and test are the first of them" in told
    corpus = Corpus.open(tmp_path / "out")
    second = {part: split.ids for part, split in read_fold(corpus, "cv", 2).items()}
    assert second == {"train": ["c", "d"], "validation": ["a"], "test": ["b"]}
    assert {name: corpus.split(name).ids for name in corpus.splits} == {
        "train": ["a", "b"],
        "validation": ["c"],
        "test": ["d"],
    }
    shutil.rmtree(tmp_path / "out")
    text_database(tmp_path / "all.db", labelled)
    for fold, lists in ((3, {"trn": "ab", "val": "cx", "tst": "d"}), (7, {"trn": "cd", "val": "ab", "tst": "ab"})):
        (tmp_path / f"target/{fold}").mkdir(parents=True)
        for part, names in lists.items():
            np.save(tmp_path / f"target/{fold}/{part}_int2name.npy", np.array([[name.encode()] for name in names]))
            np.save(tmp_path / f"target/{fold}/{part}_label.npy", np.zeros(3))
    told = sound(case("all.db", speech=None, options=["--folds", "target"]))
    assert "note: all.db names no split; all of it is train" in told
    assert "note: fold 7 validates on its test part; it is kept as test alone" in told
    assert "note: 1 names of target have no sample (first: x)" in told
    corpus = Corpus.open(tmp_path / "out")
    assert {part: split.ids for part, split in read_fold(corpus, "cv", 1).items()} == {
        "train": ["a", "b"], "validation": ["c"], "test": ["d"]}  # fmt: skip
    assert {part: split.ids for part, split in read_fold(corpus, "cv", 2).items()} == {
        "train": ["c", "d"],
        "test": ["a", "b"],
    }
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "target/3/val_int2name.npy").unlink()
    (tmp_path / "target/3/val_ref.json").write_text(json.dumps({"a": {"label": 1}}))
    assert "fold 3 leaks: sample 'a' is in train and in validation" in refused(
        case("all.db", speech=None, options=["--folds", "target"]))  # fmt: skip
    np.save(tmp_path / "target/7/val_int2name.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "target/3/val_ref.json").unlink()
    assert "val_int2name.npy cannot be read (values of the kind" in refused(
        case("all.db", speech=None, options=["--folds", "target"]))  # fmt: skip
