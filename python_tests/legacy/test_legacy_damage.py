"""Records that are counted by reason, and databases at odds with themselves, which are one line."""

import json
import shutil

import lz4.frame
import msgpack
import numpy as np
import pytest
from legacy_databases import (
    FACES,
    META,
    RECORDS,
    feature_database,
    features,
    framed,
    packed,
    refused,
    sound,
    text,
    text_database,
)

from memofast.data import Corpus

ODD = text("d.npz", "so", "un ##happy")
PICKLED = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cos\n."}
DAMAGED = {
    "that are no lz4 frames": b"junk" * 9,
    "whose lz4 frames are cut short": framed(ODD)[:-6],
    "with bytes after their lz4 frames": framed(ODD) + b"x",
    "of over 4 MiB": lz4.frame.compress(bytes(9 << 20)),
    "that are no msgpack": lz4.frame.compress(b"\xc1\xc1"),
    "that are no msgpack of fields": framed([1]),
    "without input_ids": framed({"img_fname": "d.npz"}),
    "whose input_ids are no list": framed({"input_ids": "storm"}),
    "with numbers that are no whole ones": framed({"input_ids": [[7], [None]]}),
    "with word pieces that the vocabulary does not have": framed({"input_ids": [[7], [20]]}),
    "with more emotion words than classes of them, or fewer": framed(ODD | {"emo_input_ids": [[7]], "emo_labels": []}),
    "whose soft_labels are no probabilities": framed(ODD | {"soft_labels": [0.5, 0.6]}),
    "with numbers that are not finite": framed(ODD | {"logits": packed(np.array([np.inf]))}),
    "with fewer pos_ids than word pieces": framed(ODD | {"pos_ids": [1]}),
    "with word_senti_ids that there are not": framed(ODD | {"word_senti_ids": [0, 1, 3]}),
    "with text_labels that there are not": framed(ODD | {"text_labels": [0, 20, 3]}),
    "with a target below 0": framed(ODD | {"target": -1}),
    "with arrays that are not of numbers": framed(ODD | {"soft_labels": PICKLED}),
}  # fmt: skip


def test_damaged_texts_are_counted_by_reason(tmp_path, case):
    text_database(tmp_path / "films_trn.db", [*RECORDS, *(("d.npz", value) for value in DAMAGED.values())])
    told = sound(case("films_trn.db"))
    line = told.splitlines()[0]
    assert line == "text: 4 taken, " + ", ".join(f"1 {reason}" for reason in DAMAGED)
    kept = json.loads((tmp_path / "out/import.json").read_text())["text"]["refused"]
    assert kept["without input_ids"] == [f"films_trn.db/{4 + list(DAMAGED).index('without input_ids')}"]
    assert Corpus.open(tmp_path / "out").split("train").ids == ["c#1", "a#1", "b", "a#2"]
    text_database(tmp_path / "none_trn.db", [("d.npz", b"junk" * 9)])
    shutil.rmtree(tmp_path / "out")
    assert "no record of the text databases can be used (0 taken, 1 that are no lz4" in refused(case("none_trn.db"))


def as_record(arrays) -> bytes:
    return msgpack.packb({name: packed(values) for name, values in arrays.items()})


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"\xc1", "that are no msgpack"),
        (as_record({"confidence": np.zeros(2, np.float16)}), "without features"),
        (as_record(features(2) | {"features": np.zeros((2, 6), np.int16)}), "with features of whole numbers, as raw"),
        (as_record(features(2) | {"confidence": np.zeros(3, np.float16)}), "with columns of different lengths"),
        (as_record(features(2) | {"features": np.full((2, 6), np.nan, np.float16)}), "with values that are not finite"),
        (as_record(features(2, faces=False)), "without the columns rows, confidence, soft_labels, times, or"),
        (as_record(features(2) | {"features": np.ones((2, 6), np.float32)}), "of another number type than the others"),
        (as_record(features(2) | {"soft_labels": np.ones((2, 7), np.float16)}), "with soft_labels of other classes"),
        (msgpack.packb({"features": PICKLED}), "with arrays that are not of numbers"),
    ],
)  # fmt: skip
def test_damaged_feature_records_are_counted_by_reason(tmp_path, case, record, why):
    rows = {name: len(arrays["features"]) for name, arrays in FACES.items()} | {"a.npz": 2}
    feature_database(tmp_path / "bad/feat_x", {**FACES, "a.npz": record}, nbb=rows)
    text_database(tmp_path / "films_trn.db", RECORDS)
    told = sound(case("films_trn.db", face="bad/feat_x", options=["--drop-missing"]))
    assert f"visual: 2 taken, 1 records {why}" in told and "speech: 4 taken" in told
    assert "note: 2 samples that lack features are in no split" in told
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.split("train").ids == ["c#1", "b"] and len(corpus.stores["text"]) == 4
    report = json.loads((tmp_path / "out/import.json").read_text())
    assert list(report["visual"]["refused"].values()) == [["feat_x/a.npz"]]


