"""What text databases hold together, found out before anything is written: samples, splits, folds, classes, fields."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from memofast.data.emotion_labels import target_classes
from memofast.errors import MemofastError
from memofast.legacy.texts import Text, TextDatabase
from memofast.legacy.values import Damaged
from memofast.prepare.sources.npz import Outcome
from memofast.prepare.sources.table import sentence_ids
from memofast.prepare.text.word_pieces import NRC_CLASSES
from memofast.store.writer import id_fault

LIWC_CLASSES = ("posemo", "negemo", "anx", "anger", "sad", "affect")  # the last: none of those
_PARTS = {"trn": "train", "val": "validation", "tst": "test"}
_PART = re.compile(r"(?:^|_)(trn|val|tst)(\d+k)?(?=_|\.|$)")
_SHARE = re.compile(r"_part(\d+(?:\.\d+)?)")
_MOST_CLASSES = 1 << 10


@dataclass(frozen=True)
class Given:
    """A text database as the command line names it. split: what it is a split of, None where its name does not say.
    fold: of the folder that it lies in, where that is a number."""

    path: Path
    split: str | None
    fold: int | None

    @classmethod
    def of(cls, text: str) -> "Given":
        """`PATH` or `SPLIT=PATH`. The original names databases by split: trn, val, tst, val3k; trn3k is part of
        another."""
        split, equals, rest = text.partition("=")
        if equals and not Path(text).exists():
            if not re.fullmatch(r"[\w.-]+", split):
                raise MemofastError(f"{text!r} names no split; give SPLIT=PATH, SPLIT of letters, digits, dots, dashes")
            path = Path(rest)
        else:
            path, split = Path(text), None
        parent = path.absolute().parent.name
        fold = int(parent) if re.fullmatch(r"[1-9]\d{0,2}", parent) else None
        return cls(path, split or _split_of(path.absolute().name), fold)


def _split_of(name: str) -> str | None:
    found = list(_PART.finditer(name))
    if not found:
        return None
    part, size = found[-1].groups()
    share = _SHARE.search(name)
    split = _PARTS[part] + (size if size and part == "trn" else "")
    return f"{split}-part{share[1]}" if share else split


@dataclass(eq=False)
class Source:
    """One text database. keys: its ids and the sample each became."""

    given: Given
    database: TextDatabase
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.given.path.absolute().name


@dataclass
class Survey:
    """clip_of: of each sample, in the order of the corpus. fields: how many texts have which field beside their words.
    widths: of those fields. label, emotions, lexicon: names of classes, empty where there are none."""

    sources: list[Source]
    outcome: Outcome = field(default_factory=Outcome)
    clip_of: dict[str, str] = field(default_factory=dict)
    fields: Counter = field(default_factory=Counter)
    widths: dict[str, int] = field(default_factory=dict)
    label: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    lexicon: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClassNames:
    """Names that the command line gives: of targets, of pseudo labels, of emotion words; empty where it does not."""

    label: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    lexicon: tuple[str, ...] = ()


class _Found:
    """What was met in the texts so far."""

    def __init__(self):
        self.targets: set[int] = set()
        self.foreign = False  # a target that is not the largest of its soft labels, or has none
        self.words: set[int | str] = set()
        self.emotional = False
        self.unread: Counter = Counter()
        self.flat = self.odd = 0

    def add(self, text: Text) -> None:
        if text.label is not None:
            self.targets.add(text.label)
            self.foreign |= _is_gold(text)
        self.emotional |= text.lexicon is not None
        self.words.update(one for one in text.lexicon or () if one is not None)
        self.unread.update(text.unread)
        self.flat += text.flat and bool(text.tokens)
        self.odd += text.odd


def _is_gold(text: Text) -> bool:
    """Whether a target is no pseudo label: those are the largest of their soft labels, or polarities of sentences."""
    return "pos_ids" not in text.beside if text.emotions is None else int(text.emotions.argmax()) != text.label


def look_over(sources: list[Source], names: ClassNames, advance: Callable[[], None]) -> Survey:
    """Read every record once. advance: called after each.

    Raises: `MemofastError` where side files disagree with records, two databases hold different records of one
        sentence, or classes have no names.
    """
    survey, found = Survey(sources), _Found()
    of_clip: dict[str, dict[tuple[bytes, int], bytes]] = {}
    places: dict[Source, list[tuple[str, tuple[str, tuple[bytes, int]]]]] = {}
    for source in sorted(sources, key=lambda source: -len(source.database)):  # so that parts of others name nothing
        met: Counter = Counter()
        places[source] = []
        for key in source.database.in_order:
            where = f"{source.name}/{key}"
            try:
                text = _fitting(source.database.read(key), survey)
            except Damaged as damage:
                survey.outcome.refuse(str(damage), where)
                advance()
                continue
            met[text.clip, text.told] += 1
            sentence = text.told, met[text.clip, text.told]
            known = of_clip.setdefault(text.clip, {})
            if known.setdefault(sentence, text.known) != text.known:
                raise MemofastError(
                    f"database {source.database.path} has another record of a sentence of {text.clip!r} than those "
                    "before it; import databases of different fields into corpora of their own"
                )
            places[source].append((key, (text.clip, sentence)))
            for change in text.changed:
                survey.outcome.change(change, where)
            survey.fields.update([*text.beside, *(["soft_labels"] if text.emotions is not None else [])])
            found.add(text)
            advance()
    _name_samples(survey, of_clip, places)
    _name_classes(survey, found, names)
    _tell(survey, found)
    return survey


def _fitting(text: Text, survey: Survey) -> Text:
    """The text; the first one of a field says how wide it is. Raises: `Damaged`."""
    given = {name: values.shape[1] for name, values in text.beside.items()}
    if text.emotions is not None:
        given["soft_labels"] = len(text.emotions)
    for name, width in given.items():
        if survey.widths.setdefault(name, width) != width:
            raise Damaged(f"with {name} of another width than the others")
    return text


def _name_samples(survey: Survey, of_clip: Mapping[str, Mapping], places: Mapping[Source, Iterable]) -> None:
    """A clip's own name where it has one sentence, else numbered from 1, as `import-npz` does."""
    named = {}
    for clip, sentences in of_clip.items():
        for id, sentence in zip(sentence_ids(clip, len(sentences)), sentences, strict=True):
            if id in survey.clip_of:
                raise MemofastError(f"sentences of two clips would both be {id!r}: rename one in its database")
            if fault := id_fault(id):
                raise MemofastError(f"a sentence of {clip!r} cannot be named {id!r} ({fault}): shorten the clip's name")
            survey.clip_of[id], named[clip, sentence] = clip, id
    for source, found in places.items():
        source.keys = {key: named[sentence] for key, sentence in found}
    survey.outcome.taken = len(survey.clip_of)
    if several := len(survey.clip_of) - len(of_clip):
        survey.notes.append(f"{several} more sentences than clips; each sentence is a sample with its clip's features")


