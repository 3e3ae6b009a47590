"""Scores of named classes: the definitions, classes that are missing."""

import numpy as np
import pytest
from rich.console import Console

from memofast.errors import MemofastError
from memofast.metrics.class_scores import class_scores, micro_f1_without, print_scores

CLASSES = ("calm", "glad", "sad", "cross")


def test_definitions_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 3])
    scores = class_scores(truth, predicted, CLASSES)
    assert scores["wa"] == pytest.approx(3 / 6)
    assert scores["ua"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)  # `cross` is predicted only: no recall of its own
    assert scores["f1"] == pytest.approx({"calm": 2 / 3, "glad": 1 / 2, "sad": 0})
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert scores["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 6)
    assert scores["confusion"] == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_a_model_like_the_majority_is_warned_of(capsys):
    truth = np.array([0, 0, 1])
    same = class_scores(truth, np.zeros(3, int), CLASSES)
    print_scores("validation", same, same | {"class": "calm"}, CLASSES, Console(width=200))
    shown = capsys.readouterr().out
    assert "no better than the majority" in shown and "always calm" in shown


def test_micro_f1_without_a_class():
    truth, predicted = np.array([0, 0, 1, 2, 2]), np.array([1, 0, 1, 0, 2])
    # without `calm`: 2 rightly named, 3 named, 3 true
    assert micro_f1_without(truth, predicted, CLASSES, "calm") == pytest.approx(2 * 2 / (3 + 3))
    with pytest.raises(MemofastError, match="class 'rage' cannot be left out"):
        micro_f1_without(truth, predicted, CLASSES, "rage")
