import numpy as np
import pytest
import torch
from packed_batches import small_config

from memofast.data import write_corpus
from memofast.data.feature_statistics import changing, feature_statistics
from memofast.errors import MemofastWarning
from memofast.model import MemoBertModel
from memofast.model.columns import Columns
from memofast.store import FeatureWriter


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
    rows.standardise(torch.zeros(24), torch.zeros(24))  # of rows that never change, which are read as they are
    torch.testing.assert_close(rows.projection(mean + std.expand(3, -1)), before)


def still_corpus(make_corpus, still):
    """Whose speech rows have constant columns, of sizes from 1e-3 to 1e6."""
    corpus = make_corpus("still", modalities=("visual",))
    random = np.random.default_rng(1)
    constant, scale = 10.0 ** np.linspace(-3, 6, 16), np.where(still, 0, 10.0 ** np.linspace(-7, 2, 16))
    with FeatureWriter(corpus.path / "speech", 16, dtype="float32") as speech:
        for id in corpus.stores["text"].ids:
            speech.put(id, constant + random.standard_normal((int(random.integers(1, 9)), 16)) * scale)
    splits = {name: list(corpus.split(name).ids) for name in corpus.splits}
    stores = {name: corpus.path / name for name in ("text", "visual", "speech")}
    return write_corpus(corpus.path, "still", stores, splits), constant.astype(np.float32)


def test_columns_that_never_change_are_told_and_read_as_nothing(make_corpus):
    still = np.arange(16) % 5 == 2
    corpus, constant = still_corpus(make_corpus, still)
    with pytest.warns(MemofastWarning, match=r"speech rows of train of corpus .*: 3 of 16 columns never change"):
        mean, std = feature_statistics(corpus.split("train"), "speech")
    assert std[still].eq(0).all() and torch.equal(mean[still], torch.from_numpy(constant[still]))
    assert changing(mean, std).tolist() == (~still).tolist()
    columns = Columns(16)
    columns.standardise(mean, std)
    rows = columns.standardised(torch.randn(9, 16) * 100, None)
    assert rows[:, still].eq(0).all() and rows[:, ~still].ne(0).all() and columns.std.isfinite().all()  # as checkpoints
    embeddings = MemoBertModel(small_config(speech_width=16)).embeddings.speech
    embeddings.standardise(mean, std)
    assert embeddings.projection.weight[:, still].eq(0).all() and embeddings.projection.weight[:, ~still].ne(0).all()


def test_rows_that_never_change_are_no_noise(make_corpus):
    """What is said of a sample does not depend on its batch, though its speech says nothing."""
    corpus, _ = still_corpus(make_corpus, np.ones(16, bool))
    split = corpus.split("train")
    torch.manual_seed(1)
    model = MemoBertModel(small_config(speech_width=16, visual_width=13, vocab_size=30522)).eval()
    with pytest.warns(MemofastWarning, match="no column ever changes"):
        model.embeddings.speech.standardise(*feature_statistics(split, "speech"))
    whole = model(split.pack(range(12))).pooled
    alone = torch.cat([model(split.pack([number])).pooled for number in range(12)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
