"""Merging real text corpora: what repeats an evaluated file is found."""

import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.sources.near_duplicates import find_near_duplicates
from memofast.prepare.text.word_pieces import WordPieces
from memofast.text_emotion.merged_text import TextSource, merge


@pytest.fixture
def source(real_data):
    def source(kind, file, most=0):
        return TextSource(kind, real_data / "text" / file, most)

    return source


@pytest.mark.real
def test_emotionlines_dev_is_meld_dev_and_never_trained_on(real_data, source, tmp_path):
    pieces = WordPieces(real_data / "vocab" / "vocab.txt")
    evaluated = [source("meld", "meld/dev_sent_emo.csv")]
    with pytest.raises(MemofastError, match=r"friends_dev\.json.* is the same data"):
        merge([source("emotionlines", "emotionlines/friends_dev.json")], evaluated, "ekman", pieces, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.real
def test_nothing_evaluated_or_validated_is_said_in_train(real_data, source, tmp_path):
    pieces = WordPieces(real_data / "vocab" / "vocab.txt")
    sources = [
        source("meld", "meld/train_sent_emo.csv", 1500),
        source("emotionlines", "emotionlines/friends_train.json", 1500),
    ]
    evaluated = [source("meld", "meld/dev_sent_emo.csv")]
    corpus, counts = merge(sources, evaluated, "memobert", pieces, tmp_path, validate_on="meld")
    text = corpus.stores["text"]
    said = {name: [bytes(text.read(id)["utf8"]).decode() for id in corpus.split(name).ids] for name in corpus.splits}
    assert not find_near_duplicates(said["train"], said["evaluated_meld"] + said["validation"]).first
    assert not find_near_duplicates(said["validation"], said["evaluated_meld"]).first
    described = json.loads((tmp_path / "corpus.json").read_text())
    assert described["sources"] == counts.sources and len(described["rules"]) == 3
    for row in counts.sources.values():
        kept = row["train"] + row["validation"]
        assert row["read"] == kept + row["unmapped"] + row["like_evaluated"] + row["like_validation"]
