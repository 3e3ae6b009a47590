"""What a prediction's extractors must share with those of the training."""

import re
from pathlib import Path

import pytest

from memofast.errors import MemofastError
from memofast.inference.preparation import Files, Preparation, check_extraction, extraction_options
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
