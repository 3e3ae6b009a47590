"""What an objective is: a way of corrupting inputs, a head, a loss at the targets, and a trivial predictor to beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memofast import ops
from memofast.data.batch import Capacity, PackedBatch, copy_rows
from memofast.ops.philox import Purpose

MODALITIES = ("text", "visual", "speech")


@dataclass
class LossSum:
    """Sums over targets, so that micro-batches and ranks add up before anything is divided.

    total: scalar fp32, the sum of the loss over targets, with its graph. count: number of targets.
    metrics: name -> scalar tensor, sum over targets; divided by count it is the value to show (`accuracy`).
    """

    total: Tensor
    count: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Targets:
    """Where one objective's loss is taken in one batch.

    rows [n] int32: rows within the objective's modality, ascending. joint [n] int64: the same rows in the joint sequence.
    labels [n] int64: token ids of word objectives; None where the batch itself holds what to predict.
    weights [n] fp32: 1 at targets, 0 at entries that only fill a fixed capacity; None: all are targets.
    count: number of targets, known on the host; None: as many as there are entries. spare: joint row that entries without a target name.
    """

    objective: Objective
    rows: Tensor
    joint: Tensor
    labels: Tensor | None = None
    weights: Tensor | None = None
    count: int | None = None
    spare: int = 0

    def __post_init__(self):
        if self.count is None:
            self.count = self.rows.numel()

    def padded_to(self, capacity: int, spare: int) -> Targets:
        """The same targets in tensors of `capacity` entries; those added weigh nothing and name joint row `spare`, the batch's last.

        Raises: `ValueError` where there are more targets.
        """
        missing = capacity - self.count
        if missing < 0:
            raise ValueError(f"objective {self.objective.name} has {self.count} targets, its capacity is {capacity}")
        rows, labels, weights = (
            None if values is None else F.pad(values, (0, missing))
            for values in (self.rows, self.labels, torch.ones(self.count, device=self.rows.device))
        )
        joint = F.pad(self.joint, (0, missing), value=spare)
        return Targets(self.objective, rows, joint, labels, weights, self.count, spare)

    def copy_from(self, targets: Targets) -> None:
        """Take over other targets of the same objective in place, as `padded_to` would lay them out."""
        for own, values in ((self.rows, targets.rows), (self.joint, targets.joint), (self.labels, targets.labels)):
            if own is not None:
                copy_rows(own, values, f"targets of {self.objective.name}")
        self.joint[targets.count :].fill_(self.spare)
        self.weights[: targets.count].fill_(1)
        self.weights[targets.count :].fill_(0)
        self.count = targets.count

    def sum(self, values: Tensor) -> Tensor:
        """Sum over targets of values [n], fp32 under autocast too, which would round a product of vectors."""
        return (values.float() if self.weights is None else values.float() * self.weights).sum()


@dataclass
class Inputs:
    """What the model reads in place of the batch's own rows; None: the rows as they are. Objectives mask one after another."""

    token_ids: Tensor | None = None
    visual_source: Tensor | None = None
    speech_source: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """A masked-modelling objective. Subclasses say which modality they mask, which head predicts, and what."""

    name: str
    policy: ops.SpanPolicy | ops.TokenPolicy

    modality: ClassVar[str]
    head: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    fewest_rows: ClassVar[int] = 1
    metrics: ClassVar[tuple[str, ...]] = ()

    @property
    def site(self) -> int:
        """Site of the masks' random numbers: a hash of the name, so that other objectives do not shift it."""
        return zlib.crc32(self.name.encode()) & 0x7FFFFFFF

    @property
    def target_names(self) -> frozenset[str]:
        """Entries of `PackedBatch.targets` that the objective cannot do without."""
        return self.needs

    def eligible(self, lengths: np.ndarray, has: set[str]) -> np.ndarray:
        """Which samples the objective can serve.

        Args: lengths [n, 3] int32, text (with [CLS] and [SEP]), visual and speech rows; has: target names of the corpus.
        Returns: [n] bool.
        """
        enough = lengths[:, MODALITIES.index(self.modality)] >= self.fewest_rows
        return enough if self.target_names <= has else np.zeros_like(enough)

    def eligible_in(self, batch: PackedBatch) -> Tensor:
        """Which samples of a batch the objective can serve: [B] bool."""
        offsets = getattr(batch, f"{self.modality}_offsets")
        enough = offsets[1:] - offsets[:-1] >= self.fewest_rows
        return enough if self.target_names <= batch.targets.keys() else torch.zeros_like(enough)

    def can_be_of(self, batch: PackedBatch) -> bool:
        """Whether a batch has the modality and the labels that the objective needs, in whatever sample."""
        rows = batch.token_ids if self.modality == "text" else getattr(batch, self.modality)
        return rows is not None and self.target_names <= batch.targets.keys()

    def most_targets(self, capacity: Capacity) -> int:
        """Entries that hold the targets of a batch of this capacity, but for one batch in 10^15."""
        return self.policy.capacity(getattr(capacity, self.modality), capacity.samples)

    def corrupt(
        self, batch: PackedBatch, inputs: Inputs, selected: Tensor | None, rng: Tensor, purpose: Purpose
    ) -> Targets:
        """Mask the selected samples in `inputs` and say where the loss is taken."""
        raise NotImplementedError

    def loss(self, prediction: Tensor, batch: PackedBatch, targets: Targets) -> LossSum:
        """The loss over all targets; 0 where there are none, with a graph all the same.

        Args: prediction [n, outputs of the head], in any float type.
        """
        if prediction.shape[0] == 0:
            nothing = prediction.float().sum()
            return LossSum(nothing, 0, {name: torch.zeros_like(nothing) for name in self.metrics})
        return self._loss(prediction, batch, targets)

    def _loss(self, prediction: Tensor, batch: PackedBatch, targets: Targets) -> LossSum:
        raise NotImplementedError
