"""Fine-tuning to several labels and to values, with class weights and smoothing, up to the table."""

import numpy as np
import pytest
import yaml
from rich.console import Console

from memofast.data import write_corpus
from memofast.evaluate.results import numbers, results_of
from memofast.model.families import open_emotion_model
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune

SMALL = {
    "vocab_size": 110, "mask_token_id": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "head": "vqa",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """80 samples whose four face values say which of two emotions are there, and how strong they are; every ninth value
    is unknown."""
    folder = tmp_path_factory.mktemp("targets") / "corpus"
    random = np.random.default_rng(0)
    ids = [f"s{number:02}" for number in range(80)]
    with (
        TextWriter(folder / "text", emotions=("joy", "fear", "neutral"), value="strength") as text,
        FeatureWriter(folder / "visual", 4) as faces,
    ):
        for number, id in enumerate(ids):
            there = np.array([number % 2, number // 2 % 2], np.float32)
            strength = float(random.uniform(-3, 3))
            shares = np.append(there, not there.any())
            text.put(id, [], [], emotions=shares / shares.sum(), value=None if number % 9 == 0 else strength)
            row = np.array([2 * there[0] - 1, 2 * there[1] - 1, strength, 0.0])
            faces.put(id, row + random.normal(0, 0.05, (2, 4)))
    stores = {name: folder / name for name in ("text", "visual")}
    return write_corpus(folder, "strong", stores, {"train": ids[:48], "validation": ids[48:64], "test": ids[64:]}).path


def table(corpus, folder, *overrides):
    tuning = {
        "epochs": 25, "samples": 8, "lr": 5e-3, "patience": 30, "validations": 1, "precision": "fp32", "device": "cpu",
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"corpus": str(corpus), "model": SMALL, "train": tuning}))
    plan = make_fine_tuning_plan(read(str(path), ["modalities.evaluate=[v]", *overrides]))
    fine_tune(plan, folder / "run", Console(quiet=True))
    results = results_of(list(answers(plan, folder / "run")), trivial=plan.trivial())
    (row,) = [row for row in results["rows"] if row["split"] == "test"]
    return numbers(row), open_emotion_model(folder / "run")


def test_several_labels_at_once(corpus, tmp_path):
    found, model = table(corpus, tmp_path, "target.kind=multi", "train.class_weights=balanced", "train.smoothing=0.05")
    assert model.kind == "multi" and model.classes == ("joy", "fear", "neutral")
    assert found["runs"]["macro_f1"]["mean"] > 0.95


def test_values(corpus, tmp_path):
    found, model = table(corpus, tmp_path, "target.kind=regression", "train.epochs=60")
    assert model.kind == "regression" and model.config.num_labels == 1
    assert found["runs"]["mae"]["mean"] < 0.6 < found["majority"]["mae"] and found["runs"]["corr"]["mean"] > 0.9
