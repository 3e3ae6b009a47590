"""Folds, seeds and conditions in one table: means, pooled scores, what chose the checkpoint, collapse."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from predictions_made import multi, named, regression, single
from rich.console import Console
from sklearn.metrics import confusion_matrix

from memofast.data.conditions import CONDITIONS
from memofast.errors import MemofastError
from memofast.evaluate.results import Run, joined, numbers, results_of
from memofast.evaluate.results_table import print_results, results_markdown, write_results
from memofast.metrics.bootstrap import intervals
from memofast.metrics.scores import scores_of

FOLDS, SEEDS = (1, 2, 10), (1234, 4321)


def runs(selected_on="validation", conditions=("lva", "l"), made=single):
    return [
        Run(
            fold, seed, condition, "test", selected_on, _prefixed(made(60, seed=seed + 10 * fold + number), f"f{fold}-")
        )
        for number, condition in enumerate(conditions)
        for fold in FOLDS
        for seed in SEEDS
    ]


def _prefixed(predictions, prefix):
    return replace(predictions, ids=tuple(prefix + id for id in predictions.ids))


def shown(results):
    console = Console(width=300, record=True, file=io.StringIO())
    print_results(results, console)
    return console.export_text()


@pytest.mark.parametrize("made", [single, multi, regression])
def test_means_and_deviations_are_over_runs(made):
    given = runs(made=made)
    results = results_of(given, draws=50)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert [row["condition"] for row in results["rows"]] == ["l", "lva"]
    scores = [scores_of(run.predictions) for run in given if run.condition == "lva"]
    row = results["rows"][1]
    for name, found in numbers(row)["runs"].items():
        values = [score[name] for score in scores]
        assert found["mean"] == pytest.approx(np.mean(values), abs=1e-6)
        assert found["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
        assert found["undefined"] == 0
        assert [one[name] for one in numbers(row)["each"]] == pytest.approx(values, abs=1e-6)
    for name, found in numbers(row).get("f1", {}).items():
        assert found["mean"] == pytest.approx(np.mean([score["f1"][name] for score in scores]), abs=1e-6)
    majority = [score["majority"] for score in scores]
    for name, found in numbers(row)["majority"].items():
        if found is not None:
            assert found == pytest.approx(np.mean([one[name] for one in majority]), abs=1e-6)
    assert (row["folds"], row["seeds"], row["runs"], row["samples"]) == ([1, 2, 10], [1234, 4321], 6, 180)


def test_confusion_is_summed_and_supports_count_samples_once():
    given = runs(conditions=("lva",))
    row = results_of(given, draws=10)["rows"][0]
    expected = sum(confusion_matrix(run.predictions.truth, run.predictions.named, labels=range(4)) for run in given)
    assert numbers(row)["confusion"] == expected.tolist()
    assert sum(row["supports"].values()) == 180 and np.sum(expected) == 360


@pytest.mark.parametrize("made", [single, multi, regression])
def test_pooled_scores(made):
    """Over folds together, not the mean of folds; a seed alone has the interval of its joined predictions."""
    given = runs(conditions=("lva",), made=made)
    pooled = numbers(results_of(given, draws=300)["rows"][0])["pooled"]
    by_seed = [joined([run.predictions for run in given if run.seed == seed]) for seed in SEEDS]
    for name, found in pooled.items():
        assert found["mean"] == pytest.approx(np.mean([scores_of(one)[name] for one in by_seed]), abs=1e-6)
        assert found["interval"][0] < found["mean"] < found["interval"][1]
    alone = results_of([run for run in given if run.seed == SEEDS[0]], draws=300)
    ends = {name: found["interval"] for name, found in numbers(alone["rows"][0])["pooled"].items()}
    for name, expected in intervals(by_seed[0], draws=300).items():
        assert ends[name] == pytest.approx(expected)


def test_more_seeds_narrow_the_pooled_interval():
    given = [Run(1, seed, "lva", "test", "validation", single(300, seed=seed, skill=1)) for seed in range(8)]
    widths = [
        np.diff(numbers(results_of(some, draws=500)["rows"][0])["pooled"]["wa"]["interval"])[0]
        for some in (given[:1], given)
    ]
    assert widths[1] < widths[0]


def test_a_sample_in_several_folds_is_one_sample():
    twice = [Run(fold, 1, "l", "validation", "validation", single(100)) for fold in (1, 2)]
    once = numbers(results_of(twice[:1])["rows"][0])["pooled"]
    assert numbers(results_of(twice)["rows"][0])["pooled"] == once


def test_conditions_have_one_order():
    given = [Run(1, 1, condition, "test", "validation", single(40)) for condition in reversed(CONDITIONS)]
    assert [row["condition"] for row in results_of(given, draws=10)["rows"]] == list(CONDITIONS)


@pytest.mark.parametrize("made", [single, multi, regression])
def test_every_number_chosen_on_test_says_so(made, tmp_path):
    results = results_of(runs("test", made=made), draws=20)
    write_results(results, tmp_path)
    read = json.loads((tmp_path / "results.json").read_text())
    assert read == results
    for row in read["rows"]:
        assert "selected on test" in row and "selected on validation" not in row
    markdown = (tmp_path / "results.md").read_text()
    for line in markdown.splitlines():
        if line.startswith("**") or (
            line.startswith("| ") and "0." in line and "majority" not in line and "mean p" not in line
        ):
            assert "selected on test" in line, line
    for line in shown(results).splitlines():
        if "±" in line or "[0" in line:
            assert "selected on test" in line, line


def test_what_was_chosen_on_validation_is_not_mixed_with_it():
    mixed = runs("test", ("lva",)) + runs("validation", ("lva",))
    rows = results_of(mixed, draws=10)["rows"]
    assert [row["selected_on"] for row in rows] == ["validation", "test"]
    markdown = results_markdown(results_of(mixed, draws=10))
    assert markdown.count("test, selected on validation:") == markdown.count("test, selected on test:") == 4


def test_a_collapsed_run_is_warned_of():
    given = runs()
    bad = given[3]
    given[3] = bad._replace(predictions=_prefixed(named(bad.predictions.truth, [0] * 60), f"f{bad.fold}-"))
    results = results_of(given, draws=10)
    (line,) = results["warnings"]
    assert line.startswith("fold 2, seed 4321, condition lva, test: the model has collapsed, it says 'neutral'")
    assert [row["collapsed"] for row in results["rows"]] == [0, 1]
    assert "| lva | 6 (1 collapsed) |" in results_markdown(results) and "| l | 6 |" in results_markdown(results)
    assert f"warning: {line}" in shown(results) and f"- warning: {line}" in results_markdown(results)


def test_many_collapsed_runs_share_a_line():
    given = [
        run._replace(predictions=_prefixed(named(run.predictions.truth, [0] * 60), f"f{run.fold}-"))
        if run.condition == "lva" or run.fold == 2
        else run
        for run in [*runs(conditions=("l", "lva")), *runs("nothing", ("a",))]
    ]
    (line,) = results_of(given, draws=10)["warnings"]
    assert "as a trivial predictor does: 2 of 6 on l, test, 6 of 6 on lva, test, 2 of 6 on a, test" in line
    assert line.count("'neutral'") == 4 and "fold 2, seed 4321, condition l, test: 'neutral'" in line


def test_undefined_correlations_are_counted_and_shown():
    given = [Run(1, seed, "l", "test", "validation", regression(seed=seed)) for seed in (1, 2, 3)]
    given[1].predictions.scores[:] = 0.5
    results = results_of(given, draws=20)
    found = numbers(results["rows"][0])
    assert found["runs"]["corr"]["undefined"] == 1 and found["each"][1]["corr"] is None
    assert found["pooled"]["corr"]["mean"] is None
    assert "(1 undefined)" in results_markdown(results) and "it says 0.5 of every sample" in results["warnings"][0]


def test_missing_runs_are_named():
    given = runs(conditions=("lva",))[:-1]
    results = results_of(given, draws=10)
    row = results["rows"][0]
    assert row["missing"] == [[10, 4321]] and numbers(row)["pooled"] is None
    assert "1 runs are missing (fold 10, seed 4321)" in results["warnings"][0]
    assert "no pooled scores" in results["warnings"][1]
    assert "| lva | 180 | - |" in results_markdown(results)


def test_a_class_that_a_fold_lacks_counts_in_the_other_folds_only():
    given = [
        Run(1, 1, "l", "test", "validation", named([0, 0, 1], [0, 1, 1], prefix="a")),
        Run(2, 1, "l", "test", "validation", named([0, 0, 3], [0, 0, 3], prefix="b")),
    ]
    f1 = numbers(results_of(given, draws=10)["rows"][0])["f1"]
    assert f1["joy"] == {"mean": pytest.approx(2 / 3), "sd": None, "undefined": 1}
    assert f1["anger"] == {"mean": None, "sd": None, "undefined": 2}


def test_the_majority_predictor_may_come_from_training():
    given = runs(conditions=("lva",))
    row = results_of(given, trivial={1: "joy", 2: "joy", 10: "joy"}, draws=10)["rows"][0]
    truth = np.concatenate([run.predictions.truth for run in given])
    assert numbers(row)["majority"]["wa"] == pytest.approx((truth == 1).mean())


def test_majority_predictors_of_other_samples_have_rows_of_their_own():
    given = [Run(1, 1, "l", "test", "nothing", single(100)), Run(1, 1, "a", "test", "nothing", single(70))]
    markdown = results_markdown(results_of(given, draws=10))
    assert "majority predictor of l " in markdown and "majority predictor of a " in markdown
    assert "test, selected on nothing: 1 fold x 1 seed" in markdown and "±" not in markdown


def test_both_orders_of_f1_are_told_and_named():
    markdown = results_markdown(results_of(runs(made=regression), draws=10))
    assert "| F1 has0 | F1 has0 (lab order) |" in markdown and "mean predictor" in markdown


def test_nothing_is_cut_in_a_narrow_window():
    console = Console(width=40, record=True, file=io.StringIO())
    print_results(results_of(runs("test", made=regression), draws=10), console)
    assert "…" not in console.export_text()


def test_wrong_runs_are_refused():
    first = runs()[0]
    refused = {
        "there are no runs": [],
        "there is no such condition, there are l, v, a, lv, la, va, lva": [first._replace(condition="vl")],
        "selected on 'train' is none of validation, test, another corpus, nothing, unknown data": [
            first._replace(selected_on="train")
        ],
        "fold 1, seed 1234, condition lva, test is given twice": [first, first],
        "another kind or other classes": [first, first._replace(seed=1, predictions=regression())],
        "none of 60 samples has a known truth": [first._replace(predictions=single(60, unknown=60))],
    }
    for message, given in refused.items():
        with pytest.raises(MemofastError, match=message) as raised:
            results_of(given, draws=10)
        assert "\n" not in str(raised.value)
