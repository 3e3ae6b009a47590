"""MELD: utterances of Friends with seven emotions or three sentiments, dialogues in order, official splits.

The table alone gives a corpus of text. Films lie one an utterance in the folders of the official release.
"""

from collections.abc import Mapping
from pathlib import Path

from memofast.errors import MemofastError
from memofast.prepare.corpora.reading import Adapter, Reading, WrongLayout, one_of
from memofast.prepare.corpora.text_tables import clean_windows, csv_rows
from memofast.prepare.sources.clips import AUDIO, VIDEO, Clip
from memofast.prepare.sources.protocol import Protocol

_CLASSES = {
    "emotion": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),  # MEmoBERT's order
    "sentiment": ("negative", "neutral", "positive"),
}
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_FOLDERS = {  # the official release's, then those of its reworkings
    "train": ("train_splits", "train/train_splits", "videos/train", "audios/train"),
    "dev": ("dev_splits_complete", "dev/dev_splits_complete", "videos/dev", "audios/dev"),
    "test": ("output_repeated_splits_test", "test/output_repeated_splits_test", "videos/test", "audios/test"),
}
_SAME_DATA = 0.5  # of a split's dialogues in another one: then it is the same data


def _read(folder: Path, settings: Mapping[str, str]) -> Reading:
    tables = {
        part: table
        for part in _SPLITS
        if (table := one_of(folder, f"{part}_sent_emo.csv", f"{part}/{part}_sent_emo.csv"))
    }
    if not tables:
        raise WrongLayout("no train_sent_emo.csv")
    clips, groups = [], {"dialogue": {}, "position": {}, "speaker": {}}
    for part, table in tables.items():
        media = [path for name in _FOLDERS[part] if (path := folder / name).is_dir()]
        for row in csv_rows(table):
            clip = _clip(part, row, settings["labels"], media)
            clips.append(clip)
            groups["dialogue"][clip.id] = f"{part}/dia{int(row['Dialogue_ID'])}"
            groups["position"][clip.id] = str(int(row["Utterance_ID"]))
            groups["speaker"][clip.id] = clean_windows(row["Speaker"])
    notes = _repeated(folder, clips, groups["dialogue"])
    if absent := [f"{part}_sent_emo.csv" for part in _SPLITS if part not in tables]:
        notes.append(f"meld: no {' and no '.join(absent)}, so the corpus lacks that split")
    if not any(clip.picture or clip.sound for clip in clips):
        notes.append("meld: no films, so this is a corpus of text")
    classes = _CLASSES[settings["labels"]]
    return Reading(clips, Protocol(classes=classes, groups=groups, whole="dialogue", notes=tuple(notes)))


def _clip(part: str, row: Mapping[str, str], labels: str, media: list[Path]) -> Clip:
    name = f"dia{int(row['Dialogue_ID'])}_utt{int(row['Utterance_ID'])}"
    text, label = clean_windows(row["Utterance"]), row[labels.capitalize()].strip()
    clip = Clip(f"{part}/{name}", text=text or None, label=label, folder=part, split=_SPLITS[part])
    if not media:
        return clip
    files = {s: path for folder in media for s in (".mp4", ".flac", ".wav") if (path := folder / (name + s)).is_file()}
    film = next((path for suffix, path in files.items() if suffix in VIDEO), None)
    sound = next((path for suffix, path in files.items() if suffix in AUDIO), film)
    missing = None if sound else f"missing file: {media[0] / name}.mp4"
    return Clip(**vars(clip) | {"picture": film, "sound": sound, "problem": missing})


def _repeated(folder: Path, clips: list[Clip], dialogue_of: Mapping[str, str]) -> list[str]:
    """Dialogues that stand word for word in two splits, told; raises where they are most of a split, which then is a
    copy."""
    said: dict[str, list[str]] = {}
    split_of: dict[str, str] = {}
    for clip in clips:
        said.setdefault(dialogue_of[clip.id], []).append(clip.text or "")
        split_of[dialogue_of[clip.id]] = clip.split or ""
    homes: dict[tuple[str, ...], set[str]] = {}
    for dialogue, sentences in said.items():
        homes.setdefault(tuple(sentences), set()).add(split_of[dialogue])
    notes = []
    for split in dict.fromkeys(split_of.values()):
        own = [homes[tuple(said[dialogue])] for dialogue, home in split_of.items() if home == split]
        twice = sum(len(splits) > 1 for splits in own)
        if twice > _SAME_DATA * len(own):
            raise MemofastError(
                f"{folder} leaks: {twice} of {len(own)} dialogues of {split} stand in another split too"
            )
        if twice:
            notes.append(f"meld: {twice} of {len(own)} dialogues of {split} stand in another split too")
    return notes


ADAPTER = Adapter(
    "train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv and, if there, films dia0_utt0.mp4 in train_splits, "
    "dev_splits_complete, output_repeated_splits_test (or videos/train, audios/train and so on)",
    _read,
    {"labels": tuple(_CLASSES)},
)
