"""The one trainer: draw an update, sum losses over all its targets, step, and now and then log, validate and save."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memofast.cpu import cores
from memofast.data import Draw, Loader, MicroBatch, Update, View
from memofast.data.view import pinned
from memofast.devices import device_of_rank, precision_on
from memofast.errors import MemofastError
from memofast.train import optimisation
from memofast.train.captured_step import CapturedStep
from memofast.train.checkpoints import Checkpoints
from memofast.train.metrics_log import MetricsLog, peak_memory
from memofast.train.processes import Processes, local_world
from memofast.train.progress import Progress
from memofast.train.signals import STOPPING, Stop
from memofast.train.state import State, changes, environment
from memofast.train.step import Step
from memofast.train.tally import Sums, Tally
from memofast.train.task import Task, Verdict
from memofast.train.tracking import Tracker, library_of, open_tracker
from memofast.train.weights import FrozenWeights


class Diverged(MemofastError):
    """A loss or gradient that is not finite."""


_MOST_THREADS = 4  # of the loader, where the recipe does not say


class Trainer:
    """One run of a task, fresh or resumed from the newest checkpoint of its folder.

    Args: task: what is trained; folder: of the run; processes: this rank among all; go_on: what to do after a stop, for
        people; recipe: plain values, to tell a resumed run what changed; runs: folder that holds the run, None: that
        which the folder lies in.
    Raises: `MemofastError` where the newest checkpoint is damaged, or does not fit the task; the folder stays as it is.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        processes: Processes,
        go_on: str = "",
        recipe: dict[str, Any] | None = None,
        runs: Path | None = None,
    ):
        self.task, self.folder, self.processes = task, folder, processes
        self.options, self.go_on = task.options, go_on or f"continue with --resume {folder}"
        self.device = device_of_rank(self.options.device, processes.local_rank)
        self.precision = precision_on(self.options.precision, self.device)
        self.frozen = FrozenWeights(runs or folder.parent, self.options.frozen_weights)
        self.checkpoints = Checkpoints(folder / "checkpoints", self.go_on, task.vocabulary, task.features, self.frozen)
        self.environment = environment(self.device, self.precision, processes.world)
        self.recipe = recipe
        self.learner = task.learner().to(self.device).train()
        self.optimiser = optimisation.adamw(self.learner, self.options)
        self.differences: list[str] = []
        self.state = self._restore()
        self.step = self._step()
        self.loader = self._loader()
        self._begun = False
        self._sums = Sums(self.state.sums)
        self._pending: list[_Done] = []
        self._busy = self._samples = self._rows = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state.step >= self.options.updates or self._tired()

    def begin(self) -> None:
        """Look at everything that may refuse to train, so that what is written afterwards is of a run that goes on."""
        if not self._begun and not self.finished:
            if self.options.track:
                library_of(self.options.track)
            self.task.begin()
            self._begun = True

    def run(self) -> State:
        """Train to the last update, or until validation stops. Returns: the final state.

        Raises: `MemofastError` where a loss is not finite or a checkpoint cannot be written; `SystemExit` 130 or 143
            after Ctrl-C or SIGTERM, with everything saved.
        """
        if self.processes.first:
            self.checkpoints.sweep(self.state.best)
        if self.finished:
            return self.state
        self.begin()
        self.log = MetricsLog(self.folder, self.state.step, self._tracker()) if self.processes.first else None
        progress = Progress(self.options.updates, self.state.step, visible=self.processes.first, name=self.task.title)
        left = self.options.updates - self.state.step
        if self.log and self.log.said:
            progress.say(f"warning: {self.log.said}")
        if self.differences:
            changed = "; ".join(self.differences)
            progress.say(f"warning: {changed}; the run will not repeat an uninterrupted one bit for bit")
        with Stop() as stop, progress, closing(self.step), closing(iter(self.loader)) as updates:
            mark = time.perf_counter()
            for update in islice(updates, left):
                self.update(update)
                self.state.step = step = update.step
                self.state.loader = self.loader.state_dict()
                self._busy += time.perf_counter() - mark
                stopped = self._agree(stop.number)
                last = step == self.options.updates
                if step % self.options.log_every == 0 or last:
                    progress.show(step, *self._log())
                if validated := step % self.task.every == 0 or last:
                    self._validate(progress)
                if validated or stopped or step % self.options.save_every == 0:
                    self._save()
                if stopped:
                    progress.say(f"stopped at update {step}, saved; {self.go_on}")
                    raise SystemExit(128 + stopped)
                progress.advance(step)
                if self._tired():
                    progress.say(f"no better validation in {self.state.stale}; stopped at update {step}")
                    break
                mark = time.perf_counter()
        if self.log:
            self.log.close()
        return self.state

    def _tracker(self) -> Tracker | None:
        track = self.options.track
        return open_tracker(track, self.folder, self.recipe) if track else None

    def _tired(self) -> bool:
        return self.task.patience is not None and self.state.stale >= self.task.patience

    def keep_best(self) -> None:
        """Bring the learner to its best checkpoint, in evaluation mode."""
        if self.state.best is None:
            raise MemofastError(f"{self.folder}: its best checkpoint is gone; remove the folder to repeat this run")
        self.checkpoints.load(self.state.best, self.learner, self.optimiser)
        self.learner.eval()

    def _step(self) -> Step:
        learner = self.learner
        if self.options.compile:
            learner = copy(learner)
            learner._modules = learner._modules | {"model": torch.compile(learner.model, dynamic=True)}
        arguments = (
            self.processes.wrap(learner, self.device, self.task.partial),
            self.optimiser,
            self.options.clip,
            self.precision,
            self.device,
        )
        captured = self.options.graphs and self.device.type == "cuda"
        captured = captured and self.task.capturable(self.precision, self.device)
        # ranks tell one another on the host which parameters an update reached, and how many rows they gather, which a
        # capture forbids
        gathers = any(objective.gathers for objective in self.task.objectives.values())
        captured = captured and not ((self.task.partial or gathers) and self.processes.world > 1)
        optimisation.set_capturable(self.optimiser, self.device if captured else None)
        return CapturedStep(*arguments, self.task.capacity, self.task.objectives) if captured else Step(*arguments)

    def _loader(self) -> Loader:
        """Micro-batches of this rank with their views, ahead of the device: on a GPU in page-locked memory, by several
        threads."""
        options, processes, on_gpu = self.options, self.processes, self.device.type == "cuda"
        threads = options.loader_threads or (min(_MOST_THREADS, cores() // local_world() or 1) if on_gpu else 1)
        return Loader(
            self.task.streams(),
            capacity=self.task.capacity,
            seed=options.seed,
            micro_batches=options.accumulate * processes.world,
            rank=processes.rank,
            world=processes.world,
            mixing=options.mixing,
            work=_PageLocked(self.task) if on_gpu else self.task,
            prefetch=1 + threads,
            threads=threads,
            pin=on_gpu,
            state=self.state.loader,
        )

    def update(self, update: Update) -> None:
        """Gradients of the whole global batch, one step of the optimiser.

        Each objective is divided by its targets in all micro-batches of all ranks; DDP averages over ranks, hence the
        factor `world`.
        """
        counts, samples, rows = self._counts(update)
        tally = Tally(self.task.keys, self.task.objectives, self.device)
        totals = []
        rng = torch.tensor([self.options.seed, update.step], dtype=torch.int64)
        for number, micro_batch in enumerate(update.micro_batches, 1):
            factors = {
                name: self.task.share(micro_batch, name) * self.processes.world / max(counts[name], 1)
                for name in micro_batch.views[0].readers
            }
            last = number == len(update.micro_batches)
            total, losses = self.step.add_gradients(micro_batch.views, factors, rng, last)
            tally.add(micro_batch.corpus, losses)
            totals.append(total)
        norm = self.step.clip()
        self.processes.sum_(tally.values)
        ids = [micro_batch.batch.ids or [] for micro_batch in update.micro_batches]
        self._pending.append(_Done(update.step, ids, totals, tally, norm))
        self._samples += samples
        self._rows += rows
        if self.device.type == "cpu":
            self._settle()
        self.step.apply(partial(optimisation.learning_rate, update.step, self.options))

    def _counts(self, update: Update) -> tuple[dict[str, int], int, int]:
        """Targets by objective, samples and rows of the whole update, over all ranks."""
        names = list(self.task.objectives)
        batches = [micro_batch.batch for micro_batch in update.micro_batches]
        local = [sum(m.views[0].counts.get(name, 0) for m in update.micro_batches) for name in names]
        local += [sum(batch.samples for batch in batches), sum(batch.rows for batch in batches)]
        *counts, samples, rows = self.processes.host_sum(local)
        return dict(zip(names, counts, strict=True)), samples, rows

    def _settle(self) -> None:
        """Look at the numbers of updates done: add them up, refuse what is not finite.

        On a GPU this waits for it, so it is rare, and the wait counts as the updates' own time.
        """
        began = time.perf_counter()
        for done in self._pending:
            sums = done.tally.sums()
            self.norm = float(done.norm)
            if not all(math.isfinite(values["loss"]) for values in sums.values()) or not math.isfinite(self.norm):
                raise Diverged(_not_finite(done, sums))
            self._sums.add(sums)
        self._pending.clear()
        if self.device.type != "cpu":
            self._busy += time.perf_counter() - began

    def _agree(self, number: int) -> int:
        """The signal that some rank received, 0 without one; the same on all ranks."""
        asked = self.processes.host_sum([int(number == one) for one in STOPPING])
        return next((one for one, ranks in zip(STOPPING, asked, strict=True) if ranks), 0)

    def _log(self) -> tuple[float, float, float]:
        """Returns: mean loss over targets of all objectives, samples per second, GiB at most."""
        self._settle()
        rate = optimisation.learning_rate(self.state.step, self.options)
        speed = {
            "samples_per_s": round(self._samples / self._busy, 2),
            "rows_per_s": round(self._rows / self._busy, 1),
            "peak_memory_gib": round(peak_memory(self.device), 3),
        }
        taken = self._sums.take()
        if self.log:
            for (corpus, objective), values in taken.items():
                self.log.write(
                    step=self.state.step, split="train", corpus=corpus, objective=objective, **values,
                    grad_norm=self.norm, lr=rate, **speed,
                )  # fmt: skip
        self.state.seconds += self._busy
        self._busy = self._samples = self._rows = 0
        targets = sum(values["targets"] for values in taken.values())
        loss = sum(v["loss"] * v["targets"] for v in taken.values()) / max(targets, 1)
        return loss, speed["samples_per_s"], speed["peak_memory_gib"]

    def validate(self) -> Verdict | None:
        """What the task's validation finds, all ranks together."""
        self.learner.eval()
        verdict = self.task.validate(self.learner, self.precision, self.device, self.processes)
        self.learner.train()
        return verdict

    def _validate(self, progress: Progress) -> None:
        self._settle()
        verdict = self.validate()
        if verdict is None:
            self.state.best = self.state.step
            return
        if self.log:
            for (corpus, objective), values in verdict.scores.items():
                self.log.write(
                    step=self.state.step, split=self.task.split, corpus=corpus, objective=objective, **values
                )
        better = self.state.consider(verdict.scores, verdict.value)
        if verdict.said:
            progress.say(f"validation: {verdict.said}{' (best)' if better else ''}")

    def _save(self) -> None:
        self._settle()
        self.state.sums = self._sums.state()
        if self.log:
            self.log.sync()
            trainer = {**self.state.to_json(), "environment": self.environment, "recipe": self.recipe}
            self.checkpoints.save(self.state.step, self.learner, self.optimiser, trainer)
        self.processes.wait()

    def _restore(self) -> State:
        steps = self.checkpoints.steps()
        if not steps:
            return State()
        saved = self.checkpoints.load(steps[-1], self.learner, self.optimiser, whole=not self.task.partial)
        before = saved["environment"]
        self.differences = [
            f"{name} was {before.get(name, 'not noted')}, is {value}"
            for name, value in self.environment.items()
            if before.get(name) != value
        ]
        if self.recipe is not None and saved.get("recipe") is not None:
            self.differences += changes(saved["recipe"], self.recipe)
        if saved["best"] is not None and saved["best"] not in steps:  # as where people went back by a checkpoint
            self.differences.append(f"the best checkpoint so far, of update {saved['best']}, is gone")
            saved |= {"best": None, "best_value": None, "best_scores": []}
        return State.from_json(saved)


class _PageLocked:
    """A task's work in the loader's threads, whose results are copied to a GPU without waiting."""

    def __init__(self, task: Task):
        self._task = task

    def places(self, draw: Draw, step: int) -> Mapping[str, np.ndarray] | None:
        return self._task.places(draw, step)

    def views(self, micro_batch: MicroBatch, step: int) -> list[View]:
        return pinned(self._task.views(micro_batch, step))


@dataclass
class _Done:
    """What is left to look at of an update: not its batches, whose page-locked memory the next ones need. ids: of each
    micro-batch's samples."""

    step: int
    ids: list[list[str]]
    totals: list[Tensor]
    tally: Tally
    norm: Tensor


def _not_finite(done: _Done, sums: dict) -> str:
    bad = [objective for (_, objective), values in sums.items() if not math.isfinite(values["loss"])]
    guilty = [ids for ids, total in zip(done.ids, done.totals, strict=True) if not math.isfinite(float(total))]
    ids = [id for own in guilty or done.ids for id in own]
    shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    what = f"loss of {', '.join(sorted(set(bad)))}" if bad else f"gradient of {', '.join(sorted({o for _, o in sums}))}"
    return (
        f"{what} is not finite at update {done.step}, samples {shown}; check these samples, or lower the learning rate"
    )