def _name_classes(survey: Survey, found: _Found, names: ClassNames) -> None:
    pseudo = target_classes("memobert")
    if found.targets:
        own = pseudo if not found.foreign and max(found.targets) < len(pseudo) else None
        survey.label = _classes(names.label, max(found.targets) + 1, own, "--classes", "a target")
    elif names.label:
        raise MemofastError("--classes names classes of targets, and no record has one; leave it out")
    if count := survey.widths.get("soft_labels"):
        own = pseudo if count == len(pseudo) else None
        survey.emotions = _classes(names.emotions, count, own, "--emotions", "soft_labels")
        if len(survey.emotions) != count:
            raise MemofastError(f"--emotions names {len(survey.emotions)} classes, soft_labels have {count}")
    if not found.emotional:
        return
    if words := {one for one in found.words if isinstance(one, str)}:
        if len(words) < len(found.words):
            raise MemofastError("emo_labels are numbers in some records and names in others: import those apart")
        known = names.lexicon or (LIWC_CLASSES if words <= set(LIWC_CLASSES) else tuple(sorted(words)))
        if missing := sorted(words - set(known)):
            raise MemofastError(f"--lexicon-classes lacks {missing[0]!r}, which is in emo_labels")
        survey.lexicon = known
    else:
        most = max((one + 1 for one in found.words if isinstance(one, int)), default=0)
        own = NRC_CLASSES if most <= len(NRC_CLASSES) else None
        survey.lexicon = _classes(names.lexicon, most, own, "--lexicon-classes", "an emotion word")
        if survey.lexicon == NRC_CLASSES and not names.lexicon:
            survey.notes.append(f"emo_labels are taken for {', '.join(NRC_CLASSES)}; --lexicon-classes names others")


def _classes(
    given: tuple[str, ...], count: int, own: tuple[str, ...] | None, option: str, what: str
) -> tuple[str, ...]:
    """Names of classes: those given, those of the original where they fit, else numbers."""
    if count > _MOST_CLASSES:
        raise MemofastError(f"{what} of class {count - 1} would make {count} classes; check what the databases are")
    if given and len(given) < count:
        raise MemofastError(f"{option} names {len(given)} classes, but there is {what} of class {count - 1}")
    return given or own or tuple(map(str, range(count)))


def _tell(survey: Survey, found: _Found) -> None:
    if found.flat:
        survey.notes.append(
            f"{found.flat} texts say nothing of words (flat input_ids): a piece with ## is of the word before it"
        )
    if found.odd:
        survey.notes.append(
            f"{found.odd} texts have a toked_caption that is not what their input_ids mean in this vocabulary; check "
            "that it is the one they were built with"
        )
    if kept := sorted(survey.widths.keys() - {"soft_labels"}):
        survey.notes.append(f"kept as streams of the corpus: {', '.join(kept)}")
    for name, count in sorted(found.unread.items()):
        survey.notes.append(f"{count} records have a field {name!r} that memofast knows no place for; it is left out")
    if not survey.clip_of:
        raise MemofastError(f"no record of the text databases can be used ({survey.outcome}): nothing to import")
