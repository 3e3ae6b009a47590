"""EmoDB: ten German actors, ten sentences, seven emotions.

A name is speaker (two digits), sentence (letter and two digits), emotion by its German initial, and version. Source:
the corpus' naming rule.
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
from memofast.prepare.sources.clips import AUDIO, Clip
from memofast.prepare.sources.protocol import Protocol

_LETTERS = {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happy", "N": "neutral", "T": "sad"}
_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_NAME = re.compile(r"(\d\d)([ab]\d\d)([A-Z])[a-z]")


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    clips = []
    for stem, path in files_by_stem(folder, AUDIO).items():
        if name := _NAME.fullmatch(stem):
            if name[3] not in _LETTERS:
                raise WrongLayout(f"emotion {name[3]!r} of {path.name} is none of {', '.join(_LETTERS)}")
            clips.append(Clip(stem, None, path, text=_SENTENCES.get(name[2]), label=_LETTERS[name[3]]))
    if not clips:
        raise WrongLayout("no file named as 03a01Fa.wav")
    groups = groups_of(clips, speaker=lambda clip: clip.id[:2], sentence=lambda clip: clip.id[2:5])
    schemes = speaker_schemes(groups["speaker"], {"speaker": None})
    protocol = Protocol(classes=tuple(_LETTERS.values()), groups=groups, schemes=schemes, scripted=True)
    return by_own_folds(clips, protocol, "emodb")


ADAPTER = Adapter("files such as wav/03a01Fa.wav in folders of any depth", _read)
