"""Labels of single modalities, generated from where their features lie between positive and negative samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_JOINT = "joint"
_SMALLEST = 1e-8


class UnimodalLabels(nn.Module):
    """Features and labels of every training sample, of the joint representation and of each modality. A label begins as
    the sample's own and from the second epoch on moves to what is generated.

    keys [n] int64: of the samples, ascending. widths: of the features, of `joint` and by modality. limit: largest label
    that is generated. Source: Yu et al., "Self-MM", AAAI 2021, as MMSA 2.2.1 has it.
    """

    def __init__(self, keys: Tensor, widths: Mapping[str, int], limit: float):
        super().__init__()
        self.limit, self.modalities = limit, tuple(name for name in widths if name != _JOINT)
        self.register_buffer("keys", keys.clone())
        for name, width in widths.items():
            self.register_buffer(f"{name}_features", torch.zeros(len(keys), width))
            self.register_buffer(f"{name}_labels", torch.zeros(len(keys)))
            self.register_buffer(f"{name}_seen", torch.zeros(len(keys), dtype=torch.bool))

    def labels(self, name: str) -> Tensor:
        """[n]: of `joint` or a modality; 0 where it was not seen yet."""
        return self.get_buffer(f"{name}_labels")

    def seen(self, name: str) -> Tensor:
        """[n] bool: of which samples `joint` or a modality was seen."""
        return self.get_buffer(f"{name}_seen")

    def features(self, name: str) -> Tensor:
        """[n, C]: those last seen."""
        return self.get_buffer(f"{name}_features")

    def places(self, keys: Tensor) -> Tensor:
        """Where samples [B] int64 of these keys are among all."""
        return torch.searchsorted(self.keys, keys)

    @torch.no_grad()
    def meet(self, places: Tensor, values: Tensor, present: Mapping[str, Tensor]) -> None:
        """Samples [B] of true values [B] are about to be learnt from; their labels begin as those where they have none.
        present: by modality [B] bool."""
        for name in (_JOINT, *self.modalities):
            new = ~self.seen(name)[places] & present.get(name, torch.ones_like(places, dtype=torch.bool))
            self.labels(name)[places[new]] = values[new]
            self.seen(name)[places[new]] = True

    @torch.no_grad()
    def learn(self, places: Tensor, features: Mapping[str, Tensor], present: Mapping[str, Tensor], epoch: int) -> None:
        """Takes the features [B, C] of samples at these places, after their labels moved by them.

        present: by modality [B] bool; features of absent ones are none.
        """
        features = {name: values.detach().float() for name, values in features.items()}
        if epoch > 1:
            joint = self._nearness(_JOINT, features[_JOINT])
            for name in self.modalities:
                there = present[name]
                self._move(name, places[there], features[name][there], joint[there], epoch)
        for name, values in features.items():
            there = present.get(name, torch.ones_like(places, dtype=torch.bool))
            self.features(name)[places[there]] = values[there]

    def _move(self, name: str, places: Tensor, features: Tensor, joint: Tensor, epoch: int) -> None:
        labels, own, value = self.labels(name), self._nearness(name, features), self.labels(_JOINT)[places]
        found = 0.5 * own / (joint + _SMALLEST) * value + 0.5 * (value + own - joint)
        found = found.clamp(-self.limit, self.limit)
        before = labels[places]
        moved = ((epoch - 1) * before + 2 * found) / (epoch + 1)
        labels[places] = torch.where(found.isnan(), before, moved)  # NaN: there is no centre yet

    def _nearness(self, name: str, features: Tensor) -> Tensor:
        """[B]: how much nearer features [B, C] are to the positive samples' mean than to the negative ones'."""
        labels, kept = self.labels(name), self.features(name)
        positive, negative = ((features - kept[of].mean(0)).norm(dim=1) for of in (labels > 0, labels < 0))
        return (negative - positive) / (positive + _SMALLEST)
