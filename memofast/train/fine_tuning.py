"""Fine-tuning of an emotion model: epochs over streams of samples, the best validation kept, stopped early where none gets better."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from memofast.cpu import limit_compiled_products
from memofast.data import Capacity, Loader, MicroBatch, Split, Stream, Update
from memofast.data.conditions import CONDITIONS, keep
from memofast.devices import autocast, device_of_rank, precision_on
from memofast.errors import MemofastError
from memofast.inference.split_predictions import EmotionModel, answer, class_counts, target_of, truth_of
from memofast.metrics.sample_statistics import LOWER_IS_BETTER, metrics_of
from memofast.objectives.classification import balanced_weights
from memofast.objectives.target import Target, target_loss
from memofast.train import optimisation
from memofast.train.augmentation import Hiding, Shown
from memofast.train.checkpoints import Checkpoints
from memofast.train.metrics_log import MetricsLog, peak_memory
from memofast.train.progress import Progress
from memofast.train.recipe import Train
from memofast.train.signals import Stop

WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class FineTuning:
    """samples: of a batch. validations: per epoch. patience: validations without a better one after which training ends.

    metric: the one of `sample_statistics.metrics_of` by which the best checkpoint is chosen, on the validation split and never on another one.
    class_weights: `none`, or `balanced` for weights inverse to the classes' shares. smoothing: of the labels. conditions: of modalities under
    which validation scores the model, their mean counts; none: all modalities there are. warmup: share of the updates. hide, hide_columns: rows and
    columns of `Hiding`.
    """

    epochs: int = 3
    samples: int = 32
    lr: float = 1e-4
    validations: int = 2
    patience: int = 4
    metric: str = "weighted_f1"
    class_weights: str = "none"
    smoothing: float = 0.0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    conditions: tuple[str, ...] = ()
    warmup: float = WARMUP_SHARE
    weight_decay: float = 0.01
    hide: float = 0.0
    hide_columns: float = 0.0


@dataclass
class Progressed:
    """Where a fine-tuning stands: what its checkpoints hold beside weights and optimiser. best: update of the best validation."""

    step: int = 0
    stale: int = 0
    best: int | None = None
    best_scores: dict[str, Any] = field(default_factory=dict)
    loader: dict[str, Any] | None = None


class FineTuner:
    """One run, fresh or resumed from the newest checkpoint in `folder`.

    Args: model: its classes are those of the target. streams: what is learnt, by weight; a stream whose objective is a condition of modalities shows
        those alone. validation: what chooses the checkpoint; None: the last is kept. target: None for the model's own classes. go_on: what to do after a stop.
    Raises: `MemofastError` for a corpus without labels or of other classes than the model's.
    """

    def __init__(
        self,
        model: EmotionModel,
        streams: Sequence[Stream],
        validation: Split | None,
        options: FineTuning,
        folder: Path,
        target: Target | None = None,
        go_on: str = "run the same command again to go on",
    ):
        limit_compiled_products()
        self.go_on = go_on
        self.target = target or target_of(model)
        self.within = {stream.name: self.target.within(stream.split.corpus) for stream in streams}
        if validation is not None:
            self.target.within(validation.corpus)
        self.options, self.streams, self.validation, self.folder = options, list(streams), validation, folder
        samples = sum(self._size(stream) for stream in streams)
        self.per_epoch = math.ceil(samples / options.samples)
        updates = self.per_epoch * options.epochs
        self.settings = Train(
            samples=options.samples, lr=options.lr, updates=updates, warmup=round(options.warmup * updates), clip=1.0,
            betas=(0.9, 0.999), weight_decay=options.weight_decay, seed=options.seed, precision=options.precision, device=options.device,
        )  # fmt: skip
        self.device = device_of_rank(self.settings.device)
        self.precision = precision_on(self.settings.precision, self.device)
        self.model = model.to(self.device).train()
        self.optimiser = optimisation.adamw(self.model, self.settings)
        self._hiding = Hiding(options.hide, options.hide_columns)
        self.weights = self._class_weights().to(self.device) if options.class_weights == "balanced" else None
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.state = Progressed()
        if steps := self.checkpoints.steps():
            self.state = Progressed(**self.checkpoints.load(steps[-1], self.model, self.optimiser))

    def run(self) -> Progressed:
        """Train to the end and bring the model to its best checkpoint, in evaluation mode. Returns: where it stands.

        Raises: `MemofastError` where a loss is not finite; `SystemExit` 130 or 143 after Ctrl-C or SIGTERM, with everything saved.
        """
        loader = Loader(
            self.streams, capacity=self._capacity(), seed=self.options.seed, mixing="sample", transform=self._shown,
            state=self.state.loader,
        )  # fmt: skip
        every = max(1, self.per_epoch // self.options.validations)
        left = self.settings.updates - self.state.step if self.state.stale < self.options.patience else 0
        progress = Progress(self.settings.updates, self.state.step, name="fine-tune")
        log = MetricsLog(self.folder, self.state.step)
        with Stop() as stop, progress, closing(iter(loader)) as updates, closing(log):
            losses, begun, seen = [], time.monotonic(), 0
            for update in islice(updates, left):
                losses.append(self._update(update))
                seen += update.micro_batches[0].batch.samples
                self.state.step, self.state.loader = update.step, loader.state_dict()
                progress.advance(update.step)
                last = update.step == self.settings.updates
                validated = update.step % every == 0 or last
                if validated:
                    rate = seen / (time.monotonic() - begun)
                    progress.show(update.step, float(np.mean(losses)), rate, peak_memory(self.device))
                    log.write(
                        step=update.step, split="train", corpus="all", objective="emotion", loss=float(np.mean(losses)),
                        targets=seen, samples_per_s=round(rate, 1), peak_memory_gib=round(peak_memory(self.device), 3),
                    )  # fmt: skip
                    if self.validation is not None:
                        self._validate(progress, log)
                    else:
                        self.state.best = update.step
                    losses, begun, seen = [], time.monotonic(), 0
                if validated or stop.number:
                    log.sync()
                    self.checkpoints.save(update.step, self.model, self.optimiser, vars(self.state))
                if stop.number:
                    progress.say(f"stopped at update {update.step}, saved; {self.go_on}")
                    raise SystemExit(128 + stop.number)
                if self.state.stale >= self.options.patience:
                    progress.say(f"no better validation in {self.state.stale}; stopped at update {update.step}")
                    break
        self.checkpoints.load(self.state.best, self.model, self.optimiser)
        self.model.eval()
        return self.state

    def _update(self, update: Update) -> float:
        micro_batch = update.micro_batches[0]
        batch = micro_batch.extra.batch
        rng = self._rng(update.step).to(self.device)
        moved = batch.to(self.device)
        sources = {name: source.to(self.device) for name, source in micro_batch.extra.sources.items()}
        with autocast(self.precision, self.device):
            outputs = self.model(moved, rng=rng, **sources)
        wanted = self.within[micro_batch.corpus].wanted(moved.targets)
        wanted = F.pad(wanted, (0, outputs.shape[1] - wanted.shape[1]))  # a prompt may answer with another word
        loss = target_loss(self.target.kind, outputs, wanted, self.weights, self.options.smoothing)
        mean = loss.total / max(loss.count, 1)
        mean.backward()
        norm = float(optimisation.clip(self.model, self.settings.clip))
        value = float(mean.detach())
        if not math.isfinite(value) or not math.isfinite(norm):
            raise MemofastError(
                f"the loss is not finite at update {update.step}, samples {', '.join(batch.ids[:8])}; check them or lower the learning rate"
            )
        optimisation.set_rate(self.optimiser, optimisation.learning_rate(update.step, self.settings))
        self.optimiser.step()
        self.optimiser.zero_grad()
        return value

    def _validate(self, progress: Progress, log: MetricsLog) -> None:
        self.model.eval()
        conditions = self.options.conditions or (None,)
        every = [self._scores(condition) for condition in conditions]
        self.model.train()
        scores = {name: float(np.mean([one[name] for one in every])) for name in every[0]}
        metric, lower = self.options.metric, self.options.metric in LOWER_IS_BETTER
        found, before = scores[metric], self.state.best_scores.get(metric)
        better = before is None or (not math.isnan(found) and (found < before if lower else found > before))
        if better:
            self.state.best, self.state.best_scores, self.state.stale = self.state.step, scores, 0
        else:
            self.state.stale += 1
        numbers = {name: value for name, value in scores.items() if math.isfinite(value)}
        log.write(step=self.state.step, split=self.validation.name, corpus="all", objective="emotion", **numbers)
        progress.say(f"validation: {metric} {found:.4f}{' (best)' if better else ''}")

    def _scores(self, condition: str | None) -> dict[str, float]:
        return metrics_of(answer(self.model, self.validation, self.target, self.precision, condition))

    def _class_weights(self) -> Tensor:
        counts = torch.zeros(self.model.config.num_labels)
        for stream in self.streams:
            truth = truth_of(stream.split, self.target)
            counts += class_counts(truth if stream.eligible is None else truth[stream.eligible], len(counts))
        return balanced_weights(counts)

    def _capacity(self) -> Capacity:
        longest = np.max([stream.split.lengths.max(0) for stream in self.streams], axis=0)
        return Capacity(self.options.samples, *(int(rows) * self.options.samples for rows in longest))

    @staticmethod
    def _size(stream: Stream) -> int:
        return len(stream.split) if stream.eligible is None else int(stream.eligible.sum())

    def _rng(self, step: int) -> Tensor:
        return torch.tensor([self.options.seed, step], dtype=torch.int64)

    def _shown(self, micro_batch: MicroBatch, step: int) -> Shown:
        shown = micro_batch.batch
        if micro_batch.objective in CONDITIONS:
            shown = keep(shown, micro_batch.objective)
        return self._hiding(shown, self._rng(step))
