"""What must not stand on both sides of a split: groups such as speakers, films and dialogues, and sentences that say
the same."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from memofast.errors import MemofastError
from memofast.prepare.run.report import REASONS, Outcome
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.near_duplicates import ALIKE, SHORT, find_near_duplicates, words_of
from memofast.prepare.sources.splits import TRAIN, group_of, split_of


@dataclass
class LeakCheck:
    """splits: ids of each, after what was dropped. found: for `report.json`, by split. rules: for `corpus.json`. notes:
    for people."""

    splits: dict[str, list[str]]
    found: dict[str, dict] = field(default_factory=dict)
    rules: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_groups(clips: Iterable[Clip], fractions: Mapping[str, float], split_by: str) -> list[str]:
    """Refuse a group in two splits where `split_by` asked for whole groups; elsewhere note it.

    Returns: notes. Without a wish for groups those are what a table names, groups, else dialogues, else speakers, and
    without any media files with several clips; divided dialogues are noted in any case, since context reads across.
    Raises: `MemofastError` naming the first such group: its source names a split for some of its clips.
    """
    clips = list(clips)
    named = (kind for kind in ("group", "dialogue", "speaker") if any(getattr(clip, kind) for clip in clips))
    kind = split_by if split_by != "id" else next(named, "file")
    homes = {one: _homes(clips, one, fractions, split_by) for one in dict.fromkeys((kind, "dialogue"))}
    notes = []
    for one, splits_of in homes.items():
        if not (divided := sorted(group for group, splits in splits_of.items() if len(splits) > 1)):
            continue
        example = f"{divided[0] or 'the top folder'} is in {' and '.join(sorted(splits_of[divided[0]]))}"
        if one == split_by:
            raise MemofastError(
                f"--split-by {split_by} keeps each {split_by} in one split, but {example} ({len(divided)} such), as "
                "its source says; mend the source, or use --split-by id"
            )
        notes.append(
            f"note: {len(divided)} of {len(splits_of)} {one}s are in several splits ({example}); --split-by {one} "
            "keeps them whole"
        )
    return notes


def _homes(clips: Iterable[Clip], kind: str, fractions: Mapping[str, float], split_by: str) -> dict[str, set[str]]:
    """The splits of each group of a kind."""
    homes: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if (group := group_of(clip, kind)) is not None:
            homes[group].add(split_of(clip, fractions, split_by))
    return homes


def check_sentences(clips: Iterable[Clip], splits: Mapping[str, list[str]], drop: bool) -> LeakCheck:
    """Find near-duplicates of the other splits' sentences in train, see `near_duplicates`; with `drop` they leave
    train.

    Dropped samples stay in the stores, in no split.
    """
    text = {clip.id: clip.text for clip in clips if clip.text}
    check = LeakCheck({name: list(ids) for name, ids in splits.items()})
    train = [id for id in splits.get(TRAIN, []) if id in text]
    leaking: set[str] = set()
    for name, ids in splits.items():
        held_out = [id for id in ids if id in text]
        if name == TRAIN or not (train and held_out):
            continue
        found = find_near_duplicates([text[id] for id in train], [text[id] for id in held_out])
        leaking.update(train[place] for place in found.first)
        check.found[name] = _described(held_out, train, found.second, text)
        longer, count = check.found[name]["longer"], check.found[name]["samples"]
        if count:
            check.notes.append(
                f"note: {count} of {len(held_out)} sentences of {name} have a near-duplicate in {TRAIN}, {longer} of "
                f"them of {SHORT} words or more; report.json lists them"
            )
    if check.found:
        check.rules.append(
            {
                "rule": f"near-duplicate of another split's sentence in {TRAIN}",
                "meaning": f"same words, or from {SHORT} words on word pairs with Jaccard >= {ALIKE}",
                "clips": len(leaking),
                "dropped": len(leaking) if drop else 0,
            }
        )
    if leaking and drop:
        check.splits[TRAIN] = [id for id in check.splits[TRAIN] if id not in leaking]
        check.notes.append(f"note: {len(leaking)} samples were taken out of {TRAIN} for that")
    elif leaking:
        check.notes.append(f"note: --drop-leaks takes their {len(leaking)} near-duplicates out of {TRAIN}")
    return check


def _described(held_out: list[str], train: list[str], matches: Mapping, text: Mapping[str, str]) -> dict:
    listed = [
        {"id": held_out[place], "like": train[match.index], "similarity": round(match.similarity, 3)}
        for place, match in sorted(matches.items())
    ]
    longer = sum(len(words_of(text[entry["id"]])) >= SHORT for entry in listed)
    return {"samples": len(listed), "longer": longer, "of": len(held_out), "clips": listed}


def filter_rules(outcomes: Iterable[Outcome]) -> list[dict]:
    """What was noticed about clips and how many of those were dropped, as `corpus.json` names it."""
    noticed, dropped = Counter(), Counter()
    for outcome in outcomes:
        for reason in {problem.reason for problem in outcome.problems}:
            noticed[reason] += 1
            dropped[reason] += not outcome.kept
    return [
        {"rule": reason, "meaning": meaning, "clips": noticed[reason], "dropped": dropped[reason]}
        for reason, meaning in REASONS.items()
        if noticed[reason]
    ]
