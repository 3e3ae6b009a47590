"""Masked emotion words and LARE as the original computed them: scores, losses and gradients of the same weights."""

import json

import pytest
import torch
from original_files import golden_batch, golden_file

from memofast import objectives
from memofast.data import Read, View
from memofast.model import MemoBertForPreTraining
from memofast.model.memobert import conversion
from memofast.objectives import Learner

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:.*(attention heads|no place|lacks)")]


@pytest.fixture(scope="module")
def golden(real_data):
    return real_data.parent / "golden" / "memobert"


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return MemoBertForPreTraining.from_original(golden_file(golden, "", tmp_path_factory.mktemp("weights"))).float()


def gradient_norms(model, loss):
    """Of the mean loss, by the original's names of tensors; tied ones once."""
    model.zero_grad()
    (loss.total / loss.count).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    named = conversion.original_weights(gradients, model.config)
    return {name: float(gradient.norm()) for name, gradient in named.items()}


def assert_gradients(golden, case, model, loss):
    told = json.loads((golden / "index.json").read_text())[case]
    assert float(loss.total.detach()) / loss.count == pytest.approx(told["loss"], abs=1e-5)
    found = gradient_norms(model, loss)
    assert {name: found[name] for name in told["gradient_norms"]} == pytest.approx(
        told["gradient_norms"], rel=1e-4, abs=1e-5
    )


def test_whole_word_emotion_masks(golden, model):
    batch, expected = golden_batch(golden, "melm_wwm")
    rows = (expected["labels"] >= 0).nonzero().flatten()
    read = Read("words", batch.joint_rows("text", rows.int()), expected["labels"][rows].long())
    view = View(batch, reads={"emotion": read})
    built = objectives.build({"emotion": {"kind": "whole_word_mlm", "policy": "whole_word_emotion"}}, model.config)
    predictions = model(view)["emotion"]
    torch.testing.assert_close(predictions, expected["predictions"], rtol=0, atol=1e-5)
    loss = Learner(model, built)([view])["emotion"]
    assert loss.count == 5 and float(loss.total.detach()) == pytest.approx(
        float(expected["loss_elements"].sum()), abs=1e-5
    )
    assert_gradients(golden, "melm_wwm", model, loss)


def test_lare(golden, model):
    batch, expected = golden_batch(golden, "emolare")
    assert model.config.tables == {"part_of_speech": 5, "word_polarity": 3, "sentence_polarity": 6}
    heads = {"word": "words", "pos": "part_of_speech", "senti": "word_polarity", "polarity": "sentence_polarity"}
    names = dict(zip(heads, ("lare", "lare.part_of_speech", "lare.polarity", "lare.sentence"), strict=True))
    asked = {"word": expected["labels"]} | {head: expected[f"{head}_labels"] for head in [*heads][1:]}
    tables = {"part_of_speech": "pos_ids", "word_polarity": "senti_ids", "sentence_polarity": "polarity_ids"}
    tables = {name: expected[given].int() for name, given in tables.items()}
    reads = {}
    for head, labels in asked.items():
        rows = (labels >= 0).nonzero().flatten()
        reads[names[head]] = Read(heads[head], batch.joint_rows("text", rows.int()), labels[rows].long())
    reads["lare"].targets = 48
    view = View(batch, tables=tables, reads=reads)
    predictions = model(view)
    for head, labels in asked.items():
        scores = expected[f"{head}_scores"]
        scores = scores if head == "word" else scores[labels >= 0]
        torch.testing.assert_close(predictions[names[head]], scores, rtol=0, atol=1e-5)
    built = objectives.build({"lare": {"original": True}}, model.config)
    loss = Learner(model, built)([view])["lare"]
    assert loss.count == 48
    assert float(loss.total.detach()) == pytest.approx(
        sum(float(expected[f"{head}_loss"].sum()) for head in heads), abs=2e-5
    )
    assert_gradients(golden, "emolare", model, loss)
