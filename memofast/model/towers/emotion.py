"""Towers as an emotion model: a vector of each modality, joined, and a linear map to the answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import View
from memofast.model.adapters.kept import Adaptation, save_adapted
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.fusion.fusion import Fused
from memofast.model.fusion.kinds import Options, build
from memofast.model.problems import EmotionOutputs
from memofast.model.towers.configuration import TowersConfig
from memofast.model.towers.tower import TOWERS
from memofast.ops.philox import Place, drop_threshold, keep_factors, site
from memofast.sections import Section, checked

_HEAD = 1000  # layer of the head's dropout, behind those of any fusion


class _Joined(Section):
    fusion: Options


class TowersForEmotion(EmotionOutputs, PreTrainedModel):
    """Logits of emotion classes, or a value.

    encoders: by modality, with their weights; without them all weights are random.
    """

    config_class = TowersConfig
    base_model_prefix = "towers"
    adapted: Adaptation | None = None

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
            self.towers["text"].of_words = self.context.pool == "words"
        joined = checked({"fusion": config.fusion}, "config.json", _Joined).fusion
        self.fusion = build(joined, dict.fromkeys(given, config.width))
        self.classifier = nn.Linear(self.fusion.width, config.num_labels)
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: every part begins as its own class has it, an encoder with the weights it was given."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing, likewise; an encoder has its own rule."""

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """As transformers does, under the names of `state_dict`, not those of the encoders' first publications; of an
        adapted model the adapters and what is trained as a whole alone, in the type that its recipe says."""
        if self.adapted is not None:
            save_adapted(self, Path(folder), self.adapted.dtype)
            return
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
    def losses(self) -> Mapping[str, float]:
        """As `family.EmotionModel.losses`: of the fusion."""
        return self.fusion.losses

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

    def answer(self, view: View, *, rng: Tensor | None = None, lesson: Lesson | None = None) -> Answers:
        """All that is said of a view, with the losses of the fusion."""
        fused = self._fused(view, rng)
        outputs = self.named(fused.vector, view, rng=rng)
        return Answers(outputs, fused.losses if lesson is not None else {}, representation=fused.vector)

    def represented(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """The joined vectors of each sample [B, width]."""
        return self._fused(View.of(seen), rng).vector

    def _fused(self, view: View, rng: Tensor | None) -> Fused:
        if view.positions:
            raise ValueError("towers read rows in their order; they have no positions that a view could change")
        rng = self._of_step(rng)
        found = {name: tower(view, rng) for name, tower in self.towers.items()}
        vectors = {name: vector for name, (vector, _) in found.items()}
        present = torch.stack([there for _, there in found.values()], 1)
        return self.fusion(vectors, present, Draws(rng, view.keys))

    def named(self, representation: Tensor, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, outputs] of joined vectors [B, width]."""
        rng, p = self._of_step(rng), self.config.head_dropout_prob
        if rng is not None and drop_threshold(p):
            keys, place = View.of(seen).keys, site(_HEAD, Place.HEAD)
            kept = keep_factors(rng, place, keys, 1, representation.shape[1], p)
            representation = representation * kept.view(representation.shape).to(representation.dtype)
        return self.classifier(representation)

    def _of_step(self, rng: Tensor | None) -> Tensor | None:
        if self.training and rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        return rng if self.training else None


AutoConfig.register(TowersConfig.model_type, TowersConfig)
AutoModel.register(TowersConfig, TowersForEmotion)
