"""Adapters on several encoders of transformers in one model: each learns, each has a folder that peft opens."""

import pytest
import torch
from peft import PeftModel
from tiny_models import save_bert, save_speech_model
from torch import nn
from transformers import AutoModel, PretrainedConfig

from memofast.errors import MemofastError
from memofast.model.adapters.base import Base
from memofast.model.adapters.kept import (
    Adaptation,
    load_saved,
    merge_adapters,
    read_saved,
    save_adapted,
    saved_tensors,
)
from memofast.model.adapters.lora import adapted, linear_maps, read_section
from memofast.model.adapters.section import LoraSection

WORDS = torch.tensor([[1, 5, 7, 2], [3, 9, 4, 6]])
SOUND = torch.randn(2, 1600, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Text and sound, each through an encoder of its own, to three classes."""

    adapted = None

    def __init__(self, folders):
        super().__init__()
        torch.manual_seed(3)
        self.text, self.speech = (AutoModel.from_pretrained(folder) for folder in folders)
        self.head, self.config = nn.Linear(32, 3), PretrainedConfig()

    def forward(self):
        text, sound = self.text(WORDS).last_hidden_state, self.speech(SOUND).last_hidden_state
        return self.head(torch.cat([text[:, 0], sound.mean(1)], 1))


@pytest.fixture(params=["wav2vec2", "data2vec", "wavlm"])
def folders(request, tmp_path):
    text = save_bert(tmp_path / "bert", [f"w{number}" for number in range(12)])
    return text, save_speech_model(tmp_path / request.param, request.param)


def adapt(model, folders, **options):
    names, encoders = ("text", "speech"), {}
    whole = tuple(name for name in model.state_dict() if name.partition(".")[0] not in names)
    for name, folder, targets in zip(names, folders, (["query", "value"], "all-linear"), strict=True):
        encoder = getattr(model, name)
        section = LoraSection(target_modules=targets, r=2, **options)
        encoders[name] = adapted(encoder, section, linear_maps(encoder), (), Base.of(folder), f"model.{name}.lora")
    model.adapted = Adaptation(encoders, whole)
    return model.eval()


def learn(model, updates):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(updates):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(), torch.tensor([0, 2])).backward()
        optimiser.step()


def test_every_adapter_learns_and_opens_again(folders, tmp_path):
    model = adapt(Two(folders), folders)
    learn(model, 2)
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"text", "speech", "head"}
    layers = 2 + 3
    assert len([name for name in trained if "lora_" in name]) > 2 * 2 * layers
    for name, gradient in trained.items():
        assert gradient is not None and gradient.any(), name
    save_adapted(model, tmp_path / "model")
    assert set(saved_tensors(model)) == {
        "trained.safetensors", "text/adapter_model.safetensors", "speech/adapter_model.safetensors",
    }  # fmt: skip
    again = adapt(Two(folders), folders)
    assert not torch.allclose(again(), model(), atol=1e-3)
    read_saved(again, tmp_path / "model")
    torch.testing.assert_close(again(), model(), rtol=0, atol=0)
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(folders[0]), tmp_path / "model" / "text").eval()
    torch.testing.assert_close(theirs(WORDS).last_hidden_state, model.text(WORDS).last_hidden_state)
    assert read_section(tmp_path / "model" / "speech").r == 2
    with torch.no_grad():
        expected = model()
        merge_adapters(model)
        torch.testing.assert_close(model(), expected, rtol=1e-5, atol=1e-5)
    assert not [name for name in model.state_dict() if "lora_" in name]


def test_biases_are_saved_once(folders, tmp_path):
    model = adapt(Two(folders), folders, bias="all")
    learn(model, 1)
    found = {file: {k: v.clone() for k, v in tensors.items()} for file, tensors in saved_tensors(model).items()}
    assert not [name for name in found["trained.safetensors"] if not name.startswith("head.")]
    again = adapt(Two(folders), folders, bias="all")
    load_saved(again, found)
    torch.testing.assert_close(again(), model(), rtol=0, atol=0)


def test_maps_whose_weights_are_read_are_none(folders):
    encoder = AutoModel.from_pretrained(folders[1])
    maps = linear_maps(encoder)
    assert any("q_proj" in name for name in maps) == ("wavlm" not in folders[1].name)
    if "wavlm" in folders[1].name:
        section = LoraSection(target_modules=["q_proj"])
        with pytest.raises(MemofastError, match=r"means encoder.layers.0.attention.q_proj and 2 more, of which no"):
            adapted(encoder, section, maps, (), Base.of(folders[1]), "model.speech.lora")
