"""Scores by kind with those of the trivial predictor, the collapse alarm, undefined scores."""

import json

import numpy as np
import pytest
from predictions_made import CLASSES, multi, named, regression, single
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, recall_score

from memofast.errors import MemofastError
from memofast.metrics.class_scores import print_scores
from memofast.metrics.predictions import Predictions
from memofast.metrics.scores import scores_of


@pytest.mark.parametrize("made", [single, multi, regression])
def test_json_holds_them(made):
    scores = scores_of(made())
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["samples"] == len(made().ids) and not scores["collapsed"]


def test_classes_against_scikit_learn():
    predictions = single(unknown=20)
    scores = scores_of(predictions, without="neutral")
    truth, said = predictions.truth[:-20], predictions.scores.argmax(1)[:-20]
    assert (scores["samples"], scores["unknown"]) == (180, 20)
    assert scores["wa"] == pytest.approx(accuracy_score(truth, said))
    assert scores["ua"] == pytest.approx(recall_score(truth, said, average="macro"))
    assert scores["weighted_f1"] == pytest.approx(f1_score(truth, said, average="weighted"))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    others = f1_score(truth, said, labels=[1, 2, 3], average="micro")
    assert scores["micro_f1_without_neutral"] == pytest.approx(others)
    assert list(scores["supports"].values()) == np.bincount(truth).tolist()
    assert list(scores["named"].values()) == np.bincount(said).tolist()


def test_the_majority_predictor_of_meld():
    """Published: a model of accuracy 48.12 and weighted F1 31.27 on the test split of MELD always says neutral."""
    truth = np.repeat(np.arange(7), [1256, 402, 345, 281, 208, 68, 50])
    classes = ("neutral", "joy", "anger", "surprise", "sadness", "disgust", "fear")
    scores = scores_of(named(truth, np.zeros(2610), classes))
    assert scores["collapsed"] and scores["majority"]["class"] == "neutral"
    assert (round(100 * scores["wa"], 2), round(100 * scores["weighted_f1"], 2)) == (48.12, 31.27)
    assert all(scores[name] == scores["majority"][name] for name in ("wa", "ua", "weighted_f1", "macro_f1"))


def test_one_class_is_a_collapse_whichever_it_is():
    truth = [0, 0, 1, 2]
    assert scores_of(named(truth, [3] * 4))["collapsed"]
    assert not scores_of(named(truth, [0, 0, 0, 1]))["collapsed"]
    assert not scores_of(named([1, 1], [1, 1]))["collapsed"]  # where the truth is one class, that is no fault


def test_collapse_of_values_and_labels():
    values, labels = regression(), multi()
    constant = np.full_like(values.scores, 0.3) + np.float32(1e-8) * values.scores
    scores = scores_of(Predictions("regression", values.ids, values.truth, constant))
    assert scores["collapsed"]
    nothing = Predictions("multi", labels.ids, labels.truth, np.zeros_like(labels.scores), labels.classes)
    assert scores_of(nothing)["collapsed"]


def test_a_constant_has_no_correlation_and_that_is_told():
    values = regression()
    zeros = scores_of(Predictions("regression", values.ids, values.truth, np.zeros_like(values.scores)))
    assert zeros["corr"] is None and zeros["failures"] == ["corr is undefined: the predicted values are constant"]
    flat = scores_of(Predictions("regression", values.ids, np.zeros_like(values.truth), values.scores))
    assert flat["non0_f1"] is None and len(flat["failures"]) == 4 and "true values are constant" in flat["failures"][0]


def test_the_trivial_predictor_may_come_from_training():
    scores = scores_of(single(), trivial="joy")["majority"]
    assert scores["class"] == "joy" and scores["wa"] == pytest.approx((single().truth == 1).mean())
    assert scores_of(multi(), trivial=["joy"])["majority"]["labels"] == ["joy"]
    values = regression()
    by_default = scores_of(values)["majority"]
    assert by_default["mae"] == pytest.approx(np.abs(values.truth - values.truth.mean()).mean(), rel=1e-5)
    assert scores_of(values, trivial=1)["majority"]["mae"] == pytest.approx(np.abs(values.truth - 1).mean(), rel=1e-5)
    for wrong in ({"trivial": "rage"}, {"without": "rage"}):
        with pytest.raises(MemofastError, match="rage"):
            scores_of(single(), **wrong)


def test_labels_left_out_are_known():
    assert CLASSES[0] == "neutral" and "micro_f1_without_neutral" not in scores_of(single())


def test_they_can_be_printed(capsys):
    scores = scores_of(single())
    print_scores("dev", scores, scores["majority"], CLASSES, Console(width=200))
    assert "always neutral" in capsys.readouterr().out
