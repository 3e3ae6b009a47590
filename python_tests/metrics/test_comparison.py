"""Two models on the same samples: McNemar against the formulas, the paired bootstrap, refusals."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions_made import CLASSES, multi, named, regression, single
from rich.console import Console

from memofast.errors import MemofastError
from memofast.evaluate.comparison_table import comparison_markdown, print_comparison
from memofast.metrics.comparison import compare, mcnemar
from memofast.metrics.scores import scores_of


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80))
def test_mcnemar_is_the_formula(pairs):
    first, second = (np.array([pair[which] for pair in pairs], bool) for which in (0, 1))
    found = mcnemar(first, second)
    b, c = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert (found["only_first"], found["only_second"]) == (b, c)
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert found["p_exact"] == pytest.approx(min(1, 2 * tail))
    chi_square = max(abs(b - c) - 1, 0) ** 2 / (b + c) if b + c else 0
    assert found["chi_square"] == pytest.approx(chi_square)
    assert found["p_chi_square"] == pytest.approx(math.erfc(math.sqrt(chi_square / 2)))


def test_intervals_over_groups():
    """Of one group the second is right on 4 against 2, of the other on 0 against 1, and a sample without a group on 1
    against 1: so 27 draws of three, WA from -1 to 2/4."""
    truth = [0, 1, 2, 3, 0, 1]
    first, second = named(truth, [0, 1, 0, 0, 0, 1]), named(truth, [0, 1, 2, 3, 1, 1])
    group_of = dict(zip(first.ids, ["x"] * 4 + ["y"], strict=False))
    found = compare(first, second, draws=4000, group_of=group_of)
    assert found["groups"] == 3 and found["metrics"]["wa"]["difference"] == pytest.approx(1 / 6)
    assert found["metrics"]["wa"]["interval"] == pytest.approx([-1, 2 / 4])
    assert found["metrics"]["wa"]["p"] > 0.5 and "groups" not in compare(first, second, draws=9)
    alone = compare(first, second, draws=9, group_of=dict.fromkeys(first.ids, "x"))["metrics"]["wa"]
    assert alone["interval"] is None and alone["p"] is None and alone["difference"] == pytest.approx(1 / 6)


def test_a_known_table():
    """b 121, c 59: chi-square (62 - 1)^2 / 180."""
    found = mcnemar(np.array([True] * 121 + [False] * 59), np.array([False] * 121 + [True] * 59))
    assert found["chi_square"] == pytest.approx(61**2 / 180) and found["p_exact"] < 1e-5


@pytest.mark.parametrize(
    ("worse", "better"), [(single(skill=1), single(seed=1, skill=3)), (regression(noise=3), regression(noise=0.5))]
)
def test_a_better_model_is_found_better(worse, better):
    found = compare(worse, better, draws=2000)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name, row in found["metrics"].items():
        assert row["first"] == pytest.approx(scores_of(worse)[name], abs=1e-6)
        assert row["second"] == pytest.approx(scores_of(better)[name], abs=1e-6)
        low, high = row["interval"]
        assert low < row["difference"] < high
    sure = found["metrics"]["wa" if worse.kind == "single" else "mae"]
    assert sure["p"] == pytest.approx(2 / 2001) and sure["interval"][0] * sure["interval"][1] > 0


def test_the_same_predictions_do_not_differ():
    for one in (single(), multi(), regression()):
        for row in compare(one, one, draws=200)["metrics"].values():
            assert row["difference"] == 0 and row["interval"] == [0, 0] and row["p"] == 1


def test_pairing_counts():
    """Of two models that agree but on few samples, the difference is known far better than either score."""
    truth = [0] * 500
    first, second = [1] * 200 + [0] * 300, [1] * 190 + [0] * 310
    row = compare(named(truth, first), named(truth, second), draws=2000)["metrics"]["wa"]
    assert row["difference"] == pytest.approx(0.02) and row["interval"][0] > 0 and row["p"] < 0.01


def test_order_does_not_matter_and_samples_without_truth_are_left_out():
    first, second = single(unknown=20), single(seed=1, unknown=20)
    shuffled = second.at(np.random.default_rng(0).permutation(200))
    assert compare(first, shuffled, draws=100) == compare(first, second, draws=100)
    assert compare(first, second, draws=100)["samples"] == 180


def test_what_cannot_be_compared_is_refused():
    first = single()
    twice = first.at(np.array([0, 0]))
    other_truth = dataclasses.replace(first, truth=(first.truth + 1) % 4)
    refused = {
        "single and regression predictions cannot": (first, regression()),
        "neutral, joy, anger, sadness against": (first, single(classes=(*CLASSES[:3], "fear"))),
        "20 are in one alone, 's0180' among them": (first, first.at(np.arange(180))),
        "name a sample twice": (twice, first),
        "200 samples, 's0000' among them": (first, other_truth),
    }
    for message, pair in refused.items():
        with pytest.raises(MemofastError, match=message) as raised:
            compare(*pair)
        assert "\n" not in str(raised.value)


def test_undefined_metrics_are_none():
    constant = regression()
    constant.scores[:] = 0
    row = compare(regression(), constant, draws=100)["metrics"]["corr"]
    assert row["second"] is None and row["difference"] is None and row["interval"] is None and row["p"] is None


def test_it_is_printed_and_written(capsys):
    found = compare(single(skill=1), single(seed=1, skill=3), draws=2000)
    print_comparison(found, "scratch", "pre-trained [lva]", Console(width=40))
    printed, written = capsys.readouterr().out, comparison_markdown(found, "scratch", "pre-trained [lva]")
    test = found["mcnemar"]
    for shown in (printed, written):
        assert "pre-trained [lva] against scratch, 200 samples, paired bootstrap" in shown and "< 0.001" in shown
        assert f"only scratch is right {test['only_first']} times" in shown
        assert f"[{found['metrics']['wa']['interval'][0]:+.3f}, " in shown
    assert "McNemar" not in comparison_markdown(compare(regression(), regression(), draws=50), "a", "b")
