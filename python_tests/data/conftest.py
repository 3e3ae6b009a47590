import numpy as np
import pytest

from memofast.data import write_corpus
from memofast.store import FeatureWriter, TextWriter

EMOTIONS = ("neutral", "happy", "sad")


@pytest.fixture
def make_corpus(tmp_path):
    """Write a corpus of random samples clip000, ...; every third has no faces, every fifth no speech, every seventh no
    words.

    With streams also `glove`, of the text, one row a word, and `raw`, of the faces; every fourth sample lacks both.
    """

    def make(name="demo", samples=40, modalities=("visual", "speech"), splits=None, seed=3, longest=12, streams=False):
        random = np.random.default_rng(seed)
        folder = tmp_path / name
        ids = [f"clip{i:03}" for i in range(samples)]
        with TextWriter(folder / "text", classes=EMOTIONS, lexicon_classes=("fear",)) as text:
            for i, id in enumerate(ids):
                n = 0 if i % 7 == 6 else int(random.integers(1, longest))
                text.put(id, random.integers(999, 30522, n), np.arange(n), lexicon=np.arange(n) % 2 - 1, label=i % 3)
        stores = {"text": folder / "text"}
        if "visual" in modalities:
            stores["visual"] = folder / "visual"
            with FeatureWriter(stores["visual"], 13, columns=("soft_labels",), classes=EMOTIONS) as faces:
                for i, id in enumerate(ids):
                    n = 0 if i % 3 == 2 else int(random.integers(1, longest))
                    faces.put(
                        id, random.standard_normal((n, 13)), soft_labels=random.dirichlet(np.ones(3), n).reshape(n, 3)
                    )
        if "speech" in modalities:
            stores["speech"] = folder / "speech"
            with FeatureWriter(stores["speech"], 16) as speech:
                for i, id in enumerate(ids):
                    if i % 5 != 4:
                        speech.put(id, random.standard_normal((int(random.integers(1, longest)), 16)))
        beside = {}
        for stream, width, modality in (("raw", 6, "visual"), ("glove", 9, "text")) if streams else ():
            beside[stream] = folder / stream, modality
            with FeatureWriter(folder / stream, width) as rows:
                for i, id in enumerate(ids):
                    if i % 4 != 3:
                        rows.put(id, random.standard_normal((int(random.integers(1, longest)), width)))
        return write_corpus(folder, name, stores, splits or {"train": ids[:-8], "validation": ids[-8:]}, streams=beside)

    return make
