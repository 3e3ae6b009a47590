"""Splits and folds of databases: by their names, by the numbered folders they lie in, and by lists of names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memofast.data.folds import PARTS, hold_out
from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.legacy.survey import Source, Survey
from memofast.npz import npy_array
from memofast.prepare.sources.folders import one_line

SCHEME = "cv"
_LIST = re.compile(r"(trn|val|tst)(?:_.*)?\.(npy|json|txt)")
_PARTS = dict(zip(("trn", "val", "tst"), PARTS, strict=True))
_MOST_LIST = 64 << 20  # bytes of a list of names


@dataclass
class Arrangement:
    """splits: name -> ids. part_of: splits that are part of another one. folds: each `train`, `validation`, `test`."""

    splits: dict[str, list[str]] = field(default_factory=dict)
    part_of: dict[str, str] = field(default_factory=dict)
    folds: list[dict[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def only(self, kept: set[str]) -> None:
        """Leave all other samples out of splits and folds."""
        for parts in (self.splits, *self.folds):
            for name, ids in parts.items():
                parts[name] = [id for id in ids if id in kept]


def arrange(survey: Survey, lists: Path | None, validation: int) -> Arrangement:
    """lists: folder of lists of names. validation: samples to hold out of `train` where there is no other validation.

    Raises: `MemofastError` where samples or clips stand in two splits, or in two parts of a fold.
    """
    sources = survey.sources
    found = Arrangement()
    numbers = {source.given.fold for source in sources}
    if len(numbers) > 1 and None not in numbers:
        found.folds = [_fold_of(sources, number, found.notes) for number in sorted(numbers)]
        found.splits = {part: list(ids) for part, ids in found.folds[0].items()}
        found.notes.append(
            f"{len(numbers)} folds, as scheme {SCHEME}; train, validation and test are the first of them"
        )
    else:
        _split(sources, found)
    if lists is not None:
        if found.folds:
            raise MemofastError("the databases lie in folders of folds already; leave --folds out")
        found.folds = _listed_folds(lists, survey, found.notes)
    if validation and "validation" not in found.splits:
        _hold_out(found, survey, validation)
    _refuse_leaks(found, survey)
    outside = sorted(set(survey.clip_of).difference(*found.splits.values()))
    if outside:
        found.notes.append(f"{len(outside)} samples are in no split (first: {one_line(outside[0])})")
    return found


def _split(sources: Sequence[Source], found: Arrangement) -> None:
    unnamed = [source for source in sources if source.given.split is None]
    if unnamed and len(sources) > 1:
        path = unnamed[0].given.path
        raise MemofastError(f"which split is {path}? its name has no trn, val or tst: give SPLIT={path}")
    if unnamed:
        found.notes.append(f"{unnamed[0].name} names no split; all of it is train")
    home: dict[str, str] = {}
    for source in sorted(sources, key=lambda source: -len(source.keys)):  # what is part of another comes after it
        split, ids = source.given.split or "train", list(source.keys.values())
        homes = {home.get(id) for id in ids}
        if len(homes) == 1 and None not in homes and split not in found.splits:
            found.part_of[split] = next(iter(homes))
        elif homes - {None}:
            id = next(id for id in ids if id in home)
            raise MemofastError(
                f"sample {id!r} is in split {home[id]} and again in {source.given.path} ({split}): databases of one "
                "corpus share no sentence, unless one is wholly part of another"
            )
        else:
            home.update(dict.fromkeys(ids, split))
        found.splits[split] = found.splits.get(split, []) + ids
    order = {source.given.split or "train": None for source in sources}
    found.splits = {split: found.splits[split] for split in order}


def _fold_of(sources: Sequence[Source], number: int, notes: list[str]) -> dict[str, list[str]]:
    fold: dict[str, list[str]] = {}
    for source in sources:
        if source.given.fold == number:
            if source.given.split not in PARTS or source.given.split in fold:
                raise MemofastError(
                    f"fold {number}: {source.given.path} is no part of its own; name databases trn_, val_ and tst_, or "
                    "give train=PATH, validation=PATH, test=PATH"
                )
            fold[source.given.split] = list(source.keys.values())
    return _apart(fold, f"fold {number}", notes)


def _apart(fold: dict[str, list[str]], what: str, notes: list[str]) -> dict[str, list[str]]:
    """The fold; a validation part that is its test part, as the original has it, goes. Raises: `MemofastError` where
    parts share a sample."""
    if fold.get("validation") and set(fold["validation"]) == set(fold.get("test", ())):
        notes.append(f"{what} validates on its test part; it is kept as test alone")
        del fold["validation"]
    home: dict[str, str] = {}
    for part, ids in fold.items():
        for id in ids:
            if home.setdefault(id, part) != part:
                raise MemofastError(f"{what} leaks: sample {id!r} is in {home[id]} and in {part}; mend its lists")
    return fold


def _listed_folds(lists: Path, survey: Survey, notes: list[str]) -> list[dict[str, list[str]]]:
    """`NUMBER/trn_*.npy`, `val_*`, `tst_*`; `.json` and `.txt` as well. Labels may lie beside them."""
    folders = sorted((int(one.name), one) for one in lists.glob("*") if re.fullmatch(r"[1-9]\d{0,2}", one.name))
    samples_of: dict[str, list[str]] = {}
    for id, clip in survey.clip_of.items():
        samples_of.setdefault(clip, []).append(id)
    folds, unknown = [], []
    for number, folder in folders:
        fold: dict[str, list[str]] = {}
        for path in sorted(folder.iterdir()):
            match = _LIST.fullmatch(path.name)
            if match is None or path.stem.endswith("label"):
                continue
            if (part := _PARTS[match[1]]) in fold:
                raise MemofastError(f"{folder} has two lists of {part}; leave the one that is meant")
            names = [name.removesuffix(".npz") for name in _names(path)]
            unknown += [name for name in names if name not in samples_of]
            fold[part] = list(dict.fromkeys(id for name in names for id in samples_of.get(name, ())))
        if "train" not in fold:
            raise MemofastError(f"{folder} has no list of names for training: give trn_int2name.npy, .json or .txt")
        folds.append(_apart(fold, f"fold {number}", notes))
    if not folds:
        raise MemofastError(f"{lists} has no folders 1, 2 and so on with lists of names: check --folds")
    if unknown:
        notes.append(f"{len(unknown)} names of {lists} have no sample (first: {one_line(unknown[0])})")
    notes.append(f"{len(folds)} folds, as scheme {SCHEME}")
    return folds


def _names(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_LIST:
            raise ValueError(f"it has over {_MOST_LIST >> 20} MiB")
        if path.suffix == ".npy":
            return _names_of(npy_array(path, _MOST_LIST))
        if path.suffix == ".txt":
            return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        found = read_json(path)
        if not isinstance(found, list | dict) or not all(isinstance(name, str) for name in found):
            raise ValueError("no list of names")
        return list(found)
    except (OSError, ValueError) as error:
        raise MemofastError(f"{path} cannot be read ({error}): give a list of names") from None


def _names_of(found: np.ndarray) -> list[str]:
    """Of rows [n] or [n, 1 or more], whose first column is the name."""
    if found.dtype.kind not in "SU" or found.ndim not in (1, 2) or 0 in found.shape[1:]:
        raise ValueError("an array of other things than names")
    column = found if found.ndim == 1 else found[:, 0]
    return [name.decode() if isinstance(name, bytes) else name for name in column.tolist()]


def _hold_out(found: Arrangement, survey: Survey, count: int) -> None:
    train = found.splits.get("train", [])
    if count >= len(train):
        raise MemofastError(f"--validation {count} of {len(train)} samples leaves nothing to train on")
    inside = [split for split, of in found.part_of.items() if of == "train"]
    kept, held = hold_out(train, count / len(train), survey.clip_of)
    found.splits |= {"train": kept, "validation": held}
    for split in inside:  # a part of what was training data
        found.splits[split] = [id for id in found.splits[split] if id in set(kept)]
    found.notes.append(f"{len(held)} samples, whole clips, are held out of train as validation")


def _refuse_leaks(found: Arrangement, survey: Survey) -> None:
    home: dict[str, str] = {}
    for split, ids in found.splits.items():
        for id in ids if split not in found.part_of else ():
            clip = survey.clip_of[id]
            if home.setdefault(clip, split) != split:
                raise MemofastError(
                    f"sentences of clip {clip!r} are in split {home[clip]} and in {split}; mend a database"
                )
