"""Losses beside that of the labels in a fine-tuning: what the log says of them, resumed runs, and what is refused."""

import json

import pytest
import torch
from runs import first_updates
from test_fine_tuning_steps import corpus, task_of  # noqa: F401 (a fixture)

from memofast.data import Stream
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import FineTuneRecipe, Tuning
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


def losses_of(**sections):
    return FineTuneRecipe(corpus="x", losses=sections).losses


def losing(corpus, losses, seed=3, world=1, conditions=("lva",), epochs=2, **options):  # noqa: F811
    plain = task_of(corpus)
    tuning = {"samples": 8, "lr": 1e-2, "precision": "fp32", "device": "cpu", "metric": "ua"} | options
    streams = [Stream(corpus.split("train"), objective=condition) for condition in conditions]
    return FineTuning(
        plain.model, streams, corpus.split("validation"), Tuning(epochs=epochs, **tuning), seed, ("lva",), plain.target,
        world, losses=losses_of(**losses),
    )  # fmt: skip


def train(task, folder, updates=None):
    folder.mkdir(exist_ok=True)
    if updates:
        task.options = task.options.model_copy(update={"updates": updates})
    trainer = Trainer(task, folder, Processes())
    trainer.run()
    return trainer


def logged(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["split"] == "train"]


SPCL = {"kind": "spcl", "pool": 12, "support": 4, "weight": 0.3, "curriculum": True}
KEEPING = {
    "spcl": SPCL,
    "spcl_random": {"kind": "spcl", "centres": "random", "form": "decoupled", "anchors": "all", "pool": 9, "support": 3},
    "apcl": {"kind": "apcl", "weight": 2},
    "apcl_first": {"kind": "apcl", "form": "first", "compat": True},
    "contrast": {"kind": "supervised_contrast", "weight": 0.5},
}


def test_every_loss_is_logged_once_with_its_weight(corpus, tmp_path):  # noqa: F811
    train(losing(corpus, KEEPING, loss={"kind": "focal", "weight": 0.7}, log_every=1), tmp_path)
    lines = logged(tmp_path)
    weights = {"emotion": 0.7, "spcl": 0.3, "spcl_random": 1, "apcl": 2, "apcl_first": 1, "contrast": 0.5}
    for step in {line["step"] for line in lines}:
        of_step = [line for line in lines if line["step"] == step]
        assert {line["objective"]: pytest.approx(line["weight"]) for line in of_step} == weights
        assert len(of_step) == len(weights)
    assert all(line["loss"] > 0 for line in lines if line["objective"] != "apcl")


@pytest.mark.parametrize("name", KEEPING)
def test_each_loss_trains_the_encoder(corpus, name):  # noqa: F811
    """The labels' loss is detached, so that the contrast alone reaches it; and with its weight."""
    reached = []
    for weight in (1.0, 3.0):
        task = losing(corpus, {name: KEEPING[name] | {"weight": weight}}, loss={"kind": "cross_entropy", "detached": True})
        assert not task.capturable("fp32", torch.device("cpu"))
        learner = task.learner().train()
        (update,) = first_updates(task, 1)
        views = update.micro_batches[0].views
        found = learner(views, torch.tensor([3, 1]))
        assert list(found) == ["emotion", name] == views[0].readers
        total = sum(task.share(update.micro_batches[0], one) * sums.total / sums.count for one, sums in found.items())
        total.backward()
        reached.append(task.model.memobert.encoder.layers[0].qkv.weight.grad.clone())
        assert task.model.emotion.classifier.weight.grad.any()
    assert reached[0].any()
    torch.testing.assert_close(reached[1], 3 * reached[0], rtol=1e-4, atol=1e-7)
