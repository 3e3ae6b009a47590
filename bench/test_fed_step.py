"""A whole update step fed by the loader from disk, against the same step on batches that lie ready.

Rules: masked words of the recipe memobert-base, its model from random weights, batches of MEmoBERT-like samples out of
stores on disk. `ours` takes its next batch from the loader, which packs and masks ahead in its own threads; `ready`
goes round eight batches that were taken before. On a GPU both replay the step from CUDA graphs. `loader_samples_per_s`
is what the loader gives to somebody who does nothing with it. Time is wall time with the device idle at the end of a
step; a call's time, on a GPU, is the host's until the step returns.
"""

import itertools
import time
from contextlib import closing

import pytest
import random_corpus
import torch
from contests import RANGES
from gpu_timing import until_idle

from memofast.data import Update
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.recipe import read
from memofast.train.trainer import Trainer

PIECES = tuple(rows - 2 for rows in RANGES["text"])  # without [CLS] and [SEP]
READY, ALONE = 8, 24  # batches


def trainer_for(folder, samples: int, corpus: int, device: str) -> Trainer:
    """What a run of the recipe would train with; its loader and step are measured."""
    random_corpus.write(
        folder, random_corpus.draw(corpus, PIECES, RANGES["visual"], RANGES["speech"]), held_out=samples
    )
    changed = (f"corpora.0.path={folder}", f"train.samples={samples}", "train.accumulate=1", f"train.device={device}")
    recipe = read("memobert-base", changed)
    plan = make_plan(recipe.model_copy(update={"objectives": {"whole_word_mlm": None}}))
    return Trainer(PreTraining(plan), folder / "run", Processes())


def alone(trainer: Trainer) -> float:
    """Samples per second of the loader that nobody holds up."""
    with closing(iter(trainer._loader())) as updates:
        next(updates)
        start = time.perf_counter()
        samples = sum(update.micro_batches[0].batch.samples for update in itertools.islice(updates, ALONE))
        return samples / (time.perf_counter() - start)


def contest(side_by_side, until_returned, benchmark, trainer: Trainer, device: str, rounds: int) -> None:
    step = trainer.step

    def take(update: Update) -> None:
        (micro_batch,) = update.micro_batches
        factors = {name: 1 / max(count, 1) for name, count in micro_batch.views[0].counts.items()}
        step.add_gradients(micro_batch.views, factors, torch.tensor([1, update.step]), True)
        step.clip()
        step.apply(lambda _: 1e-6)

    rate = alone(trainer)
    with closing(iter(trainer._loader())) as updates:
        ready = itertools.cycle(list(itertools.islice(updates, READY)))
        samples = trainer.options.samples
        steps = {"ours": lambda: take(next(updates)), "ready": lambda: take(next(ready))}
        waiting = {name: until_idle(run) if device == "cuda" else run for name, run in steps.items()}
        side_by_side(
            waiting.pop("ours"),
            waiting,
            rounds=rounds,
            beside=("ready",),
            samples=samples,
            loader_samples_per_s=round(rate),
        )
        if device == "cuda":
            until_returned(steps)
    seconds = benchmark.extra_info["seconds"]["ours"]["median"]
    benchmark.extra_info["facts"]["loader_over_step"] = round(rate * seconds / samples, 2)
    if device == "cuda":
        benchmark.extra_info["device"] = "gpu"


def test_fed_step(side_by_side, until_returned, benchmark, tmp_path):
    contest(side_by_side, until_returned, benchmark, trainer_for(tmp_path, 32, 512, "cpu"), "cpu", rounds=4)


@pytest.mark.gpu
@pytest.mark.parametrize("samples", [64, 256])
def test_gpu_fed_step(side_by_side, until_returned, benchmark, tmp_path, samples):
    contest(side_by_side, until_returned, benchmark, trainer_for(tmp_path, samples, 4096, "cuda"), "cuda", rounds=60)
