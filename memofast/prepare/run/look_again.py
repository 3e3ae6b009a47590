"""Clips of a prepared corpus decoded once more, to be looked at: the face crops their rows came from, their sound and its voice activity."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.faces.detection import FaceFinder, find_faces, load_opencv
from memofast.prepare.faces.mouths import MouthWatch
from memofast.prepare.media.decoding import Excerpt
from memofast.prepare.run.extraction import Extracted, Extraction, ExtractionOptions, by_file
from memofast.prepare.run.pipeline import SETTINGS
from memofast.prepare.run.report import Source
from memofast.prepare.sources.clips import Clip
from memofast.prepare.speech.extractors import SpeechChoice
from memofast.prepare.speech.voice import VoiceActivity, open_voice

_NEITHER_FACES_NOR_ROWS = ExtractionOptions(None, None, SpeechChoice("none", None, 1), math.inf)


@dataclass
class Look(Extracted):
    """What a clip shows. crops: [64, 64] uint8 grey each, of the person whose face was taken; times [n] seconds, confidence [n].

    wave [samples] float32 at 16 kHz, None without sound; activity [n] bool, voice activity every `hop` seconds, None where nobody looked.
    """

    crops: list[np.ndarray] = field(default_factory=list)
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    wave: np.ndarray | None = None
    activity: np.ndarray | None = None
    hop: float = 0.0


class LookAgain(Extraction):
    """Goes the way of the extraction, to the face that it takes, and leaves the models out."""

    def __init__(self, finder: FaceFinder | None, voice: VoiceActivity | None, speaker: str):
        super().__init__(_NEITHER_FACES_NOR_ROWS)
        self.finder, self.voice, self.hears = finder, voice, True
        self.mouths = MouthWatch() if finder and speaker == "active" else None

    def look(self, sources: dict[str, Source]) -> Iterator[Extracted]:
        """A `Look` at each of the sources, by id; an `Extracted` with its problems where that failed. Files are decoded once each."""
        for file in by_file(clip_of(id, source) for id, source in sources.items()):
            yield from self(file)

    def _rows(self, clip: Clip, excerpt: Excerpt, speech: np.ndarray | None) -> Look:
        look = Look(clip, wave=excerpt.sound)
        if self.voice and excerpt.sound is not None:
            look.activity, look.hop = self._spoken(clip, excerpt.sound, speech), self.voice.hop
        person = self._main_person(look, excerpt, look.activity) if self.finder and clip.picture else None
        if person:
            look.crops = [face.crop for face in person.faces]
            look.times = np.array([excerpt.times[frame] for frame in person.frames], np.float32)
            look.confidence = np.array([face.confidence for face in person.faces], np.float32)
        return look


def clip_of(id: str, source: Source) -> Clip:
    """The clip that a source tells of."""
    picture, sound = (path and Path(path) for path in (source.picture, source.sound))
    return Clip(id, picture, sound, source.start, source.end, source.text)


def missing_media(sources: Iterable[Source]) -> list[str]:
    """Files of the sources that are not there any more, each once."""
    files = dict.fromkeys(file for source in sources for file in (source.picture, source.sound) if file)
    return [file for file in files if not Path(file).is_file()]


def open_look(corpus: Path, yunet: Path | None, used: str) -> tuple[LookAgain, list[str]]:
    """What looks at the clips of a corpus as its preparation did, and notes on where it cannot.

    Args: yunet: model of the detector, None for Haar. used: name of the detector that found the faces of the rows, "" for a corpus without.
    Raises: `MemofastError` for a file that is no YuNet model.
    """
    settings = read_settings(corpus)
    notes = []
    finder = _open_finder(used, yunet, notes) if used else None
    wanted = settings.get("voice") or "auto"
    try:
        voice = None if wanted == "none" else open_voice(wanted)
    except MemofastError as error:
        voice = open_voice("energy")
        notes.append(f"Voice activity is that of the energy detector, the corpus was prepared with {wanted} ({error}).")
    return LookAgain(finder, voice, settings.get("speaker") or "most-seen"), notes


def _open_finder(used: str, yunet: Path | None, notes: list[str]) -> FaceFinder | None:
    try:
        load_opencv()
    except MemofastError as error:
        notes.append(f"No faces are shown: {error}.")
        return None
    finder = find_faces(None if used == "haar" else yunet)
    if finder.name != used:
        remedy = "; give --yunet FILE" if used == "yunet" else ""
        notes.append(f"Faces were found again by {finder.name}, the rows came from {used}: crops may differ{remedy}.")
    return finder


def read_settings(corpus: Path) -> dict:
    """Options that a corpus was prepared with; none where they are not known."""
    try:
        return dict(json.loads((corpus / SETTINGS).read_text()))
    except (OSError, ValueError, TypeError):
        return {}
