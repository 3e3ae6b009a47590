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
