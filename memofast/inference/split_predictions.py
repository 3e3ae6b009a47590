"""What a model says of the samples of a split, beside what is true."""

from __future__ import annotations

import numpy as np
import torch

from memofast.data import Split, runs_by_length
from memofast.data.conditions import CONDITIONS, keep
from memofast.inference.dialogues import as_read
from memofast.inference.loop import ROWS, run_over
from memofast.metrics.predictions import Predictions
from memofast.model.family import EmotionModel
from memofast.objectives.label_space import CorpusLabels, LabelSpace


def label_space_of(model: EmotionModel, mapping: dict[str, str | None] | None = None) -> LabelSpace:
    """What the model was trained to name."""
    return LabelSpace(model.kind, model.classes, mapping)


def predict_split(
    model: EmotionModel, split: Split, target: LabelSpace, precision: str = "fp32", condition: str | None = None
) -> Predictions:
    """Predictions for a split's samples, in its order. condition: modalities shown; None: all.

    Raises: `MemofastError` for predictions that are not finite, naming samples.
    """
    within, device = target.within(split.corpus), next(model.parameters()).device
    split = as_read(model, split)
    scores = np.empty((len(split), len(model.outputs)), np.float32)
    truth = _empty_truth(target, len(split))
    shown = None if condition is None else lambda batch: keep(batch, condition)
    for results in run_over(
        split, lambda batch: {"scores": model.probabilities(batch)}, device, "predictions",
        f" of corpus {split.corpus.path}", precision=precision, shown=shown,
    ):  # fmt: skip
        scores[results.indices] = results.found["scores"]
        truth[results.indices] = within.truth(results.batch.targets).numpy()
    if target.kind == "regression":
        return Predictions("regression", tuple(split.ids), truth, scores[:, 0])
    return Predictions(target.kind, tuple(split.ids), truth, scores, model.outputs)


def represented_split(
    model: EmotionModel, split: Split, chosen: np.ndarray, within: CorpusLabels, condition: str | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys [n] int64, classes [n] int64 and representations [n, D] fp32 of a split's samples whose class is known, on
    the model's device, as it makes them in evaluation at the caller's precision. chosen: indices; condition: as of
    `predict_split`."""
    device, training = next(model.parameters()).device, model.training
    wanted, truth = np.zeros(len(split), bool), _empty_truth(within.space, len(split))
    wanted[chosen] = True
    z = np.empty((len(split), model.represents), np.float32)
    shown = (lambda batch: keep(batch, condition)) if condition in CONDITIONS else None
    precision = "bf16" if torch.is_autocast_enabled(device.type) else "fp32"
    model.eval()
    for results in run_over(
        split, lambda batch: {"z": model.represented(batch)}, device, "representations",
        f" of corpus {split.corpus.path}", precision=precision, shown=shown,
        skip=lambda indices: not wanted[indices].any(),
    ):  # fmt: skip
        z[results.indices] = results.found["z"]
        truth[results.indices] = within.truth(results.batch.targets).numpy()
    model.train(training)
    known = np.flatnonzero(wanted & (truth >= 0))
    return tuple(torch.from_numpy(values[known]).to(device) for values in (split.keys, truth, z))


def truth_of(split: Split, target: LabelSpace) -> np.ndarray:
    """What is true of a split's samples, as `Predictions.truth`."""
    within, truth = target.within(split.corpus), _empty_truth(target, len(split))
    for chosen in runs_by_length(split.words.lengths, ROWS):
        truth[chosen] = within.truth(split.words.pack(chosen).targets).numpy()
    return truth


def _empty_truth(target: LabelSpace, samples: int) -> np.ndarray:
    shape = (samples, len(target.classes)) if target.kind == "multi" else samples
    return np.zeros(shape, np.int64 if target.kind == "single" else np.float32)


def class_counts(truth: np.ndarray, classes: int) -> torch.Tensor:
    """Samples of each class [classes], from the truth of single or multi-label samples."""
    if truth.ndim == 2:
        return torch.from_numpy(np.nansum(truth, axis=0))
    return torch.from_numpy(np.bincount(truth[truth >= 0], minlength=classes)).float()
