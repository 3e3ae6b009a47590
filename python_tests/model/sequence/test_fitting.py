"""Sequence networks through the task of fine-tuning: the loss falls, and a saved model answers as it did."""

import json

import numpy as np
import pytest
import torch

from memofast.data import Stream, write_corpus
from memofast.errors import MemofastError
from memofast.inference.split_predictions import predict_split
from memofast.model.sequence.batch_norm import BatchNorm
from memofast.model.sequence.emotion import open_sequence_model
from memofast.model.sequence.family import SEQUENCE
from memofast.model.sequence.section import SequenceSection
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import Tuning, read
from memofast.train.optimisation import parameter_groups
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

WIDTHS = {"text_features": 6, "visual": 3, "speech": 5}
SMALL = {"text_hidden": 8, "text_width": 8, "visual_width": 8, "speech_width": 8}
HEADS = {"speech_head": 8, "speech_head_dropout": 0.0}
MEMORY = {"hidden": {"text": 8, "visual": 8, "speech": 8}, "memory": 8, "head": {"width": 8}}
NETWORKS = {
    "mfn": MEMORY,
    "graph_mfn": MEMORY | {"vertex": 8, "inner": 8},
    "mult": {"width": 8, "heads": 2, "layers": 1},
    "mfm": MEMORY | {"codes": {"joint": 8, "text": 4, "visual": 4, "speech": 4}, "divergence": 0.1},
    "ef_lstm": {"width": 8, "layers": 2, "dropout": 0.1},
    "lf_dnn": SMALL,
    "tfn": SMALL | {"fusion_width": 8, "fusion_dropout": 0.2},
    "lmf": SMALL,
    "mlf_dnn": SMALL | HEADS,
    "mtfn": SMALL | HEADS | {"fusion_width": 8, "fusion_dropout": 0.2},
    "mlmf": SMALL | HEADS | {"text_weight": 0.0},
    "fused_vectors": SMALL | {"fusion": {"kind": "disentangled", "width": 8, "private_width": 8, "shared_width": 8}},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return written(tmp_path_factory.mktemp("valued"), ("text", "speech"))


def written(folder, alone):
    """60 samples of different lengths whose rows say their value; some have no face. alone: modalities that have
    values of their own."""
    random = np.random.default_rng(0)
    ids = [f"s{number:02}" for number in range(60)]
    writers = {name: FeatureWriter(folder / name, width) for name, width in WIDTHS.items()}
    with TextWriter(folder / "text", value="sentiment", modality_values=alone) as text:
        for number, id in enumerate(ids):
            value = float(random.uniform(-2, 2))
            own = {name: value if number % 7 else None for name in alone}
            text.put(id, [], [], value=None if number % 9 == 0 else value, modality_values=own)
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
    tuning = {"samples": 8, "lr": 1e-2, "epochs": 9, "patience": 20, "precision": "fp32", "device": "cpu"}
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
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    of_updates = {(line["step"], line["objective"]): line["loss"] for line in logged if "loss" in line}
    names = {"emotion", *task.model.losses}
    last = max(step for step, _ in of_updates)
    assert {name for step, name in of_updates if step == last} == names and len(of_updates) == last // 5 * len(names)
    if kind in ("mlf_dnn", "mtfn", "mlmf"):  # what is known of text and speech alone is learnt, of faces nothing is
        assert of_updates[last, "speech_alone"] < 0.8 * of_updates[5, "speech_alone"]
        assert of_updates[last, "visual_alone"] == 0
    trainer.keep_best()
    said = predict_split(task.model.eval(), corpus.split("validation"), task.target)
    task.model.save_pretrained(tmp_path / "model")
    opened = open_sequence_model(tmp_path / "model")
    again = predict_split(opened, corpus.split("validation"), task.target).scores
    np.testing.assert_allclose(again, said.scores, rtol=1e-5, atol=1e-6)  # products depend on where memory lies
    if kind == "mfm":  # what it makes again is learnt too
        for name in task.model.losses:
            assert of_updates[last, name] < of_updates[5, name], name


def test_labels_of_single_modalities_are_needed(tmp_path):
    bare = written(tmp_path, ())
    with pytest.raises(MemofastError, match="mtfn learns from labels of single modalities, which corpus"):
        task_of(bare, {"kind": "mtfn", **NETWORKS["mtfn"]})


def test_the_answers_own_loss_has_its_weight(corpus):
    task = task_of(corpus, {"kind": "mlmf", **SMALL, "weight": 0.25})
    assert task.share(None, "emotion") == 0.25 and task.share(None, "text_alone") == 1
    assert sorted(task.objectives) == ["emotion", "speech_alone", "text_alone", "visual_alone"]


@pytest.mark.parametrize(
    ("name", "decays"),
    [
        ("mosi-ef_lstm", {"": 0.005}),
        ("mosi-lf_dnn", {"": 0.01}),
        ("mosi-tfn", {"": 0.0}),
        ("mosi-lmf", {"": 0.005}),
        ("sims-mlf_dnn", {"": 0.0, "text": 0.0001, "speech": 0.001, "visual": 0.0001}),
        ("sims-mtfn", {"": 0.0, "text": 0.001, "speech": 0.0001, "visual": 1e-5}),
        ("sims-mlmf", {"": 0.005, "text": 0.0001, "speech": 0.0, "visual": 0.0001}),
    ],
)
def test_recipes_make_what_they_name(corpus, name, decays):
    recipe = read(name, [f"corpus={corpus.path}"])
    model = SEQUENCE.start(recipe.model, recipe.target.kind, ("value",), corpus.split("train"))
    assert model.network.state_names and name.endswith(recipe.model.network.kind)
    train, _ = recipe.train.options(1, 40, 1)
    learner = torch.nn.ModuleDict({"model": model})
    groups = [group for group in parameter_groups(learner, train) if group["params"]]
    found = {group["name"].removeprefix("network.encoders.").removesuffix(".*"): 0.0 for group in groups}
    for group in groups:
        place = group["name"].removeprefix("network.encoders.").removesuffix(".*")
        found[place] = max(found[place], group["weight_decay"])
    assert found == decays
    norms = {id(p) for module in model.modules() if isinstance(module, BatchNorm) for p in module.parameters()}
    assert norms <= {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
