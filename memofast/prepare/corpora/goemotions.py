"""GoEmotions: sentences of Reddit, each with one or more emotions, official splits; text alone.

A sample shares equally in its labels (`emotions` of a batch's targets); those above zero are its labels.
"""

from collections.abc import Mapping
from pathlib import Path

from memofast.prepare.corpora.reading import Adapter, Reading, WrongLayout, one_of
from memofast.prepare.corpora.text_tables import read_text_corpus
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.protocol import Protocol
from memofast.prepare.text.encoding import read_text

_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    names = one_of(folder, "labels.txt", "ekman/labels.txt")
    if names is None:
        raise WrongLayout("no labels.txt with the names of the label numbers")
    tables = {part: path for part in _SPLITS if (path := one_of(names.parent, f"{part}.tsv"))}
    if not tables:
        raise WrongLayout("no train.tsv")
    clips = [
        Clip(said.id, text=said.text, split=_SPLITS[part], emotions=tuple(said.votes))
        for part, path in tables.items()
        for said in read_text_corpus("goemotions", path)
    ]
    absent = [f"{part}.tsv" for part in _SPLITS if part not in tables]
    notes = [f"goemotions: no {' and no '.join(absent)}, so the corpus lacks that split"] if absent else []
    return Reading(clips, Protocol(emotions=tuple(read_text(names).split()), notes=tuple(notes)))


ADAPTER = Adapter("train.tsv, dev.tsv, test.tsv and labels.txt (the seven Ekman classes, or others)", _read)
