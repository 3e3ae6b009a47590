"""Import of the original system's features: folders of `<id>.npz` and a captions file become a corpus.

Source of the file formats and filter rules: MEmoBERT's data preparation.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memofast.data.corpus import Corpus, sample_key, write_corpus
from memofast.errors import MemofastError
from memofast.files import parse_json, read_json, refuse_pointer, write_json
from memofast.npz import npz_arrays
from memofast.prepare.sources.folders import is_regular, one_line
from memofast.prepare.sources.spellings import label_notes
from memofast.prepare.sources.table import once_each, sentence_ids
from memofast.prepare.text.word_pieces import Lexicon, WordPieces, copy_vocabulary, read_lexicon
from memofast.store import FeatureStore
from memofast.store.text_writer import TextWriter
from memofast.store.writer import FeatureWriter, id_fault

FER_PLUS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
SENTENCES = ("each", "first", "joined")  # what becomes of several sentences of a clip
_MOST_WORDS = 100
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, which no tokenizer takes
_MOST_BYTES = 1 << 29  # of the arrays of one file
_MOST_CLASSES = 1 << 16


@dataclass
class Outcome:
    """How many samples were taken, and which were not, by reason. changed: those taken in part, by what was cut."""

    taken: int = 0
    refused: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, reason: str, name: str) -> None:
        self.refused.setdefault(reason, []).append(one_line(name))

    def change(self, what: str, name: str) -> None:
        self.changed.setdefault(what, []).append(one_line(name))

    def __str__(self) -> str:
        counts = (f"{len(names)} {what}" for what, names in (self.refused | self.changed).items())
        return ", ".join([f"{self.taken} taken", *counts])


@dataclass(frozen=True)
class FeatureFolder:
    """Where the files `<id>.npz` of a modality lie; of each the first `longest` rows with a confidence above
    `confidence_above`, `rate` a second."""

    path: Path
    confidence_above: float
    longest: int
    rate: float


def read_npz(path: Path, confidence_above: float, longest: int, rate: float) -> dict[str, np.ndarray]:
    """Columns of one feature file: the first `longest` frames with confidence strictly above the threshold (all without
    confidence).

    Returns: `rows` [n, width] and what the file has of `confidence` [n], `soft_labels` [n, classes], `times` [n]
        seconds (frame_idxs / rate).
    Raises: `ValueError` saying what is wrong with the file.
    """
    try:
        values = npz_arrays(path, ("features", "confidence", "soft_labels", "frame_idxs"), _MOST_BYTES)
    except Exception as error:  # whatever zip, zlib and NumPy say of damaged files
        try:
            refuse_pointer(path)
        except MemofastError:
            raise ValueError("Git LFS pointers") from None
        raise ValueError(f"unreadable ({type(error).__name__})") from error
    check_columns(values)
    confidence = values.get("confidence")
    kept = (
        np.arange(len(values["features"]))
        if confidence is None
        else np.flatnonzero(confidence.reshape(-1) > confidence_above)
    )
    return columns_at(values, kept[:longest], rate)


def check_columns(values: Mapping[str, np.ndarray]) -> None:
    """Raises: `ValueError` saying what is wrong with the arrays of a feature file."""
    if "features" not in values:
        raise ValueError("without features")
    rows = values["features"]
    if rows.dtype.kind in "iu":
        raise ValueError("features of whole numbers, as raw pixels are, which memofast prepare --face raw keeps")
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise ValueError("features not a table of numbers")
    if any(value.shape[:1] != rows.shape[:1] for value in values.values()):
        raise ValueError("columns of different lengths")
    numbers = (value for name, value in values.items() if name != "features")
    if any(value.dtype.kind not in "fiu" for value in numbers):
        raise ValueError("columns that are no numbers")
    if any(values[name].size != len(rows) for name in ("confidence", "frame_idxs") if name in values):
        raise ValueError("confidence or frame_idxs not one number a row")
    if "soft_labels" in values and values["soft_labels"].ndim != 2:
        raise ValueError("soft_labels not a table")


def columns_at(values: Mapping[str, np.ndarray], kept: np.ndarray | slice, rate: float) -> dict[str, np.ndarray]:
    """The arrays of a feature file as columns of a store: those of its rows that are kept."""
    columns = {"rows": values["features"][kept]}
    if "confidence" in values:
        columns["confidence"] = values["confidence"].reshape(-1)[kept]
    if "soft_labels" in values:
        columns["soft_labels"] = values["soft_labels"][kept]
    if "frame_idxs" in values:
        columns["times"] = values["frame_idxs"].reshape(-1)[kept].astype(np.float32) / rate
    return columns


def import_rows(
    folder: FeatureFolder, out: Path, ids: Iterable[str], extractor: str = "", file_of: Mapping[str, str] | None = None
) -> Outcome:
    """Write the feature store `out` from the files of `folder`; files that are missing or unsound are counted, and
    their ids left out. file_of: id -> name of its file without suffix, where it is not the id.

    The first sound file fixes width and columns. Raises: `MemofastError` where there is no folder or no sound file.
    """
    if not folder.path.is_dir():
        raise MemofastError(f"no folder {folder.path}: check the path")
    outcome, writer = Outcome(), None
    try:
        for id in ids:
            path = folder.path / f"{(file_of or {}).get(id, id)}.npz"
            if not is_regular(path):
                outcome.refuse("missing", id)
                continue
            try:
                columns = read_npz(path, folder.confidence_above, folder.longest, folder.rate)
            except ValueError as error:
                outcome.refuse(str(error), str(path))
                continue
            writer = writer or _feature_writer(out, columns, extractor)
            if not writer.done(id):
                if reason := _differs(writer, columns):
                    outcome.refuse(reason, str(path))
                    continue
                writer.put(id, **columns)
            outcome.taken += 1
            if len(columns["rows"]) == folder.longest:
                outcome.change(f"of {folder.longest} rows, where more are cut", id)
        if writer is None:
            raise MemofastError(
                f"no file of {folder.path} can be used ({outcome}): check that files are named <id>.npz"
            )
        writer.finish()
    finally:
        if writer is not None:
            writer.close()
    return outcome


def _feature_writer(out: Path, columns: Mapping[str, np.ndarray], extractor: str) -> FeatureWriter:
    classes: Sequence[str] = ()
    if "soft_labels" in columns:
        count = columns["soft_labels"].shape[1]
        classes = FER_PLUS if count == len(FER_PLUS) else [f"class{i}" for i in range(count)]
    return FeatureWriter(
        out, columns["rows"].shape[1], columns=set(columns) - {"rows"}, classes=classes, extractor=extractor
    )


def _differs(writer: FeatureWriter, columns: Mapping[str, np.ndarray]) -> str | None:
    if columns.keys() != writer.columns.keys():
        return f"without the columns {', '.join(writer.columns)}"
    if any(values.ndim == 2 and values.shape[1] != writer.columns[name][1] for name, values in columns.items()):
        return "of another width"
    with np.errstate(over="ignore"):
        finite = all(np.isfinite(values.astype(np.float16)).all() for values in columns.values() if values.size)
    return None if finite else "with values that are not finite in float16"


@dataclass(frozen=True)
class Captions:
    """sentences: id -> sentence and its label or None. clip_of: id -> clip it is said in, whose features it has.
    numbered: labels are numbers of classes."""

    sentences: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    clip_of: dict[str, str] = field(default_factory=dict)
    numbered: bool = False


def read_captions(path: Path) -> dict[str, tuple[str, str | None]]:
    """Id -> (sentence, label or None), see `sentences_of_clips`."""
    return sentences_of_clips(path).sentences


def sentences_of_clips(path: Path, several: str = "each") -> Captions:
    """Sentences of `{id: [sentence]}` or `{id: {"txt": [sentence], "label": int or str}}`; of several sentences of a
    clip each is a sample, `id#1`, `id#2` and so on, or it has one sample, of the `first` or of all `joined`. Labels
    become text, so that 1 and "1" are one; NaN is none."""
    if several not in SENTENCES:
        raise MemofastError(f"--sentences is {', '.join(SENTENCES)}, not {several!r}")
    try:
        entries = parse_json(path.read_text("utf-8"), object_pairs_hook=once_each, parse_constant=lambda name: None)
        found, labels = Captions(), []
        for clip, entry in entries.items():
            texts, label = (entry["txt"], entry.get("label")) if isinstance(entry, dict) else (entry, None)
            texts = [texts] if isinstance(texts, str) else list(texts)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(f"a sentence of {clip!r} is no text")
            if len(texts) > 1:
                texts = {"each": texts, "first": texts[:1], "joined": [" ".join(texts)]}[several]
            labels.append(_label(label, clip))
            for id, text in zip(sentence_ids(clip, len(texts)), texts, strict=True):
                if id in found.sentences:
                    raise ValueError(f"{id!r} is there twice, name one otherwise")
                found.sentences[id] = text, None if label is None else str(label)
                found.clip_of[id] = clip
    except OSError as error:
        raise MemofastError(f"captions {path} cannot be read ({error.strerror}): check the path") from None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise MemofastError(f"captions {path} are not {{id: [sentence]}} ({type(error).__name__}: {error})") from None
    labels = [label for label in labels if label is not None]
    numbered = any(isinstance(label, int) for label in labels) and all(str(label).isdecimal() for label in labels)
    return replace(found, numbered=numbered)


def _label(label: Any, id: str) -> Any:
    """A class by its name or number; a number names all classes below it, so that a large one would make millions."""
    if label is None or isinstance(label, str) or (type(label) is int and 0 <= label < _MOST_CLASSES):
        return label
    raise ValueError(f"label {str(label)[:40]} of {id!r} is no name and no number from 0 to {_MOST_CLASSES - 1}")


def _classes_of(labels: Iterable[str | None], numbered: bool) -> list[str]:
    """Classes by name, or every number up to the largest. Raises: `MemofastError` for a number that is none of a
    class."""
    found = {label for label in labels if label is not None}
    if not numbered:
        return sorted(found)
    largest = max(map(int, found))
    if largest >= _MOST_CLASSES:
        raise MemofastError(f"label {largest} would make {largest + 1} classes; number the classes from 0 on")
    return [str(i) for i in range(largest + 1)]


def import_captions(captions: Captions, out: Path, vocabulary: Path, lexicon: Lexicon | None = None) -> Outcome:
    """Write the text store `out`: lower-cased WordPiece of each whitespace word, at most 100 words; empty sentences are
    left out. lexicon: gives each piece the class of its word."""
    from tokenizers import BertWordPieceTokenizer

    if not vocabulary.is_file():
        raise MemofastError(f"no vocabulary at {vocabulary}: give the vocab.txt of bert-base-uncased")
    try:
        WordPieces(vocabulary)  # says what a vocabulary lacks
        tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    except MemofastError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise MemofastError(f"{vocabulary} is not a BERT vocabulary: {str(error).splitlines()[0]}") from None
    classes = _classes_of((label for _, label in captions.sentences.values()), captions.numbered)
    pieces_of: dict[str, list[int]] = {}
    outcome = Outcome()
    special = {"cls_id": tokenizer.token_to_id("[CLS]"), "sep_id": tokenizer.token_to_id("[SEP]")}
    special["lexicon_classes"] = lexicon.classes if lexicon else ()
    with TextWriter(out, classes=classes, extractor="wordpiece", **special) as writer:
        for id, (sentence, label) in captions.sentences.items():
            if fault := id_fault(id):
                outcome.refuse(f"with an id that no store takes ({fault})", id)
                continue
            if _HALF.search(sentence):
                outcome.refuse("with half of a surrogate pair in its words", id)
                continue
            tokens, words, meanings = [], [], []
            spoken = sentence.split()
            for word in spoken[:_MOST_WORDS]:
                if word not in pieces_of:
                    pieces_of[word] = tokenizer.encode(word, add_special_tokens=False).ids
                if pieces_of[word]:
                    words += [words[-1] + 1 if words else 0] * len(pieces_of[word])
                    tokens += pieces_of[word]
                    meanings += [lexicon.class_of(word) if lexicon else -1] * len(pieces_of[word])
            if not tokens:
                outcome.refuse("without words", id)
                continue
            if not writer.done(id):
                number = None if label is None else classes.index(str(int(label)) if captions.numbered else label)
                writer.put(id, tokens, words, lexicon=meanings if lexicon else None, utf8=sentence, label=number)
            outcome.taken += 1
            if len(spoken) > _MOST_WORDS:
                outcome.change(f"cut after {_MOST_WORDS} words", id)
    return outcome


def _splits(
    ids: list[str], clip_of: Mapping[str, str], splits: Path | None, validation: int, name: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Ids by split, and notes. The sentences of a clip stay together; a file may name clips or sentences."""
    if splits is None:
        # any fixed order that has nothing to do with the ids
        clips = sorted(dict.fromkeys(clip_of[id] for id in ids), key=lambda clip: sample_key(name, clip))
        chosen, sizes = set(), Counter(clip_of[id] for id in ids)
        for clip in clips:
            if sum(sizes[one] for one in chosen) >= validation:
                break
            chosen.add(clip)
        held = [id for id in ids if clip_of[id] in chosen]
        parts = {"train": [id for id in ids if clip_of[id] not in chosen], "validation": held}
        return {split: part for split, part in parts.items() if part}, []
    try:
        wanted = read_json(splits)
    except (OSError, ValueError) as error:
        raise MemofastError(f"splits {splits} cannot be read ({error}): give a JSON file {{split: [ids]}}") from None
    there, said_in = set(ids), {}
    for id in ids:
        said_in.setdefault(clip_of[id], []).append(id)
    found, unknown = {}, []
    for split, named in wanted.items():
        found[split] = [id for one in named for id in ([one] if one in there else said_in.get(one, []))]
        unknown += [one for one in named if one not in there and one not in said_in]
    outside = sorted(there.difference(*found.values()))
    notes = [f"{len(unknown)} names of {splits} have no sample (first: {one_line(unknown[0])})"] if unknown else []
    notes += [f"{len(outside)} samples are in no split (first: {one_line(outside[0])})"] if outside else []
    return found, notes


