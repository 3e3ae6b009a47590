"""Objectives of rows on the original's own cases: predictions, losses and gradients of the masked and shuffled rows."""

import json
from itertools import pairwise

import pytest
import torch
from original_files import golden_batch, golden_file
from torch import nn

from memofast import objectives
from memofast.data import Read, View
from memofast.data.conditions import keep
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*attention heads"),
    pytest.mark.filterwarnings("ignore:.*no place"),
]
MASKED = {
    "monespanrfr": ("span_visual_regression", {"policy": "single_span", "original": True}),
    "monespansrfr": ("span_speech_regression", {"policy": "single_span", "original": True}),
    "merfr": ("emotional_visual_regression", {"neutral": 0}),
    "merckl": ("emotional_visual_emotion", {"neutral": 0}),
    "mspanrfrnotext": ("span_visual_regression", {"shows": ["visual", "speech"]}),
    "mspanrcklnotext": ("span_visual_emotion", {"shows": ["visual", "speech"]}),
    "mspansrfrnotext": ("span_speech_regression", {"shows": ["visual", "speech"]}),
}


@pytest.fixture(scope="module")
def golden(real_data):
    return real_data.parent / "golden" / "memobert"


@pytest.fixture(scope="module")
def index(golden):
    return json.loads((golden / "index.json").read_text())


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    return MemoBertForPreTraining.from_foreign(golden_file(golden, "", tmp_path_factory.mktemp("golden")))


def check(model, objective, view, expected, case):
    """Predictions, the loss and what each row adds to it, and the gradient of the words, which all of it reaches."""
    learner = Learner(model, {objective.name: objective}).eval()
    learner.zero_grad()
    with torch.no_grad():
        prediction = model(view)[objective.name]
    torch.testing.assert_close(prediction, expected["predictions"], rtol=0, atol=1e-5)
    loss = learner([view])[objective.name]
    (loss.total / loss.count).backward()
    assert float(loss.total.detach() / loss.count) == pytest.approx(case["loss"], abs=1e-5)
    for row in range(loss.count):
        read = Read(view.reads[objective.name].head, view.reads[objective.name].rows[row : row + 1],
                    view.reads[objective.name].labels[row : row + 1])  # fmt: skip
        one = objective.loss([prediction[row : row + 1]], [View(view.batch, reads={objective.name: read})])
        assert float(one.total) == pytest.approx(float(expected["loss_elements"][row].mean()), abs=1e-5)
    check_gradient(model, case)


def check_gradient(model, case):
    wanted = case["gradient_norms"]["uniter.embeddings.word_embeddings.weight"]
    assert float(model.memobert.embeddings.word.weight.grad.norm()) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_hidden_rows_are_predicted_as_the_original_does(golden, index, model, name):
    kind, options = MASKED[name]
    objective = objectives.build({"mine": {"kind": kind, **options}})["mine"]
    batch, expected = golden_batch(golden, name)
    if "soft_labels" in expected:
        batch.targets["soft_labels"] = expected["soft_labels"].float()
    if name.endswith("notext"):
        whole, _ = golden_batch(golden, "monespanrfr")
        assert torch.equal(keep(whole, "va").token_ids, batch.token_ids)
    rows = expected["masked"].nonzero().flatten()
    source = torch.arange(len(expected["masked"]), dtype=torch.int32)
    source[rows] = -1
    joint = batch.joint_rows(objective.modality, rows.int())
    assert torch.equal(joint, expected["joint_rows"].long())
    view = View(batch, sources={objective.modality: source}, reads={"mine": Read(objective.head, joint, rows)})
    check(model, objective, view, expected, index[name])
    if name.startswith("mer"):  # the original hides only what ours may
        labels, offsets = expected["soft_labels"].argmax(1), batch.visual_offsets.tolist()
        for begin, end in pairwise(offsets):
            shown = labels[begin:end][expected["masked"][begin:end].bool()]
            assert len(shown) and (len(shown) == 1 or (shown != 0).all())


def test_frames_are_ordered_as_the_original_does(golden, index, model, tmp_path):
    """Its head, which is wider than ours, is put on our hidden rows."""
    batch, expected = golden_batch(golden, "vfom")
    objective = objectives.build({"visual_order": {"original": True, "slots": 40}})["visual_order"]
    begins = batch.visual_offsets[:-1].repeat_interleave(batch.visual_offsets.diff()).long()
    own = torch.arange(len(begins)) - begins
    source = torch.arange(len(begins), dtype=torch.int32)
    source[expected["order"].long() + begins] = torch.arange(len(begins), dtype=torch.int32)
    places = (expected["targets"] >= 0).nonzero().flatten()
    joint, labels = batch.joint_rows("visual", places.int()), own[source.long()][places]
    assert torch.equal(joint, expected["joint_rows"].long()) and torch.equal(labels, expected["labels"].long())
    view = View(batch, sources={"visual": source}, positions={"visual": own[source.long()].int()},
                reads={"visual_order": Read("visual_order", joint, labels)})  # fmt: skip
    head = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128, eps=1e-12), nn.Linear(128, 40))
    weights = torch.load(golden_file(golden, "", tmp_path), weights_only=True)
    head.load_state_dict({key[19:]: value.float() for key, value in weights.items() if key.startswith("vfom_output")})
    model.zero_grad()
    hidden = model.memobert(view).hidden
    torch.testing.assert_close(hidden, expected["hidden"], rtol=0, atol=1e-5)
    logits = head(hidden[joint])
    torch.testing.assert_close(logits, expected["predictions"], rtol=0, atol=1e-5)
    loss = objective.loss([logits], [view])
    (loss.total / loss.count).backward()
    assert loss.count == len(labels) and float(loss.total.detach() / loss.count) == pytest.approx(
        index["vfom"]["loss"], abs=1e-5
    )
    check_gradient(model, index["vfom"])


def test_words_and_faces_alone_match_as_in_the_original(golden, index, model):
    objective = objectives.build({"mine": {"kind": "matching", "replaced": ["visual"], "shows": ["text", "visual"]}})
    batch, expected = golden_batch(golden, "vtm")
    batch.targets["visual_of"] = torch.where(expected["targets"] > 0, batch.sample_keys, batch.sample_keys + 100)
    (view,) = objectives.views_for(batch, objective["mine"], torch.tensor([1, 1]))
    assert view.reads["mine"].labels.tolist() == expected["targets"].tolist()
    check(model, objective["mine"], view, expected, index["vtm"])
