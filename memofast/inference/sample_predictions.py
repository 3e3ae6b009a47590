"""What a model says of samples that are in no store, and how much each of their modalities mattered to it."""

from collections.abc import Sequence

import numpy as np
import torch

from memofast.data import PackedBatch
from memofast.data.conditions import condition_of, keep
from memofast.data.modality import MODALITIES
from memofast.inference.loop import run_over
from memofast.inference.samples import Sample, SampleList
from memofast.model.family import EmotionModel

Importance = dict[str, float]  # by modality


def predict_samples(
    model: EmotionModel, samples: Sequence[Sample], names: Sequence[str], explain: bool = True
) -> tuple[np.ndarray, list[Importance]]:
    """Scores [n, outputs] float32, probabilities or values, in the order of the samples, and of each how much its
    modalities mattered: by how much the score of the likeliest class falls where one is left out; empty where there is
    only one.

    explain: False leaves importance out, which needs a pass per modality.
    Raises: `MemofastError` for predictions that are not finite, naming samples by `names`.
    """

    explain = explain and any(len(sample.modalities) > 1 for sample in samples)

    def compute(batch: PackedBatch) -> dict[str, torch.Tensor]:
        rests = _without_each(batch) if explain else {}
        without = {modality: model.probabilities(keep(batch, rest)) for modality, rest in rests.items()}
        return {"whole": model.probabilities(batch), **without}

    scores: list[np.ndarray] = [np.empty(0, np.float32)] * len(samples)
    importance: list[Importance] = [{} for _ in samples]
    device = next(model.parameters()).device
    for results in run_over(SampleList(samples, names), compute, device, "predictions"):
        whole = results.found["whole"]
        for place, index in enumerate(results.indices):
            scores[index], likeliest = whole[place], whole[place].argmax()
            there = samples[index].modalities
            for modality in there if explain and len(there) > 1 else ():
                without = results.found[modality][place, likeliest]
                importance[index][modality] = float(whole[place, likeliest] - without)
    return np.stack(scores) if scores else np.empty((0, 0), np.float32), importance


def _without_each(batch: PackedBatch) -> dict[str, str]:
    """Modalities that some sample of a batch has beside others, each with the condition of all others in the batch."""
    lengths = torch.stack([batch.offsets_of(modality).diff() for modality in MODALITIES], 1)
    present = lengths > torch.tensor([1, 0, 0], device=lengths.device)  # text is more than [CLS]
    for stream in batch.streams.values():
        present[:, MODALITIES.index(stream.modality)] |= stream.offsets.diff() > 0
    every = present.any(0).tolist()
    beside_others = present[present.sum(1) > 1].any(0).tolist()
    there = {modality for modality, any_of_it in zip(MODALITIES, every, strict=True) if any_of_it}
    return {
        modality: condition_of(tuple(there - {modality}))
        for modality, asked in zip(MODALITIES, beside_others, strict=True)
        if asked
    }
