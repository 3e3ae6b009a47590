"""Cross-entropies at what a view is read through one head, of a model and of predictors that look at no input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.view import Read, View


def predicted(view: View, reads: Iterable[str], logs: Iterable[Tensor]) -> list[Tensor]:
    """The same logs [classes] at every entry of each of these reads: what a predictor says that looks at no input."""
    return [own.expand(view.reads[name].count, -1) for name, own in zip(reads, logs, strict=True)]


def cross_entropy(prediction: Tensor, read: Read) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits [n, classes] at what is read: the sum over its labels, how often the largest is the label's, and how
    many there are."""
    total = read.sum(F.cross_entropy(prediction.float(), read.labels, reduction="none"))
    correct = read.sum(prediction.detach().argmax(-1) == read.labels)
    return total, correct, read.sum(torch.ones_like(read.labels))


def recall_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics of `recalls`."""
    return tuple(f"{metric}.{name}" for name in classes for metric in ("recall", "targets"))


def recalls(right: Tensor, true: Tensor, read: Read, classes: Sequence[str]) -> dict[str, Tensor]:
    """Of each class how often it was found where it is true, and how often that is: what its recall is made of, and the
    mean of them all, the unweighted accuracy. right [n] bool; true [n] int64."""
    of_class = [true == number for number in range(len(classes))]
    sums = [read.sum(which) for own in of_class for which in (right & own, own)]
    return dict(zip(recall_names(classes), sums, strict=True))
