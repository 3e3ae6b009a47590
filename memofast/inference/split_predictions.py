"""A model's answers for the samples of a split, beside what is true."""

from __future__ import annotations

import numpy as np
import torch

from memofast.data import Split, runs_by_length
from memofast.data.conditions import keep
from memofast.devices import autocast
from memofast.errors import MemofastError
from memofast.metrics.predictions import Predictions
from memofast.model import MemoBertForEmotion
from memofast.model.memobert.prompt import OTHER, MemoBertForPrompt
from memofast.objectives.target import Target

_ROWS = 4096  # of a batch without gradients


EmotionModel = MemoBertForEmotion | MemoBertForPrompt


def target_of(model: EmotionModel, mapping: dict[str, str | None] | None = None) -> Target:
    """What the model was trained to answer."""
    return Target(model.kind, tuple(name for name in model.classes if name != OTHER), mapping)


def answer(
    model: EmotionModel, split: Split, target: Target, precision: str = "fp32", condition: str | None = None
) -> Predictions:
    """Answers for a split's samples, in its order; they are packed by length. condition: modalities shown; None: all.

    Raises: `MemofastError` for answers that are not finite, naming samples.
    """
    within, device = target.within(split.corpus), next(model.parameters()).device
    scores = np.empty((len(split), model.config.num_labels), np.float32)
    truth = _empty_truth(target, len(split))
    with autocast(precision, device):
        for chosen in runs_by_length(split.lengths, _ROWS):
            batch = split.pack(chosen)
            truth[chosen] = within.truth(batch.targets).numpy()
            shown = batch if condition is None else keep(batch, condition)
            scores[chosen] = model.probabilities(shown.to(device)).float().cpu().numpy()
    if not (sound := np.isfinite(scores).all(1)).all():
        ids = ", ".join(split.ids[i] for i in np.flatnonzero(~sound)[:8])
        raise MemofastError(f"the answers for {ids} of {split.corpus.path} are not finite; prepare these samples again")
    if target.kind == "regression":
        return Predictions("regression", tuple(split.ids), truth, scores[:, 0])
    return Predictions(target.kind, tuple(split.ids), truth, scores, model.classes)


def truth_of(split: Split, target: Target) -> np.ndarray:
    """What is true of a split's samples, as `Predictions.truth`."""
    within, truth = target.within(split.corpus), _empty_truth(target, len(split))
    for chosen in runs_by_length(split.words.lengths, _ROWS):
        truth[chosen] = within.truth(split.words.pack(chosen).targets).numpy()
    return truth


def _empty_truth(target: Target, samples: int) -> np.ndarray:
    shape = (samples, len(target.classes)) if target.kind == "multi" else samples
    return np.zeros(shape, np.int64 if target.kind == "single" else np.float32)


def class_counts(truth: np.ndarray, classes: int) -> torch.Tensor:
    """Samples of each class [classes], from the truth of single or multi-label samples."""
    if truth.ndim == 2:
        return torch.from_numpy(truth.sum(0))
    return torch.from_numpy(np.bincount(truth[truth >= 0], minlength=classes)).float()
