"""Cross-entropies at what a view is read through one head, of a model and of predictors that look at no input."""

from __future__ import annotations

from collections.abc import Iterable

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
