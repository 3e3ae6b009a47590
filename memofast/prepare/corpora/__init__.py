"""Corpora read as they are distributed: one adapter each, from a folder to clips, splits, groups and folds."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.corpora import crema_d, emodb, emorynlp, goemotions, iemocap, meld, msp_improv, ravdess
from memofast.prepare.corpora.reading import Adapter, Reading, WrongLayout, missing_parts, unused_media
from memofast.prepare.sources.clips import refuse_twice
from memofast.prepare.sources.protocol import refuse_leaks

ADAPTERS: dict[str, Adapter] = {
    "iemocap": iemocap.ADAPTER,
    "msp-improv": msp_improv.ADAPTER,
    "meld": meld.ADAPTER,
    "crema-d": crema_d.ADAPTER,
    "ravdess": ravdess.ADAPTER,
    "emodb": emodb.ADAPTER,
    "emorynlp": emorynlp.ADAPTER,
    "goemotions": goemotions.ADAPTER,
}


def read_corpus(given: str, folder: Path) -> Reading:
    """The clips of the corpus in `folder`, by `NAME` or `NAME,SETTING=VALUE`, as `crema-d,labels=voice`.

    Raises: `MemofastError` for an unknown name, setting or value, a folder that is missing or of another layout, a
    label that the corpus does not have, an id twice, and for a leak between splits or parts of a fold.
    """
    name, *pairs = given.split(",")
    if name not in ADAPTERS:
        raise MemofastError(f"no adapter for corpus {name!r}; there are {', '.join(ADAPTERS)}; others go as tables")
    adapter = ADAPTERS[name]
    settings = _settings(name, adapter, pairs)
    if not folder.is_dir():
        raise MemofastError(f"no folder {folder}; --corpus {name} reads {adapter.layout}")
    try:
        reading = adapter.read(folder, settings)
    except (WrongLayout, KeyError, ValueError, IndexError, TypeError, AttributeError, SyntaxError, csv.Error) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else error
        if isinstance(error, TypeError | AttributeError):  # a cell that is not there
            what = "a row lacks cells"
        raise MemofastError(f"{folder} is not {name} as distributed ({what}); it reads {adapter.layout}") from error
    if not reading.clips:
        raise MemofastError(f"{folder} holds no sample of {name} with a label in use; it reads {adapter.layout}")
    refuse_twice(reading.clips)
    refuse_leaks(reading.clips, reading.protocol)
    chosen = ",".join([name, *(f"{setting}={value}" for setting, value in settings.items())])
    notes = (*reading.protocol.notes, *missing_parts(reading.clips, name))
    facts = {"corpus": chosen, "protocol_notes": list(notes), **reading.protocol.facts}
    classes = reading.protocol.classes
    if foreign := Counter(clip.label for clip in reading.clips if clip.label and clip.label not in classes):
        label = next(iter(foreign))
        raise MemofastError(
            f"{folder}: label {label!r} ({foreign[label]} samples) is none of {name}: {', '.join(classes)}"
        )
    clips = sorted(reading.clips, key=lambda clip: clip.id)
    missed = tuple(unused_media(folder, clips))
    return Reading(clips, replace(reading.protocol, facts=facts, notes=notes), missed, notes)


def _settings(name: str, adapter: Adapter, pairs: list[str]) -> dict[str, str]:
    settings = {setting: values[0] for setting, values in adapter.settings.items()}
    for pair in pairs:
        setting, _, value = pair.partition("=")
        if setting not in settings:
            known = ", ".join(settings) or "none"
            raise MemofastError(f"--corpus {name} has no setting {setting!r}; it has {known}")
        if value not in adapter.settings[setting]:
            raise MemofastError(
                f"--corpus {name}: {setting} is {' or '.join(adapter.settings[setting])}, not {value!r}"
            )
        settings[setting] = value
    return settings
