"""What is asked of each sample: one class of several, any number of them, or a value; and the loss of answering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.objectives.classification import class_targets, classification_losses

ERRORS = {"absolute": F.l1_loss, "squared": F.mse_loss, "smooth": F.smooth_l1_loss}  # of a value
VALUE = "value"  # the class of a regression, which has but one output


@dataclass(frozen=True)
class LabelSpace:
    """kind: `single`, `multi` or `regression`. classes: what the model names, in its order; (`value`,) for a
    regression.

    mapping: class of each label of a corpus, None for labels whose samples are left out; None: labels are classes of
    the same name.
    """

    kind: str
    classes: tuple[str, ...]
    mapping: Mapping[str, str | None] | None = None

    @classmethod
    def of_corpus(
        cls, corpus: Corpus, kind: str = "single", mapping: Mapping[str, str | None] | None = None
    ) -> LabelSpace:
        """Its own labels as classes, or those that the mapping names. Raises: `MemofastError` for a corpus without
        labels."""
        if kind == "regression":
            return cls(kind, (VALUE,))
        labels = _labels(corpus, kind)[1]
        if mapping is None:
            return cls(kind, labels)
        classes = dict.fromkeys(mapping[label] for label in labels if mapping.get(label) is not None)
        return cls(kind, tuple(classes), dict(mapping))

    def within(self, corpus: Corpus) -> CorpusLabels:
        """This label space in the terms of one corpus.

        Raises: `MemofastError` for a corpus without labels or values, or with a label that is no class and not in the
            mapping.
        """
        if self.kind == "regression":
            if VALUE not in corpus.targets:
                raise MemofastError(f"corpus {corpus.path} has no values to learn; prepare it with -c value=COLUMN")
            return CorpusLabels(self, VALUE, None)
        column, labels = _labels(corpus, self.kind)
        matrix = torch.zeros(len(labels), len(self.classes))
        for row, label in enumerate(labels):
            if self.mapping is not None and label not in self.mapping:
                raise MemofastError(
                    f"label {label!r} of corpus {corpus.path} is not in the label map; "
                    f"add target.map.{label}=CLASS, or =null to leave it out"
                )
            named = label if self.mapping is None else self.mapping[label]
            if named in self.classes:
                matrix[row, self.classes.index(named)] = 1
            elif named is not None:
                raise MemofastError(
                    f"corpus {corpus.path} has the classes {', '.join(labels)}, the model {', '.join(self.classes)}; "
                    "give a model of the same, or a label map"
                )
        return CorpusLabels(self, column, matrix)


@dataclass(frozen=True, eq=False)
class CorpusLabels:
    """A label space in the terms of one corpus. column: of its batches' targets. matrix [labels, classes]: 1 where a
    label means a class; None for values."""

    space: LabelSpace
    column: str
    matrix: Tensor | None

    def wanted(self, targets: Mapping[str, Tensor]) -> Tensor:
        """What is true of a batch's samples, from its targets.

        Returns: [B, classes] float32: probabilities, zero where unknown or where half of a soft label or more has no
            class; `multi`: 1 where a label has at least half the share of the largest, else 0, NaN where none is known
            or has a class; `regression`: [B, 1], NaN where unknown.
        """
        if self.matrix is None:
            return targets[VALUE].reshape(-1, 1)
        matrix = self.matrix.to(targets[self.column].device)
        given = class_targets({self.column: targets[self.column]}, len(matrix))
        if self.space.kind == "multi":  # labels of equal share are all meant, however many there are
            meant = (given > 0) & (given >= given.amax(-1, keepdim=True) / 2)
            classes = (meant.to(matrix.dtype) @ matrix).clamp(max=1)
            return torch.where(classes.any(-1, keepdim=True), classes, torch.nan)
        found = given @ matrix
        share = found.sum(-1, keepdim=True)
        known = share > given.sum(-1, keepdim=True) / 2
        return torch.where(known, found / share.clamp(min=1e-12), 0.0)

    def truth(self, targets: Mapping[str, Tensor]) -> Tensor:
        """`wanted` as `Predictions` keep it: [B] int64 class or -1; `multi` [B, classes]; `regression` [B] float32."""
        wanted = self.wanted(targets)
        if self.space.kind == "single":
            return torch.where(wanted.sum(-1) > 0, wanted.argmax(-1), -1)
        return wanted if self.space.kind == "multi" else wanted[:, 0]


def known(kind: str, wanted: Tensor) -> Tensor:
    """Of which samples something is known [B] bool, from `CorpusLabels.wanted`."""
    if kind == "single":
        return wanted.sum(-1) > 0
    return torch.isfinite(wanted).all(-1)


def label_losses(
    kind: str,
    outputs: Tensor,
    wanted: Tensor,
    class_weights: Tensor | None = None,
    smoothing: float = 0.0,
    error: str = "absolute",
    gamma: float = 0.0,
) -> Tensor:
    """The loss of a model's outputs [B, classes], of each sample [B] fp32; 0 where nothing is known.

    `single`: cross-entropy, or with gamma the focal loss, see `classification_losses`. `multi`: binary cross-entropy,
    mean over classes, each weighted. `regression`: the error that `ERRORS` names; absolute, as MMSA trains.
    """
    if kind == "single":
        return classification_losses(outputs, wanted, class_weights, smoothing, gamma)
    outputs, given = outputs.float(), torch.nan_to_num(wanted)
    if kind == "multi":
        soft = given * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(outputs, soft, weight=class_weights, reduction="none")
    else:
        losses = ERRORS[error](outputs, given, reduction="none")
    return torch.where(torch.isfinite(wanted), losses, 0.0).mean(-1)


def _labels(corpus: Corpus, kind: str) -> tuple[str, tuple[str, ...]]:
    """The column that answers, and its labels: where a sample has one class its `label` goes before `emotions`, which
    may be pseudo labels."""
    columns = ("emotions", "label") if kind == "multi" else ("label", "emotions")
    for column in columns:
        if column in corpus.targets and corpus.classes.get(column):
            return column, tuple(corpus.classes[column])
    asked = "-c emotions=COLUMN" if kind == "multi" else "--corpus NAME, -c label=COLUMN or --label-pattern"
    raise MemofastError(f"corpus {corpus.path} has no labels; prepare it with {asked}")
