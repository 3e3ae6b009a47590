"""What simple baselines see of a sample: its words, and five numbers of every column of its face and speech rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memofast.data import Corpus
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError

QUARTILES = (25, 50, 75)
Matrix = np.ndarray | sparse.csr_array  # [samples, columns] float32


@dataclass(frozen=True, eq=False)
class Inputs:
    """words [n]: of each sample its words, each written as its word pieces' numbers joined by "-", with spaces between.
    numbers: by modality [n, 5 * width] float64, see `summary`; NaN where a sample has no rows."""

    words: list[str]
    numbers: dict[str, np.ndarray]


def inputs_of(corpus: Corpus, ids: Sequence[str]) -> Inputs:
    """Of samples [n] of a corpus. Raises: `MemofastError` for raw rows, which say nothing by their mean."""
    if raw := sorted(corpus.raw & {*FEATURES}):
        raise MemofastError(
            f"corpus {corpus.path} has raw rows of {raw[0]}, simple baselines need feature rows; prepare them, or read "
            "a stream of them by modalities.features"
        )
    words = [_words(corpus.stores["text"].read(id)) for id in ids]
    numbers = {}
    for modality in (name for name in FEATURES if name in corpus.stores):
        store = corpus.stores[modality]
        numbers[modality] = np.full((len(ids), 5 * store.width), np.nan)
        for place, id in enumerate(ids):
            if rows := store.rows_of.get(id):
                numbers[modality][place] = summary(store.read(id)["rows"].reshape(rows, -1))
    return Inputs(words, numbers)


def summary(rows: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and quartiles of every column [5 * width] float64 of rows [n, width], n at least 1."""
    rows = rows.astype(np.float64)
    return np.concatenate((rows.mean(0), rows.std(0), *np.percentile(rows, QUARTILES, axis=0)))


def _words(record: Mapping[str, np.ndarray]) -> str:
    pieces: dict[int, list[str]] = {}
    for token, word in zip(record["tokens"].ravel(), record["words"].ravel(), strict=True):
        if word >= 0:
            pieces.setdefault(int(word), []).append(str(token))
    return " ".join("-".join(own) for own in pieces.values())


class Design:
    """Samples, by their places [n, 1] among `inputs`, to a matrix of TF-IDF of words and z-normed numbers; those of a
    sample without rows are the training mean.

    modalities: those that are looked at.
    """

    def __init__(self, inputs: Inputs, modalities: Sequence[str]):
        self.inputs, self.modalities = inputs, modalities

    def fit(self, places: np.ndarray) -> Design:
        at = places[:, 0]
        self.words_ = None
        if "text" in self.modalities:
            words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
            try:
                self.words_ = words.fit([self.inputs.words[place] for place in at])
            except ValueError:  # no sample has a word
                self.words_ = None
        self.scale_ = {}
        for name in (name for name in self.modalities if name in self.inputs.numbers):
            scale = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
            self.scale_[name] = scale.fit(self.inputs.numbers[name][at])
        return self

    def transform(self, places: np.ndarray) -> Matrix:
        at = places[:, 0]
        numbers = [scale.transform(self.inputs.numbers[name][at]) for name, scale in self.scale_.items()]
        # a column at least, whatever a sample has; fp32 halves the time of the solvers
        dense = np.hstack([np.zeros((len(at), 1)), *numbers]).astype(np.float32)
        if self.words_ is None:
            return dense
        words = self.words_.transform([self.inputs.words[place] for place in at])
        return sparse.csr_array(sparse.hstack([dense, words]), dtype=np.float32)
