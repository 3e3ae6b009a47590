"""A number per sample, as sentiment: kept in the text store, packed into batches, unknown as NaN."""

import numpy as np
import pytest
import torch

from memofast.data import Capacity, Corpus
from memofast.data.corpus import write_corpus
from memofast.errors import MemofastError
from memofast.store import TextStore, TextWriter


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


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    with TextWriter(tmp_path, value="x") as out, pytest.raises(MemofastError, match="'a': value inf is not finite"):
        out.put("a", [], [], value=float("inf"))
    with TextWriter(tmp_path / "none") as out, pytest.raises(MemofastError, match="has no values"):
        out.put("a", [], [], value=1.0)
    assert "value" not in TextStore.open(tmp_path / "none").columns
