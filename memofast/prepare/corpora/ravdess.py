"""RAVDESS: 24 actors, two sentences, eight emotions, as speech or song.

A name is seven numbers: modality (01 sound and picture, 02 picture, 03 sound), channel, emotion, intensity, statement,
repetition, actor. Files that differ in the modality alone show one performance and become one sample. Source: the
corpus' file naming convention.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from memofast.prepare.corpora.reading import (
    Adapter,
    Reading,
    WrongLayout,
    by_own_folds,
    files_by_stem,
    groups_of,
    speaker_schemes,
)
from memofast.prepare.sources.clips import AUDIO, VIDEO, Clip
from memofast.prepare.sources.protocol import Protocol

_CLASSES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
_CHANNELS = {"speech": ("01",), "song": ("02",), "all": ("01", "02")}
_NAME = re.compile(r"(0[123])-((0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d))")


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    performances: dict[str, dict[str, Path]] = {}
    other, wanted = set(), _CHANNELS[settings["channel"]]
    for stem, path in files_by_stem(folder, AUDIO | VIDEO).items():
        if name := _NAME.fullmatch(stem):
            if name[3] in wanted:
                performances.setdefault(name[2], {})[name[1]] = path
            else:
                other.add(name[2])
    if not performances and not other:
        raise WrongLayout("no file named by seven numbers, as 03-01-06-01-02-01-12.wav")
    clips = [_clip(name, files) for name, files in sorted(performances.items())]
    groups = groups_of(clips, speaker=lambda clip: f"Actor_{clip.id[-2:]}", statement=lambda clip: clip.id[9:11])
    schemes = speaker_schemes(groups["speaker"], {"speaker": None})
    notes = [f"ravdess: {len(other)} performances of the other channel left out"] if other else []
    protocol = Protocol(classes=_CLASSES, groups=groups, schemes=schemes, scripted=True, notes=tuple(notes))
    return by_own_folds(clips, protocol, "ravdess")


def _clip(name: str, files: Mapping[str, Path]) -> Clip:
    _, emotion, _, statement, _, actor = name.split("-")
    both = files.get("01")
    picture, sound = both or files.get("02"), both or files.get("03")
    label = _CLASSES[int(emotion) - 1]
    return Clip(name, picture, sound, text=_STATEMENTS[statement], label=label, folder=f"Actor_{actor}")


ADAPTER = Adapter(
    "files such as Actor_12/03-01-06-01-02-01-12.wav (or .mp4, .flac) in folders of any depth",
    _read,
    {"channel": tuple(_CHANNELS)},
)
