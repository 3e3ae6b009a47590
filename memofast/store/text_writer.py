"""Writing the text store of a corpus: word pieces, the sentence itself, and what each sample is labelled with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.store.record import MODALITY_VALUES
from memofast.store.writer import StoreWriter

PARTS_OF_SPEECH = ("verb", "adjective", "adverb", "noun", "other")  # as the original MEmoBERT numbers them
POLARITIES = ("negative", "positive", "neutral")
_OF_WORDS = {"part_of_speech": PARTS_OF_SPEECH, "polarity": POLARITIES}


class TextWriter(StoreWriter):
    """Writes a store of texts. [CLS] and [SEP] are added here, so that a record's rows are what a model reads.

    Args:
        path: folder of the store, made where it is missing.
        cls_id, sep_id: their ids; vocabulary: what the ids mean, for `meta.json`.
        classes: names of the samples' classes; where given, `put` takes `label`.
        emotions: names of the classes over which each sample has probabilities; where given, `put` takes `emotions`.
        labeller: what gave these probabilities, for `meta.json`: its name and fingerprint.
        value: what the number of each sample means, as "sentiment from -3 to 3"; where given, `put` takes `value`.
        modality_values: modalities that have a number of the same meaning for themselves alone, as SIMS's labels of
        text, face and speech; `put` takes them.
        lexicon_classes: names of the lexicon's classes; where given, `put` takes `lexicon`.
        with_parts_of_speech: whether each piece has a part of speech and a polarity; `put` takes both then.
        source, licence, extractor, fingerprint: as in `FeatureWriter`; the extractor is the tokenizer.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        cls_id: int = 101,
        sep_id: int = 102,
        classes: Sequence[str] = (),
        emotions: Sequence[str] = (),
        labeller: Mapping[str, str] | None = None,
        value: str = "",
        modality_values: Sequence[str] = (),
        lexicon_classes: Sequence[str] = (),
        with_parts_of_speech: bool = False,
        extractor: str = "",
        fingerprint: str = "",
        source: str = "",
        licence: str = "",
    ):
        self._cls, self._sep = cls_id, sep_id
        self._classes, self._emotions, self._lexicon = list(classes), list(emotions), list(lexicon_classes)
        self._valued, self._of_words = bool(value), _OF_WORDS if with_parts_of_speech else {}
        self._modality_values = [name for name in MODALITY_VALUES if name in modality_values]
        if unknown := [name for name in modality_values if name not in MODALITY_VALUES or not value]:
            reason = "what values mean is not said" if unknown[0] in MODALITY_VALUES else "there is no such modality"
            raise MemofastError(f"store {path}: no values of {unknown[0]} alone, as {reason}")
        columns = {"tokens": ["int32", 1], "words": ["int32", 1]}
        if lexicon_classes:
            columns["lexicon"] = ["int32", 1]
        columns |= {name: ["int32", 1] for name in self._of_words}
        columns["utf8"] = ["uint8", 0]
        if classes:
            columns["label"] = ["int64", 0]
        if emotions:
            columns["emotions"] = ["float32", 0]
        if value:
            columns["value"] = ["float32", 0]
        columns |= {MODALITY_VALUES[name]: ["float32", 0] for name in self._modality_values}
        names = {"label": self._classes, "emotions": self._emotions, "lexicon": self._lexicon}
        names |= {name: list(classes) for name, classes in self._of_words.items()}
        super().__init__(
            path,
            {
                "kind": "text",
                "columns": columns,
                "classes": {name: value for name, value in names.items() if value},
                "special_tokens": {"cls": cls_id, "sep": sep_id},
                "extractor": extractor,
                "fingerprint": fingerprint,
                "source": source,
                "licence": licence,
            }
            | ({"labeller": dict(labeller)} if labeller else {})
            | ({"value": value} if value else {}),
        )

    def put(
        self,
        id: str,
        tokens: Sequence[int],
        words: Sequence[int],
        *,
        lexicon: Sequence[int] | None = None,
        part_of_speech: Sequence[int] | None = None,
        polarity: Sequence[int] | None = None,
        utf8: str = "",
        label: int | None = None,
        emotions: Sequence[float] | None = None,
        value: float | None = None,
        modality_values: Mapping[str, float | None] | None = None,
    ) -> None:
        """Add one sample; without tokens it is [CLS] alone.

        Args:
            tokens [n]: WordPiece ids without [CLS] and [SEP]. words [n]: index of each piece's word, from 0, never
            decreasing. lexicon [n]: class of each piece, -1 where none. part_of_speech, polarity [n]: index among
            `PARTS_OF_SPEECH` and `POLARITIES` of each piece; None: other, neutral. utf8: the text itself. label: class
            of the sample, None where unknown. emotions: probability of each class, None where unknown (kept as zeros).
            value: None where unknown (kept as NaN). modality_values: by modality, None or left out where unknown.
        Raises: `MemofastError` for lengths that differ, a class that has no name, an id that is there.
        """
        tokens, words = np.asarray(tokens, np.int32), np.asarray(words, np.int32)
        if tokens.ndim != 1 or words.shape != tokens.shape:
            raise MemofastError(f"id {id!r}: {tokens.size} tokens, but {words.size} word indices")
        if len(words) and (words[0] < 0 or (np.diff(words) < 0).any()):
            raise MemofastError(f"id {id!r}: word indices start at 0 and never decrease")
        columns = {"tokens": self._framed(tokens, self._cls, self._sep), "words": self._framed(words, -1, -1)}
        if self._lexicon:
            columns["lexicon"] = self._framed(self._lexicon_of(id, lexicon, len(tokens)), -1, -1)
        elif lexicon is not None:
            raise MemofastError(f"id {id!r}: store {self.path} has no lexicon classes; name them when it is opened")
        for name, given in {"part_of_speech": part_of_speech, "polarity": polarity}.items():
            if name in self._of_words:
                columns[name] = self._of_words_column(id, name, given, len(tokens))
            elif given is not None:
                raise MemofastError(f"id {id!r}: store {self.path} has no {name}; say so when it is opened")
        columns["utf8"] = np.frombuffer(utf8.encode(), np.uint8)
        if self._classes:
            if label is not None and not 0 <= label < len(self._classes):
                raise MemofastError(f"id {id!r}: label {label}, but store {self.path} has {len(self._classes)} classes")
            columns["label"] = np.array([-1 if label is None else label], np.int64)
        elif label is not None:
            raise MemofastError(f"id {id!r}: store {self.path} has no classes; name them when it is opened")
        if self._emotions:
            columns["emotions"] = self._emotions_of(id, emotions)
        elif emotions is not None:
            raise MemofastError(f"id {id!r}: store {self.path} has no emotions; name them when it is opened")
        if self._valued:
            columns["value"] = self._value_of(id, value)
        elif value is not None:
            raise MemofastError(f"id {id!r}: store {self.path} has no values; say what they mean when it is opened")
        alone = dict(modality_values or {})
        columns |= {MODALITY_VALUES[name]: self._value_of(id, alone.pop(name, None)) for name in self._modality_values}
        if other := [name for name, number in alone.items() if number is not None]:
            raise MemofastError(f"id {id!r}: store {self.path} has no values of {other[0]} alone")
        self._put(id, len(columns["tokens"]), columns)

    def _lexicon_of(self, id: str, lexicon: Sequence[int] | None, count: int) -> np.ndarray:
        classes = np.full(count, -1, np.int32) if lexicon is None else np.asarray(lexicon, np.int32)
        if classes.shape != (count,) or (count and not -1 <= classes.min() <= classes.max() < len(self._lexicon)):
            raise MemofastError(
                f"id {id!r}: lexicon needs {count} classes from -1 to {len(self._lexicon) - 1} in store {self.path}"
            )
        return classes

    def _of_words_column(self, id: str, name: str, given: Sequence[int] | None, count: int) -> np.ndarray:
        last = len(_OF_WORDS[name]) - 1  # which special tokens and unknown words have
        values = np.full(count, last, np.int32) if given is None else np.asarray(given, np.int32)
        if values.shape != (count,) or (count and not 0 <= values.min() <= values.max() <= last):
            raise MemofastError(f"id {id!r}: {name} needs {count} numbers from 0 to {last} in store {self.path}")
        return self._framed(values, last, last)

    @staticmethod
    def _value_of(id: str, value: float | None) -> np.ndarray:
        found = np.array([np.nan if value is None else value], np.float32)
        if value is not None and not np.isfinite(found[0]):
            raise MemofastError(f"id {id!r}: value {value} is not finite in float32; leave it out where it is unknown")
        return found

    def _emotions_of(self, id: str, emotions: Sequence[float] | None) -> np.ndarray:
        values = np.zeros(len(self._emotions)) if emotions is None else np.asarray(emotions, np.float32)
        sound = values.shape == (len(self._emotions),) and bool((values >= 0).all())
        if not sound or (emotions is not None and abs(float(values.sum()) - 1) > 1e-3):
            raise MemofastError(
                f"id {id!r}: emotions of store {self.path} are {len(self._emotions)} probabilities that add up to 1"
            )
        return values.astype(np.float32)

    @staticmethod
    def _framed(values: np.ndarray, first: int, last: int) -> np.ndarray:
        ends = ([first], [last]) if len(values) else ([first], [])
        return np.concatenate((ends[0], values, ends[1])).astype(np.int32)
