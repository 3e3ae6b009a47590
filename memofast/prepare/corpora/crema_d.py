"""CREMA-D: 91 actors, 12 sentences, six emotions: the intended one, or what the crowd heard, saw, or both.

The crowd's table joins emotions with equally many votes, as `A:D`. Ties are left out, or go by the fixed rule `first`:
the class that stands first in the table's (alphabetical) order. Source: the corpus' README.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from memofast.prepare.corpora.reading import (
    Adapter,
    Reading,
    WrongLayout,
    by_own_folds,
    counted,
    groups_of,
    one_of,
    speaker_schemes,
)
from memofast.prepare.corpora.text_tables import csv_rows
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.protocol import Protocol

_CLASSES = ("anger", "disgust", "fear", "happy", "neutral", "sad")
_INTENDED = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), _CLASSES, strict=True))
_VOTED = dict(zip("ADFHNS", _CLASSES, strict=True))
_COLUMNS = {"voice": "VoiceVote", "face": "FaceVote", "crowd": "MultiModalVote"}
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})")
_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    table = one_of(folder, "processedResults/summaryTable.csv", "summaryTable.csv")
    if table is None:
        raise WrongLayout("no summaryTable.csv")
    sounds, films = folder / "AudioWAV", folder / "VideoFlash"
    clips, ties, counts = [], 0, Counter()
    for row in csv_rows(table):
        label, tied = _label(row, settings)
        ties += tied
        if label is not None:
            clips.append(_clip(row["FileName"], label, sounds, films))
            counts[label] += 1
    groups = groups_of(clips, speaker=lambda clip: clip.id[:4], sentence=lambda clip: clip.id[5:8])
    if demographics := one_of(folder, "VideoDemographics.csv"):
        sex = {row["ActorID"]: row["Sex"].lower() for row in csv_rows(demographics)}
        groups["sex"] = {clip.id: sex[clip.id[:4]] for clip in clips if clip.id[:4] in sex}
    schemes = speaker_schemes(groups["speaker"], {"speaker-5": 5, "speaker-10": 10})
    notes = [f"crema-d: label is {_told(settings, ties)}: {counted(counts)}"]
    if not any(clip.picture or clip.sound for clip in clips):
        notes.append(
            f"crema-d: no AudioWAV and no VideoFlash in {folder}, so there are names, labels and 12 sentences only"
        )
    facts = {"labels": settings["labels"], "ties": {"rule": settings["ties"], "clips": ties}}
    protocol = Protocol(
        classes=_CLASSES, groups=groups, schemes=schemes, scripted=True, facts=facts, notes=tuple(notes)
    )
    return by_own_folds(clips, protocol, "crema-d")


def _label(row: Mapping[str, str], settings: Mapping[str, str]) -> tuple[str | None, bool]:
    """The clip's label, None for a tie that is left out, and whether the crowd's vote was tied."""
    name = _NAME.fullmatch(row["FileName"])
    if not name or name[2] not in _SENTENCES or name[3] not in _INTENDED:
        raise WrongLayout(f"name {row['FileName']!r} is not ACTOR_SENTENCE_EMOTION_LEVEL")
    if settings["labels"] == "intended":
        return _INTENDED[name[3]], False
    votes = row[_COLUMNS[settings["labels"]]].split(":")
    if foreign := [vote for vote in votes if vote not in _VOTED]:
        raise WrongLayout(f"vote {foreign[0]!r} for {row['FileName']} is none of {', '.join(_VOTED)}")
    if len(votes) > 1 and settings["ties"] == "out":
        return None, True
    return _VOTED[votes[0]], len(votes) > 1


def _clip(name: str, label: str, sounds: Path, films: Path) -> Clip:
    film, sound = films / f"{name}.flv", sounds / f"{name}.wav"
    there = [path for path in (film, sound) if path.is_file()]
    missing = None if there or not (films.is_dir() or sounds.is_dir()) else f"missing file: {sound}"
    picture = film if film in there else None
    text = _SENTENCES[name[5:8]]
    return Clip(name, picture, sound if sound in there else picture, text=text, label=label, problem=missing)


def _told(settings: Mapping[str, str], ties: int) -> str:
    if settings["labels"] == "intended":
        return "the intended emotion"
    rule = "left out" if settings["ties"] == "out" else "given to the first emotion by name"
    heard = {"voice": "voice alone", "face": "face alone", "crowd": "voice and face"}[settings["labels"]]
    return f"the crowd's majority for {heard}, {ties} ties {rule}"


ADAPTER = Adapter(
    "processedResults/summaryTable.csv (or summaryTable.csv), VideoDemographics.csv and, if there, AudioWAV/*.wav, "
    "VideoFlash/*.flv",
    _read,
    {"labels": ("intended", *_COLUMNS), "ties": ("out", "first")},
)
