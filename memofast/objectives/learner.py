"""Model and objectives as one module: all that is trained, and all of a step that ranks exchange gradients of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from memofast.data.joined import joined
from memofast.data.view import View
from memofast.objectives.objective import LossSum, Objective, zero_of


class Learner(nn.Module):
    """Runs a model over views and sums each objective's loss over what it reads.

    Args: model: called as `model(view, rng=rng)`, it gives predictions by objective, and `perceived(views, rng)` the
        views with feature rows in place of raw ones. objectives: by name; their modules are owned here.
    """

    def __init__(self, model: nn.Module, objectives: Mapping[str, Objective]):
        super().__init__()
        self.model, self._objectives = model, dict(objectives)
        modules = {name: objective.module() for name, objective in objectives.items()}
        self.objectives = nn.ModuleDict({name: module for name, module in modules.items() if module is not None})

    def forward(self, views: Sequence[View], rng: Tensor | None = None) -> dict[str, LossSum]:
        """Losses by objective that reads the first view.

        An objective without targets has total 0 and count 0, and its total still backpropagates zeros to every
        parameter.

        Args: views: on the model's device; rng [2] int64, needed in training mode with dropout.
        """
        views = self.model.perceived(views, rng)  # once for all, and the rows that objectives compare with
        outputs = self._outputs(views, rng)
        losses = {name: self._loss(name, views, outputs) for name in views[0].readers}
        idle = [module for name, module in self.objectives.items() if name not in losses]
        if idle and losses:
            first = next(iter(losses.values()))
            first.total = first.total + sum(zero_of(module) for module in idle)
        return losses

    def _outputs(self, views: Sequence[View], rng: Tensor | None) -> list[dict[str, Tensor]]:
        """Predictions of each view by what reads it; of views without fixed shapes in one pass, as few rows cost more
        each."""
        reads = [view.reads for view in views]
        if len(views) == 1 or any(read.weights is not None for own in reads for read in own.values()):
            return [self.model(view, rng=rng) for view in views]
        outputs = self.model(joined(views), rng=rng)
        parts = {
            name: iter(rows.split([own[name].count for own in reads if name in own])) for name, rows in outputs.items()
        }
        return [{name: next(parts[name]) for name in own} for own in reads]

    def _loss(self, name: str, views: Sequence[View], outputs: Sequence[dict[str, Tensor]]) -> LossSum:
        read = [number for number, view in enumerate(views) if name in view.reads]
        module = self.objectives[name] if name in self.objectives else None  # noqa: SIM401 (it is no dict)
        objective = self._objectives[name]
        keys = [name, *(f"{name}.{part}" for part in objective.parts)]
        predicted = [outputs[number][key] for number in read for key in keys if key in views[number].reads]
        return objective.loss(predicted, [views[number] for number in read], module)
