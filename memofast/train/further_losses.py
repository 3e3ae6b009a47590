"""The losses of a fine-tuning beside that of its labels, as modules: what each makes of a micro-batch, and what it
keeps, which is saved with a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError
from memofast.model.family import ANSWERS, EmotionModel
from memofast.objectives import distillation
from memofast.objectives.class_contrast import prototype_contrast, supervised_contrast
from memofast.objectives.class_prototypes import (
    AdaptivePrototypes,
    ClassPools,
    Curriculum,
    class_means,
    difficulties,
    orthonormal_rows,
)
from memofast.objectives.distillation import AnswerQueue
from memofast.objectives.ranks import in_rank_order
from memofast.sections import Section
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.loss_sections import (
    ApclSection,
    DistSection,
    FeaturesSection,
    SoftCrossEntropySection,
    SpclSection,
    SupervisedContrastSection,
)
from memofast.train.teachers import Taught


@dataclass
class Seen:
    """The samples of a micro-batch of which something is known. outputs [n, outputs], representation [n, D]: with
    gradients, fp32. labels, keys [n] int64. rng [2] int64: seed and update."""

    outputs: Tensor
    representation: Tensor | None
    labels: Tensor
    keys: Tensor
    rng: Tensor

    def of_ranks(self, group: Any) -> Seen:
        """The samples of all ranks in their order, with gradients for those of each."""
        numbers = in_rank_order(torch.stack([self.labels, self.keys], 1), group)
        widths = [self.outputs.shape[1], 0 if self.representation is None else self.representation.shape[1]]
        rows = [self.outputs] if self.representation is None else [self.outputs, self.representation]
        outputs, represented = in_rank_order(torch.cat(rows, 1), group).split(widths, 1)
        represented = None if self.representation is None else represented
        return Seen(outputs, represented, *numbers.T.contiguous(), self.rng)


@dataclass(frozen=True)
class Setting:
    """Of a training. width: of representations. keys [m] int64, ascending: of its samples."""

    classes: int
    width: int
    seed: int
    epochs: int
    keys: Tensor


Represented = tuple[Tensor, Tensor, Tensor]  # keys [n], labels [n], representations [n, D] of the training samples


class FurtherLoss(nn.Module):
    """One loss, a mean over a micro-batch. by_epoch: whether it is told the training's representations at the beginning
    of an epoch, of which it then has the number. gathers: whether the micro-batch is that of all ranks together, see
    `Seen.of_ranks`; every rank's loss is then the same, and its gradients are of its own samples."""

    by_epoch = gathers = False

    def forward(self, seen: Seen) -> Tensor:
        raise NotImplementedError


class SupervisedContrast(FurtherLoss):
    def __init__(self, options: SupervisedContrastSection, setting: Setting):
        super().__init__()
        self.temperature, self.classes = options.temperature, setting.classes

    def forward(self, seen: Seen) -> Tensor:
        return supervised_contrast(seen.representation, seen.labels, self.classes, self.temperature).loss


class Spcl(FurtherLoss):
    def __init__(self, options: SpclSection, setting: Setting):
        super().__init__()
        self.options, self.by_epoch = options, options.centres == "epoch"
        shape = setting.classes, setting.width
        centres = torch.zeros(shape) if self.by_epoch else orthonormal_rows(*shape, setting.seed)
        self.pools = ClassPools(centres, options.pool, options.support)
        if self.by_epoch:
            self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        if options.curriculum:
            self.curriculum = Curriculum(setting.keys, setting.epochs)

    def begin(self, epoch: int, everything: Represented, rng: Tensor) -> None:
        """Make centres, and what the curriculum chooses, of the training's representations."""
        keys, labels, z = everything
        centres = class_means(z, labels, len(self.pools.centres))
        self.pools.begin(centres)
        if self.options.curriculum:
            self.curriculum.begin(epoch, difficulties(z, labels, centres), keys, rng)
        self.epoch.fill_(epoch)

    def forward(self, seen: Seen) -> Tensor:
        z, labels = seen.representation, seen.labels
        if self.options.curriculum:
            chosen = self.curriculum.of(seen.keys)
            z, labels = z[chosen], labels[chosen]
        options, prototypes = self.options, self.pools.prototypes(seen.rng)  # before the pools change
        self.pools.add(z.detach(), labels, seen.rng)
        return prototype_contrast(
            z, labels, prototypes, options.temperature, options.form,
            prototypes_as_anchors=options.anchors == "all", count_all=options.compat,
        ).loss  # fmt: skip


