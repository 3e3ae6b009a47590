"""Data: stores to packed batches."""

from memofast.data.batch import Capacity, PackedBatch
from memofast.data.corpus import Corpus, Split, sample_key, write_corpus
from memofast.data.facts import Facts
from memofast.data.loading import Loader, MicroBatch, Update, epoch
from memofast.data.sampling import Draw, Stream, runs_by_length
from memofast.data.view import Read, View

__all__ = [
    "Capacity",
    "Corpus",
    "Draw",
    "Facts",
    "Loader",
    "MicroBatch",
    "PackedBatch",
    "Read",
    "Split",
    "Stream",
    "Update",
    "View",
    "epoch",
    "runs_by_length",
    "sample_key",
    "write_corpus",
]
