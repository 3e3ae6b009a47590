"""Folders of adapters that are damaged, or of another model: one line each."""

import json

import pytest
import torch
from adapted_models import adapted_model, pre_trained
from safetensors.torch import load_file, save_file

from memofast.errors import MemofastError
from memofast.model.adapters.base import weights_sha256
from memofast.model.adapters.kept import holds_adapters
from memofast.model.families import open_emotion_model

ADAPTERS, TRAINED = "adapter_model.safetensors", "trained.safetensors"


@pytest.fixture
def folder(tmp_path):
    adapted_model(pre_trained(tmp_path / "base"), target_modules=["qkv"]).save_pretrained(tmp_path / "model")
    assert holds_adapters(tmp_path / "model") and not holds_adapters(tmp_path / "base")
    return tmp_path / "model"


def refused(folder, message):
    with pytest.raises(MemofastError, match=message) as caught:
        open_emotion_model(folder)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_hold_other_tensors(folder):
    name, *_ = whole = load_file(folder / ADAPTERS)
    for changed, message in (
        ({**whole, "further": torch.ones(2)}, "only the file has further; give the adapters of this model"),
        ({k: v for k, v in whole.items() if k != name}, f"only what is adapted has {name}"),
        ({**whole, name: whole[name][:1]}, rf"{name} is \[1, 32\] torch.float32, of what is adapted \[3, 32\]"),
        ({**whole, name: whole[name].int()}, "torch.int32"),
        ({**whole, name: whole[name] * float("nan")}, f"{name} is not finite; restore it"),
    ):
        save_file({k: v.contiguous() for k, v in changed.items()}, folder / ADAPTERS)
        refused(folder, message)
    (folder / ADAPTERS).write_bytes(b"1234")
    refused(folder, "cannot be read")
    save_file(whole, folder / ADAPTERS)
    open_emotion_model(folder)
    (folder / TRAINED).unlink()
    refused(folder, f"{TRAINED} is missing; restore it, or train again")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"modules_to_save": ["emotion"]}, "modules_to_save is .* which memofast has no adapters of"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is"),
        ({"init_lora_weights": "pissa"}, "adapter_config.json: init_lora_weights"),
        ({"r": "eight"}, "adapter_config.json: r: "),
        ({"r": 4}, r"\[3, 32\] torch.float32, of what is adapted \[4, 32\]"),
        ({"target_modules": ["output"]}, "only "),
    ],
)
def test_configurations_of_other_adapters(folder, entries, message):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    refused(folder, message)


def test_configurations_that_are_damaged(folder):
    for text in ("{", "[]"):
        (folder / "adapter_config.json").write_text(text)
        refused(folder, "adapter_config.json: no")


def test_a_model_too_large_for_this_machine(folder):
    path = folder / "config.json"
    large = {"hidden_size": 2**18, "intermediate_size": 2**18, "num_hidden_layers": 1000}
    path.write_text(json.dumps(json.loads(path.read_text()) | large))
    refused(folder, r"neither it nor .*/base, which it adapts, has memobert.embeddings.word.weight as \[200, 262144\]")


def test_a_base_of_other_sizes(folder, tmp_path):
    other = pre_trained(tmp_path / "other", hidden_size=64)
    (folder / "base.json").write_text(json.dumps({"path": str(other), "sha256": weights_sha256(other)}))
    refused(folder, "neither it nor .*other, which it adapts, has memobert.embeddings")
    (folder / "base.json").write_text(json.dumps({"path": str(folder), "sha256": weights_sha256(other)}))
    refused(folder, "holds adapters of another model alone")
    (folder / "base.json").unlink()
    refused(folder, "base.json is missing, which says what is adapted")