class Apcl(FurtherLoss):
    def __init__(self, options: ApclSection, setting: Setting):
        super().__init__()
        self.options = options
        gamma = options.gamma if options.gamma is not None else {"head": 0.99, "first": 0.01}[options.form]
        start = orthonormal_rows(setting.classes, setting.width, setting.seed)
        self.prototypes = AdaptivePrototypes(
            start, options.form, gamma, options.alpha, options.beta, "qr" if options.compat else "polar"
        )

    def forward(self, seen: Seen) -> Tensor:
        z, labels = seen.representation, seen.labels
        prototypes = self.prototypes.move(z.detach(), labels)
        return prototype_contrast(
            z, labels, prototypes, self.options.temperature, "decoupled",
            prototypes_as_anchors=True, count_all=self.options.compat,
        ).loss  # fmt: skip


class Distillation(FurtherLoss):
    """The mean over teachers."""

    def __init__(self, options: DistSection | FeaturesSection | SoftCrossEntropySection, classes: int, taught: Taught):
        super().__init__()
        self.options, self.taught = options, taught
        self.queues = None
        if getattr(options, "queue", 0):
            self.queues = nn.ModuleList(AnswerQueue(options.queue, classes) for _ in options.teachers)

    def forward(self, seen: Seen) -> Tensor:
        if not len(seen.keys):
            return seen.outputs.sum()  # 0, with its graph
        losses = [self._from(seen, number, given) for number, given in enumerate(self.taught.of(seen.keys))]
        return torch.stack(losses).mean()

    def _from(self, seen: Seen, number: int, given: Tensor) -> Tensor:
        options, temperature = self.options, self.options.temperature
        if options.kind == "feature_distillation":
            return distillation.feature_loss(seen.representation, given, temperature)
        if options.kind == "soft_cross_entropy":
            return distillation.soft_cross_entropy(seen.outputs, given, temperature).mean()
        earlier = None if self.queues is None else self.queues[number].earlier()
        if self.queues is not None:
            sides = ((logits / temperature).softmax(-1) for logits in (seen.outputs.detach(), given))
            self.queues[number].add(*sides)
        return distillation.dist_loss(seen.outputs, given, temperature, options.within, options.between, earlier)


class UncertaintyWeights(nn.Module):
    """A learned log variance v of every loss L, which counts as exp(-v) L / 2 + v.

    Source: Kendall et al., "Multi-task learning using uncertainty", CVPR 2018, in the form of the MELD system, whose
    scale exp(v) may become negative. weights: what each loss counts at the beginning.
    """

    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.log_variances = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(-math.log(2 * weight))) for name, weight in weights.items()}
        )

    def forward(self, name: str, total: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Args: total: sum of a loss over its `count` targets. Returns: the sum, of the same value, with the gradients
        of the weighed one; and what the loss counts now."""
        log_variance = self.log_variances[name]
        weight = (-log_variance).exp() / 2
        weighed = weight * total + log_variance * count
        return total.detach() + weighed - weighed.detach(), weight.detach()


def weights_of(model: EmotionModel, tuning: Tuning, losses: Mapping[str, Section]) -> dict[str, float]:
    """What each loss counts, by name, that of the labels first, then the model's own and those of the recipe.

    Raises: `MemofastError` for a name that is taken.
    """
    own = {ANSWERS: 1.0, **model.losses}
    if taken := next((name for name in losses if name in own or name == "weighting"), None):
        raise MemofastError(f"losses.{taken}: the name is taken ({', '.join((*own, 'weighting'))}); choose another")
    if tuning.loss is not None:
        own[ANSWERS] *= tuning.loss.weight
    return own | {name: options.weight for name, options in losses.items()}


def keeps_of_samples(options: Section) -> bool:
    """Whether the loss that a section names keeps something of the samples that a process has seen."""
    return isinstance(options, (SpclSection, ApclSection)) or bool(getattr(options, "queue", 0))


def gathers_samples(options: Section) -> bool:
    """Whether the loss that a section names sees those of all processes."""
    return getattr(options, "gather", None) == "ranks"


_KINDS: dict[str, Callable[[Section, Setting], FurtherLoss]] = {
    "supervised_contrast": SupervisedContrast, "spcl": Spcl, "apcl": Apcl,
}  # fmt: skip


def further_loss(options: Section, setting: Setting, taught: Taught | None) -> FurtherLoss:
    """The loss that a section names. taught: what its teachers say of the training samples, where it has any."""
    if taught is not None:
        found = Distillation(options, setting.classes, taught)
    else:
        found = _KINDS[options.kind](options, setting)
    found.gathers = gathers_samples(options)
    return found
