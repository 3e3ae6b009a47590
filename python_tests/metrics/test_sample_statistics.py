"""Metrics of sums equal the scores computed from all samples, for any predictions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions_made import CLASSES, multi, named, regression, single

from memofast.errors import MemofastError
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, METRICS, NAMES, metrics_of
from memofast.metrics.scores import scores_of

rows = st.integers(1, 50)
class_pairs = rows.flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2))
value_pairs = rows.flatmap(lambda n: st.tuples(*[st.lists(st.integers(-40, 40), min_size=n, max_size=n)] * 2))


def agree(predictions):
    found = metrics_of(predictions)
    scores = scores_of(predictions)
    assert list(found) == list(METRICS[predictions.kind])
    for name, value in found.items():
        expected = math.nan if scores[name] is None else scores[name]
        assert value == pytest.approx(expected, nan_ok=True, abs=1e-6), name


@settings(deadline=None)
@given(class_pairs)
def test_classes(pair):
    agree(named(*pair))


@settings(deadline=None)
@given(value_pairs)
def test_values(pair):
    truth, values = (np.array(one, np.float32) / 10 for one in pair)
    agree(Predictions("regression", tuple(map(str, range(len(truth)))), truth, values))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_labels(seed, samples):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (samples, 4)).astype(np.float32)
    agree(Predictions("multi", tuple(map(str, range(samples))), truth, rng.random((samples, 4)), CLASSES))


def test_every_metric_has_a_name_to_print():
    assert {name for names in METRICS.values() for name in names} == set(NAMES)
    assert set(LOWER_IS_BETTER) < set(NAMES)


@pytest.mark.parametrize("made", [single, multi, regression])
def test_scores_that_are_not_finite_are_refused(made):
    good = made()
    good.scores[3] = np.nan
    with pytest.raises(MemofastError, match=r"predictions of 1 samples are not finite \(s0003\)"):
        scores_of(good)


def test_nothing_known_is_refused():
    with pytest.raises(MemofastError, match="none of 5 samples has a known truth"):
        scores_of(single(5, unknown=5))
