"""Objectives that read pooled rows give the original's scores and losses from its weights."""

import numpy as np
import pytest
import torch
from original_files import golden_batch, golden_file

from memofast import objectives
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*attention heads"),
    pytest.mark.filterwarnings("ignore:.*no place"),
    pytest.mark.filterwarnings("ignore:.*begin with random weights"),
]
RNG = torch.tensor([5, 17])


@pytest.fixture(scope="module")
def golden(real_data):
    return real_data.parent / "golden" / "memobert"


def check(model, objective, batch, expected):
    """Scores of every sample, and the mean of the elements of its loss."""
    views = objectives.views_for(batch, objective, RNG)
    with torch.no_grad():
        loss = Learner(model, {objective.name: objective}).eval()(views)[objective.name]
        scores = model(views[0])[objective.name]
    torch.testing.assert_close(scores, expected["predictions"], rtol=0, atol=1e-5)
    torch.testing.assert_close(loss.total / loss.count, expected["loss_elements"].mean(), rtol=0, atol=1e-5)
    assert loss.count == batch.samples


@pytest.mark.parametrize("case", ["emocls_soft", "nolemocls_soft", "emocls_logits_formula"])
def test_the_emotion_of_the_utterance(golden, tmp_path, case):
    path, formula = golden_file(golden, "", tmp_path), "formula" in case
    batch, expected = golden_batch(golden, "emocls_soft" if formula else case)
    (objective,) = objectives.build(
        {"utterance_emotion": {"targets": "logits" if formula else "soft"}}, None, {"emotions": "nhusa"}
    ).values()
    heads = {name: head.described() for name, head in objective.heads.items()}
    model = MemoBertForPreTraining.from_original(path, heads=heads).eval()
    weights, ours = torch.load(path, weights_only=True), {"dense": 0, "norm": 2, "classifier": 3}
    for name, parameter in model.heads.utterance_emotions.named_parameters():
        module, kind = name.split(".")
        parameter.data = weights[f"emo_classifier.output.{ours[module]}.{kind}"].float()
    batch.targets["emotions"] = expected["targets"]
    if formula:
        expected |= {name: torch.from_numpy(array) for name, array in np.load(golden / f"{case}.npz").items()}
        batch.targets["emotions"] = expected["logits_target"].softmax(-1)
        assert float(expected["temperature"]) == objective.temperature
    check(model, objective, batch, expected)


@pytest.mark.parametrize("case", ["itm", "vtm", "onemodalnegitm"])
def test_matching(golden, tmp_path, case):
    """vtm is of batches without speech."""
    batch, expected = golden_batch(golden, case)
    options = {"vtm": {"replaced": ["visual"]}, "onemodalnegitm": {"one_modality": True}}.get(case, {})
    (objective,) = objectives.build({"matching": options}).values()
    model = MemoBertForPreTraining.from_original(golden_file(golden, "", tmp_path)).eval()
    other = torch.where(expected["targets"] == 1, batch.sample_keys, expected["taken_from"])
    for number, modality in enumerate(objective.options.replaced, 1):
        replaced = expected.get("replaced", torch.full((6,), number)) == number
        batch.targets[f"{modality}_of"] = torch.where(replaced, other, batch.sample_keys)
    (view,) = objectives.views_for(batch, objective, RNG)
    assert view.reads["matching"].labels.tolist() == expected["targets"].tolist()
    check(model, objective, batch, expected)
