import numpy as np
import pytest

from memofast.store import FeatureWriter, TextWriter


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.fixture
def write_features(random):
    """Write a feature store of samples clip0, clip1, ... with these row counts; returns their rows."""

    def write(path, lengths, width=5, **options):
        rows = {}
        with FeatureWriter(path, width, **options) as writer:
            for i, length in enumerate(lengths):
                rows[f"clip{i}"] = random.standard_normal((length, width)).astype(np.float16)
                writer.put(f"clip{i}", rows[f"clip{i}"])
        return rows

    return write


@pytest.fixture
def write_text(random):
    """Write a text store of samples clip0, clip1, ... with these piece counts; returns their pieces."""

    def write(path, lengths, **options):
        pieces = {}
        with TextWriter(path, **options) as writer:
            for i, length in enumerate(lengths):
                pieces[f"clip{i}"] = random.integers(999, 30522, length).astype(np.int32)
                writer.put(f"clip{i}", pieces[f"clip{i}"], np.arange(length))
        return pieces

    return write
