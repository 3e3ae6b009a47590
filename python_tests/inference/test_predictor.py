"""Predictions from Python: those of offline evaluation, for every kind of input, and what cannot be read."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import memofast
from memofast.data import Corpus, Split
from memofast.errors import MemofastError
from memofast.inference.segments import Cutting
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.inference.watching import People
from memofast.model.families import open_emotion_model
from memofast.prepare.faces.detection import Face
from memofast.prepare.faces.extractors import FaceChoice, parse_face
from memofast.prepare.faces.tracks import Track
from memofast.prepare.run import extraction
from memofast.prepare.speech.extractors import SpeechChoice, parse_speech


def offline(model, prepared, condition=None):
    """What evaluation says of the corpus: id -> probabilities."""
    opened, corpus = open_emotion_model(model), Corpus.open(prepared)
    split = Split.of_ids(corpus, "all", list(corpus.stores["text"].ids))
    return dict(
        zip(split.ids, predict_split(opened, split, label_space_of(opened), condition=condition).scores, strict=True)
    )


def scores(prediction):
    return np.array([*prediction.probabilities.values()])


def test_a_folder_gets_the_predictions_of_offline_evaluation(model, prepared, files):
    predictor = memofast.load(model, face=files["face"], device="cpu")
    found = list(predictor.stream(predictor.clips(str(prepared.parent / "source"), Cutting())))
    wanted = offline(model, prepared)
    assert [p.id for p in found] == sorted(wanted) == ["glad_0001", "glad_0002", "sad"]
    for prediction in found:
        np.testing.assert_allclose(scores(prediction), wanted[prediction.id], atol=1e-5)
        assert prediction.named == max(prediction.probabilities, key=prediction.probabilities.get)
    first, _, mute = found
    assert first.modalities == ("text", "visual", "speech") and mute.modalities == ("visual",)
    assert first.text == "Red now." and (first.start, round(first.end, 2)) == (0.2, 1.7)
    assert any("no sound track" in note for note in mute.notes) and not mute.importance


def test_importance_is_the_change_without_a_modality(model, prepared, files):
    first, *_ = memofast.load(model, face=files["face"], device="cpu").predict(
        video=prepared.parent / "source/glad.mp4"
    )
    whole = offline(model, prepared)[first.id]
    for modality, rest in {"text": "va", "visual": "la", "speech": "lv"}.items():
        without = offline(model, prepared, rest)[first.id]
        named = whole.argmax()
        assert first.importance[modality] == pytest.approx(whole[named] - without[named], abs=1e-5)
    assert len(set(first.importance.values())) == 3


def test_the_modalities_of_the_training_are_read_and_no_others(make_model, prepared):
    model = make_model("a", "l", vocabulary=True)
    found = memofast.load(model, device="cpu").predict(video=prepared.parent / "source/glad.mp4")  # needs no DenseFace
    assert {p.modalities for p in found} == {("text", "speech")}
    np.testing.assert_allclose(scores(found[0]), offline(model, prepared, "la")["glad_0001"], atol=1e-5)


def test_features_text_and_audio_are_read(model, prepared, files, media):
    corpus, wanted = Corpus.open(prepared), offline(model, prepared)
    rows = {modality: corpus.stores[modality].read("glad_0001")["rows"] for modality in ("visual", "speech")}
    predictor = memofast.load(model, device="cpu")
    (found,) = predictor.predict(text="Red now.", features=rows)
    np.testing.assert_allclose(scores(found), wanted["glad_0001"], atol=1e-5)
    (found,) = predictor.predict(text="Blue blue")
    assert found.modalities == ("text",) and sum(found.probabilities.values()) == pytest.approx(1)
    predictor = memofast.load(model, device="cpu")  # sound needs no DenseFace
    (heard,) = predictor.predict(audio=media / "heard.wav", text="now")
    assert heard.modalities == ("text", "speech") and heard.end == pytest.approx(1.0, abs=0.1)
    sentences = predictor.predict(audio=media / "film.mp4")
    assert [p.modalities for p in sentences] == [("text", "speech")] * 2
    (unseen,) = predictor.predict(audio=media / "mute.mp4", text="now")
    assert unseen.modalities == ("text",)


def test_many_texts_are_predicted_as_one_by_one(model):
    predictor = memofast.load(model, device="cpu")
    texts = ["red", "blue reds now", "", "now now now red blue"] * 5
    for text, found in zip(texts, predictor.predict_many(texts), strict=True):
        if text:
            np.testing.assert_allclose(scores(found), scores(predictor.predict(text=text)[0]), atol=1e-5)
        else:
            assert found.modalities == () and found.notes == ("no words: what the model says of nothing",)


def test_what_is_no_sentence_is_told_in_one_line(model):
    predictor = memofast.load(model, device="cpu")
    for texts, told in (
        ("hello", "predict_many takes a list of sentences, not the str 'hello'; give a list"),
        (b"hello", "predict_many takes a list of sentences, not the bytes b'hello'"),
        (None, "not the NoneType None"),
        (["red", None], "text 2 is the NoneType None, no sentence"),
        (["red", ["blue"]], r"text 2 is the list \['blue'\], no sentence"),
        (["caf\udce9"], r"text 1, the str 'caf\\udce9', holds halves of letters"),
    ):
        with pytest.raises(MemofastError, match=told):
            predictor.predict_many(texts)
    assert predictor.predict_many([]) == predictor.predict_many(iter(())) == []
    for text, told in (
        ("", "of these nothing was given that is a word"),
        (" \t", "of these nothing was given that is a word"),
        (7, "text is the int 7, no sentence"),
        ("\ud83d", "text, the str '.*ud83d', holds halves of letters"),
    ):
        with pytest.raises(MemofastError, match=told):
            predictor.predict(text=text)


def test_what_is_too_long_is_cut_and_said_to_be(model, prepared):
    predictor = memofast.load(model, device="cpu")
    longest = predictor.model.longest["visual"]
    rows = Corpus.open(prepared).stores["visual"].read("glad_0001")["rows"]
    rows = np.tile(rows, (longest // len(rows) + 1, 1))[: longest + 1]
    (short,) = predictor.predict(text="reds " * 100, features={"visual": rows[:-1]})
    (long,) = predictor.predict(text="reds " * 101, features={"visual": rows})
    np.testing.assert_array_equal(scores(short), scores(long))
    assert set(long.notes) - set(short.notes) == {
        f"the first {longest} of {longest + 1} visual rows are read", "the first 100 of 101 words are read"
    }  # fmt: skip


def test_importing_memofast_stays_light():
    code = "import memofast, sys; assert 'transformers' not in sys.modules and 'av' not in sys.modules; "
    code += "import memofast.prepare.run.extraction; assert 'transformers' not in sys.modules"  # as every worker does
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_choices_are_what_their_words_say(tmp_path):
    for text in ("denseface=f,layer=trans1+last", "model=f", "model=f,row=cls,labels=no"):
        choice = parse_face(text)
        assert FaceChoice.described(str(choice), choice.path) == choice
    for text in ("logmel", "wav2vec2=f,layer=6", "compare"):
        choice = parse_speech(text, None)
        assert SpeechChoice.described(str(choice), choice.path, choice.mean) == choice


def test_wrong_files_and_inputs_are_refused_in_one_line(make_model, model, files, prepared, tmp_path):
    film = prepared.parent / "source/glad.mp4"
    bare = make_model(name="bare", vocabulary=False)
    unknown = make_model(name="unknown")
    (unknown / "model/preparation.json").unlink()
    wide = make_model(name="wide", visual_width=99)
    other_words = tmp_path / "vocab.txt"
    other_words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "green"]))
    rows = np.full((2, 342), np.nan)
    for message, call in {
        "give face=, the DenseFace file": lambda: memofast.load(model).predict(video=film),
        "no DenseFace file at nowhere": lambda: memofast.load(model, face="nowhere").predict(video=film),
        "was trained with": lambda: memofast.load(model, face=files["other"]).predict(video=film),
        "give vocab=, the vocab.txt": lambda: memofast.load(bare).predict(text="red"),
        "is not the vocabulary": lambda: memofast.load(model, vocab=other_words).predict(text="red"),
        "it has no preparation.json": lambda: memofast.load(unknown).predict(video=film),
        "reads visual rows 99 wide": lambda: memofast.load(wide, face=files["face"]).predict(video=film),
        "must be [rows, 342], got [2, 8]": lambda: memofast.load(model).predict(features={"visual": np.ones((2, 8))}),
        "visual features are not all finite": lambda: memofast.load(model).predict(features={"visual": rows}),
        "reads no smell rows": lambda: memofast.load(model).predict(features={"smell": rows}),
        "nothing to predict": lambda: memofast.load(model).predict(),
        "not both": lambda: memofast.load(model).predict(video=film, features={"visual": rows}),
        "no file nowhere.mp4": lambda: memofast.load(model, face=files["face"]).predict(
            video="nowhere.mp4", text="red"
        ),
    }.items():
        with pytest.raises(MemofastError) as refused:
            call()
        assert message in str(refused.value) and "\n" not in str(refused.value)


def test_weights_that_are_not_finite_are_named(model, prepared, files):
    place = model / "model/model.safetensors"
    weights = load_file(place)
    weights["memobert.pooler.bias"] = torch.full_like(weights["memobert.pooler.bias"], float("nan"))
    save_file(weights, place, metadata={"format": "pt"})
    with pytest.raises(MemofastError, match="predictions for the sample are not finite"):
        memofast.load(model, device="cpu").predict(text="red")


def test_labels_that_do_not_exclude_one_another_and_values(make_model):
    many = make_model(name="many", problem_type="multi_label_classification")
    (found,) = memofast.load(many).predict(text="red")
    assert set(found.probabilities) == {"calm", "glad", "sad"} and abs(sum(found.probabilities.values()) - 1) > 1e-3
    one = make_model(name="one", problem_type="regression", id2label={0: "value"})
    rows = {"speech": np.ones((4, memofast.load(one).widths["speech"]))}
    (found,) = memofast.load(one).predict(text="red", features=rows)
    assert found.named is None and found.probabilities == {} and isinstance(found.value, float)
    (without,) = memofast.load(one).predict(features=rows)
    assert found.importance["text"] == pytest.approx(found.value - without.value, abs=1e-4)


def test_people_are_known_again():
    people, patterns = People(), np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype(np.uint8)
    box, eyes = np.zeros(4), (np.zeros(2), np.zeros(2))
    tracks = [Track([0, 1], [Face(patterns[n], 1.0, box, eyes)] * 2) for n in (0, 1, 0, 1)]
    assert [people.numbers([track]) for track in tracks] == [[1], [2], [1], [2]]
    assert people.numbers(tracks[:2]) == [1, 2] and people.numbers([tracks[1], tracks[0]]) == [2, 1]
    assert people.numbers([tracks[0], tracks[2]]) == [1, 3]  # alike, but seen together


def test_others_are_predicted_from_their_faces(make_model, model, prepared, files, pair_of_faces):
    film = prepared.parent / "source/glad.mp4"

    def predictions(model, **options):
        return memofast.load(model, face=files["face"], device="cpu").predict(video=film, **options)

    found, alone = predictions(model), predictions(model, others=False)
    assert [(p.id, p.track, p.speaks) for p in found] == [
        ("glad_0001", 1, True), ("glad_0001", 2, False), ("glad_0002", 1, True), ("glad_0002", 2, False),
    ]  # fmt: skip
    assert [(p.id, p.track, p.speaks, p.text) for p in alone] == [(p.id, 1, True, p.text) for p in found[::2]]
    for both, single in zip(found[::2], alone, strict=True):  # packed with others, sums are rounded otherwise
        np.testing.assert_allclose(scores(both), scores(single), atol=1e-6)
    others = found[1::2]
    assert all(p.modalities == ("visual",) and p.text is None and not p.importance for p in others)
    assert all(p.notes == ("trained on text+visual+speech, not on visual alone",) for p in others)
    assert not any(note for p in alone + predictions(make_model("lva", "v", name="both")) for note in p.notes)
    assert [(p.start, p.end) for p in others] == [(p.start, p.end) for p in alone]
    pair_of_faces(sides=[1])
    for other, expected in zip(others, predictions(make_model("v", name="sees")), strict=True):
        np.testing.assert_allclose(scores(other), scores(expected), atol=1e-6)
        assert not np.allclose(scores(other), scores(found[0]), atol=1e-4)


def test_without_a_speaker_those_who_are_seen_are_predicted(make_model, prepared, files, pair_of_faces, monkeypatch):
    monkeypatch.setattr(extraction.Extraction, "_speaker", lambda *_: None)
    film = prepared.parent / "source/glad.mp4"
    found = memofast.load(make_model(), face=files["face"], device="cpu").predict(video=film)
    assert [(p.track, p.speaks, p.modalities) for p in found[:3]] == [
        (None, True, ("text", "speech")), (1, False, ("visual",)), (2, False, ("visual",)),
    ]  # fmt: skip
    assert "nobody visible speaks" in found[0].notes[0]
    sees = memofast.load(make_model("v", name="sees"), face=files["face"], device="cpu")
    assert [(p.id, p.track, p.speaks) for p in sees.predict(video=film)] == [
        ("glad_0001", 1, False), ("glad_0001", 2, False), ("glad_0002", 1, False), ("glad_0002", 2, False),
    ]  # fmt: skip
    with pytest.raises(MemofastError, match="nobody visible speaks"):
        sees.predict(video=film, others=False)
