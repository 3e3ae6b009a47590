"""Scores of classes that have an order."""

import pytest

from memofast.errors import MemofastError
from memofast.metrics.ordered_classes import check_order, ordered_score

ORDER = ("bad", "poor", "fair", "good")


def test_by_hand_and_as_the_original_counts():
    said = {"fair": 0.5, "bad": 0.125, "good": 0.25, "poor": 0.125}
    assert ordered_score(said, ORDER) == pytest.approx(100 * (0.125 * 1 + 0.5 * 2 + 0.25 * 3) / 3)
    from_the_best = sum(place * said[name] for place, name in enumerate(reversed(ORDER)))
    assert ordered_score(said, ORDER) == pytest.approx((1 - from_the_best / 3) * 100)
    assert ordered_score({"no": 0.0, "yes": 1.0}, ("no", "yes")) == 100
    assert ordered_score({"a": 0.2, "b": 0.2}, ("a", "b")) == 50  # probabilities that were rounded


def test_an_order_is_of_every_class_once():
    check_order(ORDER, ("good", "fair", "bad", "poor"), "single")
    for wrong in (ORDER[:3], (*ORDER, "good"), (*ORDER[:3], "best"), ()):
        with pytest.raises(MemofastError, match="give each of bad, poor, fair, good once"):
            check_order(wrong, ORDER, "single")
    with pytest.raises(MemofastError, match="target is multi"):
        check_order(ORDER, ORDER, "multi")
    with pytest.raises(MemofastError, match="not those of the model"):
        check_order(("one",), ("one",), "single")