def _without_missing(
    ids: list[str], stores: Mapping[str, Path], needed: Iterable[str], captions: Path
) -> tuple[list[str], list[str]]:
    """The samples that have usable features of every needed modality, and notes on those that lack some. Raises:
    `MemofastError` where none is left."""
    there = {modality: set(FeatureStore.open(path).ids) for modality, path in stores.items()}
    whole = [id for id in ids if all(id in there[modality] for modality in needed)]
    if not whole:
        raise MemofastError(f"no sample of {captions} has usable features of {', '.join(needed)}; nothing is left")
    notes = [f"{len(ids) - len(whole)} samples that lack features are in no split"] if len(whole) < len(ids) else []
    if faceless := [id for id in whole if "visual" in there and id not in there["visual"]]:
        notes.append(
            f"{len(faceless)} samples without a usable file of faces stay; the original's builders leave them out "
            "(--drop-faceless)"
        )
    return whole, notes


def import_export(
    captions: Path,
    folders: Mapping[str, FeatureFolder],
    vocabulary: Path,
    out: Path,
    name: str,
    splits: Path | None,
    validation: int,
    lexicon: Path | None = None,
    drop_missing: bool = False,
    sentences: str = "each",
    drop_faceless: bool = False,
) -> tuple[Corpus, dict[str, Outcome], list[str]]:
    """Write the corpus `name` to `out` from captions and the feature folders of modalities; what was refused is kept in
    `import.json`.

    splits: file of `{split: [ids]}`; without it `validation` samples form the split of that name and the others train.
    drop_missing: samples without usable features of every folder are in no split; drop_faceless: those without a
        usable file of faces, as the original's builders do it. sentences: see `sentences_of_clips`.
    Returns: the corpus, what was taken by modality, and notes. Raises: `MemofastError` where nothing can be imported or
        a file is not what it should be.
    """
    read = sentences_of_clips(captions, sentences)
    meanings = read_lexicon(lexicon) if lexicon else None
    outcomes = {"text": import_captions(read, out / "text", vocabulary, meanings)}
    refused = {id for names in outcomes["text"].refused.values() for id in names}
    ids = [id for id in read.sentences if one_line(id) not in refused]
    if not ids:
        raise MemofastError(f"captions {captions} give no sample ({outcomes['text']}): nothing to import")
    for modality, folder in folders.items():
        outcomes[modality] = import_rows(folder, out / modality, ids, file_of=read.clip_of)
    stores = {modality: out / modality for modality in outcomes}
    notes = label_notes(label for _, label in read.sentences.values())
    if several := len(read.sentences) - len(set(read.clip_of.values())):
        notes.append(
            f"{several} more sentences than clips; each sentence is a sample with its clip's features (--sentences)"
        )
    if not lexicon:
        notes.append("no word has an emotion class; the original's builders look words up in a lexicon (--lexicon)")
    needed = folders if drop_missing else [modality for modality in folders if drop_faceless and modality == "visual"]
    ids, told_of_missing = _without_missing(ids, {one: out / one for one in folders}, needed, captions)
    notes += told_of_missing
    parts, told = _splits(ids, read.clip_of, splits, validation, name)
    copy_vocabulary(vocabulary, out)
    corpus = write_corpus(out, name, stores, parts)
    kept: dict[str, Any] = {
        modality: {"taken": found.taken, "refused": found.refused, "changed": found.changed}
        for modality, found in outcomes.items()
    }
    write_json(out / "import.json", kept | {"notes": notes + told})
    return corpus, outcomes, notes + told
