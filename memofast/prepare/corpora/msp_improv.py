"""MSP-IMPROV: six sessions of two actors; labels by majority of the raters, folds by speaker.

A name is `MSP-IMPROV-S01A-F01-S-FM01`: sentence and intended emotion, speaker, part of the recording (S: the target
sentence improvised, R: read, T: other turns of the improvisation, P: talk between scenes), listener and speaker, turn.
Sources: the corpus' Evalution.txt; folds of MEmoBERT, ten speakers for training and one each for validation and test.
Which speaker of a pair comes first is not told there: here the man.
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
    files_by_stem,
    groups_of,
    one_of,
    pair_folds,
)
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.protocol import Protocol
from memofast.prepare.subtitles.timings import clean_sentence
from memofast.prepare.text.encoding import read_text

_CLASSES = ("anger", "happy", "neutral", "sad")
_LETTERS = {"A": "anger", "H": "happy", "N": "neutral", "S": "sad", "O": "other", "X": "without majority"}
_RATED = re.compile(r"^(?:UTD|MSP)-IMPROV-(S\d\d[AHNS]-[FM]\d\d-([PRST])-[FM]{2}\d+)\.\w+;[ \t]*(\w)[ \t]*;", re.M)
_LINE = re.compile(r"^(?:UTD|MSP)-IMPROV-", re.M)
_SPEAKER, _SCENE = 1, 0  # places in a name without its beginning


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    ratings = one_of(folder, "Evalution.txt", "Evaluation.txt")
    if ratings is None:
        raise WrongLayout("no Evalution.txt")
    films, sounds = files_by_stem(folder, {".avi", ".mp4"}), files_by_stem(folder, {".wav"})
    texts, left_out, clips = files_by_stem(folder, {".txt"}), Counter(), []
    rated = _RATED.findall(read_text(ratings))
    if unread := len(_LINE.findall(read_text(ratings))) - len(rated):
        left_out["lines that cannot be read"] = unread
    for name, part, letter in rated:
        if letter not in _LETTERS:
            raise WrongLayout(f"label {letter!r} of {name} is none of {', '.join(_LETTERS)}")
        label = _LETTERS[letter]
        if settings["parts"] not in (part, "all"):
            left_out["of other parts"] += 1
        elif label not in _CLASSES:
            left_out[label] += 1
        else:
            clips.append(_clip(name, label, films, sounds, texts))
    groups = groups_of(
        clips,
        speaker=lambda clip: clip.id.split("-")[_SPEAKER],
        session=lambda clip: clip.id.split("-")[_SPEAKER][1:],
        scene=lambda clip: clip.id.split("-")[_SCENE],
    )
    schemes = {"speaker": pair_folds(groups["speaker"], [(f"M0{k}", f"F0{k}") for k in range(1, 7)])}
    parts = "all parts" if settings["parts"] == "all" else f"part {settings['parts']} of the recordings alone"
    note = f"msp-improv: {parts}; left out: {counted(left_out) or 'nothing'}"
    return by_own_folds(clips, Protocol(classes=_CLASSES, groups=groups, schemes=schemes, notes=(note,)), "msp-improv")


def _clip(name: str, label: str, films: Mapping, sounds: Mapping, texts: Mapping) -> Clip:
    """Sound files and transcripts begin with MSP, films and ratings with UTD or MSP."""
    stems = [f"{beginning}-IMPROV-{name}" for beginning in ("MSP", "UTD")]
    film, sound, said = (next((files[s] for s in stems if s in files), None) for files in (films, sounds, texts))
    missing = None if film or sound or not (films or sounds) else f"missing file: no sound or film {stems[0]}"
    text = clean_sentence(read_text(said)) if said else None
    return Clip(name, film, sound or film, text=text or None, label=label, folder=name.split("-")[0], problem=missing)


ADAPTER = Adapter(
    "Evalution.txt and, in any folders below, MSP-IMPROV-*.wav, *-IMPROV-*.avi and transcripts MSP-IMPROV-*.txt",
    _read,
    {"parts": ("S", "R", "T", "P", "all")},
)
