"""The model against the best baseline: intervals by hand over groups, several seeds, warnings, better-is-lower."""

import numpy as np
import pytest
from predictions_made import ids, named, regression

from memofast.evaluate.baseline_difference import against_baselines, baseline_warnings
from memofast.evaluate.results import Run
from memofast.metrics.predictions import Predictions

TRUTH = [0, 1, 0, 1, 1, 0]
IDS = ids(6)
GROUP_OF = {id: "ann" if number < 4 else "bob" for number, id in enumerate(IDS)}


def said(names, fold="fixed", seed=1, condition="l", split="test"):
    return Run(fold, seed, condition, split, "validation", named(TRUTH, names))


def values(by, seed=1):
    truth = np.array([1.0, -1, 2, 0, 3, -2], np.float32)
    found = Predictions("regression", IDS, truth, truth + np.array(by, np.float32))
    return Run("fixed", seed, "l", "test", "validation", found)


def test_two_groups_have_three_draws():
    """Of ann's four 4 are right against 2, of bob's two 1 against 2: WA differs by 4/8, 1/6 or -2/4."""
    model, baseline = said([0, 1, 0, 1, 1, 1]), said([0, 1, 1, 0, 1, 0])
    found = against_baselines([model], {"svm": [baseline]}, "wa", "speaker", GROUP_OF)
    (row,) = found["rows"]
    assert found["over"] == "2 groups (speaker)" and row["best"] == "svm"
    assert (row["model"], row["baseline"]) == pytest.approx((5 / 6, 4 / 6))
    assert row["difference"] == pytest.approx(1 / 6)
    assert row["interval"] == pytest.approx([-1 / 2, 1 / 2])  # a quarter of the draws each
    over_samples = against_baselines([model], {"svm": [baseline]}, "wa")
    assert over_samples["over"] == "samples" and over_samples["rows"][0]["interval"] != row["interval"]


def test_the_best_baseline_is_taken_and_conditions_apart():
    model = [said([0, 1, 0, 1, 1, 0]), said([0, 1, 0, 1, 1, 1], condition="la"), said(TRUTH, split="validation")]
    some = {
        "worse": [said([1, 0, 1, 0, 0, 0]), said([0, 1, 0, 1, 1, 0], condition="la")],
        "better": [said([0, 1, 0, 0, 0, 0]), said([1, 0, 1, 0, 0, 0], condition="la")],
    }
    rows = against_baselines(model, some, "ua")["rows"]
    assert [(row["condition"], row["best"]) for row in rows] == [("l", "better"), ("la", "worse")]


def test_seeds_are_averaged_in_every_draw():
    """One seed is right on ann's 4 and none of bob's, the other on 2 and 2, the baseline on 3 and 1: their mean is
    level with it, whatever is drawn."""
    seeds = [said([0, 1, 0, 1, 0, 1]), said([1, 0, 0, 1, 1, 0], seed=2)]
    level = said([0, 1, 1, 1, 0, 0])
    (row,) = against_baselines(seeds, {"svm": [level]}, "wa", "speaker", GROUP_OF)["rows"]
    assert row["model"] == pytest.approx(4 / 6) and row["interval"] == pytest.approx([0, 0], abs=1e-12)


def test_folds_are_pooled_whatever_their_order():
    parts = [
        Run(fold, 1, "l", "test", "validation", named(TRUTH, [0, fold, 0, 1, 1, 0], prefix=prefix))
        for fold, prefix in ((1, "x"), (2, "y"))
    ]
    (row,) = against_baselines(parts, {"svm": parts[::-1]}, "wa")["rows"]
    assert row["difference"] == 0 and row["interval"] == [0, 0]


def test_a_lower_error_is_better():
    model, near, far = (values([error, -error] * 3) for error in (0.5, 0.75, 1.5))
    found = against_baselines([model], {"far": [far], "near": [near]}, "mae", "speaker", GROUP_OF)
    (row,) = found["rows"]
    assert row["best"] == "near" and row["difference"] == pytest.approx(-0.25)
    assert row["interval"] == pytest.approx([-0.25, -0.25]) and baseline_warnings(found) == []
    worse = against_baselines([near], {"far": [far], "near": [model]}, "mae")
    assert worse["rows"][0]["difference"] == pytest.approx(0.25)
    assert baseline_warnings(worse) == [
        "not above a simple baseline: condition l, MAE 0.750 against 0.500 of near, difference +0.250 "
        "[+0.250, +0.250] over samples"
    ]


def test_who_is_not_above_is_called_out():
    def row(interval, difference=0.1):
        own = {"condition": "la", "best": "linear SVM", "model": 0.5, "baseline": 0.4, "difference": difference}
        return {"metric": "ua", "over": "9 groups (speaker)", "rows": [own | {"interval": interval}]}

    assert baseline_warnings(row([0.01, 0.2])) == []
    assert baseline_warnings(row([0.0, 0.2])) == [
        "not above a simple baseline: condition la, UA 0.500 against 0.400 of linear SVM, difference +0.100 "
        "[+0.000, +0.200] over 9 groups (speaker)"
    ]
    assert "difference +0.100 - over 9" in baseline_warnings(row(None))[0]
    assert "difference undefined over 9" in baseline_warnings(row(None, None))[0]


def test_one_group_alone_has_no_interval():
    alone, baselines = dict.fromkeys(GROUP_OF, "ann"), {"svm": [said([0, 1, 1, 0, 1, 0])]}
    (row,) = against_baselines([said(TRUTH)], baselines, "wa", "speaker", alone)["rows"]
    assert row["difference"] == pytest.approx(1 / 3) and row["interval"] is None


def test_what_has_no_number_is_never_the_best():
    constant = values([0] * 6)
    constant.predictions.scores[:] = 1.0
    some = {"constant": [constant], "near": [values([0.1, -0.3] * 3)]}
    (row,) = against_baselines([values([0] * 6)], some, "corr")["rows"]
    assert row["best"] == "near" and row["model"] == pytest.approx(1)
    (row,) = against_baselines([values([0] * 6)], {"constant": [constant]}, "corr")["rows"]
    assert row["difference"] is None and row["interval"] is None


def test_other_samples_are_not_compared():
    other = Run("fixed", 1, "l", "test", "validation", regression(5))
    assert against_baselines([values([0] * 6)], {"svm": [other]}, "mae")["rows"] == []
