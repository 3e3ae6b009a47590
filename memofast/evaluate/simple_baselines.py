"""Simple baselines on the folds, conditions and targets of a fine-tuning: TF-IDF of words, statistics of rows, and
linear models whose penalties are chosen inside the training part.

Logistic and ridge regression read columns, support vector machines inner products, which are computed once for every
modality of a fold and are added up for several.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC, SVR
from threadpoolctl import threadpool_limits

from memofast.data import Corpus
from memofast.data.conditions import modalities_of
from memofast.data.folds import read_groups
from memofast.errors import MemofastWarning
from memofast.evaluate.results import Run
from memofast.evaluate.simple_inputs import Inputs, Matrix, Pair, columns_of, inputs_of, products_of, side_by_side
from memofast.inference.split_predictions import truth_of
from memofast.metrics.predictions import Predictions, is_known
from memofast.objectives.label_space import LabelSpace
from memofast.train.fold_parts import Fold, share_of_classes

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # C of classifiers and of SVR; of ridge 1 / C
INNER_FOLDS = 3
LARGEST = 12_000  # samples whose inner products are held, 1.2 GB of them
_STEPS, _SVM_STEPS = 1000, 10**6  # of the solvers
SCORES = {"single": "balanced_accuracy", "multi": "f1_macro", "regression": "neg_mean_absolute_error"}


class Model(NamedTuple):
    """make: a fresh estimator of sklearn; settings: what is tried of it; scores: of a fitted search, from samples.

    by_products: whether samples are given as inner products.
    """

    make: Callable[[], Any]
    settings: Mapping[str, Sequence[Any]]
    scores: Callable[[Any, Matrix], np.ndarray]
    by_products: bool = False


def models_of(kind: str) -> dict[str, Model]:
    """The baselines of a kind of target, by name."""

    def logistic() -> LogisticRegression:
        return LogisticRegression(max_iter=_STEPS)

    svm = {"kernel": "precomputed", "max_iter": _SVM_STEPS}
    if kind == "regression":
        return {
            "ridge regression": Model(Ridge, {"alpha": [1 / c for c in PENALTIES]}, _values),
            "linear SVR": Model(lambda: SVR(epsilon=0, **svm), {"C": PENALTIES}, _values, by_products=True),
        }
    if kind == "multi":
        of_each = {"estimator__C": PENALTIES}
        return {"logistic regression": Model(lambda: OneVsRestClassifier(logistic()), of_each, _probabilities)}
    # ties between classes are broken by the margins, so that what is scored inside is what is told of the test part
    return {
        "logistic regression": Model(logistic, {"C": PENALTIES}, _probabilities),
        "linear SVM": Model(lambda: SVC(break_ties=True, **svm), {"C": PENALTIES}, _margins, by_products=True),
    }


def simple_baselines(
    corpus: Corpus,
    folds: Sequence[Fold],
    target: LabelSpace,
    conditions: Sequence[str],
    seeds: Sequence[int],
    share: float = 1.0,
    by: str | None = None,
    rows: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Run, dict[str, Any]]]:
    """What every baseline says of the test part of every fold, by condition: its name, the run, and the settings that
    were chosen. What scales words and rows is of the whole training part. Of more than `LARGEST` samples there is no
    SVM, of fewer than six no baseline at all; both are told.

    Args: seeds, share: as of the fine-tuning, whose training samples are learned from; with all of them one seed is as
        good as another, and only the first runs. by: groups that inner folds keep whole; None: there are none.
        rows: stores and streams that are read, as of `inputs_of`.
    """
    group_of = read_groups(corpus, by) if by else {}
    folds = [fold for fold in folds if fold.test is not None]
    ids = list(dict.fromkeys(id for fold in folds for split in (fold.train, fold.test) for id in split.ids))
    inputs, place_of = inputs_of(corpus, ids, rows), {id: place for place, id in enumerate(ids)}
    for fold in folds:
        places = [np.array([place_of[id] for id in split.ids]) for split in (fold.train, fold.test)]
        truth = [truth_of(split, target) for split in (fold.train, fold.test)]
        groups = np.array([group_of.get(id, id if by else "") for id in fold.train.ids])
        for seed in seeds if share < 1 else seeds[:1]:
            taken = is_known(target.kind, truth[0])
            if (chosen := share_of_classes(fold.train, target, share, seed)) is not None:
                taken &= chosen
            if taken.sum() < 2 * INNER_FOLDS:
                told = (
                    f"no simple baselines of fold {fold.name}: {taken.sum()} samples are too few to choose a penalty by"
                )
                warnings.warn(told, MemofastWarning, stacklevel=2)
                continue
            blocks = Blocks(inputs, places[0][taken], places[1])
            for condition in conditions:
                columns, products = blocks.of(modalities_of(condition))
                for name, model in models_of(target.kind).items():
                    if (pair := products if model.by_products else columns) is None:
                        warnings.warn(f"no {name}: it takes {LARGEST:,} samples at most", MemofastWarning, stacklevel=2)
                        continue
                    search = fitted(model, target.kind, pair.seen, truth[0][taken], groups[taken])
                    scores = model.scores(search, pair.tested).astype(np.float32)
                    classes = () if target.kind == "regression" else target.classes
                    said = Predictions(target.kind, tuple(fold.test.ids), truth[1], scores, classes)
                    yield name, Run(fold.name, seed, condition, "test", "validation", said), search.best_params_


class Blocks:
    """What words and rows of a fold give: each is read once, whatever conditions show it. seen, tested: places among
    `inputs`."""

    def __init__(self, inputs: Inputs, seen: np.ndarray, tested: np.ndarray):
        self._few, self._names_of = len(seen) <= LARGEST, inputs.names_of
        self._columns = cache(lambda name: columns_of(inputs, name, seen, tested))
        self._products = cache(lambda name: products_of(self._columns(name)))

    def of(self, modalities: Sequence[str]) -> tuple[Pair, Pair | None]:
        """Columns of these side by side, and their inner products; None for more than `LARGEST` samples."""
        names = [name for modality in modalities for name in self._names_of(modality)]
        blocks = [self._columns(name) for name in names]
        if not self._few:
            return side_by_side(blocks, None), None
        products = Pair(*map(sum, zip(*map(self._products, names), strict=True)))
        return side_by_side(blocks, products), products


def fitted(model: Model, kind: str, seen: Matrix, truth: np.ndarray, groups: np.ndarray) -> GridSearchCV:
    """A model of samples [n, columns], or of their inner products [n, n], with the setting that did best on inner folds
    of them: of whole groups [n] where there are enough, else of equal shares of every class."""
    by_group = len(np.unique(groups)) >= INNER_FOLDS
    if by_group:
        inner: Any = GroupKFold(INNER_FOLDS)
    else:
        alike = kind == "single" and np.bincount(truth).min() >= INNER_FOLDS
        inner = (StratifiedKFold if alike else KFold)(min(INNER_FOLDS, len(truth)), shuffle=True, random_state=0)
    search = GridSearchCV(model.make(), dict(model.settings), scoring=SCORES[kind], cv=inner)
    # products are so small that threads mostly wait for one another; a warning is of penalties that lose, and of inner
    # folds without a class
    with threadpool_limits(1), warnings.catch_warnings(action="ignore"):
        search.fit(seen, truth, groups=groups if by_group else None)
    best = search.best_estimator_
    parts = getattr(best, "estimators_", [best])
    if any(np.max(steps) >= part.max_iter for part in parts if (steps := getattr(part, "n_iter_", None)) is not None):
        warnings.warn(f"a baseline with {search.best_params_} had not converged", MemofastWarning, stacklevel=2)
    return search


def _probabilities(fitted: Any, seen: Matrix) -> np.ndarray:
    return fitted.predict_proba(seen)


def _margins(fitted: Any, seen: Matrix) -> np.ndarray:
    """Margins of a linear SVM as numbers of sum 1, the largest where it is."""
    margins = fitted.decision_function(seen)
    return softmax(np.stack((-margins, margins), 1) if margins.ndim == 1 else margins, axis=1)


def _values(fitted: Any, seen: Matrix) -> np.ndarray:
    return fitted.predict(seen)
