"""Labels of one corpus mapped to those of another; what is left out is counted; the matrix."""

import json

import numpy as np
import pytest
from predictions_made import CLASSES, named, regression, single
from rich.console import Console

from memofast.errors import MemofastError
from memofast.evaluate.cross_corpus import (
    cross_corpus,
    cross_corpus_markdown,
    foreign_predictions,
    print_cross_corpus,
    with_labels_of,
)
from memofast.metrics.comparison import compare
from memofast.metrics.scores import scores_of

MODEL, CORPUS = ("happy", "excited", "angry", "frustrated"), ("joy", "angry", "fear")
LABELS = {"happy": "joy", "excited": "joy", "angry": "angry", "frustrated": None}
SCORES = np.array(
    [[0.3, 0.3, 0.4, 0.0], [0.1, 0.1, 0.2, 0.6], [0.0, 0.0, 1.0, 0.0], [0.2, 0.2, 0.2, 0.4], [1, 0, 0, 0]], np.float32
)
TRUTH = ("joy", "angry", "fear", None, "angry")


def foreign():
    return foreign_predictions("abcde", SCORES, MODEL, TRUTH, CORPUS)


def test_classes_are_the_models_then_the_corpuses():
    predictions = foreign()
    assert predictions.classes == ("happy", "excited", "angry", "frustrated", "joy", "fear")
    assert [predictions.classes[n] if n >= 0 else None for n in predictions.truth] == list(TRUTH)


def test_probabilities_of_one_meaning_are_summed_and_the_rest_scaled():
    mapped, left_out = with_labels_of(foreign(), LABELS)
    assert mapped.ids == ("a", "b", "e") and set(mapped.classes) == {"joy", "angry"}
    joy = mapped.scores[:, mapped.classes.index("joy")]
    assert joy == pytest.approx([0.6, 0.5, 1.0])  # two classes of .3 outweigh one of .4
    assert mapped.scores.sum(1) == pytest.approx(1)
    assert left_out == {"unknown": 1, "samples": {"fear": 1}, "named": 1, "probability": pytest.approx(0.6 / 3)}
    assert [mapped.classes[n] for n in mapped.truth] == ["joy", "angry", "angry"]


def test_a_map_of_all_classes_to_themselves_changes_nothing():
    predictions = single(unknown=10)
    mapped, left_out = with_labels_of(predictions, {name: name for name in CLASSES})
    assert scores_of(mapped)["confusion"] == scores_of(predictions)["confusion"]
    assert left_out == {"unknown": 10, "samples": {}, "named": 0, "probability": 0.0}


def test_a_model_that_is_sure_of_what_the_corpus_lacks_says_all_alike():
    mapped, _ = with_labels_of(foreign_predictions("a", np.eye(4)[[3]], MODEL, ["joy"], CORPUS), LABELS)
    assert mapped.scores[0] == pytest.approx([0.5, 0.5])


def test_wrong_maps_are_refused():
    refused = {
        "leaves 'frustrated' open": {name: LABELS[name] for name in MODEL[:3]},
        "names 'jy'": LABELS | {"happy": "jy"},
        "names 'hapy'": LABELS | {"hapy": "joy"},
        "maps every class to null": dict.fromkeys(MODEL),
    }
    for message, labels in refused.items():
        with pytest.raises(MemofastError, match=message):
            with_labels_of(foreign(), labels)
    with pytest.raises(MemofastError, match="no sample is left: no class of the model stands for fear"):
        with_labels_of(foreign_predictions("a", SCORES[:1], MODEL, ["fear"], CORPUS), LABELS)
    with pytest.raises(MemofastError, match="true class 'sad' is none of the corpus's"):
        foreign_predictions("a", SCORES[:1], MODEL, ["sad"], CORPUS)
    with pytest.raises(MemofastError, match="labels of regression predictions cannot be mapped"):
        with_labels_of(regression(), LABELS)


def matrix(**options):
    predictions = {
        ("iemocap", "iemocap"): single(),
        ("iemocap", "other"): foreign(),
        ("msp", "iemocap"): named(single().truth, [1] * 200),
    }
    identity = {name: name for name in CLASSES}
    return cross_corpus(predictions, {("iemocap", "other"): LABELS, ("msp", "iemocap"): identity}, **options)


