"""What an emotion model's outputs are, as transformers names it, and what is made of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from memofast.data.batch import PackedBatch
from memofast.data.dialogue import Context

PROBLEMS = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def kind_of_problem(problem_type: str | None) -> str:
    """`single`, one class of several (None too); `multi`, any number of them; `regression`, a value."""
    return {name: kind for kind, name in PROBLEMS.items()}.get(problem_type, "single")


def probabilities_of(logits: Tensor, kind: str) -> Tensor:
    """Probabilities [B, classes], of sum 1 where a sample has one class; of a regression the values themselves."""
    if kind == "regression":
        return logits
    return logits.sigmoid() if kind == "multi" else logits.softmax(-1)


class LearnsByAnswers:
    """An emotion model that learns by the loss of its answers alone; beside `PreTrainedModel`."""

    @property
    def represents(self) -> int:
        """As `family.EmotionModel.represents`; nothing."""
        return 0

    @property
    def linear(self) -> nn.Linear | None:
        """As `family.EmotionModel.linear`; none."""
        return None

    @property
    def losses(self) -> Mapping[str, float]:
        """As `family.EmotionModel.losses`; none."""
        return {}

    @property
    def context(self) -> Context | None:
        """As `family.EmotionModel.context`; of its configuration."""
        told = getattr(self.config, "context", None)
        return Context(**told) if told else None

    def learning_state(self, keys: Tensor) -> nn.Module | None:
        """As `family.EmotionModel.learning_state`; none."""
        return None


class EmotionOutputs(LearnsByAnswers):
    """What emotion models with an output per class, or for a value, have in common; beside `PreTrainedModel`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.config.id2label[number] for number in range(self.config.num_labels))

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.classes

    @property
    def kind(self) -> str:
        """`single`, one class of several; `multi`, any number of them; `regression`, a value."""
        return kind_of_problem(self.config.problem_type)

    @torch.no_grad()
    def probabilities(self, batch: PackedBatch) -> Tensor:
        """Probabilities [B, classes] float32, of sum 1 where a sample has one class; of a regression the values
        [B, 1]."""
        return probabilities_of(self(batch).float(), self.kind)
