"""How much the dialogue tells beside an utterance's own vector: a recurrence over the vectors of MELD's utterances, as
bc-LSTM and its successors have it, against a head on the vector alone: `python bench/meld_recurrence.py CORPUS MODEL
--out FOLDER`.

CORPUS, MODEL, FOLDER: as of `bench/meld_conversations.py`, whose runs of utterances alone make the vectors, so that it
comes first. Both heads are trained on them with the same settings; the best of their epochs is chosen on a tenth of the
training dialogues and told on dev, which chooses nothing. The recurrence is causal: it reads the vectors of earlier
utterances of the dialogue, and whether the one before had the same speaker.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from meld_conversations import ALONE, FIRST, METRIC, OWN, table
from meld_text import plan_of
from rich.console import Console
from torch import Tensor, nn

from memofast.data import Corpus, Split
from memofast.data.folds import read_groups
from memofast.evaluate.section import print_section
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import represented_split
from memofast.metrics.predictions import Predictions
from memofast.metrics.sample_statistics import metrics_of
from memofast.model.families import open_emotion_model

WIDTH, DROPOUT, RATE, DECAY, EPOCHS, DIALOGUES = 128, 0.4, 1e-3, 0.01, 10, 8
SPEAKERS = 3  # before: nobody, the same, another


class Head(nn.Module):
    """Classes of the utterances of one dialogue from their vectors; recurrent: also from a GRU over those so far."""

    def __init__(self, width: int, classes: int, recurrent: bool):
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.speaker = nn.Embedding(SPEAKERS, width) if recurrent else None
        self.recurrence = nn.GRU(width, WIDTH, batch_first=True) if recurrent else None
        self.output = nn.Linear(width + WIDTH * recurrent, classes)

    def forward(self, vectors: Tensor, before: Tensor) -> Tensor:
        own = self.dropout(vectors)
        if self.recurrence is None:
            return self.output(own)
        told, _ = self.recurrence((own + self.speaker(before))[None])
        return self.output(torch.cat((own, self.dropout(told[0])), 1))


def dialogues_of(model, split: Split, target, groups: dict[str, dict[str, str]]) -> list[dict]:
    """By dialogue the utterances in their order: ids, vectors, classes and who spoke before."""
    split = as_read(model, split)
    with torch.inference_mode():
        _, classes, vectors = represented_split(model, split, np.arange(len(split)), target.within(split.corpus))
    found: dict[str, list[int]] = {}
    for place in sorted(range(len(split)), key=lambda place: int(groups["position"][split.ids[place]])):
        found.setdefault(groups["dialogue"][split.ids[place]], []).append(place)
    return [
        {"ids": [split.ids[place] for place in places], "vectors": vectors[places].clone(),
         "classes": classes[places].clone(), "before": _before([groups["speaker"][split.ids[p]] for p in places])}
        for places in found.values()
    ]  # fmt: skip


def _before(speakers: list[str]) -> Tensor:
    return torch.tensor([0, *(1 + (one != other) for one, other in zip(speakers[1:], speakers[:-1], strict=True))])


@torch.inference_mode()
def said(head: Head, dialogues: list[dict], classes: tuple[str, ...]) -> Predictions:
    head.eval()
    scores = torch.cat([head(one["vectors"], one["before"]).softmax(1) for one in dialogues])
    truth = torch.cat([one["classes"] for one in dialogues])
    return Predictions(
        "single", tuple(id for one in dialogues for id in one["ids"]), truth.numpy(), scores.numpy(), classes
    )


def trained(parts: list[list[dict]], classes: tuple[str, ...], recurrent: bool, seed: int) -> tuple[float, Predictions]:
    """Score on validation, and what is said of dev. parts: dialogues to train on, to choose on and of dev."""
    torch.manual_seed(seed)
    train, validation, dev = parts
    head = Head(train[0]["vectors"].shape[1], len(classes), recurrent)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=DECAY)
    best = None
    for _ in range(EPOCHS):
        head.train()
        for chosen in torch.randperm(len(train)).split(DIALOGUES):
            some = [train[place] for place in chosen]
            logits = torch.cat([head(one["vectors"], one["before"]) for one in some])
            F.cross_entropy(logits, torch.cat([one["classes"] for one in some])).backward()
            optimiser.step()
            optimiser.zero_grad()
        score = metrics_of(said(head, validation, classes))[METRIC]
        if best is None or score > best[0]:
            best = score, said(head, dev, classes)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs of bench/meld_conversations.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    asked = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    corpus = Corpus.open(asked.corpus)
    groups = {name: read_groups(corpus, name) for name in ("dialogue", "position", "speaker")}
    found: dict[str, dict[int, Predictions]] = {"head on the vector alone": {}, "recurrence over the dialogue": {}}
    for seed in asked.seeds:
        plan = plan_of(asked.corpus, asked.model, seed, FIRST, "train.threads=1", OWN)
        model = open_emotion_model(asked.out / f"{ALONE}-{seed}".replace(" ", "-") / "model")
        fold, classes = plan.folds[0], plan.target.classes
        parts = [dialogues_of(model, part, plan.target, groups) for part in (fold.train, fold.validation, fold.test)]
        for recurrent, (name, by_seed) in enumerate(found.items()):
            score, by_seed[seed] = trained(parts, classes, bool(recurrent), seed)
            console.print(f"{name}, seed {seed}: {metrics_of(by_seed[seed])[METRIC]:.4f}, validation {score:.4f}")
    print_section(table(found, groups["dialogue"]), console)


if __name__ == "__main__":
    main()
