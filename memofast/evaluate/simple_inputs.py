"""What simple baselines see of a sample: its words, and five numbers of every column of its rows of text, face and
speech.

Linear models with a penalty on squared weights see their inputs by inner products alone. So the words and the rows of
every store are blocks of columns whose rows have a squared norm of about 1, which makes them weigh alike side by side
and one grid of penalties suit them all; and where there are more columns than samples, as many columns as samples with
the same inner products take their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import cholesky, solve_triangular
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memofast.data import Corpus
from memofast.data.conversations import utterances_alone
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError

QUARTILES = (25, 50, 75)
Matrix = np.ndarray | sparse.csr_array  # [samples, columns] float64
_JITTER = 1e-10  # of the mean squared norm, added to each, so that alike samples have a Cholesky factor


@dataclass(frozen=True, eq=False)
class Inputs:
    """words [n]: of each sample its words, each written as its word pieces' numbers joined by "-", with spaces between.
    numbers: by store or stream [n, 5 * width] float64, see `summary`; NaN where a sample has no rows. of: modality of
    each stream among them."""

    words: list[str]
    numbers: dict[str, np.ndarray]
    of: Mapping[str, str] = field(default_factory=dict)

    def names_of(self, modality: str) -> list[str]:
        """What is seen of a modality, as `columns_of` takes it: of text the words, where there are any or nothing else
        is, and the rows of streams."""
        rows = [name for name in self.numbers if self.of.get(name, name) == modality]
        return ["text", *rows] if modality == "text" and (any(self.words) or not rows) else rows or [modality]


def inputs_of(corpus: Corpus, ids: Sequence[str], rows: Mapping[str, str] | None = None) -> Inputs:
    """Of samples [n] of a corpus, without context. rows: names of stores and streams and the modality of each; None:
    `rows_of_corpus`.

    Raises: `MemofastError` for raw rows.
    """
    rows = rows_of_corpus(corpus) if rows is None else rows
    if lacking := without_baselines(corpus, rows):
        raise MemofastError(lacking)
    corpus = utterances_alone(corpus)
    words = [_words(corpus.stores["text"].read(id)) for id in ids]
    numbers = {}
    for name in rows:
        store = corpus.streams[name][0] if name in corpus.streams else corpus.stores[name]
        numbers[name] = np.full((len(ids), 5 * store.width), np.nan)
        for place, id in enumerate(ids):
            if count := store.rows_of.get(id):
                numbers[name][place] = summary(store.read(id)["rows"].reshape(count, -1))
    return Inputs(words, numbers, rows)


def rows_of_corpus(corpus: Corpus) -> dict[str, str]:
    """What is read without a model to read the same as: the rows of face and speech, and all streams of text; names and
    the modality of each."""
    streams = {name: "text" for name, (_, modality) in corpus.streams.items() if modality == "text"}
    return {name: name for name in FEATURES if name in corpus.stores} | streams


def without_baselines(corpus: Corpus, rows: Mapping[str, str] | None = None) -> str | None:
    """Why a corpus has no simple baselines: its rows are raw, which say nothing by their mean. None where it has. rows:
    as of `inputs_of`."""
    if not (raw := sorted(corpus.raw & {*(rows_of_corpus(corpus) if rows is None else rows)})):
        return None
    return (
        f"corpus {corpus.path} has raw rows of {raw[0]}, simple baselines need feature rows; prepare them, or read "
        "a stream of them by modalities.features"
    )


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


class Pair(NamedTuple):
    """What a model learns from, and what it is tested on: columns [n, columns] and [m, columns], or inner products with
    the samples learnt from [n, n] and [m, n]."""

    seen: Matrix
    tested: Matrix


def columns_of(inputs: Inputs, name: str, seen: np.ndarray, tested: np.ndarray) -> Pair:
    """Columns of the words, `text`, or of the rows of a store or stream, scaled by the samples that are learnt from.
    seen, tested: places among `inputs`.

    Words: TF-IDF, rows of norm 1. Numbers: z-normed and divided by the root of their number; a sample without rows is
    the training mean. What no sample has is a column of zeros.
    """
    if name == "text" and any(inputs.words[place] for place in seen):
        words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
        words.fit([inputs.words[place] for place in seen])
        return Pair(*(words.transform([inputs.words[place] for place in places]) for places in (seen, tested)))
    if name in inputs.numbers:
        numbers = inputs.numbers[name]
        scale = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()).fit(numbers[seen])
        return Pair(*(scale.transform(numbers[places]) / numbers.shape[1] ** 0.5 for places in (seen, tested)))
    return Pair(*(np.zeros((len(places), 1)) for places in (seen, tested)))


def products_of(columns: Pair) -> Pair:
    """Inner products of samples learnt from, and of tested ones with them."""
    return Pair(*(_dense(part @ columns.seen.T) for part in columns))


def side_by_side(blocks: Sequence[Pair], products: Pair | None) -> Pair:
    """The columns of several blocks.

    products: their inner products; where there are more columns than samples, the rows of their Cholesky factor are
    given in place of the columns. None: the columns as they are. Words alone stay sparse.
    """
    if len(blocks) == 1 and sparse.issparse(blocks[0].seen):
        return blocks[0]
    parts = list(zip(*blocks, strict=True))  # those that are learnt from, those that are tested
    if products is None:
        stack = sparse.hstack if any(map(sparse.issparse, parts[0])) else np.hstack
        return Pair(*(stack(part) for part in parts))
    samples = len(products.seen)
    if sum(part.shape[1] for part in parts[0]) <= samples:
        return Pair(*(np.hstack([_dense(matrix) for matrix in part]) for part in parts))
    near = max(_JITTER * float(np.trace(products.seen)) / samples, np.finfo(float).tiny)
    factor = cholesky(products.seen + near * np.eye(samples), lower=True)
    return Pair(factor, solve_triangular(factor, products.tested.T, lower=True).T)


def _dense(matrix: Matrix) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else matrix
