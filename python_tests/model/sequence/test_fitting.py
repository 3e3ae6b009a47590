"""Sequence networks through the task of fine-tuning: the loss falls, and a saved model answers as it did."""

import json

import numpy as np
import pytest
import torch

from memofast.data import Stream, write_corpus
from memofast.inference.split_predictions import predict_split
from memofast.model.sequence.emotion import open_sequence_model
from memofast.model.sequence.family import SEQUENCE
from memofast.model.sequence.section import SequenceSection
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

WIDTHS = {"text_features": 6, "visual": 3, "speech": 5}
MEMORY = {"hidden": {"text": 8, "visual": 8, "speech": 8}, "memory": 8, "head": {"width": 8}}
NETWORKS = {
    "mfn": MEMORY,
    "graph_mfn": MEMORY | {"vertex": 8, "inner": 8},
    "mult": {"width": 8, "heads": 2, "layers": 1},
    "mfm": MEMORY | {"codes": {"joint": 8, "text": 4, "visual": 4, "speech": 4}, "divergence": 0.1},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """60 samples of different lengths whose rows say their value; some have no face."""
    folder, random = tmp_path_factory.mktemp("valued"), np.random.default_rng(0)
    ids = [f"s{number:02}" for number in range(60)]
    writers = {name: FeatureWriter(folder / name, width) for name, width in WIDTHS.items()}
    with TextWriter(folder / "text", value="sentiment") as text:
        for number, id in enumerate(ids):
            value = float(random.uniform(-2, 2))
            text.put(id, [], [], value=None if number % 9 == 0 else value)
            for name, width in WIDTHS.items():
                if name != "visual" or number % 5:
                    rows = value + random.normal(0, 0.5, (random.integers(1, 7), width))
                    writers[name].put(id, rows * 3 + 7)
    for writer in writers.values():
        writer.finish()
    stores = {name: folder / name for name in ("text", "visual", "speech")}
    splits = {"train": ids[:40], "validation": ids[40:]}
    return write_corpus(folder, "valued", stores, splits, {}, {"text_features": (folder / "text_features", "text")})


def task_of(corpus, network, **options):
    torch.manual_seed(0)
    section = SequenceSection(family="sequence", network=network)
    model = SEQUENCE.start(section, "regression", ("value",), corpus.split("train"))
    tuning = {"samples": 8, "lr": 1e-2, "epochs": 12, "patience": 20, "precision": "fp32", "device": "cpu"}
    tuning |= {"metric": "mae", "schedule": "constant", "warmup": 0.0, "validations": 1, "threads": 1}
    return FineTuning(
        model,
        [Stream(corpus.split("train"))],
        corpus.split("validation"),
        Tuning(**tuning | options),
        0,
        family=SEQUENCE,
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_learns_and_is_opened_again(corpus, tmp_path, kind):
    task = task_of(corpus, {"kind": kind, **NETWORKS[kind]})
    trainer = Trainer(task, tmp_path, Processes())
    state = trainer.run()
    assert state.scores["valued", "emotion"]["corr"] > 0.6
    trainer.keep_best()
    said = predict_split(task.model.eval(), corpus.split("validation"), task.target)
    task.model.save_pretrained(tmp_path / "model")
    opened = open_sequence_model(tmp_path / "model")
    again = predict_split(opened, corpus.split("validation"), task.target).scores
    np.testing.assert_allclose(again, said.scores, rtol=1e-5, atol=1e-6)  # products depend on where memory lies
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in task.model.losses:
        losses = [line["loss"] for line in lines if line.get("objective") == name and line.get("split") == "train"]
        assert len(losses) == 12 and losses[-1] < losses[0], name
