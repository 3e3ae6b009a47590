"""The table of predictions as a spreadsheet reads it."""

import csv
import io

from memofast.inference.prediction import Prediction
from memofast.inference.results import table_of


def test_what_was_said_or_named_is_never_a_formula():
    said = '=HYPERLINK("http://x","y")'
    found = Prediction(
        "@id", "-sad", {"+glad": 0.25, "-sad": 0.75}, ("text",), {"text": -0.125}, text=said, file="+film.mp4",
        start=-0.25, end=1.5, notes=("-none", "x"),
    )  # fmt: skip
    other = Prediction("b", None, {}, ("text",), value=-1.5, text="one\rtwo")
    (line,) = csv.DictReader(io.StringIO(table_of([found], ["+glad", "-sad"]), newline=""))
    assert line["text"] == f"'{said}" and line["file"] == "'+film.mp4" and line["id"] == "'@id"
    assert line["named"] == "'-sad" and line["notes"] == "'-none; x"
    assert (line["p_+glad"], line["start"], line["importance_text"]) == ("0.250000", "-0.250", "-0.125000")
    assert not {"dialogue", "position", "speaker"} & {*line, *found.as_json()}
    (line,) = csv.DictReader(io.StringIO(table_of([other], []), newline=""))
    assert line["value"] == "-1.500000" and line["text"] == "one\rtwo"