OTHER_FILES = {"0": "a.npz", "1": "a.npz", "2": "b.npz", "3": "a.npz"}


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ({"id2len": None}, "id2len.json is missing"),
        ({"meta": None}, "meta.json is missing"),
        ({"txt2img": {"0": "c#1.npz"}}, "the records and txt2img.json disagree about 3 names (first: '1')"),
        ({"txt2img": OTHER_FILES}, "txt2img.json and img2txts.json disagree"),
        ({"txt2img": OTHER_FILES, "img2txts": None}, "img_fname 'c#1.npz'"),
        ({"id2len": {"0": 3, "1": 5, "2": 2, "3": 2, "4": 1}}, "the records and id2len.json disagree about 1 names"),
        ({"id2len": {"0": 3, "1": 4, "2": 2, "3": 2}}, "text '1' has 5 word pieces, id2len.json says 4"),
        ({"id2len": {"0": "3", "1": 5, "2": 2, "3": 2}}, "id2len.json is not lengths of texts (0: input should be"),
        ({"id2len": [3]}, "id2len.json is not lengths of texts"),
        ({"img2txts": {"a.npz": ["1"], "b.npz": ["2"], "c#1.npz": ["0"]}}, "disagree about 1 names (first: 'a.npz')"),
        ({"img2txts": {"a.npz": "0", "b.npz": "2", "c#1.npz": "0"}}, "disagree about 1 names (first: 'a.npz')"),
        ({"meta": META | {"CLS": 101}}, "its [CLS] is 101, not 2; give the vocab.txt that it was built with"),
        ({"meta": META | {"v_range": [999, 30522]}}, "of 30522 word pieces, not 20"),
        ({"meta": META | {"v_range": 7}}, "meta.json is not the description"),
        ({"id2len": {"0": " " * (1 << 21)}}, "id2len.json has more than"),
    ],
)  # fmt: skip
def test_side_files_of_texts_that_disagree_are_one_line(tmp_path, case, sides, why):
    text_database(tmp_path / "films_trn.db", RECORDS, **sides)
    assert why in refused(case("films_trn.db"))
    assert not (tmp_path / "out").exists()


def test_side_files_as_cut_down_databases_have_them(tmp_path, case):
    sides = {"id2len": {"0": 2, "1": 3, "2": 1, "3": 2}, "img2txts": {"a.npz": "3", "b.npz": "2", "c#1.npz": "0"}}
    text_database(tmp_path / "films_trn.db", RECORDS, **sides)  # lengths in words, one text of each clip
    assert "text: 4 taken\n" in sound(case("films_trn.db"))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"nbb": None}, "nbb_x.json is missing"),
        ({"nbb": {"a.npz": 3, "b.npz": 0, "c#1.npz": 5}}, "nbb_x.json disagree about 1 names (first: 'd.npz')"),
        ({"nbb": {"a.npz": 2, "b.npz": 0, "c#1.npz": 5, "d.npz": 2}}, "'a.npz' has 3 rows, nbb_x.json says 2"),
        ({"nbb": {"a.npz": 3, "b.npz": 1, "c#1.npz": 5, "d.npz": 2}}, "'b.npz' has 0 rows, nbb_x.json says 1"),
        ({"nbb": {"a.npz": -3}}, "nbb_x.json is not numbers of rows"),
        ({"keys": None}, "has no __keys__, so it was not finished"),
        ({"keys": ["a.npz", "b.npz", "c#1.npz"]}, "the records and __keys__ disagree about 1 names"),
        ({"keys": 7}, "__keys__ are no list"),
        ({"clips": FACES | {"d.npz": features(2, 7), "a.npz": features(3, 7)}}, "mixes widths: rows of "),
        ({"clips": {name: b"\xc1" for name in FACES}}, "has no record that can be read"),
        ({"clips": {"z.npz": features(2)}}, "no clip of the texts is in"),
    ],
)  # fmt: skip
def test_feature_databases_at_odds_are_one_line(tmp_path, case, changed, why):
    feature_database(tmp_path / "odd/feat_x", changed.pop("clips", FACES), **changed)
    text_database(tmp_path / "films_trn.db", RECORDS)
    assert why in refused(case("films_trn.db", face="odd/feat_x"))
    assert not (tmp_path / "out/corpus.json").exists()


def test_databases_of_other_widths_or_of_the_same_clip_are_one_line(tmp_path, case):
    text_database(tmp_path / "films_trn.db", RECORDS)
    feature_database(tmp_path / "w/feat_x", {"e.npz": features(2, 7)})
    assert "cannot be one store: rows of" in refused(case("films_trn.db", options=["--face", "w/feat_x"]))
    feature_database(tmp_path / "w/feat_x", {"a.npz": features(2)})
    shutil.rmtree(tmp_path / "w")
    feature_database(tmp_path / "w/feat_x", {"a.npz": features(2)})
    assert "both hold 'a.npz'" in refused(case("films_trn.db", options=["--face", "w"]))
    shutil.copytree(tmp_path / "w/feat_x", tmp_path / "w/feat_y")
    assert "has several databases, feat_x, feat_y" in refused(case("films_trn.db", options=["--face", "w"]))
    assert "no database at nowhere" in refused(case("nowhere"))
    assert "no database at w/feat_z" in refused(case("films_trn.db", face="w/feat_z"))
