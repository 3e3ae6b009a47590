"""EmoryNLP: utterances of Friends with seven emotions, scenes in order, official splits; text alone."""

import ast
from collections.abc import Mapping
from pathlib import Path

from memofast.prepare.corpora.reading import Adapter, Reading, WrongLayout, one_of
from memofast.prepare.corpora.text_tables import clean_windows, csv_rows
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.protocol import Protocol

_CLASSES = ("Joyful", "Mad", "Neutral", "Peaceful", "Powerful", "Sad", "Scared")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    tables = {part: path for part in _SPLITS if (path := one_of(folder, f"emorynlp_{part}_final.csv"))}
    if not tables:
        raise WrongLayout("no emorynlp_train_final.csv")
    clips, groups = [], {"dialogue": {}, "position": {}, "speaker": {}}
    for part, table in tables.items():
        for row in csv_rows(table):
            scene = f"s{int(row['Season']):02}_e{int(row['Episode']):02}_scene{int(row['Scene_ID']):02}"
            id = f"{scene}_utt{int(row['Utterance_ID']):03}"
            text = clean_windows(row["Utterance"]) or None
            clips.append(Clip(id, text=text, label=row["Emotion"], folder=part, split=_SPLITS[part]))
            groups["dialogue"][id] = scene
            groups["position"][id] = str(int(row["Utterance_ID"]))
            groups["speaker"][id] = ", ".join(ast.literal_eval(row["Speaker"]))
    absent = [f"emorynlp_{part}_final.csv" for part in _SPLITS if part not in tables]
    notes = [f"emorynlp: no {' and no '.join(absent)}, so the corpus lacks that split"] if absent else []
    return Reading(clips, Protocol(classes=_CLASSES, groups=groups, whole="dialogue", notes=tuple(notes)))


ADAPTER = Adapter("emorynlp_train_final.csv, emorynlp_dev_final.csv, emorynlp_test_final.csv", _read)
