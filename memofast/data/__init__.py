"""Data: stores to packed batches."""

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Corpus, Split, sample_key, write_corpus
from memofast.data.loading import epoch

__all__ = ["Capacity", "Corpus", "PackedBatch", "Split", "epoch", "sample_key", "write_corpus"]
