"""Checkpoints of the original: their models compute what it computed, and its files come back bit for bit."""

import numpy as np
import pytest
import torch
from original_files import golden_batch, golden_file
from padded_reference import PaddedReference

from memofast.model import MemoBertForEmotion, MemoBertModel
from memofast.model.families import open_emotion_model, open_encoder
from memofast.model.memobert.converting import to_file, to_folder
from memofast.model.memobert.embeddings import sinusoid_table

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*attention heads"),
    pytest.mark.filterwarnings("ignore:.*no place"),
]
ENCODERS = ["", "text_face", "text_speech", "same_type", "sinusoid", "projections"]


@pytest.fixture(scope="module")
def golden(real_data):
    return real_data.parent / "golden" / "memobert"


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_rows_are_the_originals(golden, tmp_path, name):
    path, (batch, expected) = golden_file(golden, name, tmp_path), golden_batch(golden, name or "hidden")
    to_folder(path, tmp_path / "model")
    for model in (MemoBertModel.from_original(path), open_encoder(tmp_path / "model")):
        with torch.no_grad():
            found = model(batch)
            torch.testing.assert_close(found.hidden, expected["hidden"], rtol=0, atol=1e-5)
            torch.testing.assert_close(found.pooled, expected["pooled"], rtol=0, atol=1e-5)
            torch.testing.assert_close(PaddedReference(model, batch)(), expected["hidden"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["finetuned_vqa", "finetuned_emocls"])
def test_fine_tuned_classifiers_are_the_originals(golden, tmp_path, name):
    path, (batch, expected) = golden_file(golden, name, tmp_path), golden_batch(golden, name)
    to_folder(path, tmp_path / "model", classes=["anger", "happy", "neutral", "sad"])
    opened = open_emotion_model(tmp_path / "model")
    assert type(opened) is MemoBertForEmotion and opened.classes == ("anger", "happy", "neutral", "sad")
    unnamed = open_emotion_model(path)
    assert unnamed.classes == ("0", "1", "2", "3")
    for model in (opened, unnamed):
        with torch.no_grad():
            torch.testing.assert_close(model(batch), expected["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [*ENCODERS, "finetuned_vqa", "finetuned_emocls"])
def test_a_file_comes_back_bit_for_bit(golden, tmp_path, name):
    path = golden_file(golden, name, tmp_path)
    to_folder(path, tmp_path / "model")
    to_file(tmp_path / "model", tmp_path / "back.pt")
    given, back = (torch.load(file, weights_only=True) for file in (path, tmp_path / "back.pt"))
    assert [*given] == [*back]
    for key, tensor in given.items():
        assert tensor.dtype is back[key].dtype and torch.equal(tensor.view(torch.int16), back[key].view(torch.int16))


def test_the_sinusoid_is_the_originals(golden):
    table = np.load(golden / "sinusoid_table.npz")["table"]
    np.testing.assert_allclose(sinusoid_table(*table.shape).numpy(), table, rtol=0, atol=1e-12)
