"""Heads by name: which there are, what each gives, and that they are saved and loaded with the model."""

import json

import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, reading, small_config

from memofast.model import MemoBertForPreTraining, MemoBertModel
from memofast.model.heads import Head

RNG = torch.tensor([11, 3])
FURTHER = {
    "order": Head("classes", "visual", 7),
    "match": Head("pooled", outputs=2),
    "alike": Head("pooled"),
    "again": Head("rows", "speech"),
}
READS = {
    "o": ("order", torch.tensor([2, 8, 50])),
    "m": ("match", torch.tensor([0, 21, 28, 73])),
    "a": ("alike", torch.tensor([0, 73])),
    "r": ("again", torch.tensor([13, 14])),
}


def build(**overrides):
    torch.manual_seed(0)
    heads = {name: head.described() for name, head in FURTHER.items()}
    model = MemoBertForPreTraining(small_config(heads=heads, **overrides))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_a_head_says_what_it_is():
    assert Head(**FURTHER["order"].described()) == FURTHER["order"]
    assert json.loads(json.dumps(FURTHER["match"].described())) == {"kind": "pooled", "modality": "", "outputs": 2}
    with pytest.raises(ValueError, match=r"a head is of kind words, rows, .*pooled, hidden, not 'row'"):
        Head("row")


def test_there_are_the_published_heads_and_those_asked_for():
    config = small_config(heads={"order": FURTHER["order"].described()})
    assert list(config.every_head) == ["words", "visual_features", "visual_emotions", "speech_features", "order"]
    assert list(small_config(visual_width=0).every_head) == ["words", "speech_features"]
    assert list(small_config(speech_width=0).every_head) == ["words", "visual_features", "visual_emotions"]
    assert config.every_head["visual_emotions"] == Head("soft_labels", "visual")


def test_each_gives_what_its_kind_says():
    model = build()
    batch = random_batch(model.config)
    outputs, hidden = model(reading(batch, READS)), model.memobert(batch).hidden
    rows = {name: hidden[where] for name, (_, where) in READS.items()}

    def transformed(head, x):
        return head.transform.norm(F.gelu(head.transform.dense(x)))

    heads = model.heads
    pooled = {name: torch.tanh(model.memobert.pooler(rows[name])) for name in "ma"}
    expected = {
        "o": heads.order.classifier(transformed(heads.order, rows["o"])),
        "m": pooled["m"] @ heads.match.weight.T + heads.match.bias,
        "a": pooled["a"],
        "r": transformed(heads.again, rows["r"]) @ model.memobert.embeddings.speech.projection.weight
        + heads.again.bias,
    }
    shapes = {name: tuple(values.shape) for name, values in outputs.items()}
    assert shapes == {"o": (3, 7), "m": (4, 2), "a": (2, 32), "r": (2, 24)}
    for name, values in expected.items():
        torch.testing.assert_close(outputs[name], values, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert not hasattr(heads, "alike")  # the pooled row as it is needs no weights


def test_saved_and_loaded(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())["heads"]
    assert described == {name: head.described() for name, head in FURTHER.items()}
    loaded, found = MemoBertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert loaded.config.every_head == model.config.every_head
    view = reading(random_batch(model.config), READS)
    for name, values in model(view).items():
        torch.testing.assert_close(loaded.eval()(view)[name], values, rtol=0, atol=0)
    encoder = MemoBertModel.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(encoder(view.batch).pooled, model.memobert(view.batch).pooled, rtol=0, atol=0)


def test_two_who_ask_for_one_head_share_it():
    model = build()
    batch = random_batch(model.config)
    one, two = torch.tensor([0, 28]), torch.tensor([21, 28, 73])
    outputs = model(reading(batch, {"one": ("match", one), "two": ("match", two)}))
    alone = model(reading(batch, {"m": ("match", torch.tensor([0, 21, 28, 73]))}))["m"]
    torch.testing.assert_close(outputs["one"], alone[[0, 2]])
    torch.testing.assert_close(outputs["two"], alone[1:])
    (outputs["one"].sum() + 3 * outputs["two"].sum()).backward()
    torch.testing.assert_close(model.heads.match.bias.grad, torch.full((2,), 2.0 + 3 * 3))


@pytest.mark.parametrize("used", [[], ["o"], ["m"], ["a"], ["o", "a"], list(READS)])
def test_every_parameter_takes_part(used):
    model = build(hidden_dropout_prob=0.1).train()
    batch = random_batch(model.config)
    reads = {name: READS[name] for name in used} or {"none": ("order", torch.zeros(0, dtype=torch.int64))}
    sum(values.square().sum() for values in model(reading(batch, reads), rng=RNG).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.memobert.pooler.weight.grad.any() == bool({"m", "a"} & set(used))
    assert model.heads.order.classifier.weight.grad.any() == ("o" in used)
    assert model.heads.match.weight.grad.any() == ("m" in used)
