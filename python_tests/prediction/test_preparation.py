"""What a prediction's extractors must share with those of the training."""

import re
from pathlib import Path

import pytest

from memofast.errors import MemofastError
from memofast.prediction.preparation import Preparation, check_extraction
from memofast.prepare.extraction import Extraction, ExtractionOptions
from memofast.prepare.speech import parse_speech


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
            check_extraction(extraction, preparation, {"speech": rows.width}, Path("RUN"))
            continue
        with pytest.raises(MemofastError, match=re.escape(message)):
            check_extraction(extraction, preparation, {"speech": rows.width}, Path("RUN"))
