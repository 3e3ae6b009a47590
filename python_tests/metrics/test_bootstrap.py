"""Intervals: the same draws as scikit-learn would score, seeded, of the right width, in bounded memory."""

import numpy as np
import pytest
from predictions_made import multi, named, regression, single
from sklearn.metrics import f1_score, recall_score

from memofast.metrics import bootstrap
from memofast.metrics.bootstrap import interval, intervals, resampled_sums, sums_of_groups
from memofast.metrics.sample_statistics import METRICS, metrics_of_sums, sample_statistics


def test_each_draw_is_what_scikit_learn_says_of_it():
    predictions = single(60)
    sums = resampled_sums(sample_statistics(predictions), 20, seed=3)
    metrics = metrics_of_sums("single", sums)
    chosen = np.random.default_rng(3).integers(60, size=(20, 60))
    for draw, rows in enumerate(chosen):
        truth, said = predictions.truth[rows], predictions.named[rows]
        over = {"labels": np.unique(truth), "zero_division": 0}
        assert metrics["wa"][draw] == pytest.approx((truth == said).mean())
        assert metrics["ua"][draw] == pytest.approx(recall_score(truth, said, average="macro", **over))
        assert metrics["weighted_f1"][draw] == pytest.approx(f1_score(truth, said, average="weighted", **over))
        assert metrics["macro_f1"][draw] == pytest.approx(f1_score(truth, said, average="macro", **over))


def test_correlation_and_mae_of_draws():
    predictions = regression(80)
    metrics = metrics_of_sums("regression", resampled_sums(sample_statistics(predictions), 20, seed=1))
    for draw, rows in enumerate(np.random.default_rng(1).integers(80, size=(20, 80))):
        truth, values = predictions.truth[rows], predictions.scores[rows]
        assert metrics["corr"][draw] == pytest.approx(np.corrcoef(truth, values)[0, 1], abs=1e-6)
        assert metrics["mae"][draw] == pytest.approx(np.abs(truth - values).mean(), rel=1e-5)


def test_draws_in_blocks_are_the_same(monkeypatch):
    statistics = sample_statistics(single(50))
    whole = resampled_sums(statistics, 33, seed=0)
    monkeypatch.setattr(bootstrap, "_CELLS", 170)
    np.testing.assert_array_equal(resampled_sums(statistics, 33, seed=0), whole)


@pytest.mark.parametrize("made", [single, multi, regression])
def test_seeded_and_around_the_score(made):
    predictions = made()
    found = intervals(predictions)
    assert list(found) == list(METRICS[predictions.kind]) and found == intervals(predictions)
    assert found != intervals(predictions, seed=1)
    score = metrics_of_sums(predictions.kind, sample_statistics(predictions).sum(0))
    for name, (low, high) in found.items():
        assert low < score[name] < high


def test_width_is_that_of_a_binomial():
    low, high = intervals(named([0] * 1000, [0] * 800 + [1] * 200), draws=4000)["wa"]
    assert (high - low) == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.1)


def test_undefined_draws_are_left_out_until_they_are_most():
    assert interval(np.array([np.nan, *np.linspace(0, 1, 101)]), 0.9) == pytest.approx([0.05, 0.95])
    assert interval(np.array([np.nan, np.nan, 1.0])) is None
    assert interval(np.array([np.nan, np.nan, 1.0, 3.0]), 0.5) == [1.5, 2.5]  # just half
    constant = regression()
    constant.scores[:] = 0.1
    assert intervals(constant)["corr"] is None


@pytest.mark.parametrize("seed", range(5))
def test_draws_of_one_sample_have_no_correlation(seed):
    """Of seven samples, some draws hold values that are alike but for rounding in their sums."""
    predictions = regression(7, seed=seed)
    predictions.truth[:6], predictions.scores[:6] = predictions.truth[0], predictions.scores[0]
    corr = metrics_of_sums("regression", resampled_sums(sample_statistics(predictions), 200, seed))["corr"]
    chosen = np.random.default_rng(seed).integers(7, size=(200, 7))
    varies = np.ptp(predictions.truth[chosen], axis=1) > 0
    assert 0 < varies.sum() < 200
    np.testing.assert_array_equal(np.isfinite(corr), varies)


def test_whole_groups_are_drawn():
    """Two groups have three possible draws: one twice, the other twice, or both (half of the draws)."""
    statistics, groups = np.array([[1.0, 10], [2, 20], [4, 40], [8, 80]]), ["b", ("a",), "b", "b"]
    assert sums_of_groups(statistics, groups).tolist() == [[13, 130], [2, 20]]
    sums = resampled_sums(statistics, 4000, seed=0, groups=groups)
    drawn, counts = np.unique(sums, axis=0, return_counts=True)
    assert drawn.tolist() == [[4, 40], [15, 150], [26, 260]]
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    alone = resampled_sums(statistics, 50, seed=3, groups=range(4))
    np.testing.assert_array_equal(alone, resampled_sums(statistics, 50, seed=3))
