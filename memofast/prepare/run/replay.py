"""Clips of a prepared corpus decoded once more, to be looked at: the face crops their rows came from, their sound and
its voice activity."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.faces.detection import load_opencv
from memofast.prepare.faces.extractors import FaceChoice
from memofast.prepare.media.streams import StreamChoice
from memofast.prepare.run.extraction import Extracted, Extraction, ExtractionOptions, by_file
from memofast.prepare.run.report import Source
from memofast.prepare.run.settings import read_settings
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice
from memofast.prepare.speech.voice import open_voice


def open_replay(corpus: Path, yunet: Path | None, used: str) -> tuple[Extraction, list[str]]:
    """What goes the way of a corpus's preparation to the faces that it took, without the models of rows; and notes on
    where it cannot.

    Args: yunet: model of the detector, None for Haar. used: name of the detector that found the faces of the rows, ""
        for a corpus without.
    Raises: `MemofastError` for a file that is no YuNet model.
    """
    settings, notes = read_settings(corpus), []
    options = ExtractionOptions(
        FaceChoice("crops") if used and _faces_can_be_found(notes) else None,
        None if used == "haar" else yunet,
        SpeechChoice("none", None, 1),
        math.inf,
        _voice_now(settings.get("voice") or "auto", notes),
        speaker=settings.get("speaker") or "most-seen",
        keep_sound=True,
        streams=StreamChoice(settings.get("video_stream"), settings.get("audio_stream")),
    )
    extraction = Extraction(options)
    if extraction.finder and extraction.finder.name != used:
        remedy = "; give --yunet FILE" if used == "yunet" else ""
        found = extraction.finder.name
        notes.append(f"Faces were found again by {found}, the rows came from {used}: crops may differ{remedy}.")
    return extraction, notes


def _faces_can_be_found(notes: list[str]) -> bool:
    try:
        load_opencv()
    except MemofastError as error:
        notes.append(f"No faces are shown: {error}.")
        return False
    return True


def _voice_now(wanted: str, notes: list[str]) -> str:
    """The voice activity that a corpus was prepared with, the energy detector where it is not there any more."""
    if wanted == "none":
        return wanted
    try:
        return open_voice(wanted).name
    except MemofastError as error:
        notes.append(f"Voice activity is that of the energy detector, the corpus was prepared with {wanted} ({error}).")
        return "energy"


def replay(extraction: Extraction, sources: dict[str, Source]) -> Iterator[Extracted]:
    """What is seen and heard of each of the sources, by id, as `Extracted.person` and `heard`; files are decoded once
    each."""
    for file in by_file(clip_of(id, source) for id, source in sources.items()):
        yield from extraction(file)


def clip_of(id: str, source: Source) -> Clip:
    """The clip that a source tells of."""
    picture, sound = (path and Path(path) for path in (source.picture, source.sound))
    return Clip(id, picture, sound, source.start, source.end, source.text)


def missing_media(sources: Iterable[Source]) -> list[str]:
    """Files of the sources that are not there any more, each once."""
    files = dict.fromkeys(file for source in sources for file in (source.picture, source.sound) if file)
    return [file for file in files if not Path(file).is_file()]
