"""Data: stores to packed batches."""

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Corpus, Split, sample_key, write_corpus
from memofast.data.loading import Loader, MicroBatch, Update, epoch
from memofast.data.sampling import Stream, runs_by_length

__all__ = [
    "Capacity",
    "Corpus",
    "Loader",
    "MicroBatch",
    "PackedBatch",
    "Split",
    "Stream",
    "Update",
    "epoch",
    "runs_by_length",
    "sample_key",
    "write_corpus",
]
