"""Merging text corpora: what repeats an evaluated file is found, what is not used or shortened is counted."""

import json

import pytest
from text_emotion import GIVEN_AWAY, sentences, write_table

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
    assert described["sources"] == counts.sources and len(described["rules"]) == 4
    for row in counts.sources.values():
        parts = ("train", "validation", "evaluated", "unmapped", "wordless", "like_evaluated", "like_validation")
        assert row["read"] == sum(row.get(part, 0) for part in parts)


def test_what_is_left_out_or_shortened_is_counted_where_it_is_evaluated_too(tmp_path):
    """61 and 62 pieces fit, 63 do not; a sentence of the evaluated file has no class."""
    lengths = {"happy": 61, "sad": 62, "surprise": 63, "anger": 101}
    train = sentences(70, 1) + [(" ".join([GIVEN_AWAY[name]] * count), name) for name, count in lengths.items()]
    held_out = [("the river was furious", "anger"), ("we saw tears", "sad"), ("home", "fear")]
    write_table(tmp_path / "train.csv", [*train, ("\u200b", "sad"), (" ", "happy")])
    write_table(tmp_path / "dev.csv", held_out)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GIVEN_AWAY.values()]))
    files = ([TextSource("table", tmp_path / f"{name}.csv")] for name in ("train", "dev"))
    corpus, counts = merge(*files, "memobert", WordPieces(tmp_path / "vocab.txt"), tmp_path / "c", validation=0.2)
    row, evaluated = counts.sources["table=train.csv"], counts.sources["evaluated table=dev.csv"]
    assert (row["wordless"], row["shortened"], row["train"] + row["validation"]) == (2, 2, 54)
    assert evaluated == {"read": 3, "unmapped": 1, "evaluated": 2}
    assert corpus.stores["text"].rows_of["table/train/s73"] == 64  # of 101 words
    assert {rule["rule"]: rule["dropped"] for rule in corpus.description["rules"]}["wordless"] == 2
