"""What a row costs in update steps of other objectives than the published four.

Rules: the recipe memobert-mini, its model from random weights; MEmoBERT-like samples out of stores on disk that have
whatever an objective reads; every sample of an update has an objective of its own, as the recipe says. `ours` is the
recipe joined with a fragment, or with an option or two; `published four` is the recipe alone. A step is forward,
backward, clipping and AdamW over views that were drawn before, of about as many rows on either side; a row counts in
each view that it stands in. `cost of a row` is ours over that of the published four, round by round: at most 1.1 is
aimed at. Time is wall time.
"""

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from contests import RANGES

from memofast.data import Loader, MicroBatch, write_corpus
from memofast.store import FeatureWriter, TextWriter
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.recipe import read
from memofast.train.recipe_file import fragments
from memofast.train.trainer import Trainer

CLASSES = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
SAMPLES, UPDATES, CORPUS, HELD_OUT, SEED, ROUNDS = 32, 1, 512, 64, 5, 9
FOUR = "published four"
VISUAL, SPEECH, VOCABULARY = 342, 768, (999, 30522)
WORDS = "words={" + ", ".join(f"{name}: {2000 + number}" for number, name in enumerate(CLASSES)) + "}"
CASES = ("lva", "lv", "la", "l", "va", "v", "a")
# what a fragment needs beside itself, and what is no fragment
FURTHER = {
    "lare": ["objectives.lare.sentence_classes=8"],
    "sentence-prompts": [f"objectives.sentence_prompt.{WORDS}"],
    "prompts": [f"objectives.prompt_{case}.{WORDS}" for case in CASES],
}
OPTIONS = {
    "classes of emotion words": (["emotion-words"], ["objectives.emotion_words.emotion_rate=1"]),
    "cosine and l1": (
        [], ["objectives.span_visual_regression.loss=cosine", "objectives.span_speech_regression.loss=l1"],
    ),
    "original order": (["order"], ["objectives.visual_order.original=true", "objectives.speech_order.original=true"]),
    "own labels": (["emotions"], ["objectives.utterance_emotion.targets=label"]),
    "hard negatives": (["matching"], ["objectives.matching.candidates=8"]),
}  # fmt: skip
MIXTURES = {name: ([name], FURTHER.get(name, [])) for name in fragments()} | OPTIONS


def write(folder: Path) -> Path:
    """A corpus of random numbers with all columns that there are."""
    random = np.random.default_rng(1)
    ids = [f"film_{number}" for number in range(CORPUS)]
    with (
        TextWriter(
            folder / "text", classes=CLASSES, emotions=CLASSES, lexicon_classes=CLASSES[1:7], with_parts_of_speech=True
        ) as text,
        FeatureWriter(folder / "visual", VISUAL, columns=("soft_labels",), classes=CLASSES) as visual,
        FeatureWriter(folder / "speech", SPEECH) as speech,
    ):
        for id in ids:
            pieces, faces, sound = (int(random.integers(low, high + 1)) for low, high in RANGES.values())
            pieces -= 2  # [CLS] and [SEP]
            text.put(
                id, random.integers(*VOCABULARY, pieces), np.arange(pieces) * 4 // 5,
                lexicon=np.where(random.random(pieces) < 0.3, random.integers(0, 6, pieces), -1),
                part_of_speech=random.integers(0, 5, pieces), polarity=random.integers(0, 3, pieces),
                utf8="word", label=int(random.integers(len(CLASSES))), emotions=random.dirichlet(np.ones(len(CLASSES))),
            )  # fmt: skip
            labels = random.dirichlet(np.ones(len(CLASSES)), faces)
            visual.put(id, random.standard_normal((faces, VISUAL), np.float32), soft_labels=labels)
            speech.put(id, random.standard_normal((sound, SPEECH), np.float32))
    stores = {modality: folder / modality for modality in RANGES}
    write_corpus(folder, "film", stores, {"train": ids[HELD_OUT:], "validation": ids[:HELD_OUT]})
    return folder


class Side:
    """A recipe's trainer and the first updates of a run, for steps of as many rows as asked for."""

    def __init__(self, corpus: Path, names: Sequence[str], options: Sequence[str], rows: int | None = None):
        self.task, self.updates = _drawn(corpus, names, options, SAMPLES)
        if rows is not None:
            self.task, self.updates = _drawn(corpus, names, options, round(SAMPLES * rows / self.rows))
        self.trainer = Trainer(self.task, corpus / "run", Processes())

    @property
    def rows(self) -> int:
        return sum(view.batch.rows for update in self.updates for view in update.views)

    @property
    def reads(self) -> int:
        return sum(read.count for update in self.updates for view in update.views for read in view.reads.values())

    def run(self) -> None:
        """One step for each update."""
        step = self.trainer.step
        for number, update in enumerate(self.updates, 1):
            counts = update.views[0].counts
            factors = {name: self.task.share(update, name) / max(counts[name], 1) for name in update.views[0].readers}
            step.add_gradients(update.views, factors, torch.tensor([SEED, number]), True)
            step.clip()
            step.apply(lambda _: 1e-6)

    def drawing(self) -> float:
        """Seconds that a loader's thread takes for partners, masks and further views of a row."""
        start = time.perf_counter()
        for number, update in enumerate(self.updates, 1):
            self.task.places(update.draw, number)
            self.task.views(replace(update, batch=replace(update.batch)), number)
        return (time.perf_counter() - start) / self.rows


def _drawn(
    corpus: Path, names: Sequence[str], options: Sequence[str], samples: int
) -> tuple[PreTraining, list[MicroBatch]]:
    own = [f"corpora.0.path={corpus}", f"train.samples={samples}", f"train.seed={SEED}", "train.device=cpu"]
    task = PreTraining(make_plan(read(["memobert-mini", *names], [*options, *own, "train.accumulate=1"])))
    loader = Loader(task.streams(), capacity=task.capacity, seed=SEED, mixing=task.options.mixing, work=task)
    with closing(iter(loader)) as updates:
        return task, [update.micro_batches[0] for update in islice(updates, UPDATES)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write(tmp_path_factory.mktemp("film"))


@pytest.fixture(scope="module")
def four(corpus):
    return Side(corpus, [], [])


@pytest.mark.parametrize("mixture", MIXTURES)
def test_row(side_by_side, benchmark, corpus, four, mixture):
    ours = Side(corpus, *MIXTURES[mixture], rows=four.rows)
    ratios = side_by_side(ours.run, {FOUR: four.run}, rounds=ROUNDS, beside=(FOUR,))[FOUR]
    more = four.rows / ours.rows  # a row's time is that of the step over the rows
    cost = {name: more / ratios[other] for name, other in (("median", "median"), ("p20", "p80"), ("p80", "p20"))}
    drawing = {
        name: statistics.median(side.drawing() for _ in range(ROUNDS)) for name, side in (("ours", ours), (FOUR, four))
    }
    benchmark.extra_info["facts"] = {
        "rows": ours.rows, "reads": ours.reads, "rows of the four": four.rows, "reads of the four": four.reads,
        "cost of a row": {name: round(value, 3) for name, value in cost.items()}, "aimed at": 1.1,
        "us of drawing a row": {name: round(1e6 * seconds, 2) for name, seconds in drawing.items()},
    }  # fmt: skip
