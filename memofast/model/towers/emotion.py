"""Towers as an emotion model: a vector of each modality, joined, and a linear map to the answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import View
from memofast.model.problems import EmotionOutputs
from memofast.model.sequence.draws import Draws
from memofast.model.towers.configuration import TowersConfig, TowersFile
from memofast.model.towers.fusion import fusion_of
from memofast.model.towers.tower import TOWERS
from memofast.model.weights import open_whole

_HEAD = 1000  # first site of the head's draws, behind those of any fusion


class TowersForEmotion(EmotionOutputs, PreTrainedModel):
    """Logits of emotion classes, or a value.

    encoders: by modality, with their weights; without them all weights are random.
    """

    config_class = TowersConfig
    base_model_prefix = "towers"

    def __init__(self, config: TowersConfig, encoders: Mapping[str, PreTrainedModel] | None = None):
        super().__init__(config)
        given = [name for name in MODALITIES if config.towers.get(name)]
        if not given:
            raise ValueError("there is a tower of no modality")
        self.towers = nn.ModuleDict(
            {name: TOWERS[name](config.towers[name], config.width, (encoders or {}).get(name)) for name in given}
        )
        if self.context and "text" in self.towers:
            self.towers["text"].query, self.towers["text"].mask = self.context.query, config.mask_token_id
        self.fusion = fusion_of(config.fusion, dict.fromkeys(given, config.width))
        self.classifier = nn.Linear(self.fusion.width, config.num_labels)
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: every part begins as its own class has it, an encoder with the weights it was given."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing, likewise; an encoder has its own rule."""

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """As transformers does, under the names of `state_dict`, not those of the encoders' first publications."""
        super().save_pretrained(folder, **{"save_original_format": False} | options)

    @property
    def reads(self) -> Mapping[str, int]:
        """As `family.Reader.reads`."""
        words = {"text": self.towers["text"].encoder.config.vocab_size} if "text" in self.towers else {}
        return words | {name: self.config.towers[name]["stored"] for name in FEATURES if name in self.towers}

    @property
    def streams(self) -> Mapping[str, str]:
        """As `family.Reader.streams`; it reads none."""
        return {}

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`."""
        return frozenset(FEATURES) & set(self.towers)

    @property
    def longest(self) -> Mapping[str, int]:
        """As `family.Reader.longest`; pictures and sound have no bound."""
        most = self.towers["text"].longest if "text" in self.towers else None
        return {} if most is None else {"text": most}

    @property
    def represents(self) -> int:
        """As `family.EmotionModel.represents`: the width of the joined vectors."""
        return self.fusion.width

    @property
    def linear(self) -> nn.Linear:
        """As `family.EmotionModel.linear`."""
        return self.classifier

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs], or values [B, 1]. rng [2] int64: seed and update, needed in training mode.

        Raises: `ValueError` for a view that gives rows other positions.
        """
        return self.named(self.represented(seen, rng=rng), seen, rng=rng)

    def represented(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """The joined vectors of each sample [B, width]."""
        view = View.of(seen)
        if view.positions:
            raise ValueError("towers read rows in their order; they have no positions that a view could change")
        rng = self._of_step(rng)
        return self.fusion({name: tower(view, rng) for name, tower in self.towers.items()}, Draws(rng, view.keys))

    def named(self, representation: Tensor, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs] of joined vectors [B, width]."""
        draws = Draws(self._of_step(rng), View.of(seen).keys, _HEAD)
        return self.classifier(draws.dropped(representation, self.config.head_dropout_prob))

    def _of_step(self, rng: Tensor | None) -> Tensor | None:
        if self.training and rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        return rng if self.training else None


def open_towers(folder: Path) -> TowersForEmotion:
    """A trained model in evaluation mode from its folder. Raises: as `open_whole`."""
    return open_whole(folder, TowersForEmotion, TowersFile)


AutoConfig.register(TowersConfig.model_type, TowersConfig)
AutoModel.register(TowersConfig, TowersForEmotion)
