"""Variants against the first: differences and intervals by a loop over resamples, and what cannot be compared."""

import json
from dataclasses import replace

import numpy as np
import pytest
from predictions_made import multi, named, regression, single

from memofast.errors import MemofastError
from memofast.metrics.paired_variants import against_first, difference_text
from memofast.metrics.sample_statistics import metrics_of


def variant(made=single, sizes=((1, 40), (2, 25)), seeds=(7, 8), first=0, **options):
    """Folds of other samples and sizes, two conditions each."""
    return {
        (fold, seed): [
            prefixed(made(size, seed=first + 100 * fold + 10 * seed + condition, **options), f"f{fold}-")
            for condition in range(2)
        ]
        for fold, size in sizes
        for seed in seeds
    }


def prefixed(predictions, prefix):
    return replace(predictions, ids=tuple(prefix + id for id in predictions.ids))


@pytest.mark.parametrize(("made", "metric"), [(single, "ua"), (multi, "micro_f1"), (regression, "corr")])
def test_the_interval_is_that_of_a_loop_over_resamples(made, metric):
    given = {"a": variant(made), "b": variant(made, first=1000), "c": variant(made, first=2000)}
    found = against_first(given, metric, draws=60, seed=3)
    assert json.loads(json.dumps(found)) == found
    ids = list(dict.fromkeys(id for said in given["a"].values() for id in said[0].ids))
    assert len(ids) == 65

    def score(name, drawn):
        """Scores [pairs] where the samples of these numbers are taken."""
        by_pair = []
        for said in given[name].values():
            place = {id: number for number, id in enumerate(said[0].ids)}
            rows = np.array([place[ids[number]] for number in drawn if ids[number] in place])
            taken = [replace(one.at(rows), ids=tuple(map(str, range(len(rows))))) for one in said]
            by_pair.append(np.mean([metrics_of(one)[metric] for one in taken]))
        return np.array(by_pair)

    random = np.random.default_rng(3)
    samples = random.integers(65, size=(60, 65))
    for name in ("a", "b", "c"):
        observed = score(name, range(65))
        assert found[name]["score"] == pytest.approx(observed.mean())
        assert found[name]["sd"] == pytest.approx(observed.std(ddof=1))
        if name != "a":
            assert found[name]["difference"] == pytest.approx(observed.mean() - found["a"]["score"])
            drawn = [score(name, one).mean() - score("a", one).mean() for one in samples]
            assert found[name]["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    assert found["a"]["difference"] is None and found["a"]["interval"] is None


def test_groups_are_drawn_whole():
    """Two of them: a draw is the one alone, of which the second fold has no sample, the other alone, or both."""
    given = {"a": variant(seeds=(7,)), "b": variant(seeds=(7,), first=1000)}
    ids = [id for said in given["a"].values() for id in said[0].ids]
    groups = {id: "first" if number < 17 else "second" for number, id in enumerate(ids)}
    found = against_first(given, "wa", groups, draws=400)["b"]

    def difference(of):
        parts = []
        for pair, said in given["b"].items():
            for one, other in zip(said, given["a"][pair], strict=True):
                kept = np.array([groups[id] in of for id in one.ids])
                right = [(x.named == x.truth)[kept] for x in (one, other)]
                parts.append(np.nan if not kept.any() else right[0].mean() - right[1].mean())
        return np.nanmean(parts)

    both = difference(("first", "second"))
    assert found["difference"] == pytest.approx(both)
    ends = [both, *(difference((name,)) for name in ("first", "second"))]
    assert found["interval"] == pytest.approx([min(ends), max(ends)])
    alone = against_first(given, "wa", dict.fromkeys(ids, "all"), draws=20)["b"]
    assert alone["difference"] == pytest.approx(both) and alone["interval"] is None


def test_a_sample_of_two_folds_is_drawn_with_both():
    """Two folds that tested the same samples alike tell no more than one."""
    once = {"a": {1: [single(50)]}, "b": {1: [single(50, seed=1)]}}
    twice = {name: {fold: variant[1] for fold in (1, 2)} for name, variant in once.items()}
    assert against_first(twice, "wa")["b"]["interval"] == pytest.approx(against_first(once, "wa")["b"]["interval"])


def test_pairs_narrow_the_interval_and_order_does_not_matter():
    truth = single(200).truth
    near = named(truth, np.where(np.arange(200) % 10 == 0, 0, truth))
    best = named(truth, truth)
    shuffled = best.at(np.random.default_rng(0).permutation(200))
    wide = against_first({"a": {1: [single(200, skill=1)]}, "b": {1: [best]}}, "wa")["b"]["interval"]
    found = against_first({"a": {1: [near]}, "b": {1: [shuffled]}}, "wa")["b"]
    assert found == against_first({"a": {1: [near]}, "b": {1: [best]}}, "wa")["b"]
    assert 0 < found["interval"][0] <= found["difference"] <= found["interval"][1]
    assert np.ptp(found["interval"]) < np.ptp(wide)
    assert difference_text(found) == "{:+.3f} [{:+.3f}, {:+.3f}]".format(found["difference"], *found["interval"])


def test_samples_without_truth_do_not_count():
    found = against_first({"a": {1: [single(60, unknown=9)]}, "b": {1: [single(60, seed=1, unknown=9)]}}, "wa")
    known = {name: {1: [single(60, seed=seed).at(np.arange(51))]} for seed, name in enumerate("ab")}
    assert found == against_first(known, "wa")


def test_an_undefined_score_has_no_difference():
    flat = replace(regression(30), scores=np.ones(30, np.float32))
    found = against_first({"a": {1: [regression(30)]}, "b": {1: [flat]}}, "corr")["b"]
    assert found["score"] is None and difference_text(found) == "-"


@pytest.mark.parametrize(
    ("others", "metric", "told"),
    [
        ({"b": {(1, 8): [single()]}}, "ua", "b and a do not both have fold 1, seed"),
        ({"b": {(1, 7): [single(), single()]}}, "ua", "b against a, fold 1, seed 7: 2 and 1 conditions"),
        ({"b": {(1, 7): [single(prefix="t")]}}, "ua", "b against a, fold 1, seed 7: predictions of other samples"),
        ({"b": {(1, 7): [regression()]}}, "ua", "single and regression predictions cannot be compared"),
        ({}, "mae", "a: there is no metric 'mae' of it, but wa, ua"),
    ],
)
def test_what_cannot_be_compared(others, metric, told):
    with pytest.raises(MemofastError, match=told):
        against_first({"a": {(1, 7): [single()]}} | others, metric)


def test_nothing_to_compare():
    with pytest.raises(MemofastError, match="a has no predictions to compare"):
        against_first({"a": {}}, "ua")
