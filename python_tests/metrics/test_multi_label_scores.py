"""Several labels per sample against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from sklearn.metrics import f1_score, jaccard_score

from memofast.metrics.multi_label_scores import multi_label_scores

CLASSES = ("calm", "glad", "sad")
labels = hn.arrays(np.int64, st.tuples(st.shared(st.integers(1, 40), key="n"), st.just(3)), elements=st.integers(0, 1))


@settings(deadline=None)
@given(labels, labels)
def test_against_scikit_learn(truth, named):
    scores = multi_label_scores(truth, named, CLASSES)
    present = np.flatnonzero(truth.any(0))
    assert scores["micro_f1"] == pytest.approx(f1_score(truth, named, average="micro", zero_division=0))
    if len(present):
        macro = f1_score(truth, named, labels=present, average="macro", zero_division=0)
        assert scores["macro_f1"] == pytest.approx(macro)
    assert scores["jaccard"] == pytest.approx(jaccard_score(truth, named, average="samples", zero_division=1))
    for number, name in enumerate(CLASSES):
        assert (name in scores["f1"]) == (number in present)
        assert scores["supports"][name] == truth[:, number].sum()


def test_by_hand():
    truth, named = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]), np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]])
    scores = multi_label_scores(truth, named, CLASSES)
    assert scores["jaccard"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)  # rightly naming nothing is right
    assert scores["f1"] == pytest.approx({"calm": 2 / 3, "glad": 1.0})
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
