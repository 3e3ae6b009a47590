"""Small corpora of moods and models fine-tuned on them, for what is tested after fine-tuning."""

import sys
from contextlib import ExitStack
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from memofast import cli
from memofast.data import write_corpus
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.store import FeatureWriter, TextWriter, record
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import fine_tune
from memofast.train.folder import write_config

CLASSES = ("calm", "glad")
SMALL = {
    "vocab_size": 110, "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32,
    "head": "emocls", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def mood_corpus(
    folder: Path, name="moods", classes=CLASSES, seed=0, modalities=("visual", "speech"), labels=None, width=4
) -> Path:
    """48 samples, 24 to train on, 12 to choose by, 12 to test; faces tell the class, some words do. labels: by number;
    None: alternating."""
    random, ids = np.random.default_rng(seed), [f"{name}{number:02}" for number in range(48)]
    labels = (lambda number: number // 2 % len(classes)) if labels is None else labels
    writers = {"text": TextWriter(folder / "text", classes=classes)}
    writers |= {name: FeatureWriter(folder / name, width if name == "visual" else 5) for name in modalities}
    with ExitStack() as opened:
        stores = {modality: opened.enter_context(writer) for modality, writer in writers.items()}
        for number, id in enumerate(ids):
            label, words = labels(number), 1 + number % 4
            told = 10 + (label or 0) if number % 3 == 0 else 20
            stores["text"].put(id, [told] * words, range(words), label=label)
            rows = {"visual": (1 + number % 3, width), "speech": (1 + number % 5, 5)}
            for modality in modalities:
                if modality == "visual" or number % 7:
                    spread = 0.3 if modality == "visual" else 2.0
                    stores[modality].put(id, random.normal(2.0 * (label or 0) - 1, spread, rows[modality]))
    splits = {"train": ids[:24], "validation": ids[24:36], "test": ids[36:]}
    write_corpus(folder, name, {modality: folder / modality for modality in stores}, splits)
    return folder


def felt_corpus(folder: Path) -> Path:
    """60 samples of faces, 36 to train on, 12 to choose by, 12 to test; the first column tells the value, each of the
    two the share of one label."""
    random, ids = np.random.default_rng(1), [f"felt{number:02}" for number in range(60)]
    with (
        TextWriter(folder / "text", emotions=CLASSES, value="from -1 to 1") as text,
        FeatureWriter(folder / "visual", 4) as faces,
    ):
        for number, id in enumerate(ids):
            felt = np.array([number & 1, number >> 1 & 1])
            shares = felt / felt.sum() if felt.any() else None
            text.put(id, [20], [0], emotions=shares, value=None if number == 59 else 2.0 * felt[0] - 1)
            faces.put(id, np.tile(2.0 * felt - 1, (3, 2)) + random.normal(0, 0.1, (3, 4)))
    stores = {"text": folder / "text", "visual": folder / "visual"}
    write_corpus(folder, "felt", stores, {"train": ids[:36], "validation": ids[36:48], "test": ids[48:]})
    return folder


def mood_run(folder: Path, corpus: Path, *overrides: str) -> Path:
    """A finished run of fine-tuning in `folder`."""
    train = {
        "epochs": 8,
        "samples": 8,
        "lr": 1e-2,
        "validations": 1,
        "patience": 20,
        "precision": "fp32",
        "device": "cpu",
    }
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({"corpus": str(corpus), "model": SMALL, "train": train}))
    plan = make_fine_tuning_plan(read(str(path), list(overrides)))
    folder.mkdir(parents=True)
    write_config(folder, plan.resolved())
    fine_tune(plan, folder, Console(quiet=True))
    return folder


def mood_model(folder: Path, classes=CLASSES, seed=0, **sizes) -> Path:
    """A model with random weights that is of no run."""
    torch.manual_seed(seed)
    named = {"id2label": dict(enumerate(classes)), "label2id": {name: n for n, name in enumerate(classes)}}
    own = (
        {name: value for name, value in SMALL.items() if name != "head"}
        | {"visual_width": 4, "speech_width": 5}
        | sizes
    )
    MemoBertForEmotion(MemoBertConfig(**own, **named, initializer_range=0.5)).save_pretrained(folder)
    return folder


def poison(corpus: Path, modality: str, id: str) -> None:
    """Make a value of one sample's rows in a store NaN, which no writer would."""
    with lmdb.open(str(corpus / modality)) as environment, environment.begin(write=True) as transaction:
        columns = record.decode(bytes(transaction.get(id.encode())), id)
        rows = columns["rows"].copy()
        rows[-1, 0] = np.nan
        transaction.put(id.encode(), record.encode(len(rows), columns | {"rows": rows}))


class Program:
    """The `memofast` program in this process."""

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments) -> str:
        """What it prints where it succeeds."""
        try:
            self._run(arguments)
        except SystemExit as stopped:
            assert not stopped.code, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    def fails(self, *arguments) -> str:
        """Its one line of a user's mistake."""
        with pytest.raises(SystemExit) as stopped:
            self._run(arguments)
        error = self._capsys.readouterr().err
        assert stopped.value.code == 2 and len(error.strip().splitlines()) == 1, error
        return error

    def _run(self, arguments):
        self._monkeypatch.setattr(sys, "argv", ["memofast", *map(str, arguments)])
        cli.main()


@pytest.fixture
def program(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Program(monkeypatch, capsys)
