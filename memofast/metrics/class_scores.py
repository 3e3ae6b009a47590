"""How well classes are named: WA, UA, F1 and confusion, by scikit-learn, and as a table beside the majority
predictor."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from memofast.errors import MemofastError

SHOWN = {"wa": "WA", "ua": "UA", "weighted_f1": "weighted F1", "macro_f1": "macro F1"}


def class_scores(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores of predicted against true classes [n] int64, as JSON can hold them.

    wa: accuracy. ua: mean recall. macro_f1, weighted_f1: as scikit-learn, over the classes that occur in the truth, so
    that a class which is only predicted costs precision but is no class of its own. f1: by class. confusion [true,
    predicted], over all classes.
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

    present = np.unique(truth)
    over = {"labels": present, "zero_division": 0}
    per_class = f1_score(truth, predicted, average=None, **over)
    return {
        "samples": len(truth),
        "wa": float(accuracy_score(truth, predicted)),
        "ua": float(recall_score(truth, predicted, average="macro", **over)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", **over)),
        "weighted_f1": float(f1_score(truth, predicted, average="weighted", **over)),
        "f1": {classes[number]: float(value) for number, value in zip(present, per_class, strict=True)},
        "confusion": confusion_matrix(truth, predicted, labels=range(len(classes))).tolist(),
    }


def micro_f1_without(truth: np.ndarray, predicted: np.ndarray, classes: Sequence[str], left_out: str) -> float:
    """F1 of all classes but `left_out` (neutral) counted together, of true and predicted classes [n] int64.

    Samples of the class that is left out stay: naming another class for them is a false positive. Raises:
    `MemofastError` for an unknown class.
    """
    from sklearn.metrics import f1_score

    if left_out not in classes:
        raise MemofastError(f"class {left_out!r} cannot be left out: there are {', '.join(classes)}")
    others = [number for number, name in enumerate(classes) if name != left_out]
    return float(f1_score(truth, predicted, labels=others, average="micro", zero_division=0))


def print_scores(title: str, scores: dict, majority: dict, classes: Sequence[str], console: Console) -> None:
    """Print scores beside those of always naming one class, and the confusion matrix with F1 by class."""
    table = Table(title=f"{title}, {scores['samples']:,} samples", title_justify="left")
    for heading in ("", *SHOWN.values()):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, row in (("model", scores), (f"always {majority['class']}", majority)):
        table.add_row(name, *(f"{row[score]:.3f}" for score in SHOWN))
    console.print(table)
    if scores["wa"] == majority["wa"]:
        console.print("warning: the model is no better than the majority predictor")
    table = Table(title="rows true, columns predicted", title_justify="left")
    for heading in ("", *classes, "F1"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, row in zip(classes, scores["confusion"], strict=True):
        table.add_row(name, *map(str, row), f"{scores['f1'][name]:.3f}" if name in scores["f1"] else "-")
    console.print(table)
