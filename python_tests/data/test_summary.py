import json

import numpy as np
import pytest

from memofast.data.summary import sentences, summarise
from memofast.errors import MemofastError


def test_counts_are_those_of_the_samples(make_corpus):
    corpus = make_corpus()
    summary = summarise(corpus)
    assert {name: found["samples"] for name, found in summary["splits"].items()} == {"train": 32, "validation": 8}
    train, split = summary["splits"]["train"], corpus.split("train")
    visual = split.lengths[:, 1][split.lengths[:, 1] > 0]
    expected = {"samples": len(visual), "rows": visual.sum(), "longest": visual.max()}
    assert {name: train["rows"]["visual"][name] for name in expected} == expected
    assert train["rows"]["visual"]["median"] in np.sort(visual)[len(visual) // 2 - 1 : len(visual) // 2 + 1]
    assert train["rows"]["text"]["samples"] == sum(number % 7 != 6 for number in range(32))
    assert train["labels"] == {"neutral": 11, "happy": 11, "sad": 10}
    assert summary["stores"]["visual"]["width"] == 13 and summary["stores"]["visual"]["digest"]
    assert summary["preparation"] == {}
    json.dumps(summary)


def test_a_modality_that_is_not_there(make_corpus):
    summary = summarise(make_corpus(modalities=("speech",)))
    assert set(summary["splits"]["train"]["rows"]) == {"text", "speech"} and "visual" not in summary["stores"]


def test_samples_are_drawn_by_seed(make_corpus):
    corpus = make_corpus()
    found = sentences(corpus, "validation", 3)
    assert found == sentences(corpus, "validation", 3) != sentences(corpus, "validation", 3, seed=5)
    assert len(sentences(corpus, "validation", 100)) == 8
    assert all(sample["label"] in ("neutral", "happy", "sad") for sample in found)


def test_what_the_preparation_left_out(make_corpus):
    corpus = make_corpus()
    report = {"clips": 50, "kept": 40, "problems": {"silent": {"count": 10, "clips": []}}}
    (corpus.path / "report.json").write_text(json.dumps(report))
    assert summarise(corpus)["preparation"] == {"clips": 50, "kept": 40, "problems": {"silent": 10}}
    (corpus.path / "report.json").write_text("{}")
    with pytest.raises(MemofastError, match="not a report of a preparation"):
        summarise(corpus)
