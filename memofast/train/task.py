"""What the one trainer asks of what is trained: pre-training and fine-tuning are two tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from memofast.data import Capacity, Draw, MicroBatch, Stream, View
from memofast.model.feature_sets import FeatureSet
from memofast.objectives import Objective
from memofast.train.processes import Processes
from memofast.train.recipe import Train
from memofast.train.tally import Key

Scores = dict[Key, dict[str, float]]  # by (corpus, objective): loss, targets, metrics, trivial


@dataclass(frozen=True)
class Verdict:
    """What a validation found. scores: to be logged; value: chooses the checkpoint, the lowest is the best; said: a
    line for people, or empty."""

    scores: Scores
    value: float
    said: str = ""


class Task(Protocol):
    """What is trained.

    title: shown before the bar. options: of the training. every: updates between validations. patience: validations
    without a better one that end the training; None: none do. split: that chooses the checkpoint. capacity: of a
    micro-batch. objectives: by name; keys: the (corpus, objective) pairs that are logged. partial: parameters of the
    learner may take no part in an update, and then are not stepped. vocabulary: file or folder of the word pieces,
    which every checkpoint carries; None: none is known, or somebody else keeps it beside the model. features: what made
    the rows of each modality, likewise.
    """

    title: str
    options: Train
    every: int
    patience: int | None
    split: str
    capacity: Capacity
    objectives: Mapping[str, Objective]
    keys: list[Key]
    partial: bool
    vocabulary: Path | None
    features: Mapping[str, FeatureSet] | None

    def learner(self) -> nn.Module:
        """Model and objectives at update 0: called as `learner(views, rng)`, it gives sums of losses by objective;
        `learner.model` is saved."""

    def streams(self) -> list[Stream]:
        """What micro-batches are drawn from, by weight."""

    def places(self, draw: Draw, step: int) -> Mapping[str, np.ndarray] | None:
        """Whose rows the samples of a micro-batch show, see `data.loading.Work`."""

    def views(self, micro_batch: MicroBatch, step: int) -> list[View]:
        """What the forward passes of a micro-batch read, in the loader's threads."""

    def share(self, micro_batch: MicroBatch, name: str) -> float:
        """What the mean loss of an objective counts in an update."""

    def begin(self) -> None:
        """Look at the data before the first update. Raises: `MemofastError` for what would only be found much later."""

    def validate(
        self, learner: nn.Module, precision: str, device: torch.device, processes: Processes
    ) -> Verdict | None:
        """Score the learner, in evaluation mode, all ranks together; None: nothing chooses, and the last checkpoint is
        kept."""

    def capturable(self, precision: str, device: torch.device) -> bool:
        """Whether its steps can be replayed from CUDA graphs."""
