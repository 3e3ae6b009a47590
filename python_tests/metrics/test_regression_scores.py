"""Sentiment values against the formulas written out, scikit-learn and NumPy."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from sklearn.metrics import f1_score, mean_absolute_error

from memofast.metrics.regression_scores import correlation, regression_scores, sims_bins, sims_scores, weighted_f1

values = hn.arrays(
    np.float32, st.shared(st.integers(2, 60), key="n"), elements=st.integers(-40, 40).map(lambda x: np.float32(x / 10))
)


@settings(deadline=None)
@given(values, values)
def test_against_the_formulas(truth, predicted):
    scores = regression_scores(truth, predicted)
    assert scores["mae"] == pytest.approx(mean_absolute_error(truth.astype(float), predicted.astype(float)))
    for name, clip in (("acc3", 1), ("acc5", 2), ("acc7", 3)):
        pairs = [(min(max(a, -clip), clip), min(max(b, -clip), clip)) for a, b in zip(truth, predicted, strict=True)]
        assert scores[name] == pytest.approx(np.mean([round(float(a)) == round(float(b)) for a, b in pairs]))
    true, named = [int(x >= 0) for x in truth], [int(x >= 0) for x in predicted]
    assert scores["has0_acc2"] == pytest.approx(np.mean(np.equal(true, named)))
    assert scores["has0_f1"] == pytest.approx(f1_score(true, named, average="weighted"))
    kept = [(int(a > 0), int(b > 0)) for a, b in zip(truth, predicted, strict=True) if a != 0]
    if not kept:
        assert np.isnan(scores["non0_acc2"]) and np.isnan(scores["non0_f1"])
        return
    true, named = zip(*kept, strict=True)
    assert scores["non0_acc2"] == pytest.approx(np.mean(np.equal(true, named)))
    assert scores["non0_f1"] == pytest.approx(f1_score(true, named, average="weighted"))
    assert scores["non0_f1_lab"] == pytest.approx(f1_score(named, true, average="weighted"))


@settings(deadline=None)
@given(values, values)
def test_correlation(truth, predicted):
    assume(np.ptp(truth) and np.ptp(predicted))
    assert correlation(truth, predicted) == pytest.approx(np.corrcoef(truth, predicted)[0, 1], abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_has_no_correlation(value):
    varying, constant = np.linspace(-1, 1, 7, dtype=np.float32), np.full(7, value, np.float32)
    for pair in ((varying, constant), (constant, varying), (constant, constant)):
        assert np.isnan(correlation(*pair))


def test_halves_go_to_the_even_class():
    truth, predicted = np.array([0, 2, 2, -2], np.float32), np.array([0.5, 1.5, 2.5, -2.5], np.float32)
    assert regression_scores(truth, predicted)["acc7"] == 1


def test_the_two_orders_differ_and_others_are_refused():
    truth, predicted = np.array([1, 1, 1, 1, 0]), np.array([1, 1, 0, 0, 0])
    positive, negative = 2 * 2 / (4 + 2), 2 * 1 / (1 + 3)
    assert weighted_f1(truth, predicted, "sklearn") == pytest.approx((4 * positive + 1 * negative) / 5)
    assert weighted_f1(truth, predicted, "lab") == pytest.approx((2 * positive + 3 * negative) / 5)
    with pytest.raises(ValueError, match="f1_order 'swapped' is none of sklearn, lab"):
        weighted_f1(truth, predicted, "swapped")


@settings(deadline=None)
@given(values, values)
def test_sims_bins(truth, predicted):
    edges = {
        "acc2": [-1.01, 0.0, 1.01],
        "acc3": [-1.01, -0.1, 0.1, 1.01],
        "acc5": [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01],
    }
    scores = sims_scores(truth, predicted)
    clipped = [np.clip(one, -1, 1) for one in (truth, predicted)]
    for name, edge in edges.items():
        bins = [
            [next(i for i in range(len(edge) - 1) if np.float32(edge[i]) < v <= np.float32(edge[i + 1])) for v in one]
            for one in clipped
        ]
        assert scores[name] == pytest.approx(np.mean(np.equal(*bins)))
        if name == "acc2":
            assert scores["f1"] == pytest.approx(f1_score(*bins, average="weighted"))
            assert scores["f1_lab"] == pytest.approx(f1_score(*bins[::-1], average="weighted"))
    assert scores["mae"] == pytest.approx(np.abs(clipped[0].astype(float) - clipped[1]).mean(), abs=1e-6)


def test_a_stored_cut_lies_on_the_cut():
    assert sims_bins(np.array([-0.7, -0.1, 0.1, 0.7, 0.8], np.float32), (-0.7, -0.1, 0.1, 0.7)).tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]
