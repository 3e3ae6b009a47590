"""Masked words: predict the word pieces that were hidden."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from memofast import ops
from memofast.data.batch import PackedBatch
from memofast.objectives.objective import Inputs, LossSum, Objective, Targets
from memofast.ops.philox import Purpose


@dataclass(frozen=True)
class MaskedWords(Objective):
    """Cross-entropy over the vocabulary at masked word pieces. Source: MEmoBERT's mlm_wwm, mlm, melm and melm_wwm."""

    policy: ops.TokenPolicy = field(default_factory=ops.TokenPolicy)

    modality: ClassVar[str] = "text"
    head: ClassVar[str] = "words"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    fewest_rows: ClassVar[int] = 3  # [CLS], one piece, [SEP]

    @property
    def target_names(self) -> frozenset[str]:
        return frozenset({"lexicon"}) if self.policy.needs_emotion else frozenset()

    def corrupt(
        self, batch: PackedBatch, inputs: Inputs, selected: Tensor | None, rng: Tensor, purpose: Purpose
    ) -> Targets:
        masked = ops.token_mask(
            batch.token_ids if inputs.token_ids is None else inputs.token_ids,
            batch.word_ids,
            batch.text_offsets,
            batch.sample_keys,
            rng,
            self.policy,
            site=self.site,
            purpose=purpose,
            emotion=batch.targets.get("lexicon"),
            selected=selected,
            capacity=None if batch.token_ids.is_cpu else batch.token_ids.numel(),
        )
        inputs.token_ids = masked.token_ids
        rows = masked.indices[: int(masked.count)]
        labels = masked.labels[rows.to(torch.int64)].to(torch.int64)
        return Targets(self, rows, batch.joint_rows("text", rows), labels)

    def _loss(self, prediction: Tensor, batch: PackedBatch, targets: Targets) -> LossSum:
        total = targets.sum(F.cross_entropy(prediction.float(), targets.labels, reduction="none"))
        correct = targets.sum(prediction.detach().argmax(-1) == targets.labels)
        return LossSum(total, targets.count, {"accuracy": correct})
