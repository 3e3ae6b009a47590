import numpy as np
import torch
from packed_batches import small_config

from memofast.data.feature_statistics import feature_statistics
from memofast.model import MemoBertModel


def test_statistics_are_those_of_all_rows(make_corpus):
    split = make_corpus().split("train")
    rows = split.pack(range(len(split))).speech.float().numpy()
    mean, std = feature_statistics(split, "speech")
    np.testing.assert_allclose(mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, rows.std(0), atol=1e-5)
    assert feature_statistics(make_corpus("bare", modalities=()).split("train"), "visual") is None


def test_a_fresh_projection_sees_standard_rows():
    rows = MemoBertModel(small_config(speech_width=24)).embeddings.speech
    before = rows.projection(torch.ones(3, 24))
    mean, std = torch.linspace(-5, 5, 24), torch.linspace(0.5, 4, 24)
    rows.standardise(mean, std)
    torch.testing.assert_close(rows.projection(mean + std.expand(3, -1)), before)
    rows.standardise(torch.zeros(24), torch.zeros(24))
    torch.testing.assert_close(rows.projection(mean + std.expand(3, -1)), before)
