import pytest

from memofast.train import trivial_table as table
from memofast.train.validation import relative_loss

SCORES = {
    ("a", "whole_word_mlm"): {"loss": 1.0, "targets": 1200, "trivial": 4.0},
    ("a", "span_visual_regression_with_a_long_name"): {"loss": 0.5, "targets": 3, "trivial": 1.0},
}
PREDICTORS = {"whole_word_mlm": "unigram", "span_visual_regression_with_a_long_name": "mean feature"}


def test_names_are_never_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    table.show(table.rows(SCORES, PREDICTORS), "split 'validation', update 3")
    output = capsys.readouterr().out
    for part in ("span_visual_regression_with_a_long_name", "unigram", "1,200", "0.250", "update 3"):
        assert part in output


def test_markdown():
    lines = table.markdown(table.rows(SCORES, PREDICTORS)).splitlines()
    assert len(lines) == 4
    assert lines[3] == "| a | whole_word_mlm | 1,200 | 1.0000 | unigram | 4.0000 | 0.250 |"


def test_relative_loss_weighs_objectives_alike_whatever_their_scale():
    weights = dict(zip(SCORES, (0.5, 0.5), strict=True))
    assert relative_loss(SCORES, weights) == (1 / 4 + 1 / 2) / 2


def test_relative_loss_is_a_weighted_mean_of_what_was_scored():
    scores = SCORES | {("b", "whole_word_mlm"): {"loss": 6.0, "targets": 7, "trivial": 2.0}}
    weights = dict(zip(scores, (6.0, 3.0, 1.0), strict=True)) | {("b", "not scored"): 90.0}
    assert relative_loss(scores, weights) == pytest.approx((6 * 0.25 + 3 * 0.5 + 1 * (2 - 2 / 6)) / 10)


def test_a_nearly_constant_corpus_does_not_rule_the_choice():
    """Its trivial predictor is nearly right, so that noise in its loss is a large ratio."""
    key = ("constant", "span_visual_regression")
    weights = dict.fromkeys([*SCORES, key], 1.0)
    better = {name: scores | {"loss": 0.9 * scores["loss"]} for name, scores in SCORES.items()}
    calm, wild = ({key: {"loss": loss, "targets": 9, "trivial": 1e-6}} for loss in (2e-4, 9e-3))
    assert relative_loss(better | wild, weights) < relative_loss(SCORES | calm, weights)
    assert relative_loss(SCORES | calm, weights) < relative_loss(SCORES | wild, weights) < 2
    nothing = {key: {"loss": 3e-4, "targets": 9, "trivial": 0.0}}
    assert relative_loss(better | nothing, weights) < 1


def test_what_has_no_trivial_predictor_shows_no_ratio():
    scores = SCORES | {("a", "new"): {"loss": 8.0, "targets": 5}}
    cells = table.rows(scores, PREDICTORS | {"new": "-"})
    assert cells[0] == ("a", "new", "5", "8.0000", "-", "-", "-")
    assert table.markdown(cells).splitlines()[2] == "| a | new | 5 | 8.0000 | - | - | - |"


def test_relative_loss_leaves_out_what_has_no_trivial_predictor_unless_nothing_has_one():
    scores = SCORES | {("a", "new"): {"loss": 8.0, "targets": 5}}
    weights = dict(zip(scores, (1.0, 3.0, 100.0), strict=True))
    assert relative_loss(scores, weights) == pytest.approx((1 * 0.25 + 3 * 0.5) / 4)
    bare = {("a", "new"): {"loss": 8.0, "targets": 5}, ("b", "new"): {"loss": 2.0, "targets": 50}}
    assert relative_loss(bare, {("a", "new"): 1.0, ("b", "new"): 3.0, ("c", "new"): 9.0}) == pytest.approx(14 / 4)
