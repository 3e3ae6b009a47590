"""Simple baselines on the folds, conditions and targets of a fine-tuning: TF-IDF of words, statistics of rows, and
linear models whose penalties are chosen inside the training part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC, LinearSVR

from memofast.data import Corpus
from memofast.data.conditions import modalities_of
from memofast.data.folds import read_groups
from memofast.errors import MemofastWarning
from memofast.evaluate.results import Run
from memofast.evaluate.simple_inputs import Design, Matrix, inputs_of
from memofast.inference.split_predictions import truth_of
from memofast.metrics.predictions import Predictions, is_known
from memofast.objectives.label_space import LabelSpace
from memofast.train.fold_parts import Fold, share_of_classes

PENALTIES = tuple(10.0**power for power in range(-4, 3))  # C of classifiers and of linear SVR; of ridge 1 / C
INNER_FOLDS = 3
_STEPS, _NEAR = 1000, 1e-3  # of the solvers: iterations, and how near the best they stop
SCORES = {"single": "balanced_accuracy", "multi": "f1_macro", "regression": "neg_mean_absolute_error"}


class Model(NamedTuple):
    """make: a fresh estimator of sklearn; settings: what is tried of it; scores: of a fitted search, from samples."""

    make: Callable[[], Any]
    settings: Mapping[str, Sequence[Any]]
    scores: Callable[[Any, Matrix], np.ndarray]


def models_of(kind: str) -> dict[str, Model]:
    """The baselines of a kind of target, by name."""

    def logistic() -> LogisticRegression:
        return LogisticRegression(max_iter=_STEPS, tol=_NEAR)

    if kind == "regression":
        return {
            "ridge regression": Model(Ridge, {"alpha": [1 / c for c in PENALTIES]}, _values),
            "linear SVR": Model(lambda: LinearSVR(max_iter=_STEPS, random_state=0), {"C": PENALTIES}, _values),
        }
    if kind == "multi":
        of_each = {"estimator__C": PENALTIES}
        return {"logistic regression": Model(lambda: OneVsRestClassifier(logistic()), of_each, _probabilities)}
    return {
        "logistic regression": Model(logistic, {"C": PENALTIES}, _probabilities),
        "linear SVM": Model(lambda: LinearSVC(max_iter=_STEPS, random_state=0), {"C": PENALTIES}, _margins),
    }


def simple_baselines(
    corpus: Corpus,
    folds: Sequence[Fold],
    target: LabelSpace,
    conditions: Sequence[str],
    seeds: Sequence[int],
    share: float = 1.0,
    by: str | None = None,
) -> Iterator[tuple[str, Run, dict[str, Any]]]:
    """What every baseline says of the test part of every fold, by condition: its name, the run, and the settings that
    were chosen. What scales words and rows is of the whole training part.

    Args: seeds, share: as of the fine-tuning, whose training samples are learned from; with all of them one seed is as
        good as another, and only the first runs. by: groups that inner folds keep whole; None: there are none.
    """
    group_of = read_groups(corpus, by) if by else {}
    folds = [fold for fold in folds if fold.test is not None]
    ids = list(dict.fromkeys(id for fold in folds for split in (fold.train, fold.test) for id in split.ids))
    inputs, place_of = inputs_of(corpus, ids), {id: place for place, id in enumerate(ids)}
    for fold in folds:
        places = [np.array([place_of[id] for id in split.ids])[:, None] for split in (fold.train, fold.test)]
        truth = [truth_of(split, target) for split in (fold.train, fold.test)]
        groups = np.array([group_of.get(id, "") for id in fold.train.ids])
        for seed in seeds if share < 1 else seeds[:1]:
            taken = is_known(target.kind, truth[0])
            if (chosen := share_of_classes(fold.train, target, share, seed)) is not None:
                taken &= chosen
            for condition in conditions:
                design = Design(inputs, modalities_of(condition)).fit(places[0][taken])
                seen, tested = design.transform(places[0][taken]), design.transform(places[1])
                for name, model in models_of(target.kind).items():
                    search = fitted(model, target.kind, seen, truth[0][taken], groups[taken])
                    scores = model.scores(search, tested).astype(np.float32)
                    classes = () if target.kind == "regression" else target.classes
                    said = Predictions(target.kind, tuple(fold.test.ids), truth[1], scores, classes)
                    yield name, Run(fold.name, seed, condition, "test", "validation", said), search.best_params_


def fitted(model: Model, kind: str, seen: Matrix, truth: np.ndarray, groups: np.ndarray) -> GridSearchCV:
    """A model of samples [n, columns], with the setting that did best on inner folds of them: of whole groups [n] where
    there are enough, else of equal shares of every class."""
    by_group = len(np.unique(groups)) >= INNER_FOLDS
    if by_group:
        inner: Any = GroupKFold(INNER_FOLDS)
    else:
        alike = kind == "single" and np.bincount(truth).min() >= INNER_FOLDS
        inner = (StratifiedKFold if alike else KFold)(min(INNER_FOLDS, len(truth)), shuffle=True, random_state=0)
    search = GridSearchCV(model.make(), dict(model.settings), scoring=SCORES[kind], cv=inner)
    with warnings.catch_warnings(action="ignore"):  # of penalties that lose, and of inner folds without a class
        search.fit(seen, truth, groups=groups if by_group else None)
    best = search.best_estimator_
    parts = getattr(best, "estimators_", [best])
    steps = [part.n_iter_ for part in parts if getattr(part, "n_iter_", None) is not None]
    if any(np.max(number) >= _STEPS for number in steps):
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
