"""The sure part of pseudo labels: thresholds, words, caps by probability."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memofast.errors import MemofastError
from memofast.text_emotion.confident import Confidence, choose_confident, select_confident

CLASSES = ("neutral", "happy", "sad")


def test_each_rule_is_counted():
    emotions = np.array(
        [[0.8, 0.1, 0.1], [0.79, 0.2, 0.01], [0.3, 0.4, 0.3], [0.35, 0.3, 0.35], [0, 0.9, 0.1], [0, 0, 0]]
    )
    kept, rules = choose_confident(np.array([2, 2, 2, 2, 1, 2]), emotions, CLASSES, Confidence())
    assert kept.tolist() == [True, False, True, False, False, False]
    assert [rule["dropped"] for rule in rules] == [1, 3, 0]
    assert rules[-1]["kept"] == {"neutral": 1, "happy": 1, "sad": 0}


def test_the_cap_keeps_the_surest_whatever_their_order():
    emotions = np.array([[0.0, p, 1 - p] for p in (0.6, 0.9, 0.7, 0.9)])
    kept, rules = choose_confident(np.full(4, 3), emotions, CLASSES, Confidence(most=2))
    assert kept.tolist() == [False, True, False, True] and rules[-1]["dropped"] == 2


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_what_is_kept_is_sure_and_nothing_surer_is_dropped_by_the_cap(count, most, random):
    numbers = np.random.default_rng(random.randrange(1000))
    emotions, words = numbers.dirichlet(np.ones(3), count).reshape(count, 3), numbers.integers(0, 4, count)
    kept, rules = choose_confident(words, emotions, CLASSES, Confidence(0.6, 0.4, most))
    assert kept.sum() + sum(rule["dropped"] for rule in rules) == count
    likeliest, probability = emotions.argmax(1), emotions.max(1)
    for number, least in enumerate((0.6, 0.4, 0.4)):
        able = (likeliest == number) & (words > 1) & (probability >= least)
        assert not (kept & (likeliest == number) & ~able).any()
        assert kept[able].sum() == (min(most, able.sum()) if most else able.sum())
        if kept[able].any() and not kept[able].all():
            assert probability[able & kept].min() >= probability[able & ~kept].max()


def test_a_corpus_without_pseudo_labels(tmp_path):
    from memofast.data import write_corpus
    from memofast.store import TextWriter

    with TextWriter(tmp_path / "text") as writer:
        writer.put("a", [7], [0])
    write_corpus(tmp_path, "plain", {"text": tmp_path / "text"}, {"train": ["a"]})
    with pytest.raises(MemofastError, match="pseudo-label"):
        select_confident(tmp_path, "train", Confidence())