def test_the_matrix():
    found = matrix(metric="wa")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["trained_on"], found["tested_on"]) == (["iemocap", "msp"], ["iemocap", "other"])
    own, other, _ = found["cells"]
    assert own["selected on validation"]["value"] == pytest.approx(scores_of(single())["wa"])
    mapped = with_labels_of(foreign(), LABELS)[0]
    assert other["selected on validation"]["value"] == pytest.approx(scores_of(mapped)["wa"])
    assert other["samples"] == 3
    lines = cross_corpus_markdown(found).splitlines()
    assert lines[4].startswith("| iemocap | 0.") and lines[5].endswith("| - |")
    assert any("left out samples that no class of the model stands for: 1 fear" in line for line in lines)
    assert any("iemocap on other: left out 1 samples without a truth" in line for line in lines)
    assert any("named for 1 of 3 samples, mean probability 0.200" in line for line in lines)
    assert any("msp on iemocap: the model has collapsed" in line for line in lines)


def test_the_matrix_is_printed_with_what_chose_the_checkpoints(capsys):
    found = matrix(selected_on="test")
    assert all("selected on test" in cell for cell in found["cells"])
    print_cross_corpus(found, Console(width=40))
    output = capsys.readouterr().out
    assert "UA (the majority predictor's), selected on test" in output and "iemocap (selected on test)" in output


def test_values_need_no_map():
    found = cross_corpus({("mosi", "mosei"): regression()}, {}, metric="mae")
    value = found["cells"][0]["selected on validation"]["value"]
    assert value == pytest.approx(scores_of(regression())["mae"])


def test_what_the_matrix_lacks_is_named():
    with pytest.raises(MemofastError, match="msp on iemocap: there is no label map"):
        cross_corpus({("msp", "iemocap"): single()}, {})
    with pytest.raises(MemofastError, match="no metric 'mae' of it, but wa, ua"):
        cross_corpus({("msp", "msp"): single()}, {}, metric="mae")
    with pytest.raises(MemofastError, match="there are no predictions"):
        cross_corpus({}, {})
    with pytest.raises(MemofastError, match="selected on 'train'"):
        cross_corpus({("msp", "msp"): single()}, {}, selected_on="train")


def test_each_cell_says_what_chose_its_checkpoint():
    given = {("one", "one"): single(), ("one", "two"): foreign()}
    chosen = {("one", "one"): "test", ("one", "two"): "another corpus"}
    matrix = cross_corpus(given, {("one", "two"): LABELS}, selected_on=chosen)
    assert matrix["selected_on"] is None
    assert [cell["selected_on"] for cell in matrix["cells"]] == ["test", "another corpus"]
    text = cross_corpus_markdown(matrix)
    assert "selected on test or another corpus" in text and text.count(") selected on test |") == 1


def test_differences_to_the_first_model_are_of_the_same_samples():
    """Classes in another order are brought into one; where classes differ, a line says that nothing was compared."""
    first, other = single(skill=1), single(seed=1, skill=3)
    turned, names = np.roll(other.scores, 1, axis=1), CLASSES[-1:] + CLASSES[:-1]
    turned = foreign_predictions(other.ids, turned, names, [CLASSES[number] for number in other.truth], CLASSES)
    given = {("a", "x"): first, ("b", "x"): turned, ("c", "x"): foreign()}
    maps = {("a", "x"): {name: name for name in CLASSES}, ("b", "x"): {name: name for name in CLASSES}}
    chosen = dict(zip(given, ("test", "validation", "validation"), strict=True))
    found = cross_corpus(given, maps | {("c", "x"): LABELS}, metric="wa", selected_on=chosen)
    own, better, none = (cell[f"selected on {cell['selected_on']}"] for cell in found["cells"])
    expected = compare(first, other, draws=1000)["metrics"]["wa"]
    assert better["difference"] == pytest.approx(expected["difference"]) and better["difference"] > 0.1
    assert better["interval"] == pytest.approx(expected["interval"])
    assert own["difference"] is None and none["difference"] is None
    text = cross_corpus_markdown(found)
    ends = "[{:+.3f}, {:+.3f}]".format(*better["interval"])
    assert f"| b | {better['difference']:+.3f} {ends} (the first selected on test) |\n| c | - |\n" in text
    assert "WA less that of a on the same samples, selected on test or validation [95 % bootstrap interval]" in text
    assert "- no difference to the first model: c against a, x: predictions of other classes cannot be compared" in text
