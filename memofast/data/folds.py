"""Folds of a corpus: schemes of train, validation and test parts that share no sample, and the groups that parts must
not share.

`corpus.json` names them, files hold them:

    "groups": {"speaker": "groups/speaker.tsv"}           lines of id, tab, group
    "folds": {"speaker": {"count": 10, "by": "speaker"}}  folds/speaker/01/train.txt, validation.txt, test.txt and so on
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from memofast.data.corpus import CORPUS, Corpus, Split, sample_key
from memofast.data.corpus_description import read_lines
from memofast.errors import MemofastError
from memofast.files import replace_file, write_json

PARTS = ("train", "validation", "test")
Fold = Mapping[str, Iterable[str]]


def write_groups(path: str | Path, name: str, group_of: Mapping[str, str]) -> None:
    """Keep the group `name` (speaker, dialogue, film) of samples beside the corpus at `path`; replaces an earlier one
    of that name.

    Raises: `MemofastError` for an id that the corpus does not have, and a group with a tab or line break.
    """
    corpus = Corpus.open(path)
    foreign = next((id for id in group_of if id not in corpus.stores["text"].rows_of), None)
    if foreign is not None:
        raise MemofastError(f"corpus {path} has no sample {foreign!r}; groups name its samples only")
    odd = next((group for group in group_of.values() if "\t" in group or "\n" in group), None)
    if odd is not None:
        raise MemofastError(f"{name} {odd!r} of corpus {path} has a tab or line break; name it otherwise")
    file = f"groups/{name}.tsv"
    _write(corpus, file, [f"{id}\t{group}" for id, group in group_of.items()])
    groups = corpus.description.get("groups", {}) | {name: file}
    write_json(corpus.path / CORPUS, corpus.description | {"groups": groups})


def read_groups(corpus: Corpus, name: str) -> dict[str, str]:
    """Group of each sample that has one. Raises: `MemofastError` where the corpus has no groups of that name."""
    groups = corpus.description.get("groups", {})
    if name not in groups:
        raise MemofastError(
            f"corpus {corpus.path} has no groups {name!r}; it has {', '.join(groups) or 'none'}: prepare it with "
            "--corpus NAME, which knows its groups, or with -c group=COLUMN, which are named 'group'"
        )
    found = {}
    for number, line in enumerate(read_lines(corpus.path / groups[name]), 1):
        id, tab, group = line.rpartition("\t")  # an id may have tabs, a group has none
        if not tab or id in found:
            raise MemofastError(
                f"line {number} of {corpus.path / groups[name]} is not ID, tab, GROUP of another sample: {line!r}"
            )
        found[id] = group
    return found


def write_folds(path: str | Path, scheme: str, folds: Sequence[Fold], by: str | None = None) -> None:
    """Keep folds beside the corpus at `path`; replaces an earlier scheme of that name.

    Args: folds: each `train`, `validation` and `test` ids; a part may be missing. by: group that no two parts of a fold
        may share.
    Raises: `MemofastError` for an unknown part or sample, and for a leak: a sample or a group in two parts of one fold.
    """
    corpus = Corpus.open(path)
    group_of = read_groups(corpus, by) if by else {}
    lists = [{part: list(ids) for part, ids in fold.items()} for fold in folds]
    for number, fold in enumerate(lists, 1):
        _check(corpus, f"fold {number} of {scheme}", fold, group_of, by)
    for number, fold in enumerate(lists, 1):
        for part, ids in fold.items():
            _write(corpus, f"folds/{scheme}/{number:02}/{part}.txt", ids)
    schemes = corpus.description.get("folds", {}) | {scheme: {"count": len(lists), "by": by}}
    write_json(corpus.path / CORPUS, corpus.description | {"folds": schemes})


def read_fold(corpus: Corpus, scheme: str, number: int) -> dict[str, Split]:
    """The parts of fold `number`, from 1. Raises: `MemofastError` where the corpus has no such fold."""
    schemes = corpus.description.get("folds", {})
    count = schemes.get(scheme, {}).get("count", 0)
    if not 1 <= number <= count:
        known = ", ".join(f"{name} (1 to {entry['count']})" for name, entry in schemes.items()) or "none"
        raise MemofastError(
            f"corpus {corpus.path} has no fold {number} of {scheme!r}; it has {known}: prepare it with --corpus NAME, "
            "which knows its folds, or let folds.by=GROUP folds.count=N make them"
        )
    folder = corpus.path / "folds" / scheme / f"{number:02}"
    files = {part: folder / f"{part}.txt" for part in PARTS}
    return {
        part: Split.of_ids(corpus, f"{scheme}-{number:02}/{part}", read_lines(file))
        for part, file in files.items()
        if file.is_file()
    }


def open_split(corpus: Corpus, name: str) -> Split:
    """A split by its name, or a part of a fold as `SCHEME-NN/PART`. Raises: `MemofastError` where there is none."""
    scheme, _, part = name.partition("/")
    scheme, _, number = scheme.rpartition("-")
    if name in corpus.splits or part not in PARTS or not number.isdigit():
        return corpus.split(name)
    parts = read_fold(corpus, scheme, int(number))
    if part not in parts:
        raise MemofastError(
            f"fold {number} of {scheme!r} of corpus {corpus.path} has no part {part}; it has {', '.join(parts)}"
        )
    return parts[part]


def leave_groups_out(group_of: Mapping[str, str], count: int | None = None) -> list[dict[str, list[str]]]:
    """Folds in which each group is tested once; validation is the next fold's test part, the rest is for training.

    Args: count: of folds; None: as many as groups. Groups are dealt out in turn, in an order by a hash of their names.
    Raises: `MemofastError` for fewer than three folds.
    """
    groups = sorted(set(group_of.values()), key=lambda group: sample_key("fold", group))
    count = count or len(groups)
    if not 3 <= count <= len(groups):
        raise MemofastError(
            f"{count} folds cannot be made of {len(groups)} groups; there must be 3 folds, and a group for each"
        )
    home = {group: place % count for place, group in enumerate(groups)}
    parts = [[id for id, group in group_of.items() if home[group] == fold] for fold in range(count)]
    folds = []
    for test in range(count):
        validation = (test + 1) % count
        train = [id for fold in range(count) if fold not in (test, validation) for id in parts[fold]]
        folds.append({"train": train, "validation": parts[validation], "test": parts[test]})
    return folds


def hold_out(
    ids: Sequence[str], share: float, group_of: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Samples divided into those to train on and about this share held out, whole groups where they are given, always
    the same ones."""
    group_of = group_of or {}
    groups = {id: group_of.get(id, id) for id in ids}
    order = sorted(set(groups.values()), key=lambda group: sample_key("held out", group))
    sizes = Counter(groups.values())
    held, count = set(), 0
    for group in order[:-1]:
        if count >= share * len(ids):
            break
        held.add(group)
        count += sizes[group]
    return [id for id in ids if groups[id] not in held], [id for id in ids if groups[id] in held]


def _check(
    corpus: Corpus, what: str, fold: Mapping[str, list[str]], group_of: Mapping[str, str], by: str | None
) -> None:
    if unknown := sorted(set(fold) - set(PARTS)):
        raise MemofastError(f"{what} has a part {unknown[0]!r}; there are {', '.join(PARTS)}")
    home: dict[str, str] = {}
    for part, ids in fold.items():
        for id in ids:
            if id not in corpus.stores["text"].rows_of:
                raise MemofastError(f"{what}: corpus {corpus.path} has no sample {id!r}")
            if home.setdefault(id, part) != part:
                raise MemofastError(f"{what} leaks: sample {id!r} is in {home[id]} and in {part}")
    if by:
        part_of: dict[str, str] = {}
        for id, part in home.items():
            if id in group_of and part_of.setdefault(group_of[id], part) != part:
                group = group_of[id]
                raise MemofastError(f"{what} leaks: {by} {group!r} is in {part_of[group]} and in {part}")


def _write(corpus: Corpus, file: str, lines: Iterable[str]) -> None:
    (corpus.path / file).parent.mkdir(parents=True, exist_ok=True)
    replace_file(corpus.path / file, "".join(f"{line}\n" for line in lines).encode())
