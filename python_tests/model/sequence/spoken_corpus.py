"""A small corpus of sentences with faces and speech whose values are to be learnt, a BERT for it, and fine-tuning."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tiny_models import save_bert
from torch import nn

from memofast.data import Split, Stream, write_corpus
from memofast.model.families import FAMILIES
from memofast.model.sequence.family import start
from memofast.model.sequence.section import SequenceSection
from memofast.sections import checked
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import Tuning

WORDS = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijkl"]
WIDTHS = {"visual": 7, "speech": 5}


def spoken_corpus(folder: Path, aligned: bool = False):
    """30 samples, 20 to train on, 10 to choose by; the first column of faces and one word tell the value, from -3 to 3;
    every fifth lacks speech. aligned: a row for each word piece."""
    random, ids = np.random.default_rng(2), [f"s{number:02}" for number in range(30)]
    with ExitStack() as opened:
        text = opened.enter_context(TextWriter(folder / "text", value="from -3 to 3"))
        stores = {name: opened.enter_context(FeatureWriter(folder / name, width)) for name, width in WIDTHS.items()}
        for number, id in enumerate(ids):
            words, value = 1 + number % 5, float(number % 7 - 3)
            text.put(id, [104 + (value > 0), *random.integers(106, 116, words - 1)], range(words), value=value)
            for name, store in stores.items():
                if name == "visual" or number % 5:
                    rows = random.normal(0, 0.3, (words + 2 if aligned else 2 + number % 4, WIDTHS[name]))
                    rows[:, 0] += value / 2
                    store.put(id, rows)
    places = {name: folder / name for name in ("text", *WIDTHS)}
    return write_corpus(folder, "spoken", places, {"train": ids[:20], "validation": ids[20:]})


def spoken_bert(folder: Path) -> Path:
    """Of width 16 and two layers, with the first 116 entries of bert-base-uncased's layout of a vocabulary."""
    return save_bert(folder, WORDS)


def spoken_model(corpus, section: dict, seed: int = 3):
    """A model of a recipe's section `model`, in training mode."""
    torch.manual_seed(seed)
    values = checked({"family": "sequence", **section}, "recipe", SequenceSection)
    return start(values, "regression", ("value",), corpus.split("train")).train()


def spoken_task(corpus, model, **options) -> FineTuning:
    tuning = {"samples": 8, "lr": 3e-3, "patience": 50, "precision": "fp32", "device": "cpu", "metric": "mae"}
    tuning |= {"schedule": "constant", "warmup": 0.0, "validations": 1}
    streams = [Stream(corpus.split("train"))]
    family = FAMILIES["sequence"]
    return FineTuning(model, streams, corpus.split("validation"), Tuning(**tuning | options), 0, family=family)


def answers_of(model: nn.Module, split: Split, samples: list[int] | None = None) -> torch.Tensor:
    """Values [samples, 1] in evaluation mode."""
    training = model.training
    batch = split.pack(np.arange(len(split.ids)) if samples is None else samples)
    with torch.no_grad():
        found = model.eval()(batch)
    model.train(training)
    return found
