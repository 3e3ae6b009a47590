"""Import of the original system's features: folders of `<id>.npz` and a captions file become a corpus.

Source of the file formats and filter rules: MEmoBERT's data preparation.
"""

import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memofast.data.corpus import Corpus, sample_key, write_corpus
from memofast.errors import MemofastError
from memofast.files import parse_json, read_json, write_json
from memofast.npz import npz_arrays
from memofast.store.text_writer import TextWriter
from memofast.store.writer import FeatureWriter

FER_PLUS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
_MOST_WORDS = 100
_MOST_BYTES = 1 << 29  # of the arrays of one file
_MOST_CLASSES = 1 << 16


@dataclass
class Outcome:
    """How many samples were taken, and which were not, by reason."""

    taken: int = 0
    refused: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, reason: str, name: str) -> None:
        self.refused.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        return ", ".join([f"{self.taken} taken", *(f"{len(names)} {reason}" for reason, names in self.refused.items())])


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
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"unreadable ({type(error).__name__})") from error
    if "features" not in values:
        raise ValueError("without features")
    rows = values["features"]
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise ValueError("features not a table of numbers")
    if any(value.dtype.kind not in "biuf" for value in values.values()):
        raise ValueError("columns not numbers")
    if any(not value.ndim or len(value) != len(rows) for value in values.values()):
        raise ValueError("columns of different lengths")
    confidence = values.get("confidence")
    kept = np.arange(len(rows)) if confidence is None else np.flatnonzero(confidence.reshape(-1) > confidence_above)
    kept = kept[:longest]
    columns = {"rows": rows[kept]}
    if confidence is not None:
        columns["confidence"] = confidence.reshape(-1)[kept]
    if "soft_labels" in values:
        columns["soft_labels"] = values["soft_labels"][kept]
    if "frame_idxs" in values:
        columns["times"] = values["frame_idxs"].reshape(-1)[kept].astype(np.float32) / rate
    return columns


def import_rows(folder: FeatureFolder, out: Path, ids: Iterable[str], extractor: str = "") -> Outcome:
    """Write the feature store `out` from the files of `folder`; files that are missing or unsound are counted, and
    their ids left out.

    The first sound file fixes width and columns. Raises: `MemofastError` where there is no folder or no sound file.
    """
    if not folder.path.is_dir():
        raise MemofastError(f"no folder {folder.path}: check the path")
    outcome, writer = Outcome(), None
    try:
        for id in ids:
            path = folder.path / f"{id}.npz"
            if not path.is_file():
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


def read_captions(path: Path) -> dict[str, tuple[str, Any]]:
    """Id -> (sentence, label or None), from `{id: [sentence]}` or `{id: {"txt": [sentence], "label": int or str}}`."""
    try:
        entries = parse_json(path.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
        captions = {}
        for id, entry in entries.items():
            texts, label = (entry["txt"], entry.get("label")) if isinstance(entry, dict) else (entry, None)
            captions[id] = (texts if isinstance(texts, str) else " ".join(texts), _label(label, id))
    except OSError as error:
        raise MemofastError(f"captions {path} cannot be read ({error.strerror}): check the path") from None
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise MemofastError(f"captions {path} are not {{id: [sentence]}} ({type(error).__name__}: {error})") from None
    return captions


def _label(label: Any, id: str) -> Any:
    """A class by its name or number; a number names all classes below it, so that a large one would make millions."""
    if label is None or isinstance(label, str) or (type(label) is int and 0 <= label < _MOST_CLASSES):
        return label
    raise ValueError(f"label {str(label)[:40]} of {id!r} is no name and no number from 0 to {_MOST_CLASSES - 1}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different; Python alone would keep the last of several."""
    entries = dict(pairs)
    if len(entries) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{twice!r} is there twice, keep one")
    return entries


def import_captions(captions: Mapping[str, tuple[str, Any]], out: Path, vocabulary: Path) -> Outcome:
    """Write the text store `out`: lower-cased WordPiece of each whitespace word, at most 100 words; empty sentences are
    left out."""
    from tokenizers import BertWordPieceTokenizer

    if not vocabulary.is_file():
        raise MemofastError(f"no vocabulary at {vocabulary}: give the vocab.txt of bert-base-uncased")
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    labels = {label for _, label in captions.values() if label is not None}
    if all(isinstance(label, int) for label in labels):
        classes = [str(i) for i in range(max(labels, default=-1) + 1)]
    else:
        classes = sorted(map(str, labels))
    pieces_of: dict[str, list[int]] = {}
    outcome = Outcome()
    special = {"cls_id": tokenizer.token_to_id("[CLS]"), "sep_id": tokenizer.token_to_id("[SEP]")}
    with TextWriter(out, classes=classes, extractor="wordpiece", **special) as writer:
        for id, (sentence, label) in captions.items():
            tokens, words = [], []
            for word in sentence.split()[:_MOST_WORDS]:
                if word not in pieces_of:
                    pieces_of[word] = tokenizer.encode(word, add_special_tokens=False).ids
                if pieces_of[word]:
                    words += [words[-1] + 1 if words else 0] * len(pieces_of[word])
                    tokens += pieces_of[word]
            if not tokens:
                outcome.refuse("without words", id)
                continue
            if not writer.done(id):
                number = None if label is None else classes.index(str(label))
                writer.put(id, tokens, words, utf8=sentence, label=number)
            outcome.taken += 1
    return outcome


def _splits(ids: list[str], splits: Path | None, validation: int, name: str) -> dict[str, list[str]]:
    if splits is None:
        order = sorted(ids, key=lambda id: sample_key(name, id))  # any fixed order that has nothing to do with the ids
        chosen = set(order[:validation])
        parts = {"train": [id for id in ids if id not in chosen], "validation": [id for id in ids if id in chosen]}
        return {split: part for split, part in parts.items() if part}
    try:
        wanted = read_json(splits)
    except (OSError, ValueError) as error:
        raise MemofastError(f"splits {splits} cannot be read ({error}): give a JSON file {{split: [ids]}}") from None
    there = set(ids)
    return {split: [id for id in part if id in there] for split, part in wanted.items()}


def import_export(
    captions: Path,
    folders: Mapping[str, FeatureFolder],
    vocabulary: Path,
    out: Path,
    name: str,
    splits: Path | None,
    validation: int,
) -> tuple[Corpus, dict[str, Outcome]]:
    """Write the corpus `name` to `out` from captions and the feature folders of modalities; what was refused is kept in
    `import.json`.

    splits: file of `{split: [ids]}`; without it `validation` samples form the split of that name and the others train.
    Returns: the corpus, and what was taken by modality. Raises: `MemofastError` where nothing can be imported or a file
        is not what it should be.
    """
    sentences = read_captions(captions)
    outcomes = {"text": import_captions(sentences, out / "text", vocabulary)}
    refused = set(outcomes["text"].refused.get("without words", ()))
    ids = [id for id in sentences if id not in refused]
    if not ids:
        raise MemofastError(f"captions {captions} give no sample ({outcomes['text']}): nothing to import")
    for modality, folder in folders.items():
        outcomes[modality] = import_rows(folder, out / modality, ids)
    stores = {modality: out / modality for modality in outcomes}
    corpus = write_corpus(out, name, stores, _splits(ids, splits, validation, name))
    kept = {modality: {"taken": found.taken, "refused": found.refused} for modality, found in outcomes.items()}
    write_json(out / "import.json", kept)
    return corpus, outcomes
