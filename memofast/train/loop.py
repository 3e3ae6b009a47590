"""The training loop: draw an update, sum losses over all its targets, step, and now and then log, validate and save."""

from __future__ import annotations

import math
import signal
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from memofast import objectives
from memofast.data import Loader, MicroBatch, Update
from memofast.devices import autocast, device_of_rank, precision_on
from memofast.errors import MemofastError
from memofast.train import optimisation, validation
from memofast.train.captured_step import CapturedStep, can_be_captured
from memofast.train.checkpoints import Checkpoints
from memofast.train.metrics_log import MetricsLog, peak_memory
from memofast.train.plan import Plan, make_model
from memofast.train.processes import Processes
from memofast.train.progress import Progress
from memofast.train.signals import Stop
from memofast.train.state import State, environment
from memofast.train.step import Step
from memofast.train.tally import Sums, Tally, means
from memofast.train.validation import HeldOut, Scores


class Trainer:
    """One run, fresh or resumed from the newest checkpoint of its folder.

    Args: plan: what is trained on what; folder: of the run; processes: this rank among all.
    """

    def __init__(self, plan: Plan, folder: Path, processes: Processes):
        self.plan, self.folder, self.processes = plan, folder, processes
        self.options = plan.recipe.train
        self.device = device_of_rank(self.options.device, processes.local_rank)
        self.precision = precision_on(self.options.precision, self.device)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.environment = environment(self.device, self.precision, processes.world)
        self.model = make_model(plan).to(self.device).train()
        self.optimiser = optimisation.adamw(self.model, self.options)
        self.differences: list[str] = []
        self.state = self._restore()
        model = torch.compile(self.model, dynamic=True) if self.options.compile else self.model
        self.step = self._step(processes.wrap(model, self.device))
        self.held_out = [
            HeldOut(part.validation, part.checked, plan.validation_capacity, plan.recipe.validate_.samples)
            for part in plan.parts
        ]
        self._weights = {
            (part.corpus.name, name): part.corpus.weight * part.shares[name]
            for part in plan.parts
            for name in part.checked
        }
        self._keys = [(part.corpus.name, name) for part in plan.parts for name in plan.objectives]
        self._sums = Sums(self.state.sums)
        self._pending: list[_Done] = []
        self._busy = self._samples = self._rows = 0

    def run(self) -> State:
        """Train to the last update. Returns: the final state.

        Raises: `MemofastError` where a loss is not finite or a checkpoint cannot be written; `SystemExit` 130 or 143 after
            Ctrl-C or SIGTERM, with everything saved.
        """
        if self.state.step >= self.options.updates:
            return self.state
        self._trivial = self._score_trivial()
        self.log = MetricsLog(self.folder, self.state.step) if self.processes.first else None
        progress = Progress(self.options.updates, self.state.step, visible=self.processes.first)
        loader = self._loader()
        left = self.options.updates - self.state.step
        with Stop() as stop, progress, closing(self.step), closing(iter(loader)) as updates:
            mark = time.perf_counter()
            for update in islice(updates, left):
                self._update(update)
                self.state.step = step = update.step
                self.state.loader = loader.state_dict()
                self._busy += time.perf_counter() - mark
                stopped = self._agree(stop.number)
                last = step == self.options.updates
                if step % self.options.log_every == 0 or last:
                    progress.show(step, *self._log())
                if validated := step % self.plan.recipe.validate_.every == 0 or last:
                    self._validate()
                if validated or stopped or step % self.options.save_every == 0:
                    self._save()
                if stopped:
                    progress.say(f"stopped at update {step}, saved; continue with --resume {self.folder}")
                    raise SystemExit(128 + stopped)
                progress.advance(step)
                mark = time.perf_counter()
        return self.state

    def _step(self, model: nn.Module) -> Step:
        arguments = (model, self.optimiser, self.options.clip, self.precision, self.device)
        captured = self.options.graphs and self.device.type == "cuda"
        captured = captured and can_be_captured(self.plan.config, self.precision, self.device)
        optimisation.set_capturable(self.optimiser, self.device if captured else None)
        return CapturedStep(*arguments, self.plan.capacity) if captured else Step(*arguments)

    def _loader(self) -> Loader:
        processes = self.processes
        return self.plan.loader(self.device, rank=processes.rank, world=processes.world, state=self.state.loader)

    def _update(self, update: Update) -> None:
        """Gradients of the whole global batch, one step of the optimiser.

        Each objective is divided by its targets in all micro-batches of all ranks; DDP averages over ranks, hence the factor `world`.
        """
        counts, samples, rows = self._counts(update)
        tally = Tally(self._keys, self.plan.objectives, self.device)
        totals = []
        rng = torch.tensor([self.options.seed, update.step], dtype=torch.int64)
        for number, micro_batch in enumerate(update.micro_batches, 1):
            factors = {
                name: self._share(micro_batch, name) * self.processes.world / max(counts[name], 1)
                for name in micro_batch.extra.targets
            }
            last = number == len(update.micro_batches)
            total, losses = self.step.add_gradients(micro_batch.batch, micro_batch.extra, factors, rng, last)
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
        self.step.apply(optimisation.learning_rate(update.step, self.options))

    def _share(self, micro_batch: MicroBatch, name: str) -> float:
        """With one objective per update its mean is the loss; else the sum over objectives of share * mean."""
        return 1.0 if micro_batch.objective else self.plan.recipe.shares[name]

    def _counts(self, update: Update) -> tuple[dict[str, int], int, int]:
        """Targets by objective, samples and rows of the whole update, over all ranks."""
        names = list(self.plan.objectives)
        batches = [micro_batch.batch for micro_batch in update.micro_batches]
        local = [sum(m.extra.counts.get(name, 0) for m in update.micro_batches) for name in names]
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
                raise MemofastError(_not_finite(done, sums))
            self._sums.add(sums)
        self._pending.clear()
        if self.device.type != "cpu":
            self._busy += time.perf_counter() - began

    def _agree(self, number: int) -> int:
        """The signal that some rank received, 0 without one; the same on all ranks."""
        asked = self.processes.host_sum([int(number == signal.SIGINT), int(number == signal.SIGTERM)])
        return signal.SIGINT if asked[0] else signal.SIGTERM if asked[1] else 0

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

    def _score_trivial(self) -> dict[tuple[str, str], float]:
        config = self.plan.config
        widths = {m: w for m in ("visual", "speech") if (w := config.feature_width(m))}
        parts = {
            part.corpus.name: (
                held_out,
                validation.fit_trivial(part.train, self.plan.capacity, config.vocab_size, widths),
            )
            for part, held_out in zip(self.plan.parts, self.held_out, strict=True)
        }
        return validation.score_trivial(parts, self.plan.objectives, self.options.seed)

    def score(self) -> Scores:
        """The model on held-out data, all ranks together, beside the trivial predictors."""
        self.model.eval()
        tally = Tally(validation.keys(self.held_out), self.plan.objectives, self.device)
        with torch.no_grad(), autocast(self.precision, self.device):
            for part in self.held_out:
                for batch, corruption in part.corrupted(
                    self.plan.objectives, self.options.seed, self.processes.rank, self.processes.world
                ):
                    batch, corruption = batch.to(self.device), corruption.to(self.device)
                    tally.add(part.corpus, objectives.losses(self.model, batch, corruption, None))
        self.model.train()
        self.processes.sum_(tally.values)
        scores = means(tally.sums())
        return {key: {**values, "trivial": self._trivial[key]} for key, values in scores.items()}

    def _validate(self) -> None:
        self._settle()
        scores = self.score()
        if self.log:
            for (corpus, objective), values in scores.items():
                split = self.plan.recipe.validate_.split
                self.log.write(step=self.state.step, split=split, corpus=corpus, objective=objective, **values)
        if scores:
            self.state.consider(scores, validation.relative_loss(scores, self._weights))

    def _save(self) -> None:
        self._settle()
        self.state.sums = self._sums.state()
        if self.log:
            self.log.sync()
            trainer = {**self.state.to_json(), "environment": self.environment}
            self.checkpoints.save(self.state.step, self.model, self.optimiser, trainer)
        self.processes.wait()

    def _restore(self) -> State:
        steps = self.checkpoints.steps()
        if not steps:
            return State()
        saved = self.checkpoints.load(steps[-1], self.model, self.optimiser)
        self.differences = [
            f"{name} was {saved['environment'].get(name)}, is {value}"
            for name, value in self.environment.items()
            if saved["environment"].get(name) != value
        ]
        return State.from_json(saved)


@dataclass
class _Done:
    """What is left to look at of an update: not its batches, whose page-locked memory the next ones need. ids: of each micro-batch's samples."""

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
    return f"{what} is not finite at update {done.step}, samples {shown}; check these samples, or resume with a lower train.lr"
