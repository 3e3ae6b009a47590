"""Fine-tuning of an emotion model as a task of the trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memofast.data import Capacity, Draw, MicroBatch, Read, Split, Stream, View
from memofast.data.batch import PackedBatch, rounded_length
from memofast.data.conditions import CONDITIONS, keep
from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import class_counts, label_space_of, predict_split, truth_of
from memofast.metrics.mean_loss import mean_loss
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, metrics_of
from memofast.model.families import FAMILIES
from memofast.model.family import ANSWERS, EmotionModel, Family, Lesson
from memofast.objectives import LossSum, Room
from memofast.objectives.classification import balanced_weights
from memofast.objectives.label_space import LabelSpace, known, label_losses
from memofast.train.augmentation import Augmentation
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.processes import Processes
from memofast.train.task import Verdict

OBJECTIVE = ANSWERS


class LabelObjective:
    """What the trainer asks of the one objective of a fine-tuning."""

    metrics: tuple[str, ...] = ()
    gathers = False

    def can_be_of(self, batch: PackedBatch) -> bool:
        return True

    def room(self, capacity: Capacity) -> list[Room]:
        return [Room(capacity, capacity.samples)]


class LabelLearner(nn.Module):
    """An emotion model with the loss of its answers and, where it has any, those that it learns by beside it.

    class_weights [classes]: None: all alike; tuning: smoothing of the labels, error of values. per_epoch: updates.
    state: see `EmotionModel.learning_state`.
    """

    def __init__(
        self,
        model: EmotionModel,
        kind: str,
        class_weights: Tensor | None,
        tuning: Tuning,
        per_epoch: int,
        state: nn.Module | None = None,
    ):
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleDict({OBJECTIVE: state} if state is not None else {})
        self._kind, self._smoothing, self._error = kind, tuning.smoothing, tuning.error
        self._per_epoch = per_epoch
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, views: Sequence[View], rng: Tensor | None = None) -> dict[str, LossSum]:
        """Its read names, as labels, the samples of which something is known."""
        (view,), read = views, views[0].reads[OBJECTIVE]
        wanted = view.batch.targets["wanted"]
        further: dict[str, Tensor] = {}
        if self.model.losses:
            answers = self.model.answer(view, rng=rng, lesson=self._lesson(view, rng))
            outputs, further = answers.outputs, answers.losses
        else:
            outputs = self.model(view, rng=rng)
        wanted = F.pad(wanted, (0, outputs.shape[1] - wanted.shape[1]))  # a prompt may answer with another word
        outputs, wanted = outputs[read.labels], wanted[read.labels]
        losses = label_losses(self._kind, outputs, wanted, self.class_weights, self._smoothing, self._error)
        return {OBJECTIVE: LossSum(read.sum(losses), read.count)} | {
            name: LossSum(_over(values, read), read.count) for name, values in further.items()
        }

    def _lesson(self, view: View, rng: Tensor) -> Lesson:
        batch, read = view.batch, view.reads[OBJECTIVE]
        state = self.objectives[OBJECTIVE] if OBJECTIVE in self.objectives else None  # noqa: SIM401 (it is no dict)
        alone = {
            name: batch.targets[f"value_{name}"].reshape(-1, 1)
            for name in MODALITIES
            if f"value_{name}" in batch.targets
        }
        update = int(rng[1])
        epoch = (update - 1) // self._per_epoch + 1
        return Lesson(batch.targets["wanted"], read.labels, alone, update, epoch, batch.sample_keys, state)


def _over(values: Tensor, read: Read) -> Tensor:
    """A loss of each sample [B] summed over those read; one of the whole batch counts as much for each of them."""
    return read.sum(values[read.labels]) if values.dim() else values.float() * read.count


class FineTuning:
    """One fold and seed; see `Task`.

    Args: model: of the family; its classes are those of the target. streams: what is learnt, by weight; a stream whose
        objective is a condition of modalities shows those alone. validation: what chooses the checkpoint, never another
        split; None: the last is kept. tuning: the options; its metric is one of `sample_statistics.metrics_of`. select:
        conditions of modalities under which validation scores the model, their mean counts; none: all modalities there
        are. target: None for the model's own classes. world: processes.
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
        self.objectives = dict.fromkeys((OBJECTIVE, *model.losses), LabelObjective())
        self.keys = [(name, objective) for name in self._within for objective in self.objectives]
        self._augmentation = Augmentation(tuning.hide, tuning.hide_columns)
        if world > 1 and self._learning_state() is not None:
            raise MemofastError(
                f"the model learns from what it keeps of every sample, which {world} processes would not share; start "
                "one process"
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
        weights = self._class_weights() if self.tuning.class_weights == "balanced" else None
        return LabelLearner(self.model, self.target.kind, weights, self.tuning, self.per_epoch, self._learning_state())

    def _learning_state(self) -> nn.Module | None:
        keys = [torch.from_numpy(stream.split.keys[stream.chosen]) for stream in self._streams]
        return self.model.learning_state(torch.cat(keys).unique())

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
        return self.model.losses.get(name, 1.0)

    def begin(self) -> None:
        """Everything was looked at when the plan was made."""

    def validate(
        self, learner: LabelLearner, precision: str, device: torch.device, processes: Processes
    ) -> Verdict | None:
        """The mean over the conditions chosen by; every rank computes it, as all have the same weights."""
        if self.validation is None:
            return None
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

    def capturable(self, precision: str, device: torch.device) -> bool:
        return self.family.capturable(self.model, precision, device)

    def _class_weights(self) -> Tensor:
        counts = torch.zeros(len(self.model.outputs))
        for stream in self._streams:
            truth = truth_of(stream.split, self.target)
            counts += class_counts(truth[stream.chosen], len(counts))
        return balanced_weights(counts)
