"""A number per sample, as sentiment: kept in the text store, packed into batches, unknown as NaN."""

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Corpus
from memofast.data.corpus import write_corpus
from memofast.errors import MemofastError
from memofast.store import TextStore, TextWriter
from memofast.store.text_copy import fields_of, writer_like


def write(folder, values):
    with TextWriter(folder / "text", value="sentiment from -3 to 3") as out:
        for id, value in values.items():
            out.put(id, [2000], [0], value=value)
    return write_corpus(folder, "c", {"text": folder / "text"}, {"train": list(values)})


def test_values_are_a_target_of_the_batch(tmp_path):
    write(tmp_path, {"a": -3.0, "b": None, "c": 0.2})
    corpus = Corpus.open(tmp_path)
    assert "value" in corpus.targets and corpus.stores["text"].meta["value"] == "sentiment from -3 to 3"
    values = corpus.split("train").pack(np.array([2, 1, 0])).targets["value"]
    assert values.dtype == torch.float32 and values.shape == (3,)
    assert values[0] == np.float32(0.2) and values[1].isnan() and values[2] == -3


def test_padding_to_a_capacity_leaves_values_unknown(tmp_path):
    batch = write(tmp_path, {"a": 1.0}).split("train").pack(np.array([0]))
    assert batch.padded_to(Capacity(3, 8, 0, 0)).targets["value"].isnan().tolist() == [False, True, True]


def test_values_of_single_modalities(tmp_path):
    with TextWriter(tmp_path / "text", value="sentiment", modality_values=("speech", "text")) as out:
        out.put("a", [2000], [0], value=1.0, modality_values={"text": 0.5, "speech": -2})
        out.put("b", [2000], [0], modality_values={"text": None})
        with pytest.raises(MemofastError, match="no values of visual alone"):
            out.put("c", [], [], modality_values={"visual": 1.0})
        with pytest.raises(MemofastError, match="value nan is not finite"):
            out.put("c", [], [], modality_values={"text": float("nan")})
    corpus = write_corpus(tmp_path, "c", {"text": tmp_path / "text"}, {"train": ["a", "b"]})
    batch = corpus.split("train").pack(np.array([1, 0]))
    assert "value_visual" not in batch.targets and corpus.targets >= {"value_text", "value_speech"}
    assert batch.targets["value_speech"][1] == -2 and batch.targets["value_text"].isnan().tolist() == [True, False]
    assert batch.select(torch.tensor([1])).targets["value_text"].tolist() == [0.5]
    padded = batch.padded_to(Capacity(3, 9, 0, 0)).targets["value_text"]
    assert padded.isnan().tolist() == [True, False, True]
    for modalities, value, match in ((("touch",), "x", "no such modality"), (("text",), "", "is not said")):
        with pytest.raises(MemofastError, match=match):
            TextWriter(tmp_path / "no", value=value, modality_values=modalities)
    with writer_like(corpus.stores["text"], tmp_path / "copy") as out:
        for id in ("a", "b"):
            out.put(id, **fields_of(corpus.stores["text"], id))
    copy = TextStore.open(tmp_path / "copy")
    assert copy.read("a")["value_speech"].tolist() == [-2] and np.isnan(copy.read("b")["value_text"]).all()


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    with TextWriter(tmp_path, value="x") as out, pytest.raises(MemofastError, match="'a': value inf is not finite"):
        out.put("a", [], [], value=float("inf"))
    with TextWriter(tmp_path / "none") as out, pytest.raises(MemofastError, match="has no values"):
        out.put("a", [], [], value=1.0)
    assert "value" not in TextStore.open(tmp_path / "none").columns
