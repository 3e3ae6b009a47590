"""The table of label maps: every corpus onto every class set."""

import numpy as np
import pytest

from memofast.data.emotion_labels import LabelMap, mapped_corpora, target_classes
from memofast.errors import MemofastError


@pytest.mark.parametrize("corpus", mapped_corpora())
def test_labels_map_to_emotions_of_the_largest_set_or_to_none(corpus):
    emotions = LabelMap.of(corpus, "ekman").emotions
    assert set(emotions.values()) <= {*target_classes("ekman"), None}


def test_class_sets():
    assert [len(target_classes(name)) for name in ("ekman", "memobert", "basic")] == [7, 5, 4]
    with pytest.raises(MemofastError, match="memobert"):
        target_classes("eight")


def test_one_label():
    labels = LabelMap.of("meld", "basic")
    assert labels.distribution({"joy": 1}).tolist() == [0, 1, 0, 0]
    assert labels.distribution({"fear": 1}) is None


def test_votes_without_a_class_leave_the_others_their_proportions():
    labels = LabelMap.of("emotionlines", "memobert")
    shares = labels.distribution({"joy": 0.4, "sadness": 0.2, "fear": 0.4})
    np.testing.assert_allclose(shares, [0, 2 / 3, 0, 1 / 3, 0], rtol=1e-6)
    assert labels.distribution({"joy": 0.5, "fear": 0.5}) is None
    assert labels.distribution({}) is None


def test_more_than_half_of_the_votes_must_have_a_class():
    labels = LabelMap.of("emotionlines", "memobert")
    assert labels.distribution({"joy": 1, "sadness": 2, "fear": 3}) is None
    np.testing.assert_allclose(labels.distribution({"joy": 1, "sadness": 3, "fear": 3}), [0, 1 / 4, 0, 3 / 4, 0])


def test_a_label_that_is_not_in_the_table():
    with pytest.raises(MemofastError, match=r"'bliss' of corpus meld"):
        LabelMap.of("meld", "ekman").distribution({"bliss": 1})
    with pytest.raises(MemofastError, match="no label map for corpus 'other'"):
        LabelMap.of("other", "ekman")
