"""Adapters on the corpora themselves: every label, split and group counted."""

from collections import Counter

import pytest

from memofast.prepare.corpora import read_corpus

pytestmark = pytest.mark.real


def counts(reading):
    labels = Counter(clip.label for clip in reading.clips)
    return dict(labels), dict(Counter(clip.split for clip in reading.clips))


def groups(reading):
    return {name: len(set(group_of.values())) for name, group_of in reading.protocol.groups.items()}


def test_meld(real_data):
    reading = read_corpus("meld", real_data / "text" / "meld")
    labels = {
        "neutral": 5180,
        "joy": 1906,
        "surprise": 1355,
        "anger": 1262,
        "sadness": 794,
        "fear": 308,
        "disgust": 293,
    }
    assert counts(reading) == (labels, {"train": 9989, "validation": 1109})
    assert groups(reading) == {"dialogue": 1152, "position": 24, "speaker": 274}
    assert not any("\x92" in clip.text for clip in reading.clips)
    assert any("test_sent_emo.csv" in note for note in reading.protocol.notes)
    sentiment = read_corpus("meld,labels=sentiment", real_data / "text" / "meld")
    assert counts(sentiment)[0] == {"neutral": 5180, "negative": 3351, "positive": 2567}


def test_emorynlp(real_data):
    reading = read_corpus("emorynlp", real_data / "text" / "emorynlp")
    labels = {"Neutral": 2807, "Joyful": 1882, "Scared": 1068, "Mad": 882, "Peaceful": 720, "Powerful": 621, "Sad": 525}
    assert counts(reading) == (labels, {"train": 7551, "validation": 954})
    assert groups(reading) == {"dialogue": 748, "position": 30, "speaker": 241}


def test_goemotions(real_data):
    reading = read_corpus("goemotions", real_data / "text" / "goemotions" / "ekman")
    assert counts(reading)[1] == {"train": 43410, "validation": 5426}
    assert Counter(len(clip.emotions) for clip in reading.clips) == {1: 44501, 2: 4231, 3: 104}
    found = Counter(name for clip in reading.clips for name in clip.emotions)
    expected = {"joy": 19629, "neutral": 15985, "anger": 6296, "surprise": 5991, "sadness": 3653, "disgust": 890}
    assert found == expected | {"fear": 831}


def test_ravdess(real_data):
    reading = read_corpus("ravdess", real_data / "speech" / "ravdess16k")
    actors = len(list((real_data / "speech" / "ravdess16k").glob("Actor_*")))  # how many there are may grow
    assert actors >= 6
    others = ("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert counts(reading) == (
        {"neutral": 4 * actors} | dict.fromkeys(others, 8 * actors),
        {"train": 60 * (actors - 2), "validation": 60, "test": 60},
    )
    folds = reading.protocol.schemes["speaker"].folds
    assert [len(fold["test"]) for fold in folds] == [60] * actors


def test_emodb(real_data):
    reading = read_corpus("emodb", real_data / "speech" / "emodb_2s_22k")
    labels = {"anger": 26, "neutral": 21, "happy": 18, "sad": 16, "boredom": 15, "fear": 10, "disgust": 1}
    assert counts(reading) == (labels, {"train": 49, "validation": 58})
    assert groups(reading) == {"speaker": 2, "sentence": 10} and not reading.protocol.schemes
    assert "too few speakers" in reading.protocol.notes[0]


@pytest.mark.parametrize(
    ("settings", "labels", "ties"),
    [
        ("", {"anger": 1271, "disgust": 1271, "fear": 1271, "happy": 1271, "neutral": 1087, "sad": 1271}, 0),
        (",labels=voice", {"anger": 986, "disgust": 547, "fear": 645, "happy": 353, "neutral": 3897, "sad": 370}, 644),
        (",labels=face", {"anger": 968, "disgust": 1057, "fear": 822, "happy": 1266, "neutral": 2076, "sad": 783}, 470),
        (
            ",labels=crowd",
            {"anger": 1019, "disgust": 1139, "fear": 1084, "happy": 1219, "neutral": 1972, "sad": 589},
            420,
        ),
        (
            ",labels=voice,ties=first",
            {"anger": 1153, "disgust": 684, "fear": 793, "happy": 431, "neutral": 4011, "sad": 370},
            644,
        ),
    ],
)
def test_crema_d(real_data, settings, labels, ties):
    reading = read_corpus(f"crema-d{settings}", real_data / "text" / "crema_d_meta")
    assert counts(reading)[0] == labels and reading.protocol.facts["ties"]["clips"] == ties
    assert groups(reading) == {"speaker": 91, "sentence": 12, "sex": 2}
    for name, count in (("speaker-5", 5), ("speaker-10", 10)):
        folds = reading.protocol.schemes[name].folds
        assert len(folds) == count and sum(len(fold["test"]) for fold in folds) == len(reading.clips)
