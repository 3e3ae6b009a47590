"""Rows z-normed within groups: exact, complete, never twice, and made anew when the rows they came from are others."""

import mood_runs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mood_runs import mood_corpus

from memofast.data import Corpus
from memofast.data.folds import write_groups
from memofast.errors import MemofastError
from memofast.prepare.run.group_normalisation import _Sums, normalise
from memofast.store import FeatureWriter

program = mood_runs.program


@pytest.fixture
def corpus(tmp_path):
    folder = mood_corpus(tmp_path / "moods")
    ids = Corpus.open(folder).stores["text"].ids
    write_groups(folder, "speaker", {id: f"s{number % 3}" for number, id in enumerate(ids)})
    return folder


def rows_by_group(corpus, modality):
    store, groups = Corpus.open(corpus).stores[modality], {}
    for number, id in enumerate(Corpus.open(corpus).stores["text"].ids):
        if id in store.rows_of:
            groups.setdefault(f"s{number % 3}", []).append(store.read(id)["rows"].astype(np.float64))
    return {group: np.concatenate(rows) for group, rows in groups.items()}


def test_every_group_has_mean_0_and_deviation_1(program, corpus):
    before = rows_by_group(corpus, "speech")
    told = program("normalise", corpus)
    assert "speech rows of 41 samples z-normed within each of 3 groups speaker" in told
    store = Corpus.open(corpus).stores["speech"]
    assert store.meta["normalisation"] == "z-norm over each speaker" and store.dtype == "float16"
    for group, rows in rows_by_group(corpus, "speech").items():
        np.testing.assert_allclose(rows.mean(0), 0, atol=2e-3)
        np.testing.assert_allclose(rows.std(0), 1, atol=2e-3)
        wanted = (before[group] - before[group].mean(0)) / before[group].std(0)
        np.testing.assert_allclose(rows, wanted, atol=5e-3)
    assert len(rows_by_group(corpus, "visual")) == 3 and (corpus / "speech").is_dir()


def test_columns_beside_the_rows_stay(corpus):
    writer = FeatureWriter(
        corpus / "faces", 2, columns=("times", "confidence", "soft_labels"), classes=("a", "b"), normalisation="pixels"
    )
    with writer:
        for number, id in enumerate(Corpus.open(corpus).stores["visual"].ids):
            writer.put(
                id, np.array([[number, 7.0]]), times=np.array([0.5]), confidence=np.array([0.25]),
                soft_labels=np.array([[0.75, 0.25]]),
            )  # fmt: skip
    text = (corpus / "corpus.json").read_text().replace('"visual": "visual"', '"visual": "faces"')
    (corpus / "corpus.json").write_text(text)
    normalise(corpus, "visual", "speaker")
    store = Corpus.open(corpus).stores["visual"]
    found = store.read(store.ids[5])
    assert found["times"] == 0.5 and found["confidence"] == 0.25 and found["soft_labels"].tolist() == [[0.75, 0.25]]
    assert found["rows"][0, 1] == 0  # a column that never changes
    assert store.meta["normalisation"] == "z-norm over each speaker, of rows with pixels"


def test_mistakes_take_one_line(program, corpus):
    assert "has no groups 'actor'; it has speaker" in program.fails("normalise", corpus, "--by", "actor")
    assert "has no text rows; it has visual, speech" in program.fails("normalise", corpus, "--modality", "text")
    normalise(corpus, "speech", "speaker")
    (left := corpus / "speech-by-speaker-0123abcd").mkdir()  # of a run that was killed before it removed it
    assert "within the speaker already" in program.fails("normalise", corpus)
    assert not left.exists() and not list(corpus.rglob("*.lock"))
    ids = Corpus.open(corpus).stores["text"].ids
    write_groups(corpus, "house", {id: "h" for id in ids[:-1]})
    assert f"sample {ids[-1]} of corpus" in program.fails("normalise", corpus, "--by", "house")


def test_other_rows_are_normalised_anew(corpus):
    normalise(corpus, "visual", "speaker")
    (first,) = corpus.glob("visual-by-speaker-*")
    text = (corpus / "corpus.json").read_text()
    (corpus / "corpus.json").write_text(text.replace(first.name, "visual"))  # as preparing further does
    normalise(corpus, "visual", "speaker")
    assert list(corpus.glob("visual-by-speaker-*")) == [first]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_sums_of_pieces_are_those_of_the_whole(lengths, level, spread):
    random, sums = np.random.default_rng(0), _Sums()
    pieces = [random.normal(level, spread, (length, 3)) for length in lengths]
    for piece in pieces:
        sums.add(piece)
    whole = np.concatenate(pieces)
    if len(whole) > 1:
        wanted = (whole - whole.mean(0)) / whole.std(0)
        if (whole.std(0) > 1e-5 * np.abs(whole.mean(0))).all():
            np.testing.assert_allclose(sums.normed(whole), wanted, atol=1e-5)


def test_a_corpus_without_rows_is_refused(tmp_path):
    folder = mood_corpus(tmp_path / "words", modalities=())
    with pytest.raises(MemofastError, match="neither visual nor speech"):
        normalise(folder, "speech", "speaker")
