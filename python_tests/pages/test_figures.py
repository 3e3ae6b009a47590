"""Pictures with names that others chose: no formulas, and a word on letters that no font has."""

import json
from types import SimpleNamespace

import pytest

from memofast.errors import MemofastWarning
from memofast.evaluate.reliability_plot import draw_reliability
from memofast.inference.prediction import Prediction
from memofast.inference.timeline import draw_timeline
from memofast.train.report import CURVES, _draw

NAME = r"a$\frac$b 日本 $5"  # no formula, and the font of matplotlib has no such letters


def timeline(path):
    said = Prediction("u", NAME, {NAME: 0.7, "glad": 0.3}, ("visual",), {"visual": 0.1}, start=0.0, end=1.0)
    draw_timeline([said], (NAME, "glad"), path, NAME)


def reliability(path):
    bins = [{"above": 0.0, "up_to": 1.0, "answers": 2, "confidence": 0.6, "accuracy": 0.5}]
    found = {"bins": bins, "ece": 0.1, "brier": 0.2, "confidence": 0.6, "accuracy": 0.5, "answers": 2}
    draw_reliability(found, path, NAME)


def curves(path):
    entry = {"objective": NAME, "corpus": NAME, "split": "train", "step": 1, "loss": 2.0}
    (path.parent / "metrics.jsonl").write_text(json.dumps(entry) + "\n")
    assert _draw(path.parent, SimpleNamespace(objectives={NAME: None}))
    (path.parent / CURVES).rename(path)


@pytest.mark.parametrize("draw", [timeline, reliability, curves])
def test_names_of_others_in_pictures(tmp_path, draw):
    path = tmp_path / "picture.png"
    with pytest.warns(UserWarning) as told:
        draw(path)
    (warning,) = told
    assert warning.category is MemofastWarning
    assert str(warning.message) == "no font for 日本 in pictures; boxes stand there"
    assert path.read_bytes().startswith(b"\x89PNG")
