"""What a prediction's extractors must share with those of the training."""

import json
import re
from pathlib import Path

import pytest

from memofast.errors import MemofastError
from memofast.inference.preparation import (
    PREPARATION,
    Files,
    Preparation,
    check_extraction,
    extraction_options,
)
from memofast.prepare.run.extraction import Extraction, ExtractionOptions
from memofast.prepare.speech.extractors import parse_speech
from memofast.prepare.speech.logmel import LogMel


def test_rows_normalised_by_speaker_cannot_be_made_of_one_film():
    extraction = Extraction(ExtractionOptions(None, None, parse_speech("logmel", None), 30.0))
    rows = extraction.speech
    for normalisation, message in (
        (rows.normalisation, None),
        ("z-norm over each speaker", "takes all samples of each: evaluate a corpus"),
        ("another", f"with another, not {rows.normalisation}"),
    ):
        trained = {"speech": {"fingerprint": rows.fingerprint, "normalisation": normalisation}}
        preparation = Preparation({}, trained, ("speech",))
        if message is None:
            check_extraction(extraction, preparation, {"speech": rows.width}, Files(), Path("RUN"))
            continue
        with pytest.raises(MemofastError, match=re.escape(message)):
            check_extraction(extraction, preparation, {"speech": rows.width}, Files(), Path("RUN"))


def test_functionals_are_made_as_the_training_made_them():
    settings = {
        "face": None, "speech": "logmel", "speech_mean": 1, "speech_functionals": "1+2+4", "max_seconds": 30.0,
        "voice": "none", "speaker": "active",
    }  # fmt: skip
    trained = {"fingerprint": LogMel.fingerprint, "normalisation": LogMel.normalisation}
    preparation = Preparation(settings, {"speech": trained}, ("speech",))
    options = extraction_options(preparation, ["speech"], Files(), Path("RUN"), "cpu")
    assert options.speech.parts == (1, 2, 4)
    check_extraction(Extraction(options), preparation, {"speech": 160}, Files(), Path("RUN"))
    with pytest.raises(MemofastError, match="reads speech rows 80 wide, those of logmel are 160"):
        check_extraction(Extraction(options), preparation, {"speech": 80}, Files(), Path("RUN"))


SAID = {
    "settings": {"face": None, "speech": "logmel", "speech_mean": 1, "max_seconds": 30.0},
    "stores": {"visual": {"extractor": "denseface", "dtype": "float16", "width": 342}, "text": {"fingerprint": "x"}},
    "modalities": ["text", "visual"],
    "conditions": ["lv", "l"],
}


def test_preparation_comes_back(tmp_path):
    assert Preparation.read(tmp_path) is None
    (tmp_path / PREPARATION).write_text(json.dumps(SAID))
    assert Preparation.read(tmp_path) == Preparation(SAID["settings"], SAID["stores"], ("text", "visual"), ("lv", "l"))
    with pytest.raises(MemofastError, match=r"were made \(face of its corpus is not known\); give features"):
        extraction_options(Preparation.read(tmp_path), ["visual"], Files(), tmp_path, "cpu")


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": []}, {"settings": None}, {"settings": {"speech_mean": "6"}}, {"stores": []}, {"stores": {"x": {}}},
        {"stores": {"text": []}}, {"stores": {"text": {"fingerprint": 3}}}, {"stores": {"visual": {"width": -1}}},
        {"stores": {"visual": {"dtype": "int8"}}}, {"modalities": "text"}, {"modalities": ["smell"]},
        {"modalities": None}, {"conditions": ["x"]}, {"conditions": "l"}, {"conditions": [["l"]]},
    ],
)  # fmt: skip
def test_odd_preparation_is_refused(tmp_path, changed):
    (tmp_path / PREPARATION).write_text(json.dumps(SAID | changed))
    with pytest.raises(MemofastError, match=f"{PREPARATION} is not a model's preparation") as caught:
        Preparation.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff{}", b"[" * 100_000])
def test_preparation_that_is_no_object_is_refused(tmp_path, data):
    (tmp_path / PREPARATION).write_bytes(data)
    with pytest.raises(MemofastError, match=f"{PREPARATION} is not a model's preparation"):
        Preparation.read(tmp_path)
