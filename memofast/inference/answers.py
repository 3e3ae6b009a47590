"""What a model says of samples, and how much each of their modalities mattered to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from memofast.data import runs_by_length
from memofast.data.conditions import condition_of, keep
from memofast.errors import MemofastError
from memofast.inference.samples import Sample, pack_samples
from memofast.model import MemoBertForEmotion
from memofast.model.memobert.prompt import MemoBertForPrompt

_ROWS = 4096  # of a batch without gradients


@dataclass(frozen=True)
class Answer:
    """outputs [classes] float32: probabilities, or the value [1] of a regression. importance: modality -> by how much the output of the named
    class falls where the modality is left out; empty where there is only one."""

    outputs: np.ndarray
    importance: dict[str, float]

    @property
    def named(self) -> int:
        return int(self.outputs.argmax())


def answers_of(
    model: MemoBertForEmotion | MemoBertForPrompt, samples: Sequence[Sample], names: Sequence[str], explain: bool = True
) -> list[Answer]:
    """Answers in the order of the samples, packed by length. explain: False leaves importance out, which needs a pass per modality.

    Raises: `MemofastError` for answers that are not finite, naming samples by `names`.
    """
    lengths = np.array([sample.lengths for sample in samples], np.int32).reshape(-1, 3)
    found: list[Answer | None] = [None] * len(samples)
    device = next(model.parameters()).device
    for chosen in runs_by_length(lengths, _ROWS):
        part = [samples[i] for i in chosen]
        batch = pack_samples(part).to(device)
        whole = model.probabilities(batch).float().cpu().numpy()
        if not (sound := np.isfinite(whole).all(1)).all():
            bad = ", ".join(str(names[i]) for i in chosen[~sound][:8])
            raise MemofastError(f"the answers for {bad} are not finite; check the model's weights")
        left_out = _left_out(model, batch, part, whole) if explain else [{} for _ in part]
        for place, outputs, importance in zip(chosen, whole, left_out, strict=True):
            found[place] = Answer(outputs, importance)
    return found


def _left_out(model, batch, samples: list[Sample], whole: np.ndarray) -> list[dict[str, float]]:
    """By how much leaving out each modality lowers the output of the class that is named."""
    found: list[dict[str, float]] = [{} for _ in samples]
    all_of_them = {modality for sample in samples for modality in sample.modalities}
    named = whole.argmax(1)
    for modality in ("text", "visual", "speech"):
        rest = condition_of(tuple(all_of_them - {modality}))
        concerned = [i for i, sample in enumerate(samples) if modality in sample.modalities and sample.modalities[1:]]
        if not concerned or not rest:
            continue
        with torch.no_grad():
            without = model.probabilities(keep(batch, rest)).float().cpu().numpy()
        for i in concerned:
            found[i][modality] = float(whole[i, named[i]] - without[i, named[i]])
    return found
