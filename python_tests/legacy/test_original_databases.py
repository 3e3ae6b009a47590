"""The small databases that the original's own builders made, against the values that went in."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from runs import SMALL, here, losses, pretrain, the_run

from memofast.data import Corpus
from memofast.prepare.text.word_pieces import NRC_CLASSES

FACES, SPEECH = "fc_db/feat_th0.5_max36_min10", "wav2vec_db_3mean/feat_th1.0_max64_min10"
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def legacy(real_data) -> Path:
    folder = real_data.parent / "legacy"
    if not folder.is_dir():
        pytest.skip(f"no databases of the original system at {folder}")
    return folder


@pytest.fixture(scope="module")
def truth(legacy) -> tuple[dict, dict]:
    with np.load(legacy / "truth.npz") as arrays:
        return json.loads((legacy / "truth.json").read_text()), dict(arrays)


def imported(folder: Path, legacy: Path, name: str, *options: str) -> Corpus:
    told = here(
        folder, "import-legacy", legacy / "txt_db" / name, "--face", legacy / FACES, "--speech", legacy / SPEECH,
        "--vocab", legacy.parent / "data/vocab/vocab.txt", "--out", "out", "--name", "films", *options,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return Corpus.open(folder / "out")


def sample_of(corpus: Corpus, records: dict, key: str) -> str:
    """The sample of a text: a clip's sentences are numbered in the order of their keys."""
    clip = records[key]["img_fname"].removesuffix(".npz")
    same = sorted((one for one in records if records[one]["img_fname"] == records[key]["img_fname"]), key=int)
    return clip if len(same) == 1 else f"{clip}#{same.index(key) + 1}"


@pytest.mark.parametrize(
    "name",
    [
        "movies_v1_th0.5_emolare_all_trn.db", "movies_v1_th0.5_wwm_emocls_all_trn.db",
        "movies_v1_th0.5_wwm_nrcemolex_all_trn.db", "trn_wwm_nrcemolex.db", "trn_wwm_prompt_mask_iam.db",
    ],
)  # fmt: skip
def test_every_record_comes_out_bit_for_bit(tmp_path, legacy, truth, name):
    corpus = imported(tmp_path, legacy, name)
    records, arrays = truth[0]["text"][name]["records"], truth[1]
    text = corpus.stores["text"]
    assert len(text) == len(records) and corpus.splits == ("train",)
    assert [sample_of(corpus, records, key) for key in sorted(records, key=int)] == corpus.split("train").ids
    for key, record in records.items():
        id = sample_of(corpus, records, key)
        found = text.read(id)
        assert found["tokens"].tolist() == [101, *record["flat_input_ids"], 102]
        if record["word_of_piece"] is not None:
            assert found["words"].tolist() == [-1, *record["word_of_piece"], -1]
        if "emo_input_ids" in record:
            _check_emotion_words(found, record)
        if "soft_labels" in record:
            assert found["emotions"].tobytes() == np.array(record["soft_labels"], np.float32).tobytes()
            logits = corpus.streams["logits"][0].read(id)["rows"]
            assert logits.tobytes() == np.array([record["logits"]], np.float32).tobytes()
        if "target" in record:
            assert found["label"].tolist() == [record["target"]]
        for field, special in (("pos_ids", 4), ("word_senti_ids", 2), ("text_labels", -1)):
            if field in record:
                values = record[field]
                flat = [one for word in values for one in word] if isinstance(values[0], list) else values
                assert corpus.streams[field][0].read(id)["rows"].tolist() == [special, *flat, special]
        for modality, rate in (("visual", 10), ("speech", 50 / 3)):
            _check_features(corpus, modality, id, record["img_fname"], arrays, rate)


def _check_emotion_words(found: dict, record: dict) -> None:
    """The words with a class, in order, are the record's emotion words."""
    words = {}
    for token, word, lexicon in zip(found["tokens"], found["words"], found["lexicon"], strict=True):
        if lexicon >= 0:
            words.setdefault(int(word), ([], set()))
            words[int(word)][0].append(int(token))
            words[int(word)][1].add(int(lexicon))
    assert [tokens for tokens, _ in words.values()] == record["emo_input_ids"]
    assert [classes for _, classes in words.values()] == [{one} for one in record["emo_labels"]]


def _check_features(corpus, modality, id, file, arrays, rate) -> None:
    found = corpus.stores[modality].read(id)
    for ours, theirs in (("rows", "features"), ("confidence", "confidence"), ("soft_labels", "soft_labels")):
        wanted = arrays.get(f"{modality}/{file}/{theirs}")
        assert (wanted is None) == (ours not in found)
        if wanted is not None:
            assert found[ours].dtype == np.float16 and found[ours].shape == wanted.shape
            assert found[ours].tobytes() == wanted.tobytes(), (id, ours)
    frames = arrays[f"{modality}/{file}/frame_idxs"]
    np.testing.assert_array_equal(np.round(found["times"] * rate), frames)


def test_names_of_classes_are_the_originals(tmp_path, legacy):
    corpus = imported(tmp_path, legacy, "movies_v1_th0.5_wwm_emocls_all_trn.db")
    five = ["neutral", "happy", "surprise", "sad", "anger"]
    assert corpus.classes["label"] == five and corpus.classes["emotions"] == five
    assert corpus.classes["lexicon"] == list(NRC_CLASSES)
    assert corpus.stores["visual"].rows_of["No0001.Parity.Film_16"] == 0


def test_the_databases_pre_train(tmp_path, legacy):
    imported(tmp_path, legacy, "movies_v1_th0.5_wwm_nrcemolex_all_trn.db", "--validation", "4")
    recipe = {
        **SMALL,
        "corpora": [{"path": "out"}],
        "model": SMALL["model"] | {"vocab_size": 30522, "mask_token_id": 103},
    }
    recipe["train"] = SMALL["train"] | {"updates": 3, "log_every": 1, "save_every": 3}
    recipe["validate"] = {"every": 3}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe))
    told = pretrain(tmp_path, "small.yaml")
    assert told.returncode == 0, told.stderr
    logged = losses(the_run(tmp_path))
    assert {"train", "validation"} <= {entry.get("split") for entry in logged}
    assert np.isfinite([entry["loss"] for entry in logged if "loss" in entry]).all()
