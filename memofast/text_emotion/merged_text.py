"""Several text corpora as one corpus to learn emotions from: labels mapped, leaks to what is evaluated removed,
everything counted."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memofast.data.corpus import Corpus, write_corpus
from memofast.data.emotion_labels import LabelMap, target_classes
from memofast.errors import MemofastError
from memofast.prepare.corpora.text_tables import read_text_corpus
from memofast.prepare.sources.near_duplicates import ALIKE, SHORT, find_near_duplicates, words_of
from memofast.prepare.sources.splits import TRAIN, draw_split, hash_share
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store import TextWriter
from memofast.version import __version__

VALIDATION, EVALUATED = "validation", "evaluated"
LONGEST_TEXT = 62  # pieces; with [CLS] and [SEP] 64, as MEmoBERT's text emotion models
_SAME_DATA = 0.5  # of a source's longer sentences in an evaluated file: then it is the same data


@dataclass(frozen=True)
class TextSource:
    """A file of one corpus, `KIND=PATH` or `KIND:MOST=PATH`. most: sentences read of it, drawn by a hash of their
    group; 0: all."""

    kind: str
    path: Path
    most: int = 0

    @classmethod
    def parse(cls, given: str) -> "TextSource":
        name, equals, path = given.partition("=")
        kind, colon, most = name.partition(":")
        if not equals or not path or (colon and not (most.isdigit() and int(most))):
            raise MemofastError(
                "a text corpus is KIND=PATH or KIND:MOST=PATH, as meld=train_sent_emo.csv or isear:2000=isear.csv, "
                f"not {given!r}"
            )
        return cls(kind, Path(path), int(most or 0))

    @property
    def title(self) -> str:
        return f"{self.kind}={self.path.name}"


@dataclass(frozen=True)
class Labelled:
    """One sentence with its emotions [classes]."""

    id: str
    text: str
    emotions: np.ndarray
    split: str


@dataclass
class MergeCounts:
    """Per source, evaluated ones too: the sentences read, those without a class or words, those that are kept without
    their end, what the near-duplicate rule removed from train and from validation, and what is left of each split."""

    sources: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, source: TextSource, split: str = TRAIN, **counts: int) -> None:
        title = f"{EVALUATED} {source.title}" if split.startswith(EVALUATED) else source.title
        kept = self.sources.setdefault(title, {})
        for name, count in counts.items():
            kept[name] = kept.get(name, 0) + count

    def total(self, name: str) -> int:
        return sum(counts.get(name, 0) for counts in self.sources.values())

    def rules(self) -> list[dict]:
        """The filters as `corpus.json` names them."""
        alike = f"same words, or from {SHORT} words on word pairs with Jaccard >= {ALIKE}"
        told = {
            "unmapped": "the label has no class in the set, or nothing was answered",
            "wordless": "no word in it, or none that the tokenizer finds",
            "like_evaluated": f"near-duplicate of an evaluated sentence ({alike})",
            "like_validation": f"left out of train: near-duplicate of a validation sentence ({alike})",
        }
        return [{"rule": name, "meaning": meaning, "dropped": self.total(name)} for name, meaning in told.items()]


def merge(
    sources: Sequence[TextSource],
    evaluated: Sequence[TextSource],
    target: str,
    pieces: WordPieces,
    folder: Path,
    *,
    validation: float = 0.1,
    validate_on: str | None = None,
) -> tuple[Corpus, MergeCounts]:
    """Write the corpus `folder` with splits `train`, `validation` and `evaluated_KIND`, and count what went into it.

    A share `validation` of the groups (dialogues, scenes, persons) of each source, or of those of the kind
    `validate_on` alone, is held out. Sentences that near-duplicate an evaluated one leave train and validation, those
    that near-duplicate a validation sentence leave train.

    Raises: `MemofastError` for a source that is an evaluated file itself or repeats it, labels that are not mapped, and
        where a class has no sentence left.
    """
    classes, counts = target_classes(target), MergeCounts()
    if validate_on and validate_on not in {source.kind for source in sources}:
        raise MemofastError(f"--validate-on {validate_on}: no source is of that kind")
    held_out = [
        (source, sentence)
        for source in evaluated
        for sentence in _read(source, target, f"{EVALUATED}_{source.kind}", counts)
    ]
    spoken = [sentence.text for _, sentence in held_out]
    kept: list[tuple[TextSource, Labelled]] = []
    for source in sources:
        share = validation if validate_on in (None, source.kind) else 0.0
        labelled = _read(source, target, TRAIN, counts, share)
        like = find_near_duplicates([sentence.text for sentence in labelled], spoken).first
        _refuse_evaluated(source, labelled, like)
        counts.add(source, like_evaluated=len(like), like_evaluated_long=_long(labelled, like), like_validation=0)
        counts.add(source, **{TRAIN: 0, VALIDATION: 0})
        kept += [(source, sentence) for place, sentence in enumerate(labelled) if place not in like]
    kept = _without_validation(kept, counts)
    chosen = [sentence for _, sentence in kept]
    _check_classes(chosen, classes)
    return _write(kept + held_out, classes, pieces, folder, counts), counts


def _read(source: TextSource, target: str, split: str, counts: MergeCounts, validation: float = 0.0) -> list[Labelled]:
    labels, found, read = LabelMap.of(source.kind, target), [], read_text_corpus(source.kind, source.path)
    if source.most:
        read = sorted(read, key=lambda sentence: hash_share(f"part of {source.kind}/{sentence.group}"))[: source.most]
    for sentence in read:
        if not sentence.text:
            counts.add(source, split, wordless=1)
        elif (emotions := labels.distribution(sentence.votes)) is not None:
            part = draw_split(f"{source.kind}/{sentence.group}", {VALIDATION: validation}) if split == TRAIN else split
            id = f"{source.kind}/{source.path.stem}/{sentence.id}"
            found.append(Labelled(id, sentence.text, emotions, part))
    if not found:
        raise MemofastError(f"{source.path} has no sentence with a class of the set {target}; leave it out")
    spoken = sum(bool(sentence.text) for sentence in read)
    counts.add(source, split, read=len(read), unmapped=spoken - len(found))
    return found


def _long(sentences: Sequence[Labelled], places: Iterable[int]) -> int:
    return sum(len(words_of(sentences[place].text)) >= SHORT for place in places)


def _refuse_evaluated(source: TextSource, sentences: Sequence[Labelled], like: Iterable[int]) -> None:
    longer = _long(sentences, range(len(sentences)))
    same = _long(sentences, like)
    if longer and same / longer > _SAME_DATA:
        raise MemofastError(
            f"{source.path}: {same} of its {longer} longer sentences stand in an evaluated file, so it is the same "
            "data; do not train on it"
        )


def _without_validation(
    kept: list[tuple[TextSource, Labelled]], counts: MergeCounts
) -> list[tuple[TextSource, Labelled]]:
    train = [entry for entry in kept if entry[1].split == TRAIN]
    held_out = [entry for entry in kept if entry[1].split != TRAIN]
    like = find_near_duplicates([s.text for _, s in train], [s.text for _, s in held_out]).first
    for place in like:
        counts.add(train[place][0], like_validation=1)
    return [entry for place, entry in enumerate(train) if place not in like] + held_out


def _check_classes(sentences: Sequence[Labelled], classes: Sequence[str]) -> None:
    found = Counter(int(sentence.emotions.argmax()) for sentence in sentences if sentence.split == TRAIN)
    if empty := [name for number, name in enumerate(classes) if not found[number]]:
        raise MemofastError(
            f"class {empty[0]} has no sentence in {TRAIN}; add a corpus that has it, or choose another class set"
        )
    if not any(sentence.split == VALIDATION for sentence in sentences):
        raise MemofastError("no sentence fell to validation; raise --validation or give more dialogues")


def _write(
    sentences: Sequence[tuple[TextSource, Labelled]],
    classes: Sequence[str],
    pieces: WordPieces,
    folder: Path,
    counts: MergeCounts,
) -> Corpus:
    splits: dict[str, list[str]] = {}
    options = {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id, "emotions": classes}
    about = {"extractor": pieces.name, "fingerprint": pieces.fingerprint, "source": f"merged by memofast {__version__}"}
    with TextWriter(folder / "text", **options, **about) as writer:
        for source, sentence in sentences:
            tokens = pieces(sentence.text)
            if not tokens.ids:
                counts.add(source, sentence.split, wordless=1)
                continue
            part = EVALUATED if sentence.split.startswith(EVALUATED) else sentence.split
            counts.add(source, sentence.split, **{part: 1})
            if tokens.cut or len(tokens.ids) > LONGEST_TEXT:
                counts.add(source, sentence.split, shortened=1)
            if not writer.done(sentence.id):
                words = tokens.words[:LONGEST_TEXT]
                writer.put(
                    sentence.id, tokens.ids[:LONGEST_TEXT], words, utf8=sentence.text, emotions=sentence.emotions
                )
            splits.setdefault(sentence.split, []).append(sentence.id)
    return write_corpus(
        folder, "merged-text", {"text": folder / "text"}, splits, {"rules": counts.rules(), "sources": counts.sources}
    )
