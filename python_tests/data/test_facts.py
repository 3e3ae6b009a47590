"""What is known of samples before packing is what is known of them afterwards."""

import numpy as np
import pytest
import torch

from memofast import objectives
from memofast.data import Facts, write_corpus
from memofast.data import corpus as corpus_module
from memofast.store import FeatureWriter, TextWriter

EVERY = (0, 5, 3, 31, 8, 6, 12)


@pytest.fixture
def partly_labelled(tmp_path):
    """Seven samples with 2, 3, 0, 1, 4, 2 and 1 faces; the last of the second, the only one of the fourth and the first
    of the fifth have no label."""
    labels = [
        [(0.2, 0.8), (1, 0)], [(0.5, 0.5), (0.1, 0.9), (0, 0)], [], [(0, 0)],
        [(0, 0), (0.3, 0.7), (1, 0), (0, 1)], [(0, 1), (0.4, 0.6)], [(6e-8, 0)],
    ]  # fmt: skip
    ids = [f"s{number}" for number in range(len(labels))]
    with (
        TextWriter(tmp_path / "text") as text,
        FeatureWriter(tmp_path / "visual", 3, columns=("soft_labels",), classes=("x", "y")) as faces,
    ):
        for id, own in zip(ids, labels, strict=True):
            text.put(id, [1000], [0])
            if own:
                faces.put(id, np.ones((len(own), 3)), soft_labels=np.array(own))
    return write_corpus(tmp_path, "partly", {m: tmp_path / m for m in ("text", "visual")}, {"train": ids})


@pytest.mark.parametrize("at_once", [4096, 2, 3])
def test_every_face_labelled(partly_labelled, monkeypatch, at_once):
    monkeypatch.setattr(corpus_module, "_LABELS_AT_ONCE", at_once)
    split = partly_labelled.split("train")
    assert split.facts.all_faces_labelled.tolist() == [True, False, True, False, False, True, True]
    packed = Facts.of_batch(split.pack([5, 3, 6, 2, 1]))
    assert packed.all_faces_labelled.tolist() == [True, False, True, True, False]


def test_labels_are_read_where_they_are_asked_for_and_once(partly_labelled, monkeypatch):
    calls = []
    read = corpus_module.packing.column
    monkeypatch.setattr(corpus_module.packing, "column", lambda *given: calls.append(given) or read(*given))
    split = partly_labelled.split("train")
    built = objectives.build({"whole_word_mlm": {}, "span_visual_regression": {}})
    objectives.eligible(split.facts, built)
    assert not calls
    built = objectives.build({"span_visual_emotion": {}})
    for _ in range(2):
        assert objectives.eligible(split.facts, built).ravel().tolist() == [
            True,
            False,
            False,
            False,
            False,
            True,
            True,
        ]
    assert len(calls) == 1


@pytest.mark.parametrize(("modalities", "served"), [(("visual", "speech"), 17), (("speech",), 10), ((), 5)])
def test_before_packing_and_after(make_corpus, modalities, served):
    split = make_corpus(modalities=modalities, streams=True).split("train").reading(["raw", "glove"])
    before, indices = split.facts, np.array(EVERY)
    after = Facts.of_batch(split.pack(indices))
    assert after.targets == before.targets
    np.testing.assert_array_equal(after.lengths, before.lengths[indices])
    np.testing.assert_array_equal(after.all_faces_labelled, before.all_faces_labelled[indices])
    assert list(after.streams) == list(before.streams) == ["raw", "glove"]
    for name, lengths in before.streams.items():
        np.testing.assert_array_equal(after.streams[name], lengths[indices])
    options = {**dict.fromkeys(objectives.KINDS), "emotion": {"kind": "whole_word_mlm", "policy": "emotion_word"}}
    options["label_prompt"] = options["sentence_prompt"] = {"words": {"neutral": None}}
    built = objectives.build(options, None, split.corpus.classes)
    able = objectives.eligible(before, built)
    assert able.any(0).sum() == served
    np.testing.assert_array_equal(objectives.eligible(after, built), able[indices])


def test_rows_by_modality(make_corpus):
    split = make_corpus().split("train")
    facts = Facts.of_batch(split.pack([3, 6, 2]))
    for column, modality in enumerate(("text", "visual", "speech")):
        assert facts.rows(modality).tolist() == split.lengths[[3, 6, 2], column].tolist()
    assert facts.rows("text")[1] == 1 and facts.rows("visual")[2] == 0  # no words, no faces
    assert torch.equal(split.pack([3]).speech_offsets, torch.tensor([0, facts.rows("speech")[0]], dtype=torch.int32))
