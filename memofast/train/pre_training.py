"""Pre-training as a task of the trainer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from memofast import objectives
from memofast.data import Draw, MicroBatch, Stream, View
from memofast.data.view import moved
from memofast.devices import autocast
from memofast.objectives import Learner
from memofast.prepare.text.vocabulary import vocabulary_of
from memofast.train import validation
from memofast.train.plan import Plan, make_model
from memofast.train.processes import Processes
from memofast.train.tally import Key, Tally, means
from memofast.train.task import Scores, Verdict
from memofast.train.validation import HeldOut


class PreTraining:
    """The objectives of a plan over its corpora; see `Task`."""

    title = "pretrain"
    patience = None
    partial = False

    def __init__(self, plan: Plan):
        self.plan, self.options = plan, plan.recipe.train
        self.every, self.split = plan.recipe.validate_.every, plan.recipe.validate_.split
        self.capacity, self.objectives, self.features = plan.capacity, plan.objectives, plan.features
        self.keys = [(part.corpus.name, name) for part in plan.parts for name in plan.objectives]
        self.held_out = [
            HeldOut(part.validation, part.checked, plan.validation_capacity, plan.recipe.validate_.samples)
            for part in plan.parts
        ]
        self._parts = {part.corpus.name: part for part in plan.parts}
        self.vocabulary = vocabulary_of([part.corpus for part in plan.parts], plan.recipe.model.init)
        self._trivial: dict[Key, float] = {}
        self._weights = {
            (part.corpus.name, name): part.corpus.weight * part.shares[name]
            for part in plan.parts
            for name in part.checked
        }

    def learner(self) -> Learner:
        return Learner(make_model(self.plan), self.objectives)

    def streams(self) -> list[Stream]:
        return self.plan.streams()

    def places(self, draw: Draw, step: int) -> Mapping[str, np.ndarray] | None:
        stream = draw.stream
        asking = self._asking(stream)
        if not asking:
            return None
        return objectives.places_of(
            {name: selected for name, selected in self._chosen(draw, step).items() if name in asking},
            self.objectives,
            stream.split,
            stream.chosen,
            draw.indices,
            self.options.seed,
            draw.epoch,
        )

    def _asking(self, stream: Stream) -> set[str]:
        """The objectives of a stream whose samples do not simply show what they have."""
        names = self._parts[stream.name].shares if stream.objective is None else [stream.objective]
        return {name for name in names if self.objectives[name].partners or self.objectives[name].hides}

    def views(self, micro_batch: MicroBatch, step: int) -> list[View]:
        chosen = self._chosen(micro_batch.draw, step)
        return objectives.views_of(micro_batch.batch, self.objectives, chosen, self._rng(step))

    def _chosen(self, draw: Draw, step: int) -> dict[str, torch.Tensor]:
        """The samples of each objective: all that the one of the stream can serve, or those drawn for it."""
        stream, indices = draw.stream, draw.indices
        served = self._parts[stream.name].served
        if stream.objective is not None:
            return {stream.objective: torch.from_numpy(served[stream.objective][indices])}
        able = np.stack([served[name][indices] for name in self.objectives], axis=1)
        keys = torch.from_numpy(stream.split.keys[indices])
        shares = self._parts[stream.name].shares
        assignment = objectives.assign(able, keys, self.objectives, shares, self._rng(step))
        return objectives.chosen_by(assignment, self.objectives)

    def _rng(self, step: int) -> torch.Tensor:
        return torch.tensor([self.options.seed, step], dtype=torch.int64)

    def share(self, micro_batch: MicroBatch, name: str) -> float:
        """With one objective per update its mean is the loss; else the sum over objectives of share * mean."""
        return 1.0 if micro_batch.objective else self.plan.recipe.shares[name]

    def begin(self) -> None:
        plan = self.plan
        fitted = {
            part.corpus.name: validation.fit_statistics(
                part.train, plan.capacity, plan.config.vocab_size, plan.feature_widths
            )
            for part in plan.parts
        }
        parts = [(held_out, fitted[held_out.corpus]) for held_out in self.held_out]
        self._trivial = validation.score_trivial(parts, self.objectives, self.options.seed)

    def validate(self, learner: Learner, precision: str, device: torch.device, processes: Processes) -> Verdict | None:
        """The model on held-out data beside the trivial predictors; their mean ratio chooses."""
        tally = Tally(validation.keys(self.held_out), self.objectives, device)
        rng = objectives.validation_rng(self.options.seed).to(device)
        with torch.no_grad(), autocast(precision, device):
            for part in self.held_out:
                for views in part.views(self.objectives, self.options.seed, processes.rank, processes.world):
                    learner.train(any(self.objectives[name].by_dropout for name in views[0].readers))
                    tally.add(part.corpus, learner(moved(views, device), rng if learner.training else None))
        learner.eval()
        processes.sum_(tally.values)
        scores: Scores = {
            key: values | ({"trivial": self._trivial[key]} if key in self._trivial else {})
            for key, values in means(tally.sums()).items()
        }
        return Verdict(scores, validation.relative_loss(scores, self._weights)) if scores else None

    def capturable(self, precision: str, device: torch.device) -> bool:
        return self.plan.family.capturable(self.plan.config, precision, device)
