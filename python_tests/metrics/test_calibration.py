"""Calibration against the formulas written out and scikit-learn; the picture."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions_made import multi, named, regression, single
from sklearn.calibration import calibration_curve

from memofast.errors import MemofastError
from memofast.evaluate.reliability_plot import draw_reliability, wilson
from memofast.metrics.calibration import calibration, reliability


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 1000), st.integers(1, 20))
def test_error_and_brier_are_the_formulas(samples, seed, bins):
    predictions = single(samples, seed)
    found = calibration(predictions, bins)
    ece = brier = 0.0
    inside = [[] for _ in range(bins)]
    for true, row in zip(predictions.truth, predictions.scores.astype(float), strict=True):
        place = next(b for b in range(bins) if row.max() <= (b + 1) / bins + 1e-12 or b == bins - 1)
        inside[place].append((row.max(), row.argmax() == true))
        brier += sum((p - (c == true)) ** 2 for c, p in enumerate(row)) / samples
    for answers in inside:
        if answers:
            confidence, right = np.mean(answers, axis=0)
            ece += len(answers) / samples * abs(confidence - right)
    assert found["ece"] == pytest.approx(ece, abs=1e-6)
    assert found["brier"] == pytest.approx(brier, abs=1e-6)
    assert sum(row["answers"] for row in found["bins"]) == samples


def test_bins_against_scikit_learn():
    predictions = single(400)
    rows = [row for row in calibration(predictions)["bins"] if row["answers"]]
    right = predictions.named == predictions.truth
    accuracy, confidence = calibration_curve(right, predictions.scores.max(1), n_bins=15)
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracy)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence, rel=1e-5)


def test_by_hand():
    predictions = named([0, 1, 2, 3], [0, 1, 2, 0])
    found = calibration(predictions)
    assert found["ece"] == pytest.approx(0.25) and found["brier"] == pytest.approx(2 / 4)
    assert found["bins"][-1] == {"above": 14 / 15, "up_to": 1.0, "answers": 4, "confidence": 1.0, "accuracy": 0.75}
    assert found["bins"][0]["confidence"] is None


def test_an_edge_belongs_to_the_bin_below():
    rows = reliability(np.array([0.0, 0.25, 0.250001, 1.0]), np.ones(4, bool), 4)
    assert [row["answers"] for row in rows] == [2, 1, 0, 1]


def test_labels_are_answers_of_their_own():
    predictions = multi(50)
    found = calibration(predictions)
    assert found["answers"] == predictions.scores.size
    assert found["confidence"] == pytest.approx(predictions.scores.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(predictions.truth.mean(), rel=1e-5)


def test_what_holds_no_probabilities_is_refused():
    with pytest.raises(MemofastError, match="these predictions are values"):
        calibration(regression())
    logits = dataclasses.replace(single(), scores=single().scores * 9)
    with pytest.raises(MemofastError, match="apply softmax"):
        calibration(logits)


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 500))
def test_interval_of_a_share(right, answers):
    from scipy.stats import binomtest

    right = min(right, answers)
    expected = binomtest(right, answers).proportion_ci(method="wilson")
    assert wilson(right / answers, answers) == pytest.approx((expected.low, expected.high), abs=1e-4)


@pytest.mark.parametrize("predictions", [single(), multi(), single(1), named([0, 1], [1, 0])])
def test_the_picture_is_drawn(tmp_path, predictions):
    import matplotlib.image

    draw_reliability(calibration(predictions), tmp_path / "reliability.png", "MELD dev, lva")
    picture = matplotlib.image.imread(tmp_path / "reliability.png")
    assert picture.shape[0] > 600 and picture.std() > 0.1
    assert [file.name for file in tmp_path.iterdir()] == ["reliability.png"]


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(MemofastError, match="cannot be written"):
        draw_reliability(calibration(single()), tmp_path / "none" / "reliability.png")
