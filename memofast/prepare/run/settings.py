"""The options that a corpus was prepared with, in `prepare.json`: all of its rows are made by the same."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat

from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.model.face_networks.densenet import LAYER_WIDTHS
from memofast.prepare.faces import extractors as faces
from memofast.prepare.speech import extractors as speech
from memofast.schemas import Count, Name, Schema, read_described

SETTINGS = "prepare.json"


def _face(text: str) -> str:
    kind, _, layers = text.partition(" layer ")
    wrong = (kind.startswith("raw") and not faces.RAW.fullmatch(text)) or (
        kind.startswith("frames") and not faces.FRAMES.fullmatch(text)
    )
    if kind.split(" ")[0] not in faces.KINDS or wrong or (layers and not set(layers.split("+")) <= set(LAYER_WIDTHS)):
        raise ValueError("must be faces that there are")
    return text


def _speech(text: str) -> str:
    wrong = text.startswith("raw ") and not speech.RAW_RATE.fullmatch(text)
    if wrong or text.split(" ")[0] not in speech.KINDS or (" stack " in text and not speech.STACKED.search(text)):
        raise ValueError("must be a kind of speech rows")
    return text


class FacePixels(Schema):
    """mean, std: of the pixels of the main faces of `clips` clips, on the 0..255 scale, to four decimals; faces: how
    many those were, 0: no mean."""

    mean: FiniteFloat
    std: Annotated[FiniteFloat, Field(gt=0)]
    faces: Count
    clips: Count


class Settings(Schema):
    """What `prepare.json` says; older files say less."""

    max_seconds: Annotated[float, Field(gt=0)] | None = None
    face: Annotated[Name, AfterValidator(_face)] | None = None
    face_normalisation: Name | None = None
    face_pixels: FacePixels | None = None
    speech: Annotated[Name, AfterValidator(_speech)] | None = None
    device: Name | None = None
    detector: str | None = None
    speech_mean: Annotated[int, Field(ge=1, le=10_000)] | None = None
    speech_functionals: Annotated[str, Field(pattern=r"^[1-9]\d{0,2}(\+[1-9]\d{0,2})*$")] | None = None
    voice: Name | None = None
    speaker: Literal["active", "most-seen"] | None = None
    audio_stream: Name | None = None
    video_stream: Name | None = None


def read_settings(corpus: Path) -> dict[str, Any]:
    """Options that a corpus was prepared with; none where it was not made of media. Raises: `MemofastError` where they
    are damaged."""
    path = corpus / SETTINGS
    if not os.path.lexists(path):
        return {}
    return read_described(path, Settings, "what a corpus was prepared with", "restore it or choose another --out")


def keep_settings(corpus: Path, settings: dict[str, Any]) -> None:
    """Write the options of a corpus that is begun. Raises: `MemofastError` where it was begun with others: a store
    would hold two kinds of rows."""
    path = corpus / SETTINGS
    if os.path.lexists(path):
        _refuse_others(corpus, settings)
        return
    try:
        corpus.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemofastError(f"{corpus} cannot be made ({error.strerror}); choose another --out") from error
    write_json(path, settings)


def _refuse_others(corpus: Path, settings: dict[str, Any]) -> None:
    begun = read_settings(corpus)
    for name, value in settings.items():
        if begun.get(name) != value:
            raise MemofastError(
                f"{corpus} was begun with {name} {begun.get(name)!r}, not {value!r}; use the same options or "
                "another --out"
            )
