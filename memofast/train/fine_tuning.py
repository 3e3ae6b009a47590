"""Fine-tuning of an emotion model as a task of the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data import Capacity, Draw, MicroBatch, Read, Split, Stream, View
from memofast.data.batch import PackedBatch, rounded_length
from memofast.data.conditions import CONDITIONS, keep
from memofast.data.modality import MODALITIES
from memofast.devices import autocast, device_of_rank
from memofast.errors import MemofastError
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import (
    class_counts,
    label_space_of,
    predict_split,
    represented_split,
    truth_of,
)
from memofast.metrics.mean_loss import mean_loss
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, metrics_of
from memofast.model.adapters.kept import adaptation_of, round_to_saved
from memofast.model.families import FAMILIES
from memofast.model.family import ANSWERS, Answers, EmotionModel, Family, Lesson
from memofast.objectives import LossSum, Room
from memofast.objectives.classification import balanced_weights
from memofast.objectives.label_space import ERRORS, LabelSpace, known, label_losses
from memofast.objectives.ranks import group_of_ranks
from memofast.sections import Section
from memofast.train.augmentation import Augmentation
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.further_losses import (
    FurtherLoss,
    Represented,
    Seen,
    Setting,
    UncertaintyWeights,
    further_loss,
    gathers_samples,
    keeps_of_samples,
    weights_of,
)
from memofast.train.loss_sections import BY_REPRESENTATION, BY_TEACHERS
from memofast.train.nearest_centre import as_centres, become_centres
from memofast.train.processes import Processes
from memofast.train.task import Verdict
from memofast.train.teachers import taught

OBJECTIVE = ANSWERS


class LabelObjective:
    """What the trainer asks of a loss of a fine-tuning. metrics: `weight`, what it counts in the sum, where there are
    several."""

    gathers = False

    def __init__(self, metrics: tuple[str, ...] = ()):
        self.metrics = metrics

    def can_be_of(self, batch: PackedBatch) -> bool:
        return True

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, capacity.samples)]


class LabelLearner(nn.Module):
    """An emotion model with the loss of its answers and those that it learns by beside it.

    class_weights [classes]: None: all alike; tuning: smoothing of the labels, error of values. per_epoch: updates.
    state: see `EmotionModel.learning_state`. further: the recipe's further losses by name. weights: by name of loss,
    to be told where there are several. everything: given precision and device, what losses are told at the beginning of
    an epoch, see `FurtherLoss`.
    """

    def __init__(
        self,
        model: EmotionModel,
        kind: str,
        class_weights: Tensor | None,
        tuning: Tuning,
        per_epoch: int,
        state: nn.Module | None = None,
        further: Mapping[str, FurtherLoss] | None = None,
        weights: Mapping[str, float] | None = None,
        everything: Callable[[str, torch.device], Represented] | None = None,
    ):
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict({OBJECTIVE: state} if state is not None else {})
        self.objectives.update(further or {})
        self._further, self._weights, self._everything = list(further or {}), weights or {}, everything
        if tuning.weighting == "uncertainty":
            self.objectives["weighting"] = UncertaintyWeights(self._weights)
        self._kind, self._smoothing, self._error = kind, tuning.smoothing, tuning.error
        loss = tuning.loss
        self._gamma, self._detached = getattr(loss, "gamma", 0.0), loss is not None and loss.detached
        self._per_epoch = per_epoch
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, views: Sequence[View], rng: Tensor | None = None) -> dict[str, LossSum]:
        """Its read names, as labels, the samples of which something is known."""
        (view,), read = views, views[0].reads[OBJECTIVE]
        self._begin_epoch(rng)
        answers = self._answers(view, rng)
        wanted = view.batch.targets["wanted"]
        wanted = F.pad(wanted, (0, answers.outputs.shape[1] - wanted.shape[1]))  # a prompt may answer another word
        outputs = answers.outputs
        if self._detached:
            outputs = self.model.named(answers.representation.detach(), view, rng=rng)
        outputs, wanted = outputs[read.labels], wanted[read.labels]
        losses = label_losses(
            self._kind, outputs, wanted, self.class_weights, self._smoothing, self._error, self._gamma
        )
        totals = {OBJECTIVE: read.sum(losses)} | {name: _over(one, read) for name, one in answers.losses.items()}
        totals |= self._of_recipe(view, read, answers, wanted, rng)
        return {name: self._weighed(name, total, read.count) for name, total in totals.items()}

    def _begin_epoch(self, rng: Tensor | None) -> None:
        for name in self._further:
            loss = self.objectives[name]
            if loss.by_epoch and (epoch := self._epoch(rng)) > int(loss.epoch):
                loss.begin(epoch, self._everything(_precision(rng.device), rng.device), rng)

    def _answers(self, view: View, rng: Tensor | None) -> Answers:
        if self.model.losses:
            return self.model.answer(view, rng=rng, lesson=self._lesson(view, rng))
        if not self.model.represents or not (self._further or self._detached):
            return Answers(self.model(view, rng=rng))
        representation = self.model.represented(view, rng=rng)
        return Answers(self.model.named(representation, view, rng=rng), representation=representation)

    def _of_recipe(
        self, view: View, read: Read, answers: Answers, wanted: Tensor, rng: Tensor | None
    ) -> dict[str, Tensor]:
        if not self._further:
            return {}
        with torch.autocast(wanted.device.type, enabled=False):  # similarities of fp32 rows
            represented = None if answers.representation is None else answers.representation[read.labels].float()
            outputs, keys = answers.outputs[read.labels].float(), view.batch.sample_keys[read.labels]
            own = everyone = Seen(outputs, represented, wanted.argmax(-1), keys, rng)
            gathers = any(self.objectives[name].gathers for name in self._further)
            if gathers and (group := group_of_ranks()) is not None:
                everyone = own.of_ranks(group)
            losses = {name: self.objectives[name] for name in self._further}
            return {name: _over(loss(everyone if loss.gathers else own), read) for name, loss in losses.items()}

    def _weighed(self, name: str, total: Tensor, count: int) -> LossSum:
        if "weighting" in self.objectives:
            total, weight = self.objectives["weighting"](name, total, count)
            return LossSum(total, count, {"weight": weight * count})
        return LossSum(total, count, {"weight": self._weights[name] * count} if self._weights else {})

    def _epoch(self, rng: Tensor) -> int:
        return (int(rng[1]) - 1) // self._per_epoch + 1

    def _lesson(self, view: View, rng: Tensor) -> Lesson:
        batch, read = view.batch, view.reads[OBJECTIVE]
        state = self.objectives[OBJECTIVE] if OBJECTIVE in self.objectives else None  # noqa: SIM401 (it is no dict)
        alone = {
            name: batch.targets[f"value_{name}"].reshape(-1, 1)
            for name in MODALITIES
            if f"value_{name}" in batch.targets
        }
        update = int(rng[1])
        return Lesson(
            batch.targets["wanted"], read.labels, alone, update, self._epoch(rng), batch.sample_keys, state,
            ERRORS[self._error],
        )  # fmt: skip


def _precision(device: torch.device) -> str:
    """That of the step that is being made."""
    return "bf16" if torch.is_autocast_enabled(device.type) else "fp32"


def _over(values: Tensor, read: Read) -> Tensor:
    """A loss of each sample [B] summed over those read; one of the whole batch counts as much for each of them."""
    return read.sum(values[read.labels]) if values.dim() else values.float() * read.count


class FineTuning:
    """One fold and seed; see `Task`.

    Args: model: of the family; its classes are those of the target. streams: what is learnt, by weight; a stream whose
        objective is a condition of modalities shows those alone. validation: what chooses the checkpoint, never another
        split; None: the last is kept. tuning: the options; its metric is one of `sample_statistics.metrics_of`. select:
        conditions of modalities under which validation scores the model, their mean counts; none: all modalities there
        are. target: None for the model's own classes. world: processes. losses: sections of further ones, by name.
    Raises: `MemofastError` for a corpus without labels or of other classes than the model's, and for several processes
        where the model keeps something of the samples while it learns.
    """

    title = "fine-tune"
    partial = True  # modalities that a condition does not show
    vocabulary = features = None  # the finished model gets them with its preparation

    def __init__(
        self,
        model: EmotionModel,
        streams: Sequence[Stream],
        validation: Split | None,
        tuning: Tuning,
        seed: int,
        select: Sequence[str] = (),
        target: LabelSpace | None = None,
        world: int = 1,
        family: Family = FAMILIES["memobert"],
        losses: Mapping[str, Section] | None = None,
    ):
        self.family, self.model, self.tuning, self.validation, self.select = (
            family,
            model,
            tuning,
            validation,
            tuple(select),
        )
        self.target = target or label_space_of(model)
        self._streams = [replace(stream, split=as_read(model, stream.split)) for stream in streams]
        self._within = {stream.name: self.target.within(stream.split.corpus) for stream in streams}
        if validation is not None:
            self.target.within(validation.corpus)
        self.options, self.per_epoch = tuning.options(seed, sum(len(stream.chosen) for stream in streams), world)
        self.every, self.patience = self.options.log_every, tuning.patience
        self.split = validation.name if validation is not None else ""
        self._losses, self._seed = dict(losses or {}), seed
        self.weights = weights_of(model, tuning, self._losses)
        told = ("weight",) if self._losses or tuning.weighting == "uncertainty" else ()
        self.objectives = dict.fromkeys(self.weights, LabelObjective(told))
        self.keys = [(name, objective) for name in self._within for objective in self.objectives]
        self._augmentation = Augmentation(tuning.hide, tuning.hide_columns)
        if world > 1:
            self._check_shared(world)

    def _check_shared(self, world: int) -> None:
        if self._learning_state() is not None:
            raise MemofastError(
                f"the model learns from what it keeps of every sample, which {world} processes would not share; start "
                "one process"
            )
        for name, options in self._losses.items():
            if keeps_of_samples(options) and not gathers_samples(options):
                raise MemofastError(
                    f"losses.{name} keeps something of the samples it sees, which {world} processes would not share; "
                    f"set losses.{name}.gather=ranks, or start one process"
                )

    @property
    def capacity(self) -> Capacity:
        """Room for so many samples of any lengths."""
        splits = [stream.split for stream in self._streams]
        most = max(int(split.lengths.sum(1).max()) for split in splits)
        samples, longest = self.options.samples, np.max([split.lengths.max(0) for split in splits], axis=0)
        streams = {
            name: samples * max(int(split.stream_lengths[name].max()) for split in splits) for name in splits[0].streams
        }
        return Capacity(samples, *(samples * longest).tolist(), longest=rounded_length(most), streams=streams)

    def learner(self) -> LabelLearner:
        class_weights = self._class_weights() if self.tuning.class_weights == "balanced" else None
        setting = Setting(
            len(self.target.classes), self.model.represents, self._seed, self.tuning.epochs, self._keys()
        )  # fmt: skip
        further = {name: self._further(options, setting) for name, options in self._losses.items()}
        told = self.weights if self.objectives[OBJECTIVE].metrics else None
        return LabelLearner(
            self.model, self.target.kind, class_weights, self.tuning, self.per_epoch, self._learning_state(), further,
            told, self._everything,
        )  # fmt: skip

    def _further(self, options: Section, setting: Setting) -> FurtherLoss:
        if not isinstance(options, BY_TEACHERS):
            return further_loss(options, setting, None)
        splits = list({id(stream.split.ids): stream.split for stream in self._streams}.values())
        represented = isinstance(options, BY_REPRESENTATION)
        device = device_of_rank(self.options.device)
        said = taught(options.teachers, splits, self.target.classes, represented, device)
        return further_loss(options, setting, said)

    def _everything(self, precision: str, device: torch.device) -> Represented:
        """Representations of the training samples of which the class is known, as the model now makes them."""
        with autocast(precision, device):
            found = [
                represented_split(self.model, stream.split, stream.chosen, self._within[stream.name], stream.objective)
                for stream in self._streams
            ]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _keys(self) -> Tensor:
        keys = [torch.from_numpy(stream.split.keys[stream.chosen]) for stream in self._streams]
        return torch.cat(keys).unique()

    def _learning_state(self) -> nn.Module | None:
        return self.model.learning_state(self._keys())

    def streams(self) -> list[Stream]:
        return self._streams

    def places(self, draw: Draw, step: int) -> Mapping[str, np.ndarray] | None:
        return None

    def views(self, micro_batch: MicroBatch, step: int) -> list[View]:
        batch, condition = micro_batch.batch, micro_batch.objective
        wanted = self._within[micro_batch.corpus].wanted(batch.targets)
        samples = known(self.target.kind, wanted).nonzero().flatten()
        shown = keep(batch, condition) if condition in CONDITIONS else batch
        view = self._augmentation(shown, torch.tensor([self.options.seed, step], dtype=torch.int64))
        alone = {name: values for name, values in view.batch.targets.items() if name.startswith("value_")}
        view.batch = replace(view.batch, targets={"wanted": wanted, **alone})
        for name in self.objectives:
            view.reads[name] = Read("", view.batch.offsets[:-1][samples].to(torch.int64), samples)
        return [view]

    def share(self, micro_batch: MicroBatch, name: str) -> float:
        """With weights that are learnt 1, as the learner weighs."""
        return 1.0 if self.tuning.weighting == "uncertainty" else self.weights[name]

    def begin(self) -> None:
        """Everything was looked at when the plan was made."""

    def validate(
        self, learner: LabelLearner, precision: str, device: torch.device, processes: Processes
    ) -> Verdict | None:
        """The mean over the conditions chosen by; every rank computes it, as all have the same weights."""
        if self.validation is None:
            return None
        with self._decoding(precision, device):
            answers = [
                predict_split(learner.model, self.validation, self.target, precision, condition)
                for condition in self.select or (None,)
            ]
        every = [metrics_of(one) | {"loss": mean_loss(one, self.tuning.error)} for one in answers]
        scores = {name: float(np.mean([one[name] for one in every])) for name in every[0]}
        metric = self.tuning.metric
        numbers = {name: value for name, value in scores.items() if math.isfinite(value)}
        value = scores[metric] if metric in LOWER_IS_BETTER else -scores[metric]
        found = {(self.validation.corpus.name, OBJECTIVE): numbers}
        return Verdict(found, value, f"{metric} {scores[metric]:.4f}")

    def conclude(self, precision: str, device: torch.device) -> None:
        """Make of the model with its best weights what answers: with `decode: nearest_centre` its head becomes the
        centres, and of adapters those that are kept."""
        if self.tuning.decode == "nearest_centre":
            _, labels, z = self._everything(precision, device)
            become_centres(self.model.linear, z, labels)
        round_to_saved(self.model)

    def _decoding(self, precision: str, device: torch.device) -> AbstractContextManager:
        if self.tuning.decode == "head":
            return nullcontext()
        _, labels, z = self._everything(precision, device)
        return as_centres(self.model.linear, z, labels)

    def capturable(self, precision: str, device: torch.device) -> bool:
        """Losses that keep something of samples change it by what they meet, which no graph replays; graphs of adapters
        were never tried."""
        further = self._losses or self.tuning.weighting == "uncertainty"
        return (
            not further and adaptation_of(self.model) is None and self.family.capturable(self.model, precision, device)
        )

    def _class_weights(self) -> Tensor:
        counts = torch.zeros(len(self.model.outputs))
        for stream in self._streams:
            truth = truth_of(stream.split, self.target)
            counts += class_counts(truth[stream.chosen], len(counts))
        return balanced_weights(counts)
