"""IEMOCAP: five sessions of two actors; labels by majority of the raters, folds by speaker.

Sources: the release's EmoEvaluation files; folds of MEmoBERT, which leave a session out, one speaker of it for
validation and the other for test. Which of a session's speakers comes first is not told there: here the woman.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from memofast.prepare.corpora.reading import Adapter, Reading, WrongLayout, by_own_folds, counted, one_of, pair_folds
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.folders import one_line
from memofast.prepare.sources.protocol import Protocol
from memofast.prepare.subtitles.timings import clean_sentence
from memofast.prepare.text.encoding import read_text

_NAMES = {
    "ang": "anger",
    "hap": "happy",
    "exc": "excited",
    "neu": "neutral",
    "sad": "sad",
    "fru": "frustrated",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
    "oth": "other",
    "xxx": "without majority",
}
_FOUR = ("anger", "happy", "neutral", "sad")
_CLASSES = {"4": _FOUR, "4-without-excited": _FOUR, "6": (*_FOUR, "excited", "frustrated")}
_GAP = r"[^\S\r\n]"  # white space of a line
_RATED = re.compile(rf"\[(\d+\.\d+) - (\d+\.\d+)\]{_GAP}+(Ses0(\d)\w+_([FM])\w+){_GAP}+(\w+)\s")
_LINE = re.compile(r"^\[\d.*", re.M)
_SAID = re.compile(rf"^(Ses\w+) \[\d+\.\d+-\d+\.\d+\]:{_GAP}*(.*)", re.M)
_MEDIA = ("sentences/wav", "dialog/avi", "dialog/wav")


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    sessions = [path for number in range(1, 6) if (path := folder / f"Session{number}").is_dir()]
    if not sessions:
        raise WrongLayout("no folder Session1")
    classes, left_out = _CLASSES[settings["labels"]], Counter()
    untold, unread = [], []
    clips, groups = [], {"speaker": {}, "session": {}, "dialogue": {}, "position": {}}
    for session in sessions:
        ratings = sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt"))
        if not ratings:
            raise WrongLayout(f"no {session.name}/dialog/EmoEvaluation/Ses*.txt")
        for path in ratings:
            transcript = session / "dialog" / "transcriptions" / path.name
            if transcript.parent.is_dir() and not transcript.is_file():
                untold.append(path.stem)
            said = _transcript(transcript)
            text = read_text(path)
            rated = sorted(_RATED.finditer(text), key=lambda line: float(line[1]))
            begins = {line.start() for line in rated}
            unread += [line[0].rstrip() for line in _LINE.finditer(text) if line.start() not in begins]
            for position, line in enumerate(rated):
                if line[6] not in _NAMES:
                    raise WrongLayout(f"label {line[6]!r} of {line[3]} is none of {', '.join(_NAMES)}")
                label = _NAMES[line[6]]
                if label == "excited" and settings["labels"] == "4":
                    label = "happy"
                if label not in classes:
                    left_out[label] += 1
                    continue
                clips.append(_clip(session, path.stem, line, said, label))
                id = line[3]
                groups["speaker"][id] = f"Ses0{line[4]}{line[5]}"
                groups["session"][id] = session.name
                groups["dialogue"][id] = path.stem
                groups["position"][id] = str(position)
    schemes = {"speaker": pair_folds(groups["speaker"], [(f"Ses0{k}F", f"Ses0{k}M") for k in range(1, 6)])}
    merged = "excited counts as happy; " if settings["labels"] == "4" else ""
    note = f"iemocap: classes {', '.join(classes)}; {merged}left out: {counted(left_out) or 'nothing'}"
    notes = [note]
    if unread:
        notes.append(f"iemocap: {len(unread)} lines of ratings cannot be read (first: {one_line(unread[0])})")
    if untold:
        notes.append(f"iemocap: {len(untold)} dialogues have no file in transcriptions (first: {untold[0]})")
    protocol = Protocol(classes=classes, groups=groups, schemes=schemes, notes=tuple(notes))
    return by_own_folds(clips, protocol, "iemocap")


def _transcript(path: Path) -> dict[str, str]:
    return {line[1]: line[2] for line in _SAID.finditer(read_text(path))} if path.is_file() else {}


def _clip(session: Path, dialogue: str, line: re.Match, said: Mapping[str, str], label: str) -> Clip:
    """An utterance of the dialogue's film; without the film, its own sound file, else its piece of the dialogue's
    sound."""
    id, text = line[3], clean_sentence(said.get(line[3], "")) or None
    film = one_of(session / "dialog" / "avi", f"DivX/{dialogue}.avi", f"{dialogue}.avi")
    sound = one_of(session / "dialog" / "wav", f"{dialogue}.wav")
    alone = one_of(session / "sentences" / "wav", f"{dialogue}/{id}.wav")
    if film or (sound and not alone):
        start, end = float(line[1]), float(line[2])
        wrong = None if start < end else f"bad times: end {end} is not after start {start}"
        return Clip(id, film, sound or film, start, end, text, label, session.name, problem=wrong)
    there = any((session / name).is_dir() for name in _MEDIA)
    missing = f"missing file: {session / _MEDIA[0] / dialogue / id}.wav" if there and not alone else None
    return Clip(id, None, alone, text=text, label=label, folder=session.name, problem=missing)


ADAPTER = Adapter(
    "Session1 to Session5, each with dialog/EmoEvaluation/*.txt and, as far as there, dialog/transcriptions, "
    "dialog/avi/DivX, dialog/wav, sentences/wav",
    _read,
    {"labels": tuple(_CLASSES)},
)
